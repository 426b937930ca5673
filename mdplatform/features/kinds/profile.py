"""Volume profiles as they develop through a session, or of the last hours: what they are worth at each row's close.

1. A row's window goes from its session's start (a part of the UTC day; a row that closes at the session's end belongs
   to it), or from so many hours before, to its close T. What is known at T is used, whatever the grid's own start.
2. The smallest bars that lie on the grid's and the session's time and cover the whole window say what was traded in it
   (`coverage`). Where they have a gap, longer ones may not; where none covers it, the row is null: with `gap`, or
   `insufficient_history` before there were bars.
3. Where there are trades for each day of the window and their volume is that of the bars (or there are no bars, or none
   with volume, to hold against them), the profile is of trades; a fragment of a day so never passes for the whole. Else
   it is of those bars.
4. A window without any volume is `degenerate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.features.data import Data, Grid, Values
from mdplatform.features.definition import Definition, Parameter, ParameterValue
from mdplatform.features.guard import DEGENERATE, GAP, INSUFFICIENT_HISTORY, MISSING_VOLUME, SETTLED
from mdplatform.features.kinds import Need
from mdplatform.features.profile.developing import (
    OUTPUTS,
    Integers,
    Items,
    Windows,
    profiles,
    rolling_windows,
    session_windows,
)
from mdplatform.features.profile.volume_profile import ALGORITHMS, VERSION, rows_at_a_time
from mdplatform.features.spec import FeatureSpec
from mdplatform.features.talib_functions import Floats
from mdplatform.features.ticks import checked_row_size
from mdplatform.features.trade_arrays import known_at
from mdplatform.market.time import from_us
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe

HOUR_US = 60 * MINUTE_US
SESSION_HOURS = (1, 2, 3, 4, 6, 8, 12, 24)

NO_BARS = -1
"""The status of a window that bars do not cover, until all bars were looked at."""
_SAME = 1e-8
_NEVER = int(np.iinfo(np.int64).max)

_SHARED = (
    Parameter("row_size", "real", 0, 0, 1e12),
    Parameter("value_area_pct", "real", 0.7, 0.01, 1),
    Parameter("algorithm", "choice", "two_row", choices=ALGORITHMS),
)


def _definition(name: str, title: str, length: Parameter) -> Definition:
    return Definition(
        name=name,
        title=title,
        group="Volume Profile",
        is_cumulative=False,
        inputs=(),
        parameters=(*_SHARED, length),
        outputs=OUTPUTS,
        kind="profile",
        engine=f"profile {VERSION}",
    )


DEFINITIONS = (
    _definition(
        "VOLUME_PROFILE",
        "Developing volume profile of the session",
        Parameter("session_hours", "choice", 24, choices=SESSION_HOURS),
    ),
    _definition(
        "ROLLING_VOLUME_PROFILE", "Volume profile of the last hours", Parameter("hours", "integer", 24, 1, 168)
    ),
)
"""A `row_size` of 0 is the largest step of 1, 2 or 5 × 10ᵏ not above a thousandth of the window's first price."""


def evaluate(specs: Sequence[FeatureSpec], grid: Grid, data: Data) -> dict[FeatureSpec, Values]:
    """Give the profile of each row's window. Raises `ParameterOutOfRange` for a row size that is none."""
    asked = [(spec, spec.arguments) for spec in specs]
    for _, arguments in asked:
        if arguments["row_size"]:
            checked_row_size(float(arguments["row_size"]))
    windows = {spec: windows_of(spec, grid.close_time) for spec in specs}
    start = min(int(each.start[0]) for each in windows.values())
    source = _Source(data, grid, start, {}, {})
    return {spec: _values(windows[spec], arguments, source) for spec, arguments in asked}


def reads(spec: FeatureSpec, symbol: str, timeframe: Timeframe) -> frozenset[Need]:
    """The trades and the bars of the symbol."""
    return frozenset({Need("trades", symbol), Need("bars", symbol)})


def windows_of(spec: FeatureSpec, closes: Integers) -> Windows:
    """Give the windows of rows that close at `closes`."""
    if spec.name == "VOLUME_PROFILE":
        return session_windows(closes, length_of(spec.arguments))
    return rolling_windows(closes, length_of(spec.arguments))


def length_of(arguments: dict[str, ParameterValue]) -> int:
    """Give the length of a session, or of a rolling window (microseconds)."""
    return int(arguments.get("session_hours") or arguments["hours"]) * HOUR_US


@dataclass(frozen=True)
class BarItems:
    """Bars on a grid, and those that make profiles. `gap`: they have no prices; `lacking`: they have no volume."""

    items: Items
    open_time: Integers
    available_at: Integers
    volume: Floats
    gap: NDArray[np.bool_]
    lacking: NDArray[np.bool_]
    length: int
    has_history: bool


@dataclass(frozen=True)
class _Source:
    """What the features of one grid are made from; bars are loaded once for all of them."""

    data: Data
    grid: Grid
    start: int
    loaded: dict[Timeframe, BarItems]
    first_known: dict[int, int]

    def bars(self, timeframe: Timeframe) -> BarItems:
        """Give the bars of one timeframe from the first window's start to the grid's end."""
        if timeframe not in self.loaded:
            symbol = self.grid.symbol
            bars = self.data.bars(symbol, timeframe, self.start, self.grid.end)
            opens = bars["open_time"].to_physical().to_numpy()
            late = len(opens) > 0 and int(opens[0]) > self.start
            before = late and not self.data.bars(symbol, timeframe, None, self.start).is_empty()
            self.loaded[timeframe] = _as_bars(bars, timeframe, before)
        return self.loaded[timeframe]

    def timeframes(self, length: int) -> Iterator[Timeframe]:
        """Give the timeframes of bars that windows of this length on the grid can be made of, smallest first."""
        for each in Timeframe:
            if length % each.microseconds == 0 and (each is self.grid.timeframe or each.divides(self.grid.timeframe)):
                yield each

    def known_from(self, day: int) -> int:
        """Give the last instant before the first trade of a day (since 1970) was known."""
        if day not in self.first_known:
            start, found = day * DAY_US, _NEVER
            for length in (HOUR_US, DAY_US):  # an hour is enough if a trade of it was known by its end
                if found > start + HOUR_US:
                    found = int(np.min(self.trades(start, start + length)[1], initial=_NEVER))
            self.first_known[day] = found
        return self.first_known[day]

    def trades(self, start: int, end: int) -> tuple[Items, Integers]:
        """Give the trades of a span of time, and for each the last instant before it was known."""
        rows = self.data.trades(self.grid.symbol, start, end)
        price, quantity = (rows[name].fill_null(np.nan).to_numpy() for name in ("price", "quantity"))
        time = rows["time"].to_physical().to_numpy()
        return Items(time, price, price, price, quantity, "trades"), known_at(rows).to_physical().to_numpy()


def _as_bars(bars: pl.DataFrame, timeframe: Timeframe, has_history: bool) -> BarItems:
    opens = bars["open_time"].to_physical().to_numpy()
    first, low, high, volume = (bars[name].fill_null(np.nan).to_numpy() for name in ("open", "low", "high", "volume"))
    is_gap = (bars["state"] == "gap").fill_null(False).to_numpy()
    available = bars["available_at"].to_physical().fill_null(0).to_numpy()
    return bar_items(opens, first, low, high, volume, is_gap, available, timeframe, has_history)


def bar_items(
    opens: Integers,
    first: Floats,
    low: Floats,
    high: Floats,
    volume: Floats,
    is_gap: NDArray[np.bool_],
    available: Integers,
    timeframe: Timeframe,
    has_history: bool,
) -> BarItems:
    """Give bars (NaN for null) as what profiles are made of; `has_history` says that there are bars before them."""
    gap = is_gap | ~((low > 0) & (high >= low) & np.isfinite(high))
    lacking = ~(np.isfinite(volume) & (volume >= 0)) & ~gap
    volume = np.where(gap | lacking, 0.0, volume)
    items = Items(opens, np.where(first > 0, first, low), low, high, volume, f"bars:{timeframe}")[volume > 0]
    available = np.maximum(available, opens + timeframe.microseconds)
    return BarItems(items, opens, available, volume, gap, lacking, timeframe.microseconds, has_history)


def coverage(bars: BarItems, windows: Windows, known_at: Integers) -> tuple[NDArray[np.int8], Floats]:
    """Give of each window at T whether `bars` cover it (`SETTLED`), else why not or `NO_BARS`; and its volume."""
    opens = bars.open_time
    begins, ends = windows.places(opens)
    counted = (ends - begins) * bars.length == windows.end - windows.start
    statuses = np.full(len(windows), SETTLED, np.int8)
    statuses[_count(bars.lacking, begins, ends) > 0] = MISSING_VOLUME
    unknown = _touched(opens + bars.length, bars.available_at, opens, windows, known_at)
    statuses[~counted | (_count(bars.gap, begins, ends) > 0) | unknown] = GAP
    some = ends > begins
    statuses[~some] = NO_BARS
    if not bars.has_history and len(opens):
        statuses[some & (windows.start < opens[0])] = INSUFFICIENT_HISTORY
    sums = np.append(0.0, np.cumsum(bars.volume))
    return statuses, sums[ends] - sums[begins]


def _count(flags: NDArray[np.bool_], begins: Integers, ends: Integers) -> Integers:
    sums = np.append(0, np.cumsum(flags))
    return np.asarray(sums[ends] - sums[begins])


def _touched(
    since: Integers, until: Integers, time: Integers, windows: Windows, known_at: Integers
) -> NDArray[np.bool_]:
    """Tell of each window whether it holds an item (by `time`) that is there but not known at T: it is in `until`."""
    late = until > since
    first = np.searchsorted(windows.end, since[late])
    after = np.minimum(np.searchsorted(known_at, until[late]), np.searchsorted(windows.start, time[late], side="right"))
    steps = np.zeros(len(windows) + 1, np.int64)
    held = after > first
    np.add.at(steps, first[held], 1)
    np.add.at(steps, after[held], -1)
    return np.asarray(np.cumsum(steps[:-1]) > 0)


def _values(windows: Windows, arguments: dict[str, ParameterValue], source: _Source) -> Values:
    share, step = float(arguments["value_area_pct"]), rows_at_a_time(str(arguments["algorithm"]))
    size = float(arguments["row_size"])
    size = checked_row_size(size) if size else 0.0
    statuses = np.full(len(windows), NO_BARS, np.int8)
    traded = np.full(len(windows), np.nan)
    of_bars: dict[Timeframe, NDArray[np.bool_]] = {}
    for timeframe in source.timeframes(length_of(arguments)):
        found, volumes = coverage(source.bars(timeframe), windows, source.grid.known_at)
        covers = (found == SETTLED) & (statuses != SETTLED)
        statuses = np.where((statuses == SETTLED) | (found == NO_BARS), statuses, found)
        traded[covers], of_bars[timeframe] = volumes[covers], covers
        if (statuses == SETTLED).all():
            break
    outputs = np.full((len(OUTPUTS), len(windows)), np.nan)
    methods: dict[str, int] = {}
    days = set(source.data.trade_days(source.grid.symbol))
    for rows in _by_day(windows):
        from_trades = _from_trades(
            windows[rows], source.grid.known_at[rows], statuses[rows], traded[rows], source, days, (size, share, step)
        )
        left = rows
        if from_trades is not None:
            given, values = from_trades
            outputs[:, rows[given]] = values
            statuses[rows[given]] = SETTLED
            left = rows[~given]
            if given.any():
                methods.setdefault("trades", int(rows[given][0]))
        for timeframe, covers in of_bars.items():
            own = left[covers[left]]
            if len(own):
                items = source.bars(timeframe).items
                outputs[:, own] = profiles(items, windows[own], size, share, step)
                methods.setdefault(items.method, int(own[0]))
    statuses[statuses == NO_BARS] = INSUFFICIENT_HISTORY
    statuses[(statuses == SETTLED) & np.isnan(outputs[0])] = DEGENERATE
    method = " ".join(sorted(methods, key=methods.__getitem__)) or None
    return Values(tuple(outputs), statuses, method=method)


def _by_day(windows: Windows) -> list[Integers]:
    """Give the windows that end in the same day, so that no more than some days of trades are held at a time."""
    days = (windows.end - 1) // DAY_US
    return np.split(np.arange(len(windows)), np.flatnonzero(np.diff(days)) + 1)


def _from_trades(
    windows: Windows,
    known_at: Integers,
    statuses: NDArray[np.int8],
    traded: Floats,
    source: _Source,
    days: set[str],
    asked: tuple[float, float, int],
) -> tuple[NDArray[np.bool_], Floats] | None:
    """Give which windows trades cover, and their profiles (columns); None if there can be none."""
    first, last = windows.start // DAY_US, (windows.end - 1) // DAY_US
    told = range(int(first[0]), int(last[-1]) + 1)
    known_from = [source.known_from(day) if f"{from_us(day * DAY_US):%Y-%m-%d}" in days else _NEVER for day in told]
    whole = np.maximum.accumulate(known_from[::-1])[::-1][first - first[0]] < known_at  # all end in the same day
    whole &= np.isin(statuses, (SETTLED, MISSING_VOLUME, NO_BARS))
    if not whole.any():
        return None
    part, instants = windows[whole], known_at[whole]
    items, known = source.trades(int(part.start[0]), int(part.end[-1]))
    good = (items.first > 0) & np.isfinite(items.first) & np.isfinite(items.volume) & (items.volume >= 0)
    begins, ends = part.places(items.time)
    given = _count(~good, begins, ends) == 0
    good &= items.volume > 0
    items, known = items[good], known[good]
    late = _touched(items.time + 1, known + 1, items.time, part, instants)
    values = profiles(items, part, *asked)
    for row in np.flatnonzero(late):
        at = np.array([row])
        values[:, at] = profiles(items[known < instants[row]], part[at], *asked)
    volumes, wanted = np.nan_to_num(values[3]), traded[whole]
    checked = statuses[whole] == SETTLED
    given &= ~checked | (np.abs(volumes - wanted) <= _SAME * np.maximum(volumes, wanted))
    covered = whole.copy()
    covered[whole] = given
    return covered, values[:, given]
