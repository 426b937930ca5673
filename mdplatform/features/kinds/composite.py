"""Composites: formulas of columns and of features of every kind, computed on the rows of the grid.

1. Formulas are grouped by how far they look back, in powers of 4, and the grid is extended by that. So those of a group
   share the features that they use, and each has the same bits alone and with others. Those that are made of nothing
   but the symbol's own bars are not computed before its first bar: there is no history there.
2. Columns are read from the bars; features are computed by their own kinds, each loading what it needs for itself, and
   those of other symbols and timeframes are joined as of each row's close.
3. The compiled formula runs over them, and the grid's own rows are cut out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.bar_arrays import read_bars
from mdplatform.features.data import Data, Grid, Values
from mdplatform.features.definition import Definition, Parameter
from mdplatform.features.formula.nodes import rows_back
from mdplatform.features.formula.operations import Floats
from mdplatform.features.formula.program import Program, compiled
from mdplatform.features.guard import GAP, INSUFFICIENT_HISTORY, SETTLED
from mdplatform.features.kinds import INDICATORS, Need
from mdplatform.features.spec import FORMULA, FeatureSpec
from mdplatform.market.timeframe import Timeframe

_FAR = 1_024
ENGINE = "formula 2"
"""Changes when the values of formulas do."""


def _lengths(arguments: Mapping[str, Any]) -> tuple[int, int]:
    program = compiled(str(arguments["text"]))
    return program.lookback, program.settle


DEFINITIONS = (
    Definition(
        name=FORMULA,
        title="A formula of columns and features",
        group="Composite",
        is_cumulative=False,
        inputs=(),
        parameters=(Parameter("text", "text", "close", pattern=r"(?s).{1,10000}", meaning="a formula"),),
        outputs=("formula",),
        kind="composite",
        engine=ENGINE,
        lengths=_lengths,
        required=("text",),
    ),
)


def evaluate(specs: Sequence[FeatureSpec], grid: Grid, data: Data) -> dict[FeatureSpec, Values]:
    """Give the values of formulas in each row of `grid`."""
    programs = {spec: compiled(str(spec)) for spec in specs}
    groups: dict[tuple[int, bool], list[FeatureSpec]] = defaultdict(list)
    for spec, program in programs.items():
        groups[rows_back(program.rows), _is_of_own_bars(program)].append(spec)
    values: dict[FeatureSpec, Values] = {}
    for (rows, of_own_bars), group in groups.items():
        longer = _extended(grid, rows)
        if of_own_bars and rows >= _FAR:
            longer = _since_first_bar(longer, grid.start, data)
        inputs = _inputs([programs[spec] for spec in group], longer, data)
        own = np.searchsorted(longer.open_time, grid.open_time)
        for spec in group:
            output, statuses = programs[spec].columns(inputs)
            values[spec] = Values((output[own],), statuses[own])
    return {spec: values[spec] for spec in specs}


def reads(spec: FeatureSpec, symbol: str, timeframe: Timeframe) -> frozenset[Need]:
    """What the features of the formula depend on, and the bars of the symbol."""
    from mdplatform.features.panel import reads as read_by

    return read_by(compiled(str(spec)).features, symbol, timeframe) | {Need("bars", symbol)}


def _is_of_own_bars(program: Program) -> bool:
    return all(not spec.place and spec.definition.kind == INDICATORS for spec in program.features)


def _since_first_bar(longer: Grid, latest: int, data: Data) -> Grid:
    """Give the grid without the rows before the first bar; it begins at `latest` at the latest."""
    bars = data.bars(longer.symbol, longer.timeframe, longer.start, longer.end)
    first = min(latest, int(bars["open_time"].to_physical()[0])) if bars.height else latest
    return Grid(longer.symbol, longer.timeframe, longer.open_time[np.searchsorted(longer.open_time, first) :])


def _margin(spec: FeatureSpec) -> int:
    """Give the rows by which a feature is loaded further back than it would be by itself.

    What is left in it of where history began (`lengths.EPSILON`) grows where a formula takes the difference of two
    features that are nearly equal. With half as much again of its settle, less than the last bit is left.
    """
    return rows_back(spec.settle // 2) if spec.settle and spec.timeframe is None else 0


def _extended(grid: Grid, rows: int) -> Grid:
    """Give the grid with so many rows before it, and none missing."""
    step = grid.timeframe.microseconds
    return Grid(grid.symbol, grid.timeframe, np.arange(grid.start - rows * step, grid.end, step, dtype=np.int64))


def _inputs(programs: Sequence[Program], grid: Grid, data: Data) -> dict[str, tuple[Floats, NDArray[np.int8]]]:
    from mdplatform.features.panel import evaluate_on  # which computes features of every kind, these among them

    names = sorted({name for program in programs for name in program.bar_columns})
    inputs = _columns(names, grid, data) if names else {}
    wanted: dict[str, FeatureSpec] = {}
    for program in programs:
        features = iter(program.features)
        wanted.update({name: next(features) for name in program.inputs if name not in program.bar_columns})
    by_margin: dict[int, dict[str, FeatureSpec]] = defaultdict(dict)
    for name, spec in wanted.items():
        by_margin[_margin(spec)][name] = spec
    for margin, group in by_margin.items():
        answers = evaluate_on(_extended(grid, margin), group.values(), data)
        for name, spec in group.items():
            inputs[name] = (answers[spec].outputs[0][margin:], answers[spec].statuses[margin:])
    return inputs


def _columns(names: Sequence[str], grid: Grid, data: Data) -> dict[str, tuple[Floats, NDArray[np.int8]]]:
    """Give columns of the bars on the grid, and why they are null where they are."""
    bars = data.bars(grid.symbol, grid.timeframe, grid.start, grid.end)
    arrays = read_bars(bars, grid.timeframe, names)
    rows = np.searchsorted(grid.open_time, arrays.open_time)
    missing = np.full(len(grid), GAP, np.int8)
    missing[: rows[0] if len(rows) else len(grid)] = INSUFFICIENT_HISTORY
    columns = {}
    for name in names:
        values, statuses = np.full(len(grid), np.nan), missing.copy()
        outside = arrays.holes([name], None).outside
        values[rows] = arrays.columns[name]
        statuses[rows] = SETTLED if outside is None else outside
        values[statuses != SETTLED] = np.nan
        columns[name] = (values, statuses)
    return columns
