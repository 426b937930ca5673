"""Steps that put numbers in the place of numbers, a column for a column."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from mdplatform.strategy.preprocessing.step import Fitted, Past, Pasts, Step
from mdplatform.strategy.preprocessing.table import Floats, Table


class Columnwise(Step):
    """A step that is a pure function of rows (`_compute`), which gives the chosen columns and leaves the others.

    The rows of each symbol are computed apart, by its unbroken runs, behind the last `rows_before` of what came before.
    """

    @abstractmethod
    def _compute(self, values: Floats, fitted: Fitted, first: int) -> Floats:
        """Give the values of the rows; those before `first` are only looked back on, and may be anything."""

    def run(self, table: Table, pasts: Pasts) -> Table:
        """Transform a table whose symbols' rows go on from `pasts`, and bring those up to date."""
        self.check_table(table)
        values = table.values.copy()
        chosen = self._chosen(table.names)
        for symbol, run, rows in table.pieces():
            before = pasts.get(symbol)
            block = np.ascontiguousarray(table.values[rows][:, chosen])
            known = 0
            if before is not None and before.run == run:
                known = len(before.rows)
                block = np.concatenate([before.rows, block])
            computed = self._compute(block, self._fitted_of(symbol), known)[known:]
            values[np.ix_(rows, np.array(chosen, dtype=np.intp))] = computed
            pasts[symbol] = Past(run, block[max(0, len(block) - self.rows_before) :].copy())
        return table.with_values(values, table.names)
