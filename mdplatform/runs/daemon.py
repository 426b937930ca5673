"""Dagster's daemon with one code server and no webserver: what starts runs for strategies' requests.

    python -m mdplatform.runs.daemon

It prints `{"ready": true}` once the sensors tick, and ends by SIGINT or SIGTERM. `mdplatform ui` has a daemon too: a
home needs one of them, not both.

It begins by marking as failed the runs of a daemon before it that was killed with all its processes. If it is killed
alone, its code server lets the runs under way end, and ends by itself: within some 25 seconds if there are none.
"""

from __future__ import annotations

import json
import runpy
import sys
import threading
import time

import dagster as dg

from mdplatform.runs.runner import open_instance
from mdplatform.sensors.left_behind import fail_dead
from mdplatform.settings import Settings

_LOOK_SECONDS = 0.2
_SENSOR = "data_requests"


def main() -> None:
    """Become the daemon."""
    started = time.time()
    with open_instance(Settings.load()) as instance:
        fail_dead(instance)
    threading.Thread(target=_tell_when_ready, args=(started,), daemon=True).start()
    sys.argv = ["dagster-daemon", "run", "--module-name", "mdplatform.definitions", "--log-level", "warning"]
    runpy.run_module("dagster._daemon", run_name="__main__")


def _tell_when_ready(started: float) -> None:
    with dg.DagsterInstance.get() as instance:
        while not _has_ticked(instance, started):
            time.sleep(_LOOK_SECONDS)
    sys.stdout.write(json.dumps({"ready": True}) + "\n")
    sys.stdout.flush()


def _has_ticked(instance: dg.DagsterInstance, since: float) -> bool:
    for state in instance.all_instigator_state():
        ticked = getattr(state.instigator_data, "last_tick_start_timestamp", None)
        if state.instigator_name == _SENSOR and ticked is not None and ticked > since:
            return True
    return False


if __name__ == "__main__":
    main()
