"""Interrupts: Ctrl-C while a program begins, when there is nothing yet that is to end in good order.

Python's own way is an exception wherever the program happens to be: among imports it is a long trace, and in a callback
of the interpreter it is lost. Here the program ends at once instead, with a line. Whoever has something to end takes
the signal over, or goes back to Python's way.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM)
_STATUS = 130


def leave_at_once() -> None:
    """End this program with a line when Ctrl-C comes, from now on."""
    signal.signal(signal.SIGINT, _leave)
    let_in()


def as_usual() -> None:
    """Raise `KeyboardInterrupt` again when Ctrl-C comes, if it was to end this program."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """End this program with a line when Ctrl-C comes inside, unless somebody takes the signal over there."""
    leave_at_once()
    try:
        yield
    finally:
        as_usual()


def keep_for_the_next_program() -> None:
    """Let signals that would end this program wait for the one that takes its place; it has to call `let_in`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)


def let_in() -> None:
    """Take the signals that have waited."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"Interrupted\n")
    os._exit(_STATUS)
