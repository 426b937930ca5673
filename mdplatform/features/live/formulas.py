"""Formulas a row at a time: on the numbers of the row, or on columns of the newest rows where they look back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdplatform.features.formula.program import Program
from mdplatform.features.guard import SETTLED, UNSETTLED
from mdplatform.features.live.rows import Rows
from mdplatform.features.talib_functions import Floats


class LiveFormula:
    """A compiled formula. `places` tell where each of its inputs is among the numbers and statuses that it is given.

    Of a formula that looks back, `held` keeps the newest rows of the inputs, numbers first, then statuses.
    """

    def __init__(self, program: Program, places: Sequence[tuple[int, int]]) -> None:
        self._program = program
        self._places = list(zip(program.inputs, *zip(*places, strict=True), strict=True))
        self._branches = any(step.kind == "where" for step in program.layout.steps)
        self.held = Rows(2 * len(places), program.rows + 1) if program.rows else None

    @property
    def rows(self) -> int:
        """How many rows before a row it looks at."""
        return self._program.rows

    def begin(self, columns: Sequence[Floats], statuses: Sequence[Floats]) -> None:
        """Take in the history of the inputs, as far as it is looked at."""
        if self.held is not None:
            self.held.extend([*columns, *statuses])

    def value(self, numbers: Sequence[float], statuses: Sequence[int], keep: bool) -> tuple[float, int]:
        """Give the value and the status of the next row; without `keep` as if nothing had been given."""
        if self.held is not None:
            return self._over_rows(self.held, numbers, statuses, keep)
        worst = max(statuses[status] for _, _, status in self._places)
        if worst == SETTLED or (worst == UNSETTLED and not self._branches):
            value, status = self._program.row({name: numbers[place] for name, place, _ in self._places})
            if status == SETTLED:
                return value, worst
        inputs = {
            name: (np.array([numbers[place]]), np.array([statuses[status]], np.int8))
            for name, place, status in self._places
        }
        values, codes = self._program.columns(inputs)
        return float(values[0]), int(codes[0])

    def _over_rows(
        self, held: Rows, numbers: Sequence[float], statuses: Sequence[int], keep: bool
    ) -> tuple[float, int]:
        held.push([numbers[place] for _, place, _ in self._places] + [statuses[each] for _, _, each in self._places])
        newest = held.last(self._program.rows + 1)
        count = len(self._places)
        codes = newest[count:].astype(np.int8)
        inputs = {name: (newest[at], codes[at]) for at, (name, _, _) in enumerate(self._places)}
        values, found = self._program.columns(inputs)
        if not keep:
            held.pop()
        return float(values[-1]), int(found[-1])
