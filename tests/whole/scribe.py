"""A strategy in a process of its own, which writes down each frame, and goes on behind the last one when it starts.

python scribe.py FILE
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from mdplatform.strategy import EnhancedMarketDataConsumer, Frame

ASKED: dict[str, Any] = {
    "strategy_id": "scribe",
    "symbols": ["BTCUSDT", "ETHUSDT"],
    "timeframes": ["1m", "5m"],
    "data_types": ["price", "volume", "indicators"],
    "indicators": ["RSI", "MACD", "EMA(20)"],
    "grace": 60.0,  # what dies comes back sooner: nothing is to be marked
}


def written(frame: Frame) -> dict[str, Any]:
    """Give a frame as it is written down."""
    cells = {
        f"{cell.symbol} {cell.timeframe}": [
            str(cell.status), str(cell.open_time), cell.open, cell.high, cell.low, cell.close, cell.volume,
            *cell.features.values(),
        ]
        for cell in frame
    }  # fmt: skip
    return {"time": frame.time_us, "revision": frame.revision, "cursor": frame.cursor, "cells": cells}


async def write_down(path: Path) -> None:
    """Append the frames to the file, until the process is killed."""
    before = path.read_bytes() if path.exists() else b""
    whole = before[: before.rfind(b"\n") + 1]  # a line that was being written is none
    cursor = json.loads(whole.splitlines()[-1])["cursor"] if whole else None
    with path.open("ab", buffering=0) as file:
        file.truncate(len(whole))
        async with EnhancedMarketDataConsumer() as consumer:
            await consumer.subscribe_to_market_data(
                **ASKED, callback=lambda frame: file.write(json.dumps(written(frame)).encode() + b"\n"), cursor=cursor
            )
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(write_down(Path(sys.argv[1])))
