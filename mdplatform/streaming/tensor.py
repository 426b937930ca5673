"""Tensors for models: the numbers of the last instants, with a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdplatform.errors import InvalidRequest
from mdplatform.streaming.row import Row


@dataclass(frozen=True)
class Tensor:
    """`values` (float32) and `mask` (bool) are symbols × time × features; a number is NaN where the mask is false.

    `times` are the instants (datetime64[us], UTC), ascending; `symbols` and `features` name the other axes.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]
    symbols: tuple[str, ...]
    times: NDArray[np.datetime64]
    features: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Symbols, instants, features."""
        return self.values.shape


def tensor(row: Row, past: Sequence[Row], window: int) -> Tensor:
    """Lay the rows of the last `window` instants of the clock side by side, `row` last; absent ones are masked."""
    shape = row.shape
    if isinstance(window, bool) or not isinstance(window, int | np.integer) or not 1 <= window <= shape.window:
        refused = InvalidRequest(
            "Not such a window", value=window, remedy=f"Allowed: 1 to {shape.window}; subscribe with a longer `window`"
        )
        refused.field = "window"
        raise refused
    step = shape.clock.microseconds
    values = np.full((len(shape.symbols), window, len(shape.numbers)), np.nan, np.float32)
    newest = shape.clock.ceil(row.time)  # a forming frame stands where its bar will close
    for each in (*past, row):
        back = (newest - shape.clock.ceil(each.time)) // step
        if 0 <= back < window:
            values[:, window - 1 - back] = each.numbers
    times = newest - step * np.arange(window - 1, -1, -1, dtype=np.int64)
    times[-1] = row.time
    return Tensor(values, np.isfinite(values), shape.symbols, times.astype("datetime64[us]"), shape.numbers)
