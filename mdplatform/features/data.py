"""What features are computed from, behind one protocol: kernels never know where an array came from.

Whoever asks for features hands over a `Data`: the lake's (`mdplatform.lake.data`), tables in memory (`TableData`), or
one of these cut off at an instant (`Truncated`), by which look-ahead is found out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import InvalidBars, NoData
from mdplatform.features.arrival import arrivals, on_time
from mdplatform.features.given import given_bars, given_rows
from mdplatform.features.talib_functions import Floats
from mdplatform.market.bars import empty_bars
from mdplatform.market.dataset import Dataset
from mdplatform.market.depth import DEPTH
from mdplatform.market.macro import MACRO
from mdplatform.market.resample import complete_grid, resample
from mdplatform.market.sentiment import SENTIMENT
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import DAY_US, Timeframe
from mdplatform.market.trades import TRADES

_PROVIDERS = "mdplatform.data"
_NEEDED_OF_BARS = ("symbol", "timeframe", "open_time", "close_time", "state", "available_at")


class Data(Protocol):
    """Where inputs come from. All times are microseconds; ranges are `[start, end)`; None means without a bound.

    Rows are the newest revisions, or with an `as_of` those that were known then. Nothing is repaired or filled.
    """

    def bars(self, symbol: str, timeframe: Timeframe, start: int | None, end: int | None) -> pl.DataFrame:
        """Give closed bars by open time (`BAR_SCHEMA`) on a complete grid, gaps as rows; empty if there are none."""
        ...

    def trades(self, symbol: str, start: int | None, end: int | None) -> pl.DataFrame:
        """Give trades (`TRADES.schema`) by time, ascending; empty if there are none."""
        ...

    def trade_days(self, symbol: str) -> list[str]:
        """Give the days (`YYYY-MM-DD`) of which there are trades, oldest first: within them, no trade means none."""
        ...

    def depth(self, symbol: str, start: int | None, end: int | None) -> pl.DataFrame:
        """Give the rows of order-book messages (`DEPTH.schema`) by time, ascending."""
        ...

    def sentiment(self, start: int | None, end: int | None) -> pl.DataFrame:
        """Give scored documents (`SENTIMENT.schema`) by `available_at`, ascending."""
        ...

    def macro(self, series: str) -> pl.DataFrame:
        """Give every vintage of a series (`MACRO.schema`), ascending by `available_at`; empty if there is none."""
        ...

    def symbols(self) -> list[str]:
        """Give the symbols of which there are bars."""
        ...


@dataclass(frozen=True)
class Grid:
    """The rows that values are wanted for: the bars of a symbol in a timeframe, by open time, without a hole.

    Whatever is computed for a row may use what is available at its T, and nothing later. T is `available_at`, when the
    row's own bar was available (`features.arrival`), at its close or after it; None leaves it to be read from the bars.
    """

    symbol: str
    timeframe: Timeframe
    open_time: NDArray[np.int64]
    available_at: NDArray[np.int64] | None = None

    @cached_property
    def close_time(self) -> NDArray[np.int64]:
        """When each row closes (microseconds)."""
        return self.open_time + self.timeframe.microseconds

    @property
    def known_at(self) -> NDArray[np.int64]:
        """T of each row (microseconds), which is T of every join; it ascends."""
        return self.close_time if self.available_at is None else self.available_at

    @property
    def start(self) -> int:
        """The first row's open time."""
        return int(self.open_time[0])

    @property
    def end(self) -> int:
        """The last row's close."""
        return int(self.open_time[-1]) + self.timeframe.microseconds

    def __len__(self) -> int:
        return len(self.open_time)


@dataclass(frozen=True)
class Values:
    """What a feature is worth in each row: its outputs (NaN where null), and each row's status (index in `STATUSES`).

    `ages` tells for features of slow series how old the value was at the row's close (microseconds, −1 where there is
    none), else None. `method` names how it was computed where there is a choice, such as `trades` or `bars:1m`.
    """

    outputs: tuple[Floats, ...]
    statuses: NDArray[np.int8]
    ages: NDArray[np.int64] | None = None
    method: str | None = None


@dataclass
class TableData:
    """Tables in memory: bars by symbol (of one timeframe each; longer ones are built from them), and the others.

    Bars have the columns of `BAR_SCHEMA`, others those of their dataset; rows may come in any order, bars ascend. What
    converts is converted (`features.given`): frames of pandas, tables of Arrow, instants in other units and zones.
    Methods raise `InvalidBars` and `InvalidTable` for what does not.

    >>> TableData().symbols()
    []
    """

    bars_of: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    trades_of: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    depth_of: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    macro_of: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    sentiment_rows: pl.DataFrame | None = None
    _built: dict[tuple[str, Timeframe], tuple[pl.DataFrame, pl.DataFrame]] = field(default_factory=dict, repr=False)
    _read: dict[tuple[str, str], tuple[object, pl.DataFrame]] = field(default_factory=dict, repr=False)

    def bars(self, symbol: str, timeframe: Timeframe, start: int | None, end: int | None) -> pl.DataFrame:
        """Give the bars of `symbol`, or those built of its shorter ones. Raises `InvalidBars`."""
        held = self._given("bars", symbol, self.bars_of.get(symbol), lambda given: given_bars(given, symbol))
        if held.is_empty():
            return empty_bars()
        built = self._built.get((symbol, timeframe))
        if built is None or built[0] is not held:
            built = self._built[symbol, timeframe] = (held, _on_grid(held, symbol, timeframe))
        return within(built[1], "open_time", start, end)

    def trades(self, symbol: str, start: int | None, end: int | None) -> pl.DataFrame:
        """Give the trades of `symbol`."""
        return within(self._rows(TRADES, symbol, self.trades_of.get(symbol)), TRADES.time, start, end)

    def trade_days(self, symbol: str) -> list[str]:
        """Give the days on which `symbol` has trades."""
        days = self._rows(TRADES, symbol, self.trades_of.get(symbol))["time"].dt.date().unique().sort()
        return [f"{day}" for day in days]

    def depth(self, symbol: str, start: int | None, end: int | None) -> pl.DataFrame:
        """Give the book messages of `symbol`."""
        return within(self._rows(DEPTH, symbol, self.depth_of.get(symbol)), DEPTH.time, start, end)

    def sentiment(self, start: int | None, end: int | None) -> pl.DataFrame:
        """Give the scored documents."""
        return within(self._rows(SENTIMENT, "", self.sentiment_rows), SENTIMENT.time, start, end)

    def macro(self, series: str) -> pl.DataFrame:
        """Give the vintages of `series`."""
        return self._rows(MACRO, series, self.macro_of.get(series))

    def symbols(self) -> list[str]:
        """Give the symbols of which there are bars."""
        return sorted(self.bars_of)

    def _rows(self, dataset: Dataset, key: str, given: object) -> pl.DataFrame:
        return self._given(dataset.name, key, given, lambda table: given_rows(table, dataset))

    def _given(self, name: str, key: str, given: object, convert: Callable[[object], pl.DataFrame]) -> pl.DataFrame:
        """Convert what was given, once."""
        held = self._read.get((name, key))
        if held is None or held[0] is not given:
            held = self._read[name, key] = (given, convert(given))
        return held[1]


@dataclass(frozen=True)
class Truncated:
    """`data` as if nothing after the instant `at` (microseconds) had happened yet."""

    data: Data
    at: int

    def bars(self, symbol: str, timeframe: Timeframe, start: int | None, end: int | None) -> pl.DataFrame:
        """Give the bars that were available at the instant, and gaps for those that are too late to count."""
        bars = on_time(self.data.bars(symbol, timeframe, start, end))
        known = bars.filter(pl.coalesce("available_at", "close_time") <= from_us(self.at))
        return complete_grid(known, timeframe, symbol) if known.height else known

    def trades(self, symbol: str, start: int | None, end: int | None) -> pl.DataFrame:
        """Give the trades that were available."""
        return self._known(self.data.trades(symbol, start, end))

    def trade_days(self, symbol: str) -> list[str]:
        """Give the days of which a trade was available."""
        return [day for day in self.data.trade_days(symbol) if self._is_known(symbol, day)]

    def depth(self, symbol: str, start: int | None, end: int | None) -> pl.DataFrame:
        """Give the messages that were available."""
        return self._known(self.data.depth(symbol, start, end))

    def sentiment(self, start: int | None, end: int | None) -> pl.DataFrame:
        """Give the documents that were available."""
        return self._known(self.data.sentiment(start, end))

    def macro(self, series: str) -> pl.DataFrame:
        """Give the vintages that were available."""
        return self._known(self.data.macro(series))

    def symbols(self) -> list[str]:
        """Give the symbols of which there are bars."""
        return self.data.symbols()

    def _is_known(self, symbol: str, day: str) -> bool:
        start = to_us(datetime.fromisoformat(day).replace(tzinfo=UTC))
        if start > self.at:
            return False
        hour = self._known(self.data.trades(symbol, start, start + DAY_US // 24))  # nearly always enough
        return not hour.is_empty() or not self._known(self.data.trades(symbol, start, start + DAY_US)).is_empty()

    def _known(self, rows: pl.DataFrame) -> pl.DataFrame:
        return rows.filter(pl.col("available_at") <= from_us(self.at))


def default_data(as_of: datetime | None = None) -> Data:
    """Give the data of the platform's home, as installed under the entry point `mdplatform.data`. Raises `NoData`."""
    provider = _provider()
    if provider is None:
        raise NoData("No data to compute from", remedy="Pass `data`, or install mdplatform so that it finds its home")
    return provider(as_of)


@cache
def _provider() -> Callable[[datetime | None], Data] | None:
    for provider in entry_points(group=_PROVIDERS):
        found: Callable[[datetime | None], Data] = provider.load()
        return found
    return None


def grid_of(bars: pl.DataFrame) -> Grid:
    """Give the grid of `bars` (`BAR_SCHEMA`, at least one row)."""
    opens = bars.get_column("open_time").to_physical().to_numpy()
    return Grid(str(bars["symbol"][0]), Timeframe.parse(bars["timeframe"][0]), opens, arrivals(bars))


def within(rows: pl.DataFrame, time: str, start: int | None, end: int | None) -> pl.DataFrame:
    """Give the rows with `start <= time < end` (microseconds), without a copy; `rows` ascend by `time`."""
    at = rows.get_column(time).to_physical()
    first = 0 if start is None else at.search_sorted(start, side="left")
    after = rows.height if end is None else at.search_sorted(end, side="left")
    return rows.slice(first, max(after - first, 0))


def _on_grid(held: pl.DataFrame, symbol: str, timeframe: Timeframe) -> pl.DataFrame:
    """Give the bars of `timeframe` that are in `held` or can be built of it, on a complete grid."""
    missing = [name for name in _NEEDED_OF_BARS if name not in held.columns]
    if missing:
        raise InvalidBars(f"Bars of {symbol} lack columns", value=", ".join(missing), remedy="See `BAR_SCHEMA`")
    opens = held["open_time"].to_physical().to_numpy()
    if held["timeframe"].n_unique() > 1 or (np.diff(opens) <= 0).any():
        raise InvalidBars(
            f"Bars of {symbol} are of several timeframes, or not in order",
            remedy="Give one row for each open time, ascending, of one timeframe",
        )
    own = Timeframe.parse(held["timeframe"][0])
    if own is not timeframe:
        if not own.divides(timeframe):
            return empty_bars()
        held = resample(held, timeframe)
    return complete_grid(held, timeframe, symbol) if held.height else held
