"""A lease: one process at a time follows a feed for a home."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from mdplatform.errors import FeedBusy


@contextmanager
def leased(folder: Path, name: str) -> Iterator[None]:
    """Hold the feed `name`; it frees itself when its holder dies. Raises `FeedBusy`, which names the holder."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock", timeout=0)
    holder = folder / f"{name}.json"
    try:
        lock.acquire()
    except Timeout:
        raise FeedBusy(
            f"The feed {name} is followed already by {_told(holder)}",
            value=str(folder / f"{name}.lock"),
            remedy="End that process first, or use another home",
        ) from None
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        temporary = holder.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}))
        temporary.replace(holder)
        yield
        holder.unlink(missing_ok=True)
    finally:
        lock.release()


def _told(holder: Path) -> str:
    try:
        told = json.loads(holder.read_text())
        return f"process {told['pid']} on {told['host']}, since {told['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
