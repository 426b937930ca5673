"""Deliveries for tests: plain rows on a grid, and the shortest way into a lake."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import polars as pl

from mdplatform.lake import Lake
from mdplatform.lake.bars import MergeReport
from mdplatform.market.bars import RAW_SCHEMA
from mdplatform.market.timeframe import Timeframe

JANUARY = 1_735_689_600_000_000  # 2025-01-01T00:00Z, a Wednesday
FEBRUARY = 1_738_368_000_000_000
MARCH = 1_740_787_200_000_000
MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
LATER = datetime(2026, 1, 1, tzinfo=UTC)


def row(opened: int, length: int = MINUTE, **values: Any) -> dict[str, Any]:
    """Give one good row whose values follow from its open time (microseconds)."""
    chance = random.Random(opened)
    price, volume = chance.randint(9_000, 11_000) / 100, chance.randint(1, 10**6) / 10**4
    return {
        "open_time": opened,
        "close_time": opened + length,
        "open": price,
        "high": price + 1.5,
        "low": price - 1.5,
        "close": price + chance.randint(-100, 100) / 100,
        "volume": volume,
        "quote_volume": round(volume * price, 4),
        "trade_count": chance.randint(1, 99),
        "taker_buy_volume": round(volume / 2, 4),
        "taker_buy_quote_volume": round(volume * price / 2, 4),
    } | values


def table(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """Give rows as a delivery's table."""
    return pl.DataFrame(list(rows), schema_overrides={"trade_count": pl.Int64}).cast(RAW_SCHEMA)


def grid(start: int, count: int, timeframe: Timeframe = Timeframe.M1, **values: Any) -> pl.DataFrame:
    """Give `count` good rows from `start` on."""
    length = timeframe.microseconds
    return table(row(start + n * length, length, **values) for n in range(count))


def take(
    lake: Lake,
    rows: pl.DataFrame,
    timeframe: Timeframe = Timeframe.M1,
    key: str = "k1",
    staged_at: datetime = LATER,
    symbol: str = "AUSDT",
) -> list[MergeReport]:
    """Stage a delivery and merge each month of it, as the asset does; give a report a month."""
    reports = []
    for batch in lake.inbox.stage(symbol, timeframe, f"test:{key}", key, rows, staged_at):
        waiting = lake.inbox.pending(symbol, batch.month)
        reports.append(lake.bars.merge(symbol, batch.month, waiting))
        for each in waiting:
            lake.inbox.clear(each)
    return reports


def opens(bars: pl.DataFrame) -> list[int]:
    """Give the open times in microseconds."""
    return bars["open_time"].dt.epoch("us").to_list()


def states(bars: pl.DataFrame) -> str:
    """Give a letter a bar: o(bserved), n(o_trade), g(ap)."""
    return "".join(state[0] for state in bars["state"])
