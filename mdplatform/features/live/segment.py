"""The stretch of rows without a hole that a feature is in: what `guard.find_holes` cuts, a row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

from mdplatform.features.anchors import start_of
from mdplatform.features.bar_arrays import BarArrays
from mdplatform.features.guard import GAP, INSUFFICIENT_HISTORY, MISSING_VOLUME, SETTLED, UNSETTLED
from mdplatform.market.bars import PRICE_COLUMNS, VALUE_COLUMNS
from mdplatform.market.timeframe import DAY_US

FOR_EVER = 2**62
"""A row, or an instant, that never comes."""
_LONGEST_ANCHOR_DAYS = {"day": 1, "week": 7, "month": 31, "year": 366}


class Segment(NamedTuple):
    """The segment that a row is in: its first row, why it began, whether at its anchor, and where its period ends.

    `outside` is the status of a row that is in none, as it has a hole, else 0. `cause` and `anchored` are those of
    `guard.Segment`.
    """

    start: int
    cause: int
    anchored: bool
    outside: int
    until: int


BEFORE_ALL = Segment(0, INSUFFICIENT_HISTORY, False, INSUFFICIENT_HISTORY, 0)
"""Where no row was yet."""


@dataclass(frozen=True)
class Columns:
    """The input columns that features share, and their anchor: what decides on segments."""

    inputs: tuple[str, ...]
    anchor: str | None
    step: int

    def after(self, arrays: BarArrays) -> Segment:
        """Give the segment of the last row of history."""
        rows = len(arrays.open_time)
        if not rows:
            return BEFORE_ALL
        holes = arrays.holes(self.inputs, self.anchor)
        if holes.segments and holes.segments[-1].stop == rows:
            last = holes.segments[-1]
            return Segment(last.start, last.cause, last.anchored, 0, self._end(int(arrays.open_time[-1])))
        assert holes.outside is not None
        return Segment(rows, 0, False, int(holes.outside[-1]), 0)

    def next(self, before: Segment, row: int, open_time: int, values: Sequence[float], is_gap: bool) -> Segment:
        """Give the segment of the next row."""
        outside = GAP if is_gap else self._hole(values)
        if outside:
            return Segment(row, 0, False, outside, 0)
        if not before.outside and open_time < before.until:
            return before
        anchored = self.anchor is not None and open_time - self.step < start_of(open_time, self.anchor)
        return Segment(row, before.outside or GAP, anchored, 0, self._end(open_time))

    def _hole(self, values: Sequence[float]) -> int:
        found = SETTLED
        for name in self.inputs:
            if not isfinite(values[VALUE_COLUMNS.index(name)]):
                if name in PRICE_COLUMNS:
                    return GAP
                found = MISSING_VOLUME
        return found

    def _end(self, open_time: int) -> int:
        """Give the end of the period that a row lies in."""
        if self.anchor is None:
            return FOR_EVER
        start = start_of(open_time, self.anchor)
        return start_of(start + _LONGEST_ANCHOR_DAYS[self.anchor] * DAY_US, self.anchor)


def status_in(segment: Segment, row: int, lookback: int, settle: int | None) -> tuple[int, int]:
    """Give the status of a row for these lengths, as `Holes.statuses_after` does, and the row in which it changes."""
    if segment.outside:
        return segment.outside, row + 1
    first = segment.start + lookback
    if row < first:
        return segment.cause, first
    if settle is None:
        return SETTLED if segment.anchored else UNSETTLED, FOR_EVER
    return (UNSETTLED, first + settle) if row < first + settle else (SETTLED, FOR_EVER)
