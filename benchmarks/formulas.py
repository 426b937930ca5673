"""Formulas: compiled ones over a million rows, against numexpr and numpy with nothing around them; and one row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Comparison, WrongResult, compare, in_turns
from mdplatform.features.formula.program import Program, compiled
from mdplatform.features.parse import parse_feature

ROWS = 1_000_000
ONE_ROW_TIMES = 10_000

Inputs = Mapping[str, NDArray[np.float64]]

_BLEND = "(RSI - 50) * 0.6 + (MACD_HISTOGRAM / PRICE_STD) * 0.4"
_SPREAD = "EMA(close, 20) / EMA(close, 50) - 1"
_MIXED = "where(close > open, log(close / open), -abs(close - open) / close) * sqrt(volume)"


def _blend(r: Any, h: Any, s: Any) -> Any:
    return (r - 50) * 0.6 + (h / s) * 0.4


def _spread(a: Any, b: Any) -> Any:
    return a / b - 1


def _mixed(c: Any, o: Any, v: Any) -> Any:
    return np.where(c > o, np.log(c / o), -np.abs(c - o) / c) * np.sqrt(v)


CASES: tuple[tuple[str, tuple[str, ...], str, Callable[..., Any]], ...] = (
    (_BLEND, ("RSI", "MACD", "STDDEV"), "(a - 50) * 0.6 + (b / c) * 0.4", _blend),
    (_SPREAD, ("EMA(timeperiod=20)", "EMA(timeperiod=50)"), "a / b - 1", _spread),
    (_MIXED, ("close", "open", "volume"), "where(a > b, log(a / b), -abs(a - b) / a) * sqrt(c)", _mixed),
)
"""Each formula, how the texts of its inputs begin, and the same for numexpr and for numpy over a, b, c."""


def run(short: bool) -> Iterator[Comparison]:
    """Compare three formulas over columns, with the statuses of their inputs, then one row."""
    turns = 7 if short else 40
    for text, beginnings, in_numexpr, in_numpy in CASES:
        program = compiled(str(parse_feature(text)))
        columns = _columns(len(beginnings))
        named = dict(zip("abc", columns, strict=False))
        statuses = np.zeros(ROWS, np.int8)
        inputs = {
            next(name for name in program.inputs if name.startswith(beginning)): (column, statuses)
            for beginning, column in zip(beginnings, columns, strict=True)
        }
        _check(program, inputs, in_numpy(*columns))
        for bare_is, bare in (("numpy", partial(in_numpy, *columns)), *_numexpr(in_numexpr, named)):
            times = in_turns(turns, ours=partial(program.columns, inputs), bare=bare)
            yield compare("formulas", f"{text}, {ROWS:,} rows", bare_is, times, amount=ROWS, amount_unit="rows")
    yield from _small(turns)


def _small(turns: int) -> Iterator[Comparison]:
    program = compiled(str(parse_feature(_BLEND)))
    row = {name: 2.0 + place for place, name in enumerate(program.inputs)}
    values = list(row.values())

    def ours() -> None:
        for _ in range(ONE_ROW_TIMES):
            program.row(row)

    def bare() -> None:
        for _ in range(ONE_ROW_TIMES):
            _blend(*values)

    yield compare(
        "formulas",
        f"one row, {ONE_ROW_TIMES:,} times",
        "a Python function",
        in_turns(turns, ours=ours, bare=bare),
        amount=ONE_ROW_TIMES,
        amount_unit="rows",
    )


def _numexpr(text: str, named: Inputs) -> Iterator[tuple[str, Callable[[], object]]]:
    """Give numexpr's work with one thread, as ours has, and with all; nothing where it is not installed."""
    try:
        import numexpr
    except ImportError:
        return

    def evaluate(threads: int) -> object:
        numexpr.set_num_threads(threads)
        return numexpr.evaluate(text, dict(named))

    yield "numexpr, one thread", partial(evaluate, 1)
    yield f"numexpr, {numexpr.detect_number_of_cores()} threads", partial(evaluate, numexpr.detect_number_of_cores())


def _columns(count: int) -> list[NDArray[np.float64]]:
    random = np.random.default_rng(0)
    return [random.uniform(1, 100, ROWS) for _ in range(count)]


def _check(program: Program, inputs: Mapping[str, Any], wanted: NDArray[np.float64]) -> None:
    values, statuses = program.columns(inputs)
    if statuses.any() or not np.allclose(values, wanted, rtol=1e-9, atol=1e-12):
        raise WrongResult(f"{program.text} is not what numpy gives")
