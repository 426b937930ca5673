"""When bars arrive: T, the instant at which each row is known, and bars that come too late to count.

One rule for all kinds of features:

1. T of a row is the instant at which its own bar was available, at its close or up to one timeframe after it: so a
   row's own bar counts in its row, whatever delay its source has, and T never falls from one row to the next.
2. A bar that is not there one timeframe after its close is late: it is a gap, in its own row and in each later one, and
   T of its row is that instant. It stays a gap when it comes: a row that was made without it is not made again.
3. Whatever a row is joined to (other symbols and timeframes, slow series) is what was available at T.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.market.bars import INSTANT, VALUE_COLUMNS
from mdplatform.market.timeframe import Timeframe

if TYPE_CHECKING:
    from mdplatform.features.data import Data


def arrivals(bars: pl.DataFrame) -> NDArray[np.int64]:
    """Give T of each row of `bars` (`BAR_SCHEMA`, one timeframe) in microseconds; it ascends."""
    closes = bars["close_time"].to_physical().to_numpy()
    if not len(closes):
        return np.empty(0, np.int64)
    step = Timeframe.parse(bars["timeframe"][0]).microseconds
    available = bars["available_at"].fill_null(bars["close_time"]).to_physical().to_numpy()
    known_at: NDArray[np.int64] = np.clip(available, closes, closes + step)
    return known_at


def on_time(bars: pl.DataFrame) -> pl.DataFrame:
    """Give `bars` (`BAR_SCHEMA`, one timeframe) with a gap for each that came more than one timeframe late."""
    if bars.is_empty():
        return bars
    latest = pl.col("close_time") + pl.duration(microseconds=Timeframe.parse(bars["timeframe"][0]).microseconds)
    is_late = (pl.col("available_at") > latest).fill_null(False)
    if not bars.select(is_late.any()).item():
        return bars
    emptied = [*VALUE_COLUMNS, "source", "ingested_at"]
    return bars.with_columns(
        *(pl.when(~is_late).then(pl.col(name)).alias(name) for name in emptied if name in bars.columns),
        pl.when(is_late).then(pl.lit("gap")).otherwise(pl.col("state")).alias("state"),
        pl.when(is_late).then(latest).otherwise(pl.col("available_at")).cast(INSTANT).alias("available_at"),
    )


@dataclass(frozen=True)
class OnTime:
    """`data` with a gap for each bar that came too late to count."""

    data: Data

    @classmethod
    def of(cls, data: Data) -> Data:
        """Wrap `data`, once."""
        return data if isinstance(data, cls) else cls(data)

    def bars(self, symbol: str, timeframe: Timeframe, start: int | None, end: int | None) -> pl.DataFrame:
        """Give the bars, gaps for the late ones."""
        return on_time(self.data.bars(symbol, timeframe, start, end))

    def trades(self, symbol: str, start: int | None, end: int | None) -> pl.DataFrame:
        """Give the trades."""
        return self.data.trades(symbol, start, end)

    def trade_days(self, symbol: str) -> list[str]:
        """Give the days of which there are trades."""
        return self.data.trade_days(symbol)

    def depth(self, symbol: str, start: int | None, end: int | None) -> pl.DataFrame:
        """Give the messages of the book."""
        return self.data.depth(symbol, start, end)

    def sentiment(self, start: int | None, end: int | None) -> pl.DataFrame:
        """Give the scored documents."""
        return self.data.sentiment(start, end)

    def macro(self, series: str) -> pl.DataFrame:
        """Give the vintages of a series."""
        return self.data.macro(series)

    def symbols(self) -> list[str]:
        """Give the symbols of which there are bars."""
        return self.data.symbols()
