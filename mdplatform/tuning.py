"""Tuning a process whose event loop must not wait: workers and feeds."""

from __future__ import annotations

import gc
import os
import sys

from mdplatform.interrupts import keep_for_the_next_program, let_in

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
"""Libraries' own pools of threads only hinder each other on small work; more processes are the way to more cores."""
_SWITCH_SECONDS = 0.0005


def begin_with_one_thread() -> None:
    """Begin this program anew with one thread a library, unless the environment says how many.

    They are read when the libraries are imported, which a command line has begun to do.
    """
    unset = [variable for variable in ONE_THREAD if variable not in os.environ]
    if unset:
        os.environ.update(dict.fromkeys(unset, "1"))
        keep_for_the_next_program()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    let_in()


def settle() -> None:
    """Let threads give way to the loop soon, and the collector look no more through what was imported."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
