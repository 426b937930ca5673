"""Where a formula has no answer (0 / 0, as for RSI of a flat price) but the library gives a number all the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def flat_runs(columns: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
    """Give, for each row, how many rows up to it in one go have the same single value in all of `columns`."""
    first = columns[0]
    level = np.ones(len(first), np.bool_)
    for each in columns[1:]:
        level &= each == first
    same = level.copy()
    same[:1] = False
    same[1:] &= level[:-1] & (first[1:] == first[:-1])
    rows = np.arange(len(first))
    return np.where(level, rows - np.maximum.accumulate(np.where(same, -1, rows)) + 1, 0)


def find_degenerate(spec: object, bars: object, outputs: object) -> NDArray[np.bool_] | None:
    """Tell the rows whose value is made up; None if there are none."""
    return None
