"""Profiles of windows of time: developing ones from a session's start on, or rolling ones, at each row's close.

A window is `[start, end)`; what a profile is made of are `Items`: trades, or bars that spread over the rows between
their low and high. The windows of a symbol ascend, so each is made of the one before (`value_area.moving`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.profile.volume_profile import (
    MOST_ROWS,
    as_units,
    automatic_row_size,
    check_span,
    units_of,
)
from mdplatform.features.talib_functions import Floats
from mdplatform.features.ticks import to_prices, to_rows

Integers = NDArray[np.int64]

OUTPUTS = ("poc", "vah", "val", "volume", "row_size")


@dataclass(frozen=True)
class Items:
    """What profiles are made of, each with volume, ascending by `time` (microseconds): trades, or bars when they open.

    `first` is the price that an item begins with; the low and the high of a trade are its price.
    """

    time: Integers
    first: Floats
    low: Floats
    high: Floats
    volume: Floats
    method: str

    @property
    def are_trades(self) -> bool:
        """Whether each lies in one row."""
        return self.low is self.high

    def __getitem__(self, part: slice | NDArray[np.bool_]) -> Items:
        low = self.low[part]
        high = low if self.are_trades else self.high[part]
        return replace(self, time=self.time[part], first=self.first[part], low=low, high=high, volume=self.volume[part])


@dataclass(frozen=True)
class Windows:
    """Windows `[start, end)` in microseconds; both ascend."""

    start: Integers
    end: Integers

    def __len__(self) -> int:
        return len(self.end)

    def __getitem__(self, rows: Integers | NDArray[np.bool_]) -> Windows:
        return Windows(self.start[rows], self.end[rows])

    def places(self, time: Integers) -> tuple[Integers, Integers]:
        """Give the first item of each window, and the one after its last."""
        return np.searchsorted(time, self.start), np.searchsorted(time, self.end)


def session_windows(closes: Integers, microseconds: int) -> Windows:
    """Give for each close the window from its session's start to it; a session's own end belongs to it.

    Sessions are so many microseconds long and lie on the UTC day.
    """
    return Windows((closes - 1) // microseconds * microseconds, closes)


def rolling_windows(closes: Integers, microseconds: int) -> Windows:
    """Give for each close the window of so many microseconds before it."""
    return Windows(closes - microseconds, closes)


def profiles(items: Items, windows: Windows, row_size: float, share: float, step: int) -> Floats:
    """Give `OUTPUTS` (rows) of the profile of each window (columns); NaN where it has no volume.

    A `row_size` of 0 is worked out for each window from its first price; where that makes too many rows, since prices
    went thousands of times as high, it is NaN too. Raises `ParameterOutOfRange` where a given one does.
    """
    found = np.full((len(OUTPUTS), len(windows)), np.nan)
    begins, ends = windows.places(items.time)
    some = np.flatnonzero(ends > begins)
    if not len(some):
        return found
    prices, which = np.unique(items.first[begins[some]], return_inverse=True)
    sizes = np.array([row_size or automatic_row_size(price) for price in prices.tolist()])[which]
    for size in np.unique(sizes).tolist():
        of_size = some[sizes == size]
        together = [of_size] if _fits(items, begins[of_size], ends[of_size], size) else of_size[:, np.newaxis]
        for group in together:
            if row_size or _fits(items, begins[group], ends[group], size):
                found[:, group] = _of_size(items, begins[group], ends[group], size, share, step)
    return found


def _fits(items: Items, begins: Integers, ends: Integers, size: float) -> bool:
    part = slice(int(begins[0]), int(ends[-1]))
    return bool(items.high[part].max() - items.low[part].min() < (MOST_ROWS - 1) * size)


def _of_size(items: Items, begins: Integers, ends: Integers, size: float, share: float, step: int) -> Floats:
    """Give `OUTPUTS` of windows from the items `begins` to `ends`, all of them of one row size."""
    from mdplatform.features.profile import value_area

    found = np.full((len(OUTPUTS), len(begins)), np.nan)
    first = int(begins[0])
    items, begins, ends = items[slice(first, int(ends[-1]))], begins - first, ends - first
    scale = units_of(float(items.volume.sum()), float(items.volume.max()) if items.are_trades else None)
    units = as_units(items.volume, scale)
    low = to_rows(items.low, size)
    high = low if items.are_trades else to_rows(items.high, size)
    lowest, highest = int(low.min()), int(high.max())
    check_span(lowest, highest, size)
    rows = highest - lowest + 1
    areas = value_area.moving(low - lowest, high - lowest, units, begins, ends, rows, share, step, not items.are_trades)
    known = areas[:, 3] == 1
    found[0, known] = to_prices(areas[known, 0] + lowest + 0.5, size)
    found[1, known] = to_prices(areas[known, 2] + lowest + 1, size)
    found[2, known] = to_prices(areas[known, 1] + lowest, size)
    sums = np.append(0, np.cumsum(units))
    found[3, known] = (sums[ends] - sums[begins])[known] / scale
    found[4, known] = size
    return found
