"""Windows: for each row the last rows of its symbol, as models of sequences take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mdplatform.strategy.preprocessing.parameters import check_count
from mdplatform.strategy.preprocessing.refusal import refused
from mdplatform.strategy.preprocessing.step import Past, Pasts, Step, Transformed
from mdplatform.strategy.preprocessing.table import PRESENT, Indices, Table

LONGEST = 10_000


@dataclass(frozen=True)
class Samples:
    """Windows of rows, one for each row, oldest row first.

    `values` (samples x window x features, float32) hold 0 where `mask` (of the same shape) is False and nothing was
    put in: before the first row, and where a value is missing. `mask` is True where the value was observed. `rows` says
    how many rows each window has; `origin` each sample's place in the rows that were given; `symbols` and `times` (µs,
    open times of the newest rows) are None where the rows told none.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]
    rows: NDArray[np.int64]
    names: tuple[str, ...]
    origin: Indices
    symbols: NDArray[np.object_] | None = None
    times: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, samples: Any) -> Samples:
        """Give some of the samples: a slice, or an array of places or of booleans."""
        if isinstance(samples, int | np.integer):
            samples = [samples]
        return Samples(
            self.values[samples], self.mask[samples], self.rows[samples], self.names, self.origin[samples],
            None if self.symbols is None else self.symbols[samples],
            None if self.times is None else self.times[samples],
        )  # fmt: skip

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype, copy=copy)

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Which windows are full of rows."""
        full: NDArray[np.bool_] = self.rows == self.values.shape[1]
        return full

    def like(self, rows: Any) -> Any:
        """Give the samples, whatever form the rows had."""
        return self


@dataclass(frozen=True)
class Flat:
    """Windows side by side in one row: what estimators take that know no sequences."""

    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.values)

    def like(self, rows: Any) -> Any:
        """Give the array, whatever form the rows had."""
        return self.values


class Windows(Step):
    """For each row its `length` newest rows, itself the last: `Samples`, or with `flat` an array, a row for each.

    It gives as many samples as rows, so that a target stays beside them; `Samples.complete` tells which are full.
    Masks (`<name>.present`) become the mask of the samples. It is the last step of a pipeline.
    """

    def __init__(self, length: int = 64, flat: bool = False, columns: Sequence[str] | None = None) -> None:
        self.length = length
        self.flat = flat
        self.columns = columns

    @property
    def rows_before(self) -> int:
        return self.length - 1

    def run(self, table: Table, pasts: Pasts) -> Transformed:
        """Make the windows of a table whose symbols' rows go on from `pasts`, and bring those up to date."""
        self.check_table(table)
        chosen = self._chosen(table.names)
        names = [table.names[at] for at in chosen]
        masks = {
            at: table.names.index(name + PRESENT) for at, name in enumerate(names) if name + PRESENT in table.names
        }
        shape = (len(table), self.length, len(chosen))
        values, mask = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.bool_)
        counts = np.zeros(len(table), dtype=np.int64)
        for symbol, run, rows in table.pieces():
            before = pasts.get(symbol)
            old = before.rows if before is not None and before.run == run else table.values[:0]
            block = np.concatenate([old, table.values[rows]])
            padding = np.full((self.length - 1 - len(old), block.shape[1]), np.nan)
            windows = sliding_window_view(np.concatenate([padding, block]), self.length, axis=0).transpose(0, 2, 1)
            there = ~np.isnan(windows[:, :, chosen])
            with np.errstate(over="ignore"):
                values[rows] = np.where(there, windows[:, :, chosen], 0.0)
            for at, place in masks.items():
                there[:, :, at] &= windows[:, :, place] == 1
            mask[rows] = there
            counts[rows] = np.minimum(len(old) + 1 + np.arange(len(rows)), self.length)
            pasts[symbol] = Past(run, block[max(0, len(block) - self.length + 1) :].copy())
        if not np.isfinite(values).all():
            at = int(np.nonzero(~np.isfinite(values))[2][0])
            raise refused("A value is too large for float32", field=names[at], remedy="Scale the column first")
        if self.flat:
            return Flat(values.reshape(len(table), self.length * len(chosen)))  # of no rows, -1 could not be worked out
        return Samples(values, mask, counts, tuple(names), table.origin, table.symbols, table.times)

    def _check_parameters(self) -> None:
        check_count(self.length, "length", 1, LONGEST)

    def _names_out(self, names: Sequence[str]) -> list[str]:
        chosen = [names[at] for at in self._chosen(names)]
        if not self.flat:
            return chosen
        return [f"{name}[{at - self.length + 1}]" for at in range(self.length) for name in chosen]
