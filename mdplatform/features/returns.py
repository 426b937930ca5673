"""A symbol's log returns in the rows of a grid, and how another series goes along with them in a sliding window."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.features.data import Data, Grid
from mdplatform.features.guard import DEGENERATE, INSUFFICIENT_HISTORY, SETTLED
from mdplatform.features.talib_functions import Floats


def log_returns_from(data: Data, grid: Grid, first: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Give the log return of each row that opens from `first` (microseconds) to the grid's end, and which are gaps.

    A return is NaN where its bar or the one before is missing, a gap, or has no price above 0.
    """
    step = grid.timeframe.microseconds
    before = first - step
    bars = data.bars(grid.symbol, grid.timeframe, before, grid.end)
    bars = bars.with_columns(((pl.col("open_time").dt.epoch("us") - before) // step).alias("row"))
    closes = np.full((grid.end - before) // step, np.nan)
    gaps = np.zeros(len(closes), np.bool_)
    priced = bars.filter((pl.col("state") != "gap") & (pl.col("close") > 0) & pl.col("close").is_finite())
    closes[priced["row"].to_numpy()] = priced["close"].to_numpy()
    gaps[bars.filter(pl.col("state") == "gap")["row"].to_numpy()] = True
    return np.diff(np.log(closes)), gaps[1:]


def correlated(left: Floats, right: Floats, window: int, min_periods: int) -> tuple[Floats, NDArray[np.int8]]:
    """Give Pearson's correlation of the pairs of the newest `window` rows at each row, and the status of each.

    Pairs of which one is NaN are left out; fewer than `min_periods` are `insufficient_history`, and a side that does
    not move is `degenerate`. Slides as `correlation.rolling` does.
    """
    from mdplatform.features.correlation.pair_kernels import roll_pair
    from mdplatform.features.correlation.rolling import TOLERANCE

    values, _, counts, _ = roll_pair(left, right, window, min_periods, 0, 1, TOLERANCE)
    reasons = np.where(counts < min_periods, INSUFFICIENT_HISTORY, DEGENERATE)
    return values, np.where(np.isnan(values), reasons, SETTLED).astype(np.int8)
