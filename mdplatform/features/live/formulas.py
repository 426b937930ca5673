"""Formulas a row at a time, with the bits that the compiled program gives for columns.

A formula of one row is computed on its numbers. One that looks back keeps the newest rows of its inputs, and for each
function over rows what that needs (`windows`); so a row takes the same few steps however long the windows are. Where
anything that it looks at is null or unsettled, or a result is no number, the program computes the rows that are kept,
and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from math import isfinite, nan
from typing import Any

import numpy as np

from mdplatform.features.formula.layout import Step
from mdplatform.features.formula.operations import NO_NUMBER
from mdplatform.features.formula.program import Program
from mdplatform.features.guard import SETTLED, UNSETTLED
from mdplatform.features.live.rows import Rows
from mdplatform.features.live.windows import live_window
from mdplatform.features.talib_functions import Floats

_LONGEST = 2_000
"""Formulas that look further back than so many rows are always computed from the rows that are kept."""


class LiveFormula:
    """A compiled formula. `places` tell where each of its inputs is among the numbers and statuses that it is given."""

    def __init__(self, program: Program, places: Sequence[tuple[int, int]]) -> None:
        self._program = program
        self._places = list(zip(program.inputs, *zip(*places, strict=True), strict=True))
        self._branches = any(step.kind == "where" for step in program.layout.steps)
        self._held = Rows(2 * len(places), program.rows + 1) if program.rows else None
        self._registers = _Registers(program) if 0 < program.rows <= _LONGEST else None
        self._sound = 0  # for how many rows all inputs have been settled

    @property
    def rows(self) -> int:
        """How many rows before a row it looks at."""
        return self._program.rows

    def begin(self, columns: Sequence[Floats], statuses: Sequence[Floats]) -> None:
        """Take in the history of the inputs, as far as it is looked at."""
        if self._held is None:
            return
        self._held.extend([*columns, *statuses])
        newest = self._held.last(self.rows + 1)
        for row in newest.T.tolist():
            self._keep(row[: len(columns)], row[len(columns) :])

    def value(self, numbers: Sequence[float], statuses: Sequence[int], keep: bool) -> tuple[float, int]:
        """Give the value and the status of the next row; without `keep` as if nothing had been given."""
        if self._held is not None:
            return self._over_rows(self._held, numbers, statuses, keep)
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

    def save(self) -> tuple[Any, ...]:
        """Give what `restore` needs to undo the rows that follow."""
        return self._held and self._held.copy(), deepcopy(self._registers), self._sound

    def restore(self, saved: tuple[Any, ...]) -> None:
        """Be again as when `saved` was."""
        self._held, self._registers, self._sound = saved

    def _over_rows(
        self, held: Rows, numbers: Sequence[float], statuses: Sequence[int], keep: bool
    ) -> tuple[float, int]:
        given, why = [numbers[place] for _, place, _ in self._places], [statuses[each] for _, _, each in self._places]
        held.push([*given, *why])
        found = None
        if self._registers is not None and (keep or self._sound >= self.rows):
            result = self._registers.value(given)
            if self._sound >= self.rows and max(why) == SETTLED and isfinite(result):
                found = result + 0.0, SETTLED
        if found is None:
            found = self._from_columns(held)
        if not keep:
            held.pop()
        elif self._registers is not None:
            self._registers.push()
            self._sound = self._sound + 1 if max(why) == SETTLED else 0
        return found

    def _keep(self, given: Sequence[float], why: Sequence[float]) -> None:
        if self._registers is not None:
            self._registers.value(given)
            self._registers.push()
            self._sound = self._sound + 1 if max(why) == SETTLED else 0

    def _from_columns(self, held: Rows) -> tuple[float, int]:
        newest = held.last(self.rows + 1)
        count = len(self._places)
        codes = newest[count:].astype(np.int8)
        inputs = {name: (newest[at], codes[at]) for at, (name, _, _) in enumerate(self._places)}
        values, found = self._program.columns(inputs)
        return float(values[-1]), int(found[-1])


class _Registers:
    """The registers of a program, a row at a time; NaN in one stands for null, whatever the reason."""

    def __init__(self, program: Program) -> None:
        self._inputs = len(program.inputs)
        self._numbers = [0.0] * program.layout.registers
        for place, number in program.layout.numbers:
            self._numbers[place] = number
        self._result = program.layout.result
        self._steps = program.layout.steps
        self._windows = {step.to: live_window(step.kind, step.length) for step in self._steps if step.operation is None}

    def value(self, given: Sequence[float]) -> float:
        """Give the result in the next row, NaN where it is null or made of what is no number."""
        registers = self._numbers.copy()
        registers[: self._inputs] = given
        try:
            self._run(registers)
        except NO_NUMBER:
            return self._run_with_nulls(registers)
        return registers[self._result] if isfinite(sum(registers)) else self._run_with_nulls(registers)

    def push(self) -> None:
        """Make the row of the last `value` one of the past."""
        for window in self._windows.values():
            window.push()

    def _run(self, registers: list[float]) -> None:
        windows = self._windows
        for step in self._steps:
            if step.operation is None:
                registers[step.to] = windows[step.to].value(registers[step.arguments[0]])
            else:
                registers[step.to] = step.operation.number(*[registers[each] for each in step.arguments])

    def _run_with_nulls(self, registers: list[float]) -> float:
        """Run with what is no number as NaN, which goes on into all that is made of it."""
        for step in self._steps:
            given = [registers[each] for each in step.arguments]
            if step.operation is None:
                found = self._windows[step.to].value(given[0])
            else:
                found = _number(step, step.operation.number, given)
            registers[step.to] = found if isfinite(found) else nan
        return registers[self._result]

    def __deepcopy__(self, _: object) -> _Registers:
        other = _Registers.__new__(_Registers)
        other.__dict__.update(self.__dict__)
        other._windows = deepcopy(self._windows)
        return other


def _number(step: Step, number: Callable[..., float], given: Sequence[float]) -> float:
    looked_at = given
    if step.kind == "where":
        looked_at = [given[0], given[1 if given[0] != 0 else 2]]
    if not all(map(isfinite, looked_at)):
        return nan
    try:
        return number(*given)
    except NO_NUMBER:
        return nan
