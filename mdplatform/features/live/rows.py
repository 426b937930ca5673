"""The newest rows of some columns, side by side in memory, so that a window of them is an array without a copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.talib_functions import Floats

_FEWEST = 16


class Rows:
    """Keeps the newest rows, at least `need` of them once there are so many; a row that is pushed can be popped again.

    Rows are written one after the other into up to twice the space, and moved to its beginning when that is full. The
    space grows with the rows that there are.
    """

    def __init__(self, columns: int, need: int = 0) -> None:
        self._columns = columns
        self._need = need
        self._end = 0
        self._held = 0
        self._space = np.empty((columns, 0))

    def __len__(self) -> int:
        return self._held

    def keep(self, need: int) -> None:
        """Keep at least so many rows from now on."""
        self._need = max(need, self._need)

    def push(self, values: Sequence[float]) -> None:
        """Add a row."""
        if self._end == self._space.shape[1]:
            self._make_room()
        self._space[:, self._end] = values
        self._end += 1
        self._held += 1

    def extend(self, columns: Sequence[Floats]) -> None:
        """Take the newest rows of whole columns in, in place of all that is held."""
        count = min(len(columns[0]), self._need)
        self._space = np.empty((self._columns, 2 * count))
        self._end = self._held = count
        for place, each in enumerate(columns):
            self._space[place, :count] = each[len(each) - count :]

    def _make_room(self) -> None:
        kept = min(self._held, self._need)
        newest, full = self._space[:, self._end - kept : self._end], self._space.shape[1]
        if full < 2 * self._need:
            self._space = np.empty((self._columns, max(_FEWEST, min(2 * full, 2 * self._need))))
        self._space[:, :kept] = newest.copy()
        self._end = self._held = kept

    def pop(self) -> None:
        """Take the newest row away."""
        self._end -= 1
        self._held -= 1

    def last(self, count: int) -> NDArray[np.float64]:
        """Give a view of the newest rows, a column a line; no more than there are."""
        return self._space[:, self._end - min(count, self._held) : self._end]

    def clear(self) -> None:
        """Forget all rows, and give the space back."""
        self._need = self._end = self._held = 0
        self._space = np.empty((self._columns, 0))

    def copy(self) -> Rows:
        """Give a copy, on which nothing that happens to this one has an effect."""
        other = Rows(self._columns)
        other._need, other._end, other._held, other._space = self._need, self._end, self._held, self._space.copy()
        return other

    def take(self, other: Rows) -> None:
        """Be what another one is."""
        self._need, self._end, self._held, self._space = other._need, other._end, other._held, other._space
