"""Packets as a feed sends them, made by hand."""

from __future__ import annotations

import numpy as np

from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming.cells import Cell, Layout, Packet

NOON = 1_750_000_000_000_000 - 1_750_000_000_000_000 % 86_400_000_000 + 43_200_000_000
MINUTE = 60_000_000
LAYOUT = Layout.of(("RSI(timeperiod=14)",), ("RSI(timeperiod=14)",), (1,))


def cell(timeframe: str, close_time: int, close: float = 100.0, revision: int = 0, **given: object) -> Cell:
    """A bar that closed, with an RSI of its close."""
    open_time = close_time - Timeframe(timeframe).microseconds
    bar = np.array([close, close + 1, close - 1, close, 5.0, 500.0, 7.0, 2.0, 200.0])
    known = {
        "available_at": close_time, "state": "observed", "is_closed": True, "layout": LAYOUT.id,
        "numbers": np.array([close / 2]).tobytes(), "statuses": np.zeros(1, np.int8).tobytes(), **given,
    }  # fmt: skip
    return Cell(timeframe, open_time, close_time, revision=revision, bar=bar.tobytes(), **known)  # type: ignore[arg-type]


def packet(symbol: str, at: int, timeframes: tuple[str, ...] = ("5m", "15m"), close: float = 100.0) -> Packet:
    """What is due of a symbol at an instant."""
    due = [each for each in timeframes if Timeframe(each).is_aligned(at)]
    return Packet(symbol, at, tuple(cell(each, at, close) for each in due), sent_at=at + 1)
