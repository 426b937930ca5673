"""Panels: numbers of many symbols on one grid of times, a column each, NaN where there is none.

A log return is that of a close to the one a grid step before. Where either is missing there is none: gaps are left
out, never filled, and no return reaches across one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import InvalidTable, ParameterOutOfRange, UnknownSymbol
from mdplatform.features.talib_functions import Floats
from mdplatform.market.bars import INSTANT
from mdplatform.market.time import from_us
from mdplatform.market.timeframe import Timeframe

_LARGEST = 1e100
_MOST_ROWS = 10_000_000
_WIDE = "a table with `open_time` and a column of numbers for each symbol"
_LONG = "a table with `symbol`, `open_time` and `log_return`"


@dataclass(frozen=True, eq=False)
class Panel:
    """`values[row, column]` of `symbols`, NaN where missing; `open_time` (microseconds) of the rows where known."""

    symbols: tuple[str, ...]
    values: Floats
    open_time: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def tail(self, rows: int) -> Panel:
        """Give the newest rows."""
        return self.rows(max(0, len(self) - rows), len(self))

    def rows(self, start: int, stop: int) -> Panel:
        """Give the rows `[start, stop)`."""
        times = None if self.open_time is None else self.open_time[start:stop]
        return Panel(self.symbols, self.values[start:stop], times)

    def index(self, symbol: str) -> int:
        """Give the column of `symbol`. Raises `UnknownSymbol`."""
        return place_of(self.symbols, symbol)

    def time(self, row: int) -> datetime | None:
        """Give the open time of a row."""
        return None if self.open_time is None or not len(self) else from_us(int(self.open_time[row]))

    def frame(self) -> pl.DataFrame:
        """Give the panel as a wide frame: `open_time` where it is known, and a column for each symbol."""
        columns = [pl.Series(name, self.values[:, at], nan_to_null=True) for at, name in enumerate(self.symbols)]
        times = [] if self.open_time is None else [pl.Series("open_time", self.open_time).cast(INSTANT)]
        return pl.DataFrame([*times, *columns])


PanelLike: TypeAlias = Any
"""A `Panel`, a wide or long polars frame, a wide pandas frame (index or `open_time` as time), or a numpy array."""


def panel_of(given: PanelLike, symbols: Sequence[str] | None = None) -> Panel:
    """Read a panel of numbers.

    A wide frame has a column of numbers for each symbol and, where known, `open_time`; a long frame has `symbol`,
    `open_time` and `log_return`, each pair of symbol and time once; an array is rows × symbols, with their names in
    `symbols`. With a frame or panel, `symbols` chooses columns. Null and NaN are missing. Raises `InvalidTable` for
    anything else, for infinite numbers and such beyond 1e100, and where times do not ascend; and `UnknownSymbol`.
    """
    if symbols is not None:
        symbols = [str(each) for each in names_of(symbols)]
    if isinstance(given, Panel):
        panel = given
    elif isinstance(given, np.ndarray):
        return _checked(_of_array(given, symbols))
    elif isinstance(given, pl.DataFrame):
        panel = _of_long(given) if {"symbol", "open_time", "log_return"} <= set(given.columns) else _of_wide(given)
    elif type(given).__module__.partition(".")[0] == "pandas" and hasattr(given, "columns"):
        panel = _of_pandas(given)
    else:
        raise InvalidTable("Not a panel of returns", value=type(given).__name__, remedy=f"Give {_WIDE}, or {_LONG}")
    if symbols is not None:
        columns = [panel.index(each) for each in symbols]
        panel = Panel(tuple(symbols), np.ascontiguousarray(panel.values[:, columns]), panel.open_time)
    return panel if panel is given else _checked(panel)


def names_of(symbols: Sequence[str]) -> list[str]:
    """Give the names of symbols, of which there may be one alone. Raises `ParameterOutOfRange`."""
    if isinstance(symbols, str):
        return [symbols]
    if not isinstance(symbols, Iterable):
        raise ParameterOutOfRange("Not a list of symbols", value=symbols, remedy='Such as ["BTCUSDT", "ETHUSDT"]')
    return list(symbols)


def log_returns(
    prices: pl.DataFrame | Mapping[str, pl.DataFrame],
    timeframe: Timeframe | str | None = None,
    *,
    column: str = "close",
) -> Panel:
    """Give the panel of log returns of prices on a common grid.

    `prices` is a long frame (`symbol`, `open_time` and the price's `column`) or one such frame, with or without
    `symbol`, for each symbol. The grid is that of `timeframe` from the first time to the last; without one (nor a
    column `timeframe`) it is every time at which some symbol has a row, as with trading days. What is no number above
    zero is no price, nor is that of a row whose `state` is `gap`: both count as missing; the same price twice for a
    time counts once. Raises `InvalidTable` where two prices are given for one time, or a time lies off the grid.

    >>> table = pl.DataFrame({"symbol": ["A"] * 3, "open_time": [0, 60_000_000, 120_000_000], "close": [1.0, 2.0, 4.0]})
    >>> log_returns(table).values[:, 0].round(4).tolist()
    [nan, 0.6931, 0.6931]
    """
    return changes(levels(prices, timeframe, column=column))


def levels(
    prices: pl.DataFrame | Mapping[str, pl.DataFrame],
    timeframe: Timeframe | str | None = None,
    *,
    column: str = "close",
) -> Panel:
    """Give the panel of the prices themselves, read as `log_returns` reads them."""
    rows = _long_prices(prices, column)
    if timeframe is None and "timeframe" in rows.columns and rows["timeframe"].n_unique() == 1:
        timeframe = rows["timeframe"][0]
    names = tuple(sorted(rows["symbol"].unique().to_list()))
    opens = np.sort(rows["open_time"].unique().to_numpy()).astype(np.int64)
    rows = rows.select("symbol", "open_time", column).filter(pl.col(column).is_finite() & (pl.col(column) > 0)).unique()
    twice = rows.filter(pl.struct("symbol", "open_time").is_duplicated())
    if len(twice):
        at = twice.sort("symbol", "open_time").row(0)
        raise InvalidTable("Two prices for one time", value=f"{at[0]} at {from_us(at[1])}", remedy="Keep one of them")
    if timeframe is not None and len(opens):
        length = Timeframe.parse(timeframe)
        off = [each for each in opens.tolist() if not length.is_aligned(each)]
        if off:
            raise InvalidTable(f"Not on the grid of {length}", value=str(from_us(off[0])), remedy="Leave that row out")
        if (opens[-1] - opens[0]) // length.microseconds >= max(_MOST_ROWS, len(opens)):
            span = f"{from_us(int(opens[0]))} to {from_us(int(opens[-1]))}"
            remedy = f"At most {_MOST_ROWS:,}: is a time wrong?"
            raise InvalidTable(f"Prices span too many rows of {length}", value=span, remedy=remedy)
        opens = np.arange(opens[0], opens[-1] + 1, length.microseconds)
    values = np.full((len(opens), len(names)), np.nan)
    if len(rows):
        columns = np.searchsorted(np.array(names), rows["symbol"].to_numpy())
        values[np.searchsorted(opens, rows["open_time"].to_numpy()), columns] = rows[column].to_numpy()
    return Panel(names, values, opens)


def changes(prices: Panel) -> Panel:
    """Give the log returns of a panel of prices, row to row; the first row has none."""
    values = np.full(prices.values.shape, np.nan)
    if len(prices) > 1:
        values[1:] = np.log(prices.values[1:] / prices.values[:-1])
    return Panel(prices.symbols, values, prices.open_time)


def on_times(panel: Panel, open_time: NDArray[np.int64]) -> Panel:
    """Give the rows of those times (ascending), missing where the panel, whose times are known, has none."""
    assert panel.open_time is not None
    values = np.full((len(open_time), len(panel.symbols)), np.nan)
    if len(panel):
        rows = np.minimum(np.searchsorted(panel.open_time, open_time), len(panel) - 1)
        found = panel.open_time[rows] == open_time
        values[found] = panel.values[rows[found]]
    return Panel(panel.symbols, values, open_time)


def _long_prices(prices: pl.DataFrame | Mapping[str, pl.DataFrame], column: str) -> pl.DataFrame:
    if isinstance(prices, Mapping):
        parts = [_long_prices(each.with_columns(pl.lit(name).alias("symbol")), column) for name, each in prices.items()]
        if not parts:
            raise InvalidTable("No prices", remedy="Give a table for at least one symbol")
        shared = [
            name for name in ("symbol", "open_time", "timeframe", column) if all(name in p.columns for p in parts)
        ]
        return pl.concat([part.select(shared) for part in parts])
    if not isinstance(prices, pl.DataFrame) or not {"symbol", "open_time", column} <= set(prices.columns):
        found = prices.columns if isinstance(prices, pl.DataFrame) else type(prices).__name__
        raise InvalidTable("Not a table of prices", value=found, remedy=f"It needs symbol, open_time and {column}")
    if not prices[column].dtype.is_numeric():
        raise InvalidTable(f"Column {column} has no numbers", value=str(prices[column].dtype))
    if "state" in prices.columns:
        is_gap = (pl.col("state").cast(pl.String) == "gap").fill_null(False)
        prices = prices.with_columns(pl.when(is_gap).then(None).otherwise(pl.col(column)).alias(column))
    if prices["symbol"].null_count():
        raise InvalidTable("A row without symbol", remedy="Give each row its own")
    return prices.with_columns(
        pl.col("symbol").cast(pl.String), _instants(prices["open_time"]), pl.col(column).cast(pl.Float64)
    )


def _of_array(given: NDArray[Any], symbols: Sequence[str] | None) -> Panel:
    if given.ndim != 2 or given.dtype.kind not in "fiu":
        shape = f"{given.dtype} of shape {given.shape}"
        raise InvalidTable("Not a panel of returns", value=shape, remedy="An array of numbers is rows × symbols")
    if symbols is None or len(symbols) != given.shape[1]:
        told = None if symbols is None else len(symbols)
        raise InvalidTable(
            "An array needs the names of its columns", value=told, remedy=f"Name {given.shape[1]} symbols"
        )
    return Panel(tuple(symbols), given.astype(np.float64, copy=False))


def _of_wide(given: pl.DataFrame) -> Panel:
    names = [name for name in given.columns if name != "open_time"]
    wrong = [name for name in names if not (given[name].dtype.is_numeric() or given[name].dtype == pl.Null)]
    if wrong or not names:
        raise InvalidTable(
            "Not a panel of returns", value=wrong[0] if wrong else None, remedy=f"Give {_WIDE}, or {_LONG}"
        )
    values = given.select(pl.col(names).cast(pl.Float64).fill_null(np.nan)).to_numpy()
    times = _instants(given["open_time"]).to_numpy() if "open_time" in given.columns else None
    return Panel(tuple(names), values, times)


def _of_long(given: pl.DataFrame) -> Panel:
    if "timeframe" in given.columns and given["timeframe"].n_unique() > 1:
        raise InvalidTable("More than one timeframe", value=given["timeframe"].unique().to_list(), remedy="Choose one")
    if given["symbol"].null_count():
        raise InvalidTable("A row without symbol", remedy=f"Give {_LONG}")
    if not given["log_return"].dtype.is_numeric():
        raise InvalidTable("Column log_return has no numbers", value=str(given["log_return"].dtype))
    rows = given.select(pl.col("symbol").cast(pl.String), _instants(given["open_time"]), "log_return")
    if rows.select(pl.struct("symbol", "open_time").is_duplicated().any()).item():
        at = rows.filter(pl.struct("symbol", "open_time").is_duplicated()).row(0)
        raise InvalidTable("Two returns for one time", value=f"{at[0]} at {from_us(at[1])}", remedy="Keep one of them")
    names = sorted(rows["symbol"].unique().to_list())
    opens = np.sort(rows["open_time"].unique().to_numpy())
    values = np.full((len(opens), len(names)), np.nan)
    at_column = np.searchsorted(np.array(names), rows["symbol"].to_numpy())
    values[np.searchsorted(opens, rows["open_time"].to_numpy()), at_column] = (
        rows["log_return"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    )
    return Panel(tuple(names), values, opens)


def _of_pandas(given: Any) -> Panel:
    import pandas as pd

    if isinstance(given.index, pd.DatetimeIndex) and "open_time" not in given.columns:
        given = given.rename_axis("open_time").reset_index()
    given = given.rename(columns=str)
    if given.columns.has_duplicates:
        twice = given.columns[given.columns.duplicated()][0]
        raise InvalidTable("A symbol twice", value=twice, remedy="Each column is another symbol")
    return panel_of(pl.from_pandas(given))


def _instants(times: pl.Series) -> pl.Series:
    """Give times as microseconds: datetimes of any unit, dates, or integers that are microseconds already."""
    if times.null_count():
        raise InvalidTable("A row without open time", remedy="Give each row its own")
    if times.dtype == pl.Date or isinstance(times.dtype, pl.Datetime):
        return times.cast(pl.Datetime("us")).to_physical() if times.dtype == pl.Date else times.dt.epoch("us")
    if times.dtype.is_integer():
        return times.cast(pl.Int64)
    raise InvalidTable("Column open_time has no times", value=str(times.dtype), remedy="Give datetimes, UTC")


def _checked(panel: Panel) -> Panel:
    names, values = panel.symbols, np.ascontiguousarray(panel.values)
    if not names:
        raise InvalidTable("A panel without symbols", remedy=f"Give {_WIDE}, or {_LONG}")
    if len(set(names)) < len(names):
        twice = next(each for at, each in enumerate(names) if each in names[:at])
        raise InvalidTable("A symbol twice", value=twice, remedy="Each column is another symbol")
    if len(values):
        largest = max(float(np.fmax.reduce(values, axis=None)), -float(np.fmin.reduce(values, axis=None)))
        if largest > _LARGEST:
            row, column = (int(each[0]) for each in np.nonzero(np.abs(values) > _LARGEST))
            raise InvalidTable(
                "A number too large", value=float(values[row, column]), remedy=f"See row {row} of {names[column]}"
            )
    if panel.open_time is not None and len(panel) > 1 and (np.diff(panel.open_time) <= 0).any():
        row = int(np.flatnonzero(np.diff(panel.open_time) <= 0)[0]) + 1
        raise InvalidTable(
            "Times do not ascend", value=str(panel.time(row)), remedy="Sort by open_time, each time once"
        )
    return Panel(names, values, panel.open_time)


def place_of(symbols: Sequence[str], symbol: str) -> int:
    """Give where `symbol` is among `symbols`. Raises `UnknownSymbol`."""
    if symbol not in symbols:
        raise UnknownSymbol(symbol, symbols)
    return symbols.index(symbol)
