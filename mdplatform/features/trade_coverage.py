"""Which spans of time the trades of a symbol are not known to cover, and at which closes: what was not recorded.

Nothing says of which spans a file of trades is whole, so it is found out, at each row's close T from what is known
then:

1. Where there are bars, of the grid's timeframe or the shortest longer one that a day has, the trades that were
   executed in a bar have its volume (to 1e-8); else, and where a bar is a gap, its span is not covered. A trade that is
   late leaves its bar uncovered until it comes.
2. Where no bar tells, nothing was traded for an hour (`QUIET`) after the last trade that is known; what is later, up to
   the next trade, is not covered. A day whose first trade comes within its first hour is covered from its start, as
   soon as that trade is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.features.data import Data, Grid
from mdplatform.features.talib_functions import Floats
from mdplatform.features.trade_arrays import known_at
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe

Integers = NDArray[np.int64]

LATEST = 3_600_000_000
"""How long after its execution (microseconds) a trade may become known and still count: one hour."""
QUIET = 3_600_000_000
"""For how long after a trade (microseconds) no other one means none, where there are no bars: one hour."""

_SAME = 1e-8
_BUCKET = 10 * MINUTE_US  # of instants, the first and the last are kept: far less than `QUIET`, so no silence is lost
_EVER = np.iinfo(np.int64).max


class Holes(NamedTuple):
    """Spans `[begin, end)` of time that are not covered at closes T with `since <= T < until` (all microseconds)."""

    begin: Integers
    end: Integers
    since: Integers
    until: Integers

    def touched(self, windows: Integers, ends: Integers, closes: Integers) -> NDArray[np.bool_]:
        """Tell of each row whether its window `[windows, ends)` has a hole at its close; all three ascend."""
        first = np.maximum(np.searchsorted(closes, self.since), np.searchsorted(ends, self.begin, side="right"))
        after = np.minimum(np.searchsorted(closes, self.until), np.searchsorted(windows, self.end))
        held = after > first
        steps = np.zeros(len(closes) + 1, np.int64)
        np.add.at(steps, first[held], 1)
        np.add.at(steps, after[held], -1)
        return np.asarray(np.cumsum(steps[:-1]) > 0)


class Cover(NamedTuple):
    """What is not covered by bars' word or by silence; where history begins; some of the instants of known trades."""

    unlike: Holes
    silent: Holes
    history: int
    known: Integers


class _Bars(NamedTuple):
    """Bars by open time; `volume` is NaN where there is none to compare with, `gap` where nothing is known."""

    open: Integers
    close: Integers
    since: Integers
    volume: Floats
    gap: NDArray[np.bool_]

    def part(self, rows: slice) -> _Bars:
        """Give some of the bars."""
        return _Bars(self.open[rows], self.close[rows], self.since[rows], self.volume[rows], self.gap[rows])


class _Late(NamedTuple):
    """Trades that were not known when their bar closed: their bar's open time, when they became known, how much."""

    bar: Integers
    known: Integers
    quantity: Floats


@dataclass
class TradeCoverage:
    """Finds the holes in the trades of a grid's symbol; it remembers what it has read of each day."""

    grid: Grid
    data: Data
    days: Integers
    """The days (since 1970) of which there are trades, ascending."""
    _read_of: dict[int, tuple[Integers, Floats, _Late]] = field(default_factory=dict)
    _found: dict[int, Cover] = field(default_factory=dict)

    def since(self, start: int) -> Cover:
        """Give what is known of the time from `start` (microseconds) to the grid's end. There is a day with trades."""
        day = start // DAY_US
        if day not in self._found:
            self._found[day] = self._cover(int(day))
        return self._found[day]

    def _cover(self, first: int) -> Cover:
        last = (self.grid.end - 1) // DAY_US
        bars = self._bars(first, last)
        chosen = _joined(list(bars.values()))
        sums, late = [np.empty(0)], [_Late(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
        instants = [self._read(first * DAY_US - QUIET - LATEST, first * DAY_US, None)[0]]
        for day in np.intersect1d(
            np.arange(first, last + 1), np.union1d(self.days, np.array(list(bars), np.int64))
        ).tolist():
            if day not in self._read_of:
                self._read_of[day] = self._read(day * DAY_US, (day + 1) * DAY_US, bars.get(day))
            known, traded, after = self._read_of[day]
            instants.append(known)
            sums.append(traded)
            late.append(after)
        known = np.unique(np.concatenate(instants))
        unlike = _unlike(
            chosen, np.concatenate(sums), _Late(*(np.concatenate(each) for each in zip(*late, strict=True)))
        )
        oldest = int(self.days[0]) * DAY_US
        begun = known[np.searchsorted(known, oldest) :]
        history = oldest
        if len(begun) and int(begun[0]) - oldest > QUIET and first * DAY_US <= oldest:
            told = (chosen.open < begun[0]) & (chosen.close > oldest)
            history = oldest if told.any() else min(int(begun[0]), oldest + DAY_US)
        silent = _outside(_silences(known, max(first * DAY_US, oldest), self.grid.end), chosen)
        return Cover(unlike, silent, history, known)

    def _read(self, start: int, end: int, bars: _Bars | None) -> tuple[Integers, Floats, _Late]:
        """Give when trades executed in `[start, end)` became known; their volume in each bar, and what of it was late.

        Of instants near one another, two are enough. `[start, end)` lies in one day, whose bars are `bars`.
        """
        none = np.empty(0, np.int64)
        if start // DAY_US not in self.days:
            return none, np.zeros(0 if bars is None else len(bars.open)), _Late(none, none, np.empty(0))
        rows = self.data.trades(self.grid.symbol, start, end)
        delay = (pl.col("available_at") - pl.col("time")).dt.total_microseconds()
        rows = rows.filter(delay.fill_null(0) <= LATEST)
        known = known_at(rows).to_physical().to_numpy()
        buckets = (
            pl.DataFrame({"at": known})
            .group_by(pl.col("at") // _BUCKET)
            .agg(pl.col("at").min().alias("first"), pl.col("at").max().alias("last"))
        )
        kept = np.concatenate([buckets["first"].to_numpy(), buckets["last"].to_numpy()]).astype(np.int64)
        if bars is None:
            return kept, np.empty(0), _Late(none, none, np.empty(0))
        time, quantity = rows["time"].to_physical().to_numpy(), rows["quantity"].fill_null(np.nan).to_numpy()
        at = np.searchsorted(bars.open, time, side="right") - 1
        inside = (at >= 0) & (time < bars.close[at])
        prompt = inside & (known < bars.close[at])
        after = inside & ~prompt
        traded = np.bincount(at[prompt], quantity[prompt], len(bars.open)).astype(np.float64)
        return kept, traded, _Late(bars.open[at[after]], known[after], quantity[after])

    def _bars(self, first: int, last: int) -> dict[int, _Bars]:
        """Give the bars of each day that has some, of the shortest timeframe that fits."""
        own = min(self.grid.timeframe, Timeframe.D1, key=lambda each: each.microseconds)
        found: dict[int, _Bars] = {}
        for timeframe in Timeframe:
            if timeframe is not own and not (own.divides(timeframe) and timeframe.microseconds <= DAY_US):
                continue
            bars = self.data.bars(self.grid.symbol, timeframe, first * DAY_US, (last + 1) * DAY_US)
            if not bars.is_empty():
                given = _as_bars(bars, timeframe)
                for day in range(first, last + 1):
                    rows = slice(*np.searchsorted(given.open, (day * DAY_US, (day + 1) * DAY_US)).tolist())
                    if day not in found and rows.stop > rows.start:
                        found[day] = given.part(rows)
            if len(found) > last - first:
                break
        return dict(sorted(found.items()))


def _as_bars(bars: pl.DataFrame, timeframe: Timeframe) -> _Bars:
    opens = bars["open_time"].to_physical().to_numpy()
    close = opens + timeframe.microseconds
    available = bars["available_at"].to_physical().fill_null(0).to_numpy()
    gap = (bars["state"] == "gap").fill_null(False).to_numpy()
    volume = bars["volume"].fill_null(np.nan).to_numpy()
    volume = np.where(np.isfinite(volume) & (volume >= 0) & ~gap, volume, np.nan)
    return _Bars(opens, close, np.maximum(available, close), volume, gap)


def _joined(parts: list[_Bars]) -> _Bars:
    none = np.empty(0, np.int64)
    if not parts:
        return _Bars(none, none, none, np.empty(0), np.empty(0, np.bool_))
    return _Bars(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _unlike(bars: _Bars, traded: Floats, late: _Late) -> Holes:
    """Give the bars that are gaps, or whose trades do not amount to their volume, and until when they do not."""
    wrong = ~np.isnan(bars.volume) & ~_same(traded, bars.volume)
    behind = np.unique(np.searchsorted(bars.open, late.bar))
    wrong[behind] = False
    at = np.flatnonzero(wrong | bars.gap)
    parts = [np.stack([bars.open[at], bars.close[at], bars.since[at], np.full(len(at), _EVER)])]
    for bar in behind[~np.isnan(bars.volume[behind])].tolist():
        mine = np.flatnonzero(late.bar == bars.open[bar])
        mine = mine[np.argsort(late.known[mine], kind="stable")]
        sums = traded[bar] + np.append(0.0, np.cumsum(late.quantity[mine]))
        edges = np.concatenate([[bars.since[bar]], np.maximum(late.known[mine] + 1, bars.since[bar]), [_EVER]])
        bad = np.flatnonzero(~_same(sums, np.full(len(sums), bars.volume[bar])) & (edges[1:] > edges[:-1]))
        span = np.repeat([[bars.open[bar]], [bars.close[bar]]], len(bad), axis=1)
        parts.append(np.concatenate([span, edges[:-1][bad][None], edges[1:][bad][None]]))
    return Holes(*np.concatenate(parts, axis=1))


def _same(one: Floats, other: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.abs(one - other) <= _SAME * np.maximum(one, other))


def _silences(known: Integers, start: int, end: int) -> Holes:
    """Give the time from `start` to `end` that is later than `QUIET` after a trade, up to the next one."""
    before = known[: np.searchsorted(known, start)]
    inside = known[len(before) : np.searchsorted(known, end)]
    begin = np.append(int(before[-1]) + QUIET if len(before) else start, inside + QUIET)
    ends = np.append(inside, end)
    day = ends - ends % DAY_US
    whole = (ends - day <= QUIET) & (ends < end)  # the day's first hour has a trade: it covers the day's start too
    since_day = np.maximum(begin, day)
    first = np.stack([begin, np.where(whole, day, ends), begin + 1, np.full(len(ends), _EVER)])
    then = np.stack([since_day, ends, since_day + 1, ends + 1])[:, whole]
    spans = np.concatenate([first, then], axis=1)
    return Holes(*spans[:, spans[1] > np.maximum(spans[0], start)])


def _outside(silent: Holes, bars: _Bars) -> Holes:
    """Give what is left of silences where bars tell what was traded; until a bar is known, it tells nothing."""
    tells = ~np.isnan(bars.volume) | bars.gap
    opens, closes, since = bars.open[tells], bars.close[tells], bars.since[tells]
    parts = [np.empty((4, 0), np.int64)]
    for begin, end, _, until in zip(*(each.tolist() for each in silent), strict=True):
        rows = slice(int(np.searchsorted(closes, begin, side="right")), int(np.searchsorted(opens, end)))
        low, high = np.maximum(opens[rows], begin), np.minimum(closes[rows], end)
        parts.append(np.stack([low, high, low + 1, np.minimum(since[rows], until)]))
        left, right = np.append(begin, high), np.append(low, end)
        some = right > left
        parts.append(np.stack([left, right, left + 1, np.full(len(left), until)])[:, some])
    return Holes(*np.concatenate(parts, axis=1))
