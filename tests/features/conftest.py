"""Bars to compute on: seeded synthetic ones, and real ones where they are at hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

MakeBars = Callable[..., pl.DataFrame]


def make_market(
    rows: int, seed: int = 7, minutes: int = 15, start: datetime = datetime(2025, 1, 1, tzinfo=UTC)
) -> pl.DataFrame:
    """A market with clusters of volatility, prices on a grid of cents and volumes that follow the moves."""
    random = np.random.default_rng(seed)
    volatility = 0.002 * np.exp(0.5 * np.sin(np.arange(rows) / 97) + 0.3 * random.normal(size=rows))
    close = np.round(250 * np.exp(np.cumsum(volatility * random.standard_t(5, rows) / 1.3)), 2)
    opens = np.append(250.0, close[:-1]) + np.round(random.normal(0, 0.03, rows), 2)
    high = np.round(np.maximum(opens, close) * (1 + volatility * random.exponential(0.7, rows)), 2)
    low = np.round(np.minimum(opens, close) * (1 - volatility * random.exponential(0.7, rows)), 2)
    volume = np.round(random.lognormal(4, 0.8, rows) * (1 + 200 * volatility), 3)
    first = int(start.timestamp()) * 1_000_000
    times = pl.Series(first + np.arange(rows) * minutes * 60_000_000).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(
        {
            "open_time": times,
            "open": np.round(opens, 2),
            "high": np.maximum(high, np.round(opens, 2)),
            "low": np.minimum(low, np.round(opens, 2)),
            "close": close,
            "volume": volume,
            "periods": np.clip(np.round(random.uniform(1, 31, rows)), 2, 30),
        }
    )


@pytest.fixture(scope="session")
def market() -> pl.DataFrame:
    """9,000 synthetic bars of 15 minutes from 2025-01-01T00:00Z on, with no hole."""
    return make_market(9000)


@pytest.fixture(scope="session")
def quiet_market() -> pl.DataFrame:
    """9,000 bars of a market with coarse ticks that rests, without trades, for up to some dozens of bars at a time."""
    bars = make_market(9000, seed=3)
    random = np.random.default_rng(1)
    is_busy = np.repeat(random.random(900) < 0.6, 10) & (random.random(9000) < 0.7)
    is_busy[0] = True
    rounded = bars.with_columns(pl.col("open", "high", "low", "close").round())
    rested = pl.Series(is_busy)
    close = rounded.select(pl.when(rested).then("close").forward_fill())["close"]
    prices = [pl.when(rested).then(name).otherwise(close).alias(name) for name in ("open", "high", "low")]
    moved = rounded.with_columns(close=close, volume=pl.when(rested).then("volume").otherwise(0.0)).with_columns(prices)
    return moved.with_columns(
        high=pl.max_horizontal("open", "high", "low", "close"), low=pl.min_horizontal("open", "high", "low", "close")
    )


@pytest.fixture(scope="session")
def make_bars() -> MakeBars:
    """Make synthetic bars of another length, seed or timeframe."""
    return make_market


@pytest.fixture(scope="session")
def real_bars(shared_data: Path) -> Callable[[str], pl.DataFrame]:
    """Read an exchange's own 15m bars of a symbol, 2024-12-30 to 2025-06-30."""

    def read(symbol: str) -> pl.DataFrame:
        raw = pl.read_parquet(shared_data / "ready" / "klines" / "binance_spot_15m" / f"{symbol}.parquet")
        times = pl.from_epoch("open_time", "ms").dt.replace_time_zone("UTC").dt.cast_time_unit("us")
        return raw.select(times, "open", "high", "low", "close", "volume").with_columns(periods=pl.lit(9.0))

    return read
