"""Pausing: to wait for an instant, unless the feed is closed before."""

from __future__ import annotations

import asyncio


async def closed_within(closed: asyncio.Event, seconds: float) -> bool:
    """Wait so long, or until `closed` is set; tell whether it is. Others have a turn in any case."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return closed.is_set()
    try:
        async with asyncio.timeout(seconds):
            await closed.wait()
    except TimeoutError:
        return False
    return True
