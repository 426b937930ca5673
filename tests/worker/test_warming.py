"""Warming: after it nothing is left to be compiled for the first request of a kind."""

from __future__ import annotations

import json
import subprocess
import sys

_SCRIPT = """
import json, sys
from mdplatform.worker.warming import warm_in_background
warm_in_background().join()
from numba.core.dispatcher import Dispatcher
found = {}
for name, module in list(sys.modules.items()):
    if name.startswith("mdplatform.features"):
        found |= {each.__name__: len(each.signatures) for each in vars(module).values() if isinstance(each, Dispatcher)}
print(json.dumps(found))
"""
_ASKED_FOR = [
    "_kyle_lambda",
    "_mean_of_known",
    "_roll_spread",
    "_vpin_after",
    "count",
    "cusum_rows",
    "imbalance_ends",
    "moving",
    "roll_pair",
    "roll_ranks",
    "sum_sides",
    "threshold_ends",
]


def test_the_kernels_of_every_kind_are_there_after_warming() -> None:
    told = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert not told.stderr
    compiled = json.loads(told.stdout)
    assert [name for name in _ASKED_FOR if not compiled.get(name)] == []
