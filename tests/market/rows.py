"""Rows of bars for tests, written out plainly."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from mdplatform.market.bars import BAR_SCHEMA, RAW_SCHEMA
from mdplatform.market.timeframe import Timeframe

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON = datetime(2025, 3, 10, 12, tzinfo=UTC)  # a Monday
MINUTE = timedelta(minutes=1)
LATER = datetime(2026, 1, 1, tzinfo=UTC)


def raw_row(open_time: datetime | None = NOON, length: timedelta = MINUTE, **values: Any) -> dict[str, Any]:
    """Give one good row of `RAW_SCHEMA`, changed by `values`."""
    row = {
        "open_time": open_time,
        "close_time": None if open_time is None else open_time + length,
        "open": 10.0,
        "high": 12.0,
        "low": 9.0,
        "close": 11.0,
        "volume": 5.0,
        "quote_volume": 52.5,
        "trade_count": 7,
        "taker_buy_volume": 2.0,
        "taker_buy_quote_volume": 21.0,
    }
    return row | values


def raw(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Give rows as a table of `RAW_SCHEMA`."""
    return pl.DataFrame(rows, schema=RAW_SCHEMA)


def bar_row(open_time: datetime = NOON, timeframe: Timeframe = Timeframe.M1, **values: Any) -> dict[str, Any]:
    """Give one row of `BAR_SCHEMA`, changed by `values`."""
    length = timedelta(microseconds=timeframe.microseconds)
    row = raw_row(open_time, length) | {
        "symbol": "AUSDT",
        "timeframe": timeframe.value,
        "is_closed": True,
        "state": "observed",
        "source": "test",
        "revision": 0,
        "available_at": open_time + length,
        "ingested_at": LATER,
    }
    return row | values


def bars(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Give rows as a table of `BAR_SCHEMA`."""
    return pl.DataFrame(rows, schema=BAR_SCHEMA)
