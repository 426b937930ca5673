"""Handing over between the processes of a measurement: files that are written whole, and waited for."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from mdplatform.errors import ProcessFailed

_POLL_SECONDS = 0.01


def write(path: Path, content: bytes) -> None:
    """Write a file, so that whoever waits for it finds all of it."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_bytes(content)
    unfinished.replace(path)


async def read(path: Path, seconds: float) -> bytes:
    """Wait for a file, at most so long, and give its content. Raises `ProcessFailed`."""
    until = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > until:
            remedy = "The logs in the home's folder `logs` may say why"
            raise ProcessFailed(f"Nothing came of {path.name} within {seconds:.0f} s", remedy=remedy)
        await asyncio.sleep(_POLL_SECONDS)
    return path.read_bytes()
