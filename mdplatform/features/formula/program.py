"""Formulas compiled: a list of steps over numbered registers, run on columns or on one row with the same bits.

1. `compiled` parses the canonical text and lays its nodes out as steps, each part once, windows apart.
2. Steps are sorted into levels: a level's windows look at whole columns of the levels before; its other steps then run
   in blocks of rows that stay in the processor's cache.
3. A block in which every input is settled is computed with nothing around it; the processor's flags tell if a result
   was no finite number. If so, or if an input is null, the block is computed again with the status of each row.

What is null, and why: an operation on a null is null with its reason, of two reasons with the one that stands first in
`guard.REASONS`; `where` looks at its condition and at the branch that it takes. A division by 0 is
`division_by_zero`, but 0 / 0, as any other result that is no finite number, `degenerate`. A window with a null in it is
null with its reason, one that begins before history does is `insufficient_history`. What is made of unsettled values is
unsettled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdplatform.errors import InvalidTable, UnknownInput
from mdplatform.features.formula.blocks import CODES, Column, run_level
from mdplatform.features.formula.layout import Layout, in_order, lay_out
from mdplatform.features.formula.nodes import Node
from mdplatform.features.formula.operations import NO_NUMBER, Floats, Number
from mdplatform.features.formula.parser import Parser, no_composites
from mdplatform.features.formula.windows import over_rows
from mdplatform.features.guard import GAP, SETTLED
from mdplatform.features.spec import FeatureSpec

Given: TypeAlias = Any
"""An input: a column of numbers (NaN is null, for a `gap`), or a pair of it and its statuses; for a row, a number."""


@dataclass(frozen=True)
class Program:
    """A compiled formula. `inputs` names what it is computed from: columns of bars, and features by their texts.

    `rows` is how many rows before a row it looks at; `lookback` and `settle` are those of the whole, features included.
    """

    text: str
    inputs: tuple[str, ...]
    features: tuple[FeatureSpec, ...]
    bar_columns: tuple[str, ...]
    rows: int
    lookback: int
    settle: int
    layout: Layout

    def columns(self, inputs: Mapping[str, Given]) -> tuple[Floats, NDArray[np.int8]]:
        """Give the value (NaN where null) and the status of each row; the inputs are not written to.

        >>> values, statuses = compiled("close-lag(close,1)").columns({"close": np.array([1.0, 3.0, 6.0])})
        >>> values.tolist(), statuses.tolist()
        ([nan, 2.0, 3.0], [2, 0, 0])
        """
        columns = [_column(name, inputs) for name in self.inputs]
        rows = len(columns[0].values)
        if any(len(each.values) != rows for each in columns):
            raise InvalidTable(
                "Inputs of a formula are of unequal lengths", value=[len(each.values) for each in columns]
            )
        registers: list[Any] = [*columns, *[None] * (self.layout.registers - len(columns))]
        for place, value in self.layout.numbers:
            registers[place] = value
        for level in self.layout.levels:
            for step in level.windows:
                registers[step.to] = over_rows(step.kind, step.length, registers[step.arguments[0]])
            if level.steps:
                run_level(level, registers, rows, self.layout.result)
            for each in level.done:
                registers[each] = None
        result = registers[self.layout.result]
        is_made_here = self.layout.result in self.layout.levels[-1].kept
        values = result.values if is_made_here else result.values + 0.0
        return values, np.zeros(rows, np.int8) if result.codes is None else CODES[result.codes]

    def row(self, inputs: Mapping[str, Given]) -> tuple[float, int]:
        """Give the value (NaN where null) and the status of one row.

        An input is its number, or where the formula looks back (`rows` > 0) the column of the newest rows + 1 numbers.

        >>> compiled("close*2+1").row({"close": 3.0}), compiled("1/close").row({"close": 0.0})
        ((7.0, 0), (nan, 5))
        """
        if self.rows == 0:
            numbers = self._numbers.copy()
            try:
                for place, name in enumerate(self.inputs):
                    numbers[place] = float(inputs[name])
                for function, to, first, second, third in self._steps:
                    if third >= 0:
                        numbers[to] = function(numbers[first], numbers[second], numbers[third])
                    elif second >= 0:
                        numbers[to] = function(numbers[first], numbers[second])
                    else:
                        numbers[to] = function(numbers[first])
                if math.isfinite(sum(numbers)):
                    return numbers[self.layout.result] + 0.0, SETTLED
            except (KeyError, TypeError, *NO_NUMBER):
                pass  # there is something that only the columns' way can tell
        values, statuses = self.columns({name: _as_column(name, each) for name, each in inputs.items()})
        return float(values[-1]), int(statuses[-1])

    @cached_property
    def _numbers(self) -> list[float]:
        numbers = [0.0] * self.layout.registers
        for place, value in self.layout.numbers:
            numbers[place] = value
        return numbers

    @cached_property
    def _steps(self) -> list[tuple[Number, int, int, int, int]]:
        steps = []
        for step in self.layout.steps:
            assert step.operation is not None
            first, second, third = (*step.arguments, -1, -1)[:3]
            steps.append((step.operation.number, step.to, first, second, third))
        return steps


@lru_cache(maxsize=4096)
def compiled(text: str) -> Program:
    """Compile a canonical text. Raises `InvalidFormula` for what is none."""
    parser = Parser(text, {}, no_composites)
    return program_of(parser.parse(), text)


def program_of(root: Node, text: str) -> Program:
    """Compile a node."""
    leaves, layout = lay_out(root)
    lookback, whole = _lengths(root)
    return Program(
        text=text,
        inputs=tuple(each.text for each in leaves),
        features=tuple(each.spec for each in leaves if each.spec is not None),
        bar_columns=tuple(each.text for each in leaves if each.spec is None),
        rows=root.rows,
        lookback=lookback,
        settle=whole - lookback,
        layout=layout,
    )


def _lengths(root: Node) -> tuple[int, int]:
    """Give the rows before the first value, and before the first settled one: along the deepest path of each."""
    reach: dict[int, tuple[int, int]] = {}
    for node in in_order(root):
        first, settled = 0, 0
        if node.spec is not None:
            first, settled = node.spec.lookback, node.spec.lookback + node.spec.settle
        own = node.rows - max((each.rows for each in node.arguments), default=0)
        below = [reach[id(each)] for each in node.arguments]
        first = max([first, *(each for each, _ in below)]) + own
        settled = max([settled, *(each for _, each in below)]) + own
        reach[id(node)] = first, settled
    return reach[id(root)]


def _column(name: str, inputs: Mapping[str, Given]) -> Column:
    if name not in inputs:
        raise UnknownInput(name, inputs)
    given = inputs[name]
    values, statuses = given if isinstance(given, tuple) else (given, None)
    values = _floats(name, values)
    codes = None
    if values.ndim != 1 or (statuses is not None and len(statuses) != len(values)):
        raise InvalidTable(
            f"Input {name} of a formula is no column, or its statuses are not as many", value=values.shape
        )
    if statuses is not None:
        codes = CODES[statuses] if np.max(statuses, initial=0) else None
    elif not np.isfinite(values).all():
        codes = np.where(np.isfinite(values), np.int8(SETTLED), CODES[GAP])
        values = np.where(codes == SETTLED, values, np.nan)
    return Column(values, codes)


def _as_column(name: str, given: Given) -> Given:
    values, statuses = given if isinstance(given, tuple) else (given, None)
    column = np.atleast_1d(_floats(name, values))
    if not column.size:
        raise InvalidTable(f"Input {name} of a row is empty", remedy="Give its number, or those of the newest rows")
    return column if statuses is None else (column, np.atleast_1d(statuses))


def _floats(name: str, given: Any) -> Floats:
    try:
        return np.asarray(given, np.float64)
    except (TypeError, ValueError, OverflowError):
        told = f"Input {name} of a formula has no numbers, or one that no double holds"
        raise InvalidTable(told, value=repr(given)[:40]) from None
