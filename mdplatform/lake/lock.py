"""Locks between processes on parts of the lake, each held for the time of one merge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mdplatform.errors import LakeBusy

_DEADLINE_SECONDS = 60.0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; it frees itself when its holder dies. Raises `LakeBusy` after 60 s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=_DEADLINE_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise LakeBusy(
            f"Another process has held a part of the lake for over {_DEADLINE_SECONDS:.0f} s",
            value=str(path),
            remedy="Try again when it has ended",
        ) from None
    try:
        yield
    finally:
        lock.release()
