"""The race: two writers and several readers, each a process, over thousands of keys. No value stays wrong."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mdplatform.serving.tracking import BOUND_SECONDS
from mdplatform.valkey.connection import connect
from tests.serving.racing import KEYS

STORM_SECONDS = 0.6
ROOT = Path(__file__).resolve().parents[2]


class Player:
    """A process of the race."""

    def __init__(self, role: str, home: Path, log: Path, seed: int) -> None:
        self.log = log
        arguments = [sys.executable, "-m", "tests.serving.racing", role, str(home), str(log), str(seed)]
        self._process = subprocess.Popen(
            arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def hear(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == word

    def say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def newest_before(writes: npt.NDArray[np.float64], reads: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Give for each read the highest number of its key that was known to be written before that time, 0 for none."""
    newest = np.zeros(len(reads))
    order = np.lexsort((writes[:, 0], writes[:, 1]))
    keys = writes[order, 1]
    for key in np.unique(reads[:, 1]):
        begin, end = np.searchsorted(keys, [key, key + 1])
        mine = writes[order[begin:end]]
        highest = np.concatenate([[0.0], np.maximum.accumulate(mine[:, 2])])
        chosen = np.flatnonzero(reads[:, 1] == key)
        newest[chosen] = highest[np.searchsorted(mine[:, 0], reads[chosen, 0])]
    return newest


def test_no_key_stays_wrong_and_no_value_is_older_than_the_bound(settings, processes, tmp_path):
    with connect(settings) as client:
        writers = [Player("writer", settings.home, tmp_path / f"w{seed}", seed) for seed in range(2)]
        readers = [Player("reader", settings.home, tmp_path / f"r{seed}", seed) for seed in range(2, 5)]
        players = writers + readers
        try:
            for each in players:
                each.hear("ready")
            time.sleep(STORM_SECONDS)
            for each in writers:
                each.say("stop")
                each.hear("done")
            over = time.monotonic()
            for each in readers:
                each.say("stop")
                each.hear("read")
            time.sleep(max(0.0, over + BOUND_SECONDS - time.monotonic()))
            for each in readers:
                each.say("look")
            for each in readers:
                each.hear("done")
        finally:
            for each in players:
                each.end()
        right = np.array([int(each or 0) for each in client.mget(KEYS)])
    looked = 0
    for each in readers:
        after = np.load(f"{each.log}-after.npy")
        wrong = after[:, 2] != right[after[:, 1].astype(int)]
        assert wrong.sum() == 0, f"{wrong.sum()} of {len(after)} keys that are near stay wrong"
        looked += len(after)
    assert looked > 30
    writes = np.concatenate([np.load(f"{each.log}.npy") for each in writers])
    reads = np.concatenate([np.load(f"{each.log}.npy") for each in readers])
    allowed = newest_before(writes, reads - [BOUND_SECONDS, 0, 0])
    assert (reads[:, 2] >= allowed).all(), "a value was older than the bound"
    assert len(writes) > 1_000
    assert len(reads) > 1_000
