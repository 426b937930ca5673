"""Rows as the platform gives them to a model, made from a seed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

START = datetime(2025, 1, 1, tzinfo=UTC)
RSI = "RSI(timeperiod=14)"


def rows(count: int, symbols: tuple[str, ...] = ("BTCUSDT",), seed: int = 1, missing: float = 0.05) -> pl.DataFrame:
    """A frame like that of `FeatureReader.frame(…, "1h", statuses=True)`: a close, and an indicator with nulls."""
    made = []
    for number, symbol in enumerate(symbols):
        random = np.random.default_rng([seed, number])
        opens = [START + timedelta(hours=each) for each in range(count)]
        indicator = np.where(random.random(count) < missing, np.nan, random.uniform(0, 100, count))
        made.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * count,
                    "open_time": opens,
                    "close_time": [each + timedelta(hours=1) for each in opens],
                    "available_at": [each + timedelta(hours=1) for each in opens],
                    "close": 100 * np.exp(np.cumsum(random.normal(0, 0.01, count))),
                    RSI: pl.Series(indicator).fill_nan(None),
                    f"{RSI}.status": ["settled"] * count,
                }
            )
        )
    times = pl.col("open_time", "close_time", "available_at")
    return pl.concat(made).with_columns(times.cast(pl.Datetime("us", "UTC")))
