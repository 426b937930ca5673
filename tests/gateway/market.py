"""A small market: what the examples of the gateway ask for."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from mdplatform.lake import Lake
from mdplatform.market.time import month_range
from mdplatform.market.timeframe import Timeframe
from mdplatform.settings import Settings
from mdplatform.sources.simulated import SimulatedMarket

SYMBOLS = ("BTCUSDT", "ETHUSDT", "ADAUSDT")
MONTH = "2026-10"


def fill(home: Path) -> None:
    """Take in a month of bars of 15 minutes of each symbol."""
    lake = Lake(Settings.load(home=home).lake_dir)
    for symbol in SYMBOLS:
        for each in SimulatedMarket().bars(symbol, Timeframe.M15, *month_range(MONTH)):
            staged_at = datetime(2026, 11, 2, tzinfo=UTC)
            batches = lake.inbox.stage(symbol, Timeframe.M15, each.source, each.content_hash, each.rows, staged_at)
            lake.bars.merge(symbol, MONTH, batches)


def rsi(strategy: str = "momentum_1", **given: object) -> dict[str, object]:
    """A request as a client writes it."""
    return {
        "type": "TECHNICAL_INDICATORS",
        "strategy_id": strategy,
        "symbols": ["BTCUSDT"],
        "indicators": [{"name": "RSI", "parameters": {"period": 14}}],
        "timeframes": ["15m"],
        **given,
    }


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Look again until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.02)
