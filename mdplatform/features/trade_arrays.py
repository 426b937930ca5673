"""Trades as the arrays that kernels want, from any table with `time, price, quantity, is_buyer_maker`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
from numbers import Real
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import InvalidTable, ParameterOutOfRange
from mdplatform.features.talib_functions import Floats

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TradesLike: TypeAlias = "pl.DataFrame | pl.LazyFrame | pa.Table | pd.DataFrame"

TRADE_COLUMNS = ("time", "price", "quantity", "is_buyer_maker")
_LARGEST = 1e100  # so that no product of two, and no sum of those, is infinite


@dataclass(frozen=True)
class TradeArrays:
    """Trades in the order of `time` (microseconds): what was paid for how much, and whether the taker bought."""

    time: NDArray[np.int64]
    price: Floats
    quantity: Floats
    is_buy: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, rows: slice) -> TradeArrays:
        return TradeArrays(self.time[rows], self.price[rows], self.quantity[rows], self.is_buy[rows])

    def between(self, start: int, end: int) -> TradeArrays:
        """Give the trades with `start <= time < end` (microseconds)."""
        first, after = np.searchsorted(self.time, (start, end))
        return self[int(first) : int(after)]


def read_trades(trades: TradesLike) -> TradeArrays:
    """Give the arrays of `trades` (polars, pandas or Arrow), which are not written to.

    Times are instants, UTC where they have no zone, and ascend; trades of one instant stay in their order. Prices are
    above zero, quantities zero or more, and nothing is null. Raises `InvalidTable`, which names the column and the row.
    """
    frame = trades_frame(trades)
    return TradeArrays(
        _instants(frame["time"]),
        numbers(frame["price"], above_zero=True),
        numbers(frame["quantity"], above_zero=False),
        ~sides(frame["is_buyer_maker"]),
    )


def as_known(rows: pl.DataFrame) -> TradeArrays:
    """Give stored trades (`TRADES.schema`) in the order in which they became known; `time` then says when.

    A row of features that closes at T may use what has `available_at <= T`, and of that what was executed before T:
    both hold where `time < T` of what is given here.
    """
    return read_trades(rows.with_columns(known_at(rows)).sort("time", maintain_order=True))


def known_at(rows: pl.DataFrame) -> pl.Series:
    """Give for rows of a dataset the instant t such that a row that closes at T may use them where t < T."""
    known = pl.max_horizontal("time", pl.col("available_at") - pl.duration(microseconds=1))
    return rows.select(known.alias("time")).to_series()


def trades_frame(trades: TradesLike, needed: Sequence[str] = TRADE_COLUMNS) -> pl.DataFrame:
    """Give `trades` as a polars frame with at least the columns `needed`. Raises `InvalidTable`."""
    if isinstance(trades, pl.LazyFrame):
        trades = trades.collect()
    if not isinstance(trades, pl.DataFrame):
        trades = _converted(trades)
    missing = [name for name in needed if name not in trades.columns]
    if missing:
        raise InvalidTable(
            "Trades lack columns", value=", ".join(missing), remedy=f"They have: {', '.join(trades.columns)}"
        )
    return trades


def _converted(trades: pa.Table | pd.DataFrame) -> pl.DataFrame:
    module = type(trades).__module__.partition(".")[0]
    try:
        if module == "pyarrow":
            converted = pl.from_arrow(trades)
        elif module == "pandas":
            converted = pl.from_pandas(trades.reset_index() if trades.index.name == "time" else trades)  # type: ignore[union-attr,arg-type]
        else:
            converted = None
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise InvalidTable("Trades cannot be read", value=str(error)) from error
    if not isinstance(converted, pl.DataFrame):
        raise InvalidTable("Trades are a frame of polars or pandas, or a table of Arrow", value=type(trades).__name__)
    return converted


def _instants(series: pl.Series) -> NDArray[np.int64]:
    if not isinstance(series.dtype, pl.Datetime):
        raise InvalidTable(
            "Column time is not a column of instants",
            value=str(series.dtype),
            remedy='Make it one, as by pl.from_epoch("time", "ms")',
        )
    if series.null_count():
        _refuse(series.is_null(), "time is null", series)
    kind = pl.Datetime("us", series.dtype.time_zone)
    instants = series.cast(kind).to_physical().to_numpy()
    falls = instants[1:] < instants[:-1]
    if falls.any():
        _refuse(pl.Series(np.append(False, falls)), "time is out of order", series, "Sort by time")
    return instants


def numbers(series: pl.Series, above_zero: bool) -> Floats:
    """Give a column of finite numbers, above zero or not below it. Raises `InvalidTable`."""
    if not (series.dtype.is_numeric() or series.dtype == pl.Null):
        raise InvalidTable(f"Column {series.name} is not numbers", value=str(series.dtype), remedy="Cast it to Float64")
    cast = series.cast(pl.Float64)
    values = np.ascontiguousarray(cast.to_numpy())
    if not len(values) or _are_good(values, above_zero):
        return values
    good = (cast < _LARGEST) & ((cast > 0) if above_zero else (cast >= 0))
    bound = "above 0" if above_zero else "0 or more"
    _refuse(~good.fill_null(False), f"{series.name} is not a finite number {bound}", series)
    return values


def _are_good(values: Floats, above_zero: bool) -> bool:
    """Tell it by two extremes, which are NaN where one value is: much quicker than to look at each."""
    low = values.min()
    return bool((low > 0 if above_zero else low >= 0) and values.max() < _LARGEST)


def sides(series: pl.Series) -> NDArray[np.bool_]:
    """Give the column `is_buyer_maker`. Raises `InvalidTable`."""
    if series.dtype not in (pl.Boolean, pl.Null):
        raise InvalidTable(
            "Column is_buyer_maker is not true or false", value=str(series.dtype), remedy="Cast it to Boolean"
        )
    if series.null_count():
        _refuse(series.is_null(), "is_buyer_maker is null", series)
    return series.cast(pl.Boolean).to_numpy()


def positive(name: str, given: float) -> float:
    """Give a parameter that is a number above 0, as a double. Raises `ParameterOutOfRange`."""
    try:
        number = float(given) if isinstance(given, Real) and not isinstance(given, bool) else nan
    except OverflowError:
        number = inf
    if not 0 < number < inf:
        raise ParameterOutOfRange(f"{name} is out of range", value=given, remedy="Allowed: a number above 0")
    return number


def _refuse(wrong: pl.Series, what: str, series: pl.Series, remedy: str = "") -> None:
    at = wrong.arg_max() if wrong.any() else None
    if at is not None:
        raise InvalidTable(f"Trades whose {what}; the first is row {at}", value=series[at], remedy=remedy)
