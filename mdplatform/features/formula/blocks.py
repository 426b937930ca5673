"""The steps of one level, run block by block: bare where all is well, with codes where something is null or unsettled.

A code is a status in another order: of two, the greater prevails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.formula.layout import Level, Step
from mdplatform.features.formula.operations import Floats, reason
from mdplatform.features.guard import SETTLED, STATUSES, UNSETTLED

Codes: TypeAlias = NDArray[np.int8]

BLOCK = 32_768
CODES = np.array([SETTLED, UNSETTLED, *range(len(STATUSES) - 1, UNSETTLED, -1)], np.int8)
"""The code of each status, and the status of each code."""


@dataclass
class Column:
    """A column that is computed with; `codes` is None where every row is settled."""

    values: Floats
    codes: Codes | None = None


def run_level(level: Level, registers: list[Any], rows: int, result: int) -> None:
    """Run the steps of a level on `registers` (a `Column` or a number each), and put there what is kept.

    The register `result` is left without −0.0.
    """
    for each in level.kept:
        registers[each] = Column(np.empty(rows))
    doubtful = [each for each in level.reads if registers[each].codes is not None]
    buffers = [np.empty(min(rows, BLOCK)) for _ in range(level.buffers)]
    block: list[Any] = [None if isinstance(each, Column) else each for each in registers]
    columns = (*level.reads, *level.kept)
    with np.errstate(divide="raise", over="raise", invalid="raise", under="ignore"):
        for start in range(0, rows, BLOCK):
            inside = slice(start, min(start + BLOCK, rows))
            for each in columns:
                block[each] = registers[each].values[inside]
            for each, buffer in level.buffer_of.items():
                block[each] = buffers[buffer][: inside.stop - start]
            if any(registers[each].codes[inside].max() for each in doubtful) or not _run_bare(level.steps, block):
                _run_with_codes(level, registers, block, inside, rows)
            if result in level.kept:
                np.add(block[result], 0.0, out=block[result])


def _run_bare(steps: Sequence[Step], block: list[Any]) -> bool:
    """Run the steps where all inputs are settled; tell whether all results are finite numbers."""
    try:
        for step in steps:
            operation, out = step.operation, block[step.to]
            assert operation is not None
            operation.columns(*[block[each] for each in step.arguments], out)
            if not operation.tells and not np.isfinite(out.sum()):
                return False
    except FloatingPointError:
        return False
    return True


def _run_with_codes(level: Level, registers: list[Any], block: list[Any], inside: slice, rows: int) -> None:
    count = inside.stop - inside.start
    settled = np.zeros(count, np.int8)
    codes: dict[int, Codes] = {}
    for each in level.reads:
        known = registers[each].codes
        codes[each] = settled if known is None else known[inside]
    buffers = {each: np.empty(count) for each in level.buffer_of}  # one of its own for each, since none is forgotten
    values = [buffers.get(place, each) for place, each in enumerate(block)]
    with np.errstate(all="ignore"):
        for step in level.steps:
            arguments = [values[each] for each in step.arguments]
            codes[step.to] = _run_one(step, arguments, [codes.get(each, settled) for each in step.arguments], values)
    for each in level.kept:
        if codes[each].any():
            if registers[each].codes is None:
                registers[each].codes = np.zeros(rows, np.int8)
            registers[each].codes[inside] = codes[each]


def _run_one(step: Step, arguments: list[Any], codes: list[Codes], values: list[Any]) -> Codes:
    out = values[step.to]
    assert step.operation is not None
    step.operation.columns(*arguments, out)
    if step.kind == "where":
        branch = np.where(np.not_equal(arguments[0], 0.0), codes[1], codes[2])
        code = np.where(codes[0] > UNSETTLED, codes[0], np.maximum(codes[0], branch))
    else:
        code = np.maximum.reduce(codes)
    broken = ~np.isfinite(out) & (code <= UNSETTLED)
    if broken.any():
        code = np.where(broken, CODES[reason(step.kind, step.exponent, arguments)], code)
    out[code > UNSETTLED] = np.nan
    return code
