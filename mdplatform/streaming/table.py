"""Frames as tables: a row a symbol and timeframe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mdplatform.features.guard import STATUSES
from mdplatform.market.bars import INSTANT
from mdplatform.streaming.shape import SENTIMENT

if TYPE_CHECKING:
    from mdplatform.streaming.frame import Frame


def table(frame: Frame) -> pl.DataFrame:
    """Give the cells of a frame: `symbol, timeframe, time, open_time, close_time, available_at, status, state,
    is_closed, revision, quality`, then the columns that were subscribed by name, and sentiment with its age by
    provider.

    Values that are null are null; times are UTC microseconds.
    """
    cells, shape = list(frame), frame.shape
    columns: dict[str, pl.Series] = {
        "symbol": pl.Series([each.symbol for each in cells], dtype=pl.String),
        "timeframe": pl.Series([each.timeframe.value for each in cells], dtype=pl.String),
        "time": pl.Series([frame.time] * len(cells), dtype=INSTANT),
        "open_time": pl.Series([each.open_time for each in cells], dtype=INSTANT),
        "close_time": pl.Series([each.close_time for each in cells], dtype=INSTANT),
        "available_at": pl.Series([each.available_at for each in cells], dtype=INSTANT),
        "status": pl.Series([each.status.value for each in cells], dtype=pl.String),
        "state": pl.Series([each.state for each in cells], dtype=pl.String),
        "is_closed": pl.Series([each.is_closed for each in cells], dtype=pl.Boolean),
        "revision": pl.Series([each.revision for each in cells], dtype=pl.Int32),
        "quality": pl.Series([each.quality for each in cells], dtype=pl.Float64),
    }
    for name, place in zip(shape.values, shape.value_places, strict=True):
        columns[name] = pl.Series(np.array([each.values[place] for each in cells]), nan_to_null=True)
    if shape.columns:
        numbers = np.array([each.numbers for each in cells])
        for index, name in enumerate(shape.columns):
            columns[name] = pl.Series(numbers[:, index].copy(), nan_to_null=True)
    known = {symbol: frame.sentiment(symbol) for symbol in shape.symbols}
    for provider in shape.providers:
        told = [known[each.symbol][provider] for each in cells]
        columns[f"{SENTIMENT}{provider}"] = pl.Series([each.score for each in told], dtype=pl.Float64)
        columns[f"{SENTIMENT}{provider}.age"] = pl.Series([each.age for each in told], dtype=pl.Duration("us"))
        columns[f"{SENTIMENT}{provider}.status"] = pl.Series([each.status for each in told], dtype=pl.Enum(STATUSES))
    return pl.DataFrame(columns)
