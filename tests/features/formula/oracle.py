"""Formulas by brute force: trees told as tuples, worked out row by row in plain Python, apart from all of ours.

A tree is `("number", 2.0)`, `("column", "close")`, `(operation, tree, …)` or `(window, tree, rows)`. Sums and
deviations are exact fractions. `written` gives a text for a tree, `columns_of` columns for a hypothesis test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

SETTLED, UNSETTLED, INSUFFICIENT_HISTORY, GAP, MISSING_VOLUME, DIVISION_BY_ZERO, DEGENERATE, STALE, NOT_YET = range(9)
Tree = tuple[Any, ...]
Cell = tuple[float | None, int]
Columns = Mapping[str, Sequence[Cell]]

NAMES = ("open", "close", "volume")
SIGNS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "and": "and",
    "or": "or",
}
WINDOWS = ("lag", "diff", "sum", "mean", "std", "zscore", "rank")


def evaluate(tree: Tree, columns: Columns, row: int) -> Cell:
    """Give the value and the status of one row."""
    kind, *parts = tree
    if kind == "number":
        return parts[0], SETTLED
    if kind == "column":
        return columns[parts[0]][row]
    if kind in WINDOWS:
        return _window(kind, parts[0], parts[1], columns, row)
    cells = [evaluate(each, columns, row) for each in parts]
    if kind == "where":
        condition, taken = cells[0], cells[1 if cells[0][0] != 0 else 2]
        if condition[0] is None:
            return condition
        return (None, taken[1]) if taken[0] is None else (taken[0], max(condition[1], taken[1]))
    null = _null(cells)
    if null is not None:
        return None, null
    status = max(each[1] for each in cells)
    values = [float(each[0]) for each in cells if each[0] is not None]
    try:
        value = _OPERATIONS[kind](*values)
    except ZeroDivisionError:
        return None, DEGENERATE if kind == "div" and values[0] == 0 else DIVISION_BY_ZERO
    except (ValueError, OverflowError):
        return None, DEGENERATE
    return (value, status) if math.isfinite(value) else (None, DEGENERATE)


def _null(cells: Sequence[Cell]) -> int | None:
    return min((status for value, status in cells if value is None), default=None)


def _window(kind: str, over: Tree, length: int, columns: Columns, row: int) -> Cell:
    if kind == "diff":
        return evaluate(("sub", over, ("lag", over, length)), columns, row)
    if kind == "zscore":
        return evaluate(("div", ("sub", over, ("mean", over, length)), ("std", over, length)), columns, row)
    if kind == "lag":
        return (None, INSUFFICIENT_HISTORY) if row < length else evaluate(over, columns, row - length)
    if row < length - 1:
        return None, INSUFFICIENT_HISTORY
    cells = [evaluate(over, columns, each) for each in range(row - length + 1, row + 1)]
    null = _null(cells)
    if null is not None:
        return None, null
    exact = [Fraction(each[0]) for each in cells if each[0] is not None]
    total = sum(exact, Fraction(0))
    if kind == "sum":
        value = float(total)
    elif kind == "mean":
        value = float(total) / length
    elif kind == "std":
        value = math.sqrt(float(sum((each - total / length) ** 2 for each in exact) / length))
    else:
        below, equal = sum(each < exact[-1] for each in exact), sum(each == exact[-1] for each in exact)
        value = (below + (equal + 1) / 2) / length
    return value, max(each[1] for each in cells)


def _power(base: float, exponent: float) -> float:
    if exponent < 0:
        return 1 / _power(base, -exponent)
    return math.prod([base] * int(exponent))


_OPERATIONS: Mapping[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "pow": _power,
    "lt": lambda a, b: float(a < b),
    "le": lambda a, b: float(a <= b),
    "gt": lambda a, b: float(a > b),
    "ge": lambda a, b: float(a >= b),
    "eq": lambda a, b: float(a == b),
    "ne": lambda a, b: float(a != b),
    "and": lambda a, b: float(bool(a) and bool(b)),
    "or": lambda a, b: float(bool(a) or bool(b)),
    "not": lambda a: float(not a),
    "min": min,
    "max": max,
    "clip": lambda x, low, high: min(max(x, low), high),
    "abs": abs,
    "sign": lambda a: math.copysign(1.0, a) if a else 0.0,
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
}


def written(tree: Tree, space: str = "") -> str:
    """Write a tree as a formula, every part in parentheses."""
    kind, *parts = tree
    if kind == "number":
        return repr(parts[0])
    if kind == "column":
        return str(parts[0])
    if kind in WINDOWS:
        return f"{kind}({written(parts[0], space)},{space}{parts[1]})"
    told = [written(each, space) for each in parts]
    if kind == "pow":
        return f"({told[0]}){space}**{space}({told[1]})"
    if kind in SIGNS:
        return f"({told[0]}){space} {SIGNS[kind]} {space}({told[1]})"
    if kind in ("neg", "not"):
        return f"{'-' if kind == 'neg' else 'not '}({told[0]})"
    return f"{kind}({f',{space}'.join(told)})"


def expected(tree: Tree, columns: Columns) -> tuple[np.ndarray, list[int]]:
    """Give values (NaN where null) and statuses of all rows."""
    cells = [evaluate(tree, columns, row) for row in range(len(next(iter(columns.values()))))]
    return np.array([math.nan if value is None else value + 0.0 for value, _ in cells]), [each for _, each in cells]


def as_arrays(columns: Columns) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Give columns as a program takes them."""
    return {
        name: (
            np.array([math.nan if value is None else value for value, _ in cells]),
            np.array([status for _, status in cells], np.int8),
        )
        for name, cells in columns.items()
    }


_numbers = st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0])
_leaves = st.one_of(
    st.sampled_from(NAMES).map(lambda name: ("column", name)), _numbers.map(lambda value: ("number", value))
)
_columns = st.sampled_from(NAMES).map(lambda name: ("column", name))


def _whole_windows(over: st.SearchStrategy[Tree], *kinds: str) -> st.SearchStrategy[Tree]:
    return st.tuples(st.sampled_from(kinds), over, st.integers(2, 6))


def _simple() -> st.SearchStrategy[Tree]:
    """Give trees whose values are exact: sums and products of columns, and earlier ones."""

    def more(below: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
        return st.one_of(
            st.tuples(st.sampled_from(["add", "sub", "mul"]), below, below),
            _whole_windows(_columns, "lag", "diff", "sum"),
        )

    return st.recursive(_columns, more, max_leaves=3)


def exact_trees() -> st.SearchStrategy[Tree]:
    """Give trees in which every step is exact, or rounded in one way only: the same bits are expected."""

    def more(below: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
        return st.one_of(
            st.tuples(st.sampled_from([*SIGNS, "min", "max"]), below, below),
            st.tuples(st.sampled_from(["neg", "not", "abs", "sign", "sqrt"]), below),
            st.tuples(st.just("where"), below, below, below),
            st.tuples(st.just("clip"), below, st.just(("number", -1.0)), st.just(("number", 2.0))),
            st.tuples(st.just("pow"), _columns, st.sampled_from([-2.0, -1.0, 2.0, 3.0]).map(lambda k: ("number", k))),
            _whole_windows(_simple(), "lag", "diff", "sum", "mean", "rank"),
            st.tuples(st.just("lag"), below, st.integers(1, 4)),
        )

    return st.recursive(_leaves, more, max_leaves=12)


def smooth_trees() -> st.SearchStrategy[Tree]:
    """Give trees with steps that a library approximates, in which a last bit makes no great difference."""
    rough = st.one_of(
        _whole_windows(_simple(), "std", "zscore", "mean"),
        st.tuples(st.just("exp"), _columns),
        st.tuples(st.just("log"), _simple()),
        _columns,
    )

    def more(below: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
        return st.one_of(
            st.tuples(st.sampled_from(["add", "sub", "mul"]), below, below),
            st.tuples(st.sampled_from(["lag", "mean", "sum"]), below, st.integers(2, 4)),
            st.tuples(st.just("where"), st.tuples(st.just("lt"), _columns, _columns), below, below),
        )

    return st.recursive(rough, more, max_leaves=6)


def columns_of() -> st.SearchStrategy[Columns]:
    """Give columns of small numbers that doubles hold exactly, some of them null or unsettled."""
    value = st.integers(-24, 24).map(lambda number: number / 8)
    cell = st.one_of(
        st.tuples(value, st.just(SETTLED)),
        st.tuples(value, st.just(SETTLED)),
        st.tuples(value, st.sampled_from([SETTLED, SETTLED, UNSETTLED])),
        st.tuples(value, st.just(SETTLED)),
        st.tuples(st.none(), st.integers(INSUFFICIENT_HISTORY, NOT_YET)),
    )
    return st.integers(1, 24).flatmap(
        lambda rows: st.fixed_dictionaries({name: st.lists(cell, min_size=rows, max_size=rows) for name in NAMES})
    )
