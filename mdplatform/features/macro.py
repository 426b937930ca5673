"""Macro series as they were known: what a strategy would have seen at each instant, and transforms made of that.

1. `releases` turns the vintages of a series into events in the order in which they became available. `as_of` takes all
   of them, `first_release` for each period the first value that was published, `latest` for each period its newest
   vintage from the period's first publication on (revised data: for charts, never for a strategy).
2. `steps` replays them. At each instant it holds, for each period, the newest vintage known, and works the transform
   out on exactly that: one answer an instant, however many periods were revised in it.
3. Rows of a grid then take the last step at or before their close (`features.asof`).

The answer is that of the newest period. A period that the agency published without a value has none, and neither has
what is made of it; with `skip` such periods are passed over, as holidays of daily series are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.features.guard import DEGENERATE, DIVISION_BY_ZERO, GAP, INSUFFICIENT_HISTORY, SETTLED
from mdplatform.features.talib_functions import Floats
from mdplatform.market.timeframe import DAY_US

ENGINE = "macro 2"
"""Changes when the values do."""

MODES = ("as_of", "first_release", "latest")
TRANSFORMS = ("value", "diff", "pct", "yoy", "zscore")
YEAR_SLACK_US = 7 * DAY_US
"""How much older than a year the observation may be that `yoy` compares with: one always falls within a week."""

Answer = tuple[float, int]
_NONE = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Releases:
    """Published observations, in the order in which they became available; times are microseconds, null is NaN.

    `periods` are the periods there are, ascending, and `years_before` the instant a calendar year before each; `places`
    tells which of them each event is of. Where `first_counts`, an event replaces what was known of its period whatever
    its vintage: a value does so with word of none, though that came with a later vintage that was available before.
    """

    available_at: NDArray[np.int64]
    vintage: NDArray[np.int64]
    values: Floats
    places: NDArray[np.int64]
    periods: NDArray[np.int64]
    years_before: NDArray[np.int64]
    first_counts: bool = False

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Steps:
    """What a transform of a series was worth from each instant on, until the next; all arrays are of one length.

    `statuses` are those of `features.guard`; `periods` is the newest period, `vintages` the release that its value came
    with, `since` when that became available: what ages are counted from.
    """

    available_at: NDArray[np.int64]
    values: Floats
    statuses: NDArray[np.int8]
    periods: NDArray[np.int64]
    vintages: NDArray[np.int64]
    since: NDArray[np.int64]


def releases(vintages: pl.DataFrame, mode: str = "as_of") -> Releases:
    """Give the events of one series (`MACRO.schema`, in any order, one row a period and vintage) in one of `MODES`."""
    rows = vintages.select("available_at", "vintage", "ref_period", pl.col("value").fill_nan(None))
    rows = rows.sort("available_at", "vintage", "ref_period")
    if mode == "first_release":
        # what was published as missing is so until there is a first value
        had_value = pl.col("value").is_not_null().cum_sum().over("ref_period")
        rows = rows.filter((had_value == 0) | (pl.col("value").is_not_null() & (had_value == 1)))
    elif mode == "latest":
        newest = rows.group_by("ref_period").agg(
            pl.col("available_at").min(),
            pl.col("vintage", "value").sort_by(pl.col("vintage"), maintain_order=True).last(),
        )
        rows = newest.select(rows.columns).sort("available_at", "vintage", "ref_period")
    rows = rows.unique(["available_at", "ref_period"], keep="last", maintain_order=True)
    periods = rows["ref_period"].unique().sort()
    order = rows["ref_period"].to_physical().to_numpy()
    of_periods = periods.to_physical().to_numpy()
    return Releases(
        available_at=rows["available_at"].to_physical().to_numpy(),
        vintage=rows["vintage"].to_physical().to_numpy(),
        values=rows["value"].fill_null(np.nan).to_numpy(),
        places=np.searchsorted(of_periods, order),
        periods=of_periods,
        years_before=periods.dt.offset_by("-1y").to_physical().to_numpy(),
        first_counts=mode == "first_release",
    )


def steps(events: Releases, transform: str = "value", periods: int = 1, *, skip: bool = False) -> Steps:
    """Give what one of `TRANSFORMS` was worth from each instant on, made of what was known then.

    - `value`: the newest period's value.
    - `diff`, `pct`: its change from `periods` observations before; `pct` as a fraction, x / before − 1.
    - `yoy`: x / before − 1 with the newest value from a calendar year before, or at most a week older than that.
    - `zscore`: (x − mean) / standard deviation (of the population) of the newest `periods` values.

    Nulls are `gap` where the agency published that there is no value, `insufficient_history`, `division_by_zero`, or
    `degenerate` (0 / 0: no spread at all).
    """
    known = _Known(events, skip)
    answer: Callable[[], Answer] = {
        "value": known.value,
        "diff": lambda: known.diff(periods),
        "pct": lambda: known.pct(periods),
        "yoy": known.yoy,
        "zscore": lambda: known.zscore(periods),
    }[transform]
    instants = events.available_at
    ends = np.flatnonzero(np.append(instants[1:] != instants[:-1], True)) + 1 if len(events) else np.empty(0, np.int64)
    at: list[tuple[Any, ...]] = []
    first = 0
    for stop in ends.tolist():
        known.take(first, stop)
        first = stop
        newest = known.newest
        if newest < 0:  # with `skip`, as long as no period has a value
            at.append((np.nan, GAP, known.last, known.vintage_of_last, instants[stop - 1]))
            continue
        value, status = answer()
        if status == SETTLED and not np.isfinite(value):
            status = DEGENERATE
        shown = value if status == SETTLED else np.nan
        at.append((shown, status, newest, known.vintages[newest], known.since[newest]))
    columns = list(zip(*at, strict=True)) if at else [()] * 5
    return Steps(
        available_at=instants[ends - 1],
        values=np.array(columns[0], np.float64),
        statuses=np.array(columns[1], np.int8),
        periods=events.periods[np.array(columns[2], np.int64)],
        vintages=np.array(columns[3], np.int64),
        since=np.array(columns[4], np.int64),
    )


class _Known:
    """The series as it is known at one instant of the replay: by period, its value, vintage and when that came."""

    def __init__(self, events: Releases, skip: bool) -> None:
        count = len(events.periods)
        self._events = events
        self._skip = skip
        self.values = np.full(count, np.nan)
        self.vintages = np.full(count, _NONE)
        self.since = np.full(count, _NONE)
        self._compared = np.full(count, _NONE)  # the newest vintage seen of each, even if it repeated the value
        self._is_known = np.zeros(count, np.bool_)
        self._count = 0
        self.newest = self.last = -1
        self._year_ago = np.searchsorted(events.periods, events.years_before, side="right") - 1

    @property
    def vintage_of_last(self) -> int:
        return int(self._compared[self.last])

    def take(self, first: int, stop: int) -> None:
        """Take in what became available at one instant: events `[first, stop)`."""
        events = self._events
        for place, vintage, value, at in zip(
            events.places[first:stop].tolist(),
            events.vintage[first:stop].tolist(),
            events.values[first:stop].tolist(),
            events.available_at[first:stop].tolist(),
            strict=True,
        ):
            if vintage < self._compared[place] and not events.first_counts:
                continue  # an old vintage that came late changes nothing
            is_new = self._compared[place] == _NONE
            self._compared[place] = vintage
            self.last = max(self.last, place)
            held = self.values[place]
            if not is_new and (value == held or (value != value and held != held)):
                continue  # said again, not published anew
            self.values[place], self.vintages[place], self.since[place] = value, vintage, at
            is_known = not self._skip or value == value
            self._count += int(is_known) - int(self._is_known[place])
            self._is_known[place] = is_known
            if is_known:
                self.newest = max(self.newest, place)
        while self.newest >= 0 and not self._is_known[self.newest]:
            self.newest -= 1

    def value(self) -> Answer:
        value = float(self.values[self.newest])
        return value, SETTLED if value == value else GAP

    def diff(self, periods: int) -> Answer:
        value, before, status = self._pair(periods)
        return value - before, status

    def pct(self, periods: int) -> Answer:
        return _ratio(*self._pair(periods))

    def yoy(self) -> Answer:
        value, status = self.value()
        if status != SETTLED:
            return np.nan, status
        oldest = self._events.years_before[self.newest] - YEAR_SLACK_US
        place = int(self._year_ago[self.newest])
        while place >= 0 and self._events.periods[place] > oldest:
            if self.values[place] == self.values[place]:
                return _ratio(value, float(self.values[place]), SETTLED)
            place -= 1
        reaches_back = bool(self._is_known[: int(self._year_ago[self.newest]) + 1].any())
        return np.nan, GAP if reaches_back else INSUFFICIENT_HISTORY

    def zscore(self, periods: int) -> Answer:
        value, status = self.value()
        if status != SETTLED:
            return np.nan, status
        width = periods
        while True:
            part = self.values[max(0, self.newest + 1 - width) : self.newest + 1]
            window = part[~np.isnan(part)][-periods:]
            if len(window) == periods or width > self.newest:
                break
            width *= 2
        if len(window) < periods:
            return np.nan, INSUFFICIENT_HISTORY
        if window.min() == window.max():
            return np.nan, DEGENERATE
        with np.errstate(over="ignore", invalid="ignore"):
            return (value - float(window.mean())) / float(window.std()), SETTLED

    def _pair(self, periods: int) -> tuple[float, float, int]:
        """Give the newest value, that of `periods` observations before, and a status."""
        if self._count <= periods:
            return np.nan, np.nan, INSUFFICIENT_HISTORY
        before = self.newest - periods
        if self._count != self.newest + 1:  # there are holes in what is known
            before = int(np.flatnonzero(self._is_known[: self.newest + 1])[-1 - periods])
        value, other = float(self.values[self.newest]), float(self.values[before])
        return value, other, SETTLED if value == value and other == other else GAP


def _ratio(value: float, before: float, status: int) -> Answer:
    if status != SETTLED:
        return np.nan, status
    if before == 0:
        return np.nan, DIVISION_BY_ZERO if value else DEGENERATE
    return value / before - 1, SETTLED
