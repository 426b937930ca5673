"""The as-of join: for each instant, the newest row that was available by then, how old it is, and whether too old.

1. Both sides ascend, so that the newest row available at an instant is the last one at or before it; of rows with the
   same instant that is the last one.
2. Where there are fewer rows than instants, the first instant at which each row is available is sought instead, and the
   row is repeated until the next one comes: a tenth of the searches.
3. Instants before the first row have none, and a row older than `max_staleness` is stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.guard import NOT_AVAILABLE_YET, SETTLED, STALE
from mdplatform.features.talib_functions import Floats


@dataclass(frozen=True)
class AsOf:
    """What was newest at each instant: `rows` are indices into the right side, −1 where nothing was available yet.

    `statuses` are those of `features.guard`: `settled`, `stale` or `not_available_yet`; `rows` and `ages` tell of stale
    ones too.
    """

    available_at: NDArray[np.int64]
    at: NDArray[np.int64]
    rows: NDArray[np.int64]
    statuses: NDArray[np.int8]

    @cached_property
    def ages(self) -> NDArray[np.int64]:
        """Microseconds since what was newest became available, −1 where there is none."""
        if not len(self.available_at):
            return np.full(len(self.at), -1)
        ages = self.available_at[self.rows]  # −1 takes the last one, and is blotted out
        np.subtract(self.at, ages, out=ages)
        none = self.rows < 0
        if none.any():
            ages[none] = -1
        return ages

    def take(self, values: Floats) -> Floats:
        """Give the value of the right side at each instant, NaN where it is stale or not available yet."""
        if not len(values):
            return np.full(len(self.rows), np.nan)
        taken: Floats = values[self.rows]  # −1 takes the last one, and is blotted out like what is stale
        unknown = self.statuses != SETTLED
        if unknown.any():
            taken[unknown] = np.nan
        return taken


def newest_rows(available_at: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the index of the last of `available_at` that is at or before each of `at`, −1 where there is none.

    Both are microseconds; `available_at` ascends. `at` may be in any order, but is quicker where it ascends.

    >>> newest_rows(np.array([10, 20, 20]), np.array([9, 10, 20, 99])).tolist()
    [-1, 0, 2, 2]
    """
    if len(available_at) >= len(at) or np.any(at[1:] < at[:-1]):
        return np.searchsorted(available_at, at, side="right") - 1
    firsts = np.searchsorted(at, available_at, side="left")
    edges = np.concatenate([[0], firsts, [len(at)]])
    return np.repeat(np.arange(-1, len(available_at)), np.diff(edges))


def as_of(available_at: NDArray[np.int64], at: NDArray[np.int64], max_staleness: int | None = None) -> AsOf:
    """Join what was newest at each of `at` (all microseconds); older than `max_staleness` is stale, None is no limit.

    `available_at` ascends; on equal instants the last row wins.

    >>> joined = as_of(np.array([10, 20]), np.array([9, 12, 26]), max_staleness=5)
    >>> joined.rows.tolist(), joined.ages.tolist(), joined.take(np.array([0.5, 0.7])).tolist()
    ([-1, 0, 1], [-1, 2, 6], [nan, 0.5, nan])
    """
    rows = newest_rows(available_at, at)
    joined = AsOf(available_at, at, rows, np.zeros(len(at), np.int8))
    if max_staleness is not None:
        joined.statuses[joined.ages > max_staleness] = STALE
    joined.statuses[rows < 0] = NOT_AVAILABLE_YET
    return joined
