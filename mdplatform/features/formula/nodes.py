"""Formulas as graphs of nodes, built from the leaves up in canonical form: equal parts are one node.

Each node carries its text in full, which reads back as the same node; so one text is one computation. Of operations
that commute the arguments are put in one order, `a > b` is `b < a`, and what consists of numbers is a number. Nothing
here calls itself, however deep a formula is; its size is bounded by the number of nodes and by its text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

from mdplatform.features.formula.operations import (
    ATOM,
    COMPARISON,
    GREATEST_POWER,
    MINUS,
    NO_NUMBER,
    OPERATIONS,
    POWER,
    power,
)
from mdplatform.features.formula.tokens import MAXIMUM_LENGTH
from mdplatform.features.spec import FORMULA, FeatureSpec, value_text
from mdplatform.market.timeframe import Timeframe

HIGHEST_VERSION = 1_000_000
"""Of composites."""
MOST_NODES = 1_000
DEEPEST = 32
LONGEST_WINDOW = 100_000
LONGEST_HISTORY = 1_000_000
FEWEST_ROWS = 16
MOST_CELLS = 16_000_000
"""The most cells of columns (inputs and windows) in the rows that a formula may look back: 140 MB."""
WINDOWS = {"lag": 1, "diff": 1, "sum": 1, "mean": 1, "std": 2, "zscore": 2, "rank": 2}
"""The functions of several rows, with the smallest length of each."""

FUNCTIONS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("abs", "log", "sqrt", "exp", "sign"), (1, 1)),
    **dict.fromkeys(("where", "clip"), (3, 3)),
    **dict.fromkeys(("min", "max"), (2, 100)),
    **dict.fromkeys(WINDOWS, (2, 2)),
}
"""The functions of the language, written in small letters, and how many arguments each takes."""


_COLUMNS = {"column": 1, "feature": 1, **dict.fromkeys(WINDOWS, 1), "zscore": 2}


class RefusedError(Exception):
    """Why nodes cannot be put together; whoever knows the column makes an `InvalidFormula` of it."""

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy


@dataclass(frozen=True, eq=False)
class Node:
    """One part of a formula. `kind` is `number`, `column`, `feature`, `pow`, one of `OPERATIONS` or of `WINDOWS`.

    `value` is the number, or the exponent; `length` the rows of a window; `spec` the feature, where that is what it is.
    `precedence` and `nesting` are those of its text. `rows` is how many rows before a row it looks at of its leaves.
    """

    kind: str
    text: str
    precedence: int = ATOM
    nesting: int = 0
    arguments: tuple[Node, ...] = ()
    value: float = 0.0
    length: int = 0
    spec: FeatureSpec | None = None
    rows: int = 0

    @property
    def is_number(self) -> bool:
        """Whether it is a number."""
        return self.kind == "number"


@dataclass
class Nodes:
    """The nodes of one formula, each once. Raises `RefusedError` for what cannot be."""

    by_text: dict[str, Node] = field(default_factory=dict)
    columns: int = 0
    rows: int = 0

    def number(self, value: float) -> Node:
        """Give a number."""
        if not isfinite(value):
            raise RefusedError("It has no finite value")
        value = value + 0.0
        text = value_text(value) if abs(value) < 1e15 else repr(value)
        return self._kept(Node("number", text, MINUS if value < 0 else ATOM, value=value))

    def column(self, name: str) -> Node:
        """Give a column of the bars."""
        return self._kept(Node("column", name))

    def feature(self, spec: FeatureSpec) -> Node:
        """Give a feature with one output; one that is a formula is not to be of the row's own place."""
        text = f"{_name(spec)}{_place(spec)}"
        return self._kept(Node("feature", text, nesting=_depth(text), spec=spec))

    def placed(self, node: Node, symbol: str | None, timeframe: Timeframe | None) -> Node:
        """Give a part as it is at another symbol or timeframe."""
        if node.is_number:
            return node
        spec = as_spec(node)
        if (symbol and spec.symbol) or (timeframe and spec.timeframe):
            raise RefusedError("It has a symbol or a timeframe already", "Name each once")
        return self.feature(spec.placed(symbol or spec.symbol, timeframe or spec.timeframe))

    def power(self, base: Node, exponent: Node) -> Node:
        """Give `base ** exponent`."""
        remedy = f"A number from -{GREATEST_POWER} to {GREATEST_POWER}; exp(x) grows with x"
        if not exponent.is_number:
            raise RefusedError("An exponent that is no number", remedy)
        if abs(exponent.value) > GREATEST_POWER:
            raise RefusedError("An exponent that is too large", remedy)
        if base.is_number:
            return self.number(_result(power(exponent.value).number, [base.value]))
        text = f"{_within(base, ATOM)}**{_within(exponent, MINUS)}"
        nesting = _nesting(base, ATOM)
        return self._kept(
            Node("pow", text, POWER, nesting, (base,), value=exponent.value, rows=base.rows),
        )

    def operation(self, kind: str, *arguments: Node) -> Node:
        """Give one of `OPERATIONS`, or `gt` or `ge`."""
        if kind in ("gt", "ge"):
            return self.operation("lt" if kind == "gt" else "le", *reversed(arguments))
        if kind in ("min", "max"):
            return self._extreme(kind, arguments)
        operation = OPERATIONS[kind]
        if all(each.is_number for each in arguments):
            return self.number(_result(operation.number, [each.value for each in arguments]))
        if kind == "neg" and arguments[0].kind == "neg":
            return arguments[0].arguments[0]
        bounds = [each.value for each in arguments[1:] if each.is_number]
        if kind == "clip" and len(bounds) == 2 and bounds[0] > bounds[1]:
            raise RefusedError("The lower bound is above the upper one", "Write clip(x, low, high)")
        if operation.commutes:
            chained = operation.precedence
            arguments = tuple(
                sorted(
                    arguments, key=lambda each: (each.precedence != chained, each.is_number, -each.nesting, each.text)
                )
            )
        rows = max(each.rows for each in arguments)
        if not operation.sign:
            return self._kept(_call(kind, arguments, rows))
        own = operation.precedence
        if len(arguments) == 1:
            text, nesting = f"{operation.sign}{_within(arguments[0], own)}", 1 + _nesting(arguments[0], own)
        else:
            left, right = arguments
            left_needs = own + (own == COMPARISON)
            text = f"{_within(left, left_needs)}{operation.sign}{_within(right, own + 1)}"
            nesting = max(_nesting(left, left_needs), _nesting(right, own + 1))
        return self._kept(Node(kind, text, own, nesting, tuple(arguments), rows=rows))

    def window(self, kind: str, over: Node, length: Node) -> Node:
        """Give one of `WINDOWS` over a part."""
        least = WINDOWS[kind]
        shift = kind in ("lag", "diff")
        what = "shift" if shift else "length"
        remedy = f"A whole number from {least} to {LONGEST_WINDOW:,}"
        if not length.is_number or not length.value.is_integer():
            raise RefusedError(f"The {what} of {kind} is no whole number", remedy)
        if shift and length.value < 0:
            raise RefusedError("A shift into the future", f"{remedy}: how many rows ago")
        if not least <= length.value <= LONGEST_WINDOW:
            raise RefusedError(f"The {what} of {kind} is out of range", remedy)
        if over.is_number:
            raise RefusedError(f"{kind} of a number", "It takes something that changes from row to row")
        count = int(length.value)
        if count == 1 and kind in ("sum", "mean"):
            return over
        rows = over.rows + (count if shift else count - 1)
        if rows > LONGEST_HISTORY:
            raise RefusedError("Windows in windows reach too far back", f"At most {LONGEST_HISTORY:,} rows in all")
        made = _call(kind, (over,), rows, str(count))
        return self._kept(Node(kind, made.text, nesting=made.nesting, arguments=(over,), length=count, rows=rows))

    def _extreme(self, kind: str, arguments: Sequence[Node]) -> Node:
        """Give the least or greatest of any number of arguments, those of its own kind within it flattened."""
        flat: dict[str, Node] = {}
        numbers: list[float] = []
        for each in arguments:
            for part in each.arguments if each.kind == kind else (each,):
                if part.is_number:
                    numbers.append(part.value)
                else:
                    flat[part.text] = part
        if numbers:
            bound = self.number(min(numbers) if kind == "min" else max(numbers))
            flat[bound.text] = bound
        if len(flat) == 1:
            return next(iter(flat.values()))
        ordered = tuple(sorted(flat.values(), key=lambda each: (each.is_number, each.text)))
        return self._kept(_call(kind, ordered, max(each.rows for each in ordered)))

    def _kept(self, node: Node) -> Node:
        known = self.by_text.get(node.text)
        if known is not None and known.kind == node.kind:
            return known
        if len(self.by_text) >= MOST_NODES:
            raise RefusedError(f"It has more than {MOST_NODES:,} parts", "Register parts of it, or write it shorter")
        if len(node.text) > MAXIMUM_LENGTH:
            raise RefusedError(
                f"Written out in full it has more than {MAXIMUM_LENGTH:,} characters", "Write it shorter"
            )
        if node.nesting > DEEPEST:
            raise RefusedError(f"Written out in full it nests more than {DEEPEST} deep", "Write it flatter")
        if node.kind in _COLUMNS:
            columns, rows = self.columns + _COLUMNS[node.kind], max(self.rows, node.rows)
            if columns * rows_back(rows) > MOST_CELLS:
                told = f"{columns:,} inputs and windows that reach {rows:,} rows back"
                raise RefusedError(f"It would have {told}", f"At most {MOST_CELLS:,} cells in all: fewer, or shorter")
            self.columns, self.rows = columns, rows
        self.by_text[node.text] = node
        return node


def rows_back(rows: int) -> int:
    """Give the rows that a formula looking back so many is given: 16 × 4ⁿ, so that formulas share what they read.

    >>> rows_back(0), rows_back(17)
    (16, 64)
    """
    given = FEWEST_ROWS
    while given < rows:
        given *= 4
    return given


def as_spec(node: Node) -> FeatureSpec:
    """Give what a part is as a feature: the feature itself where it is one, else a formula. Its text is canonical."""
    return node.spec if node.spec is not None else FeatureSpec(FORMULA, (("text", node.text),), ())


def _result(number: object, values: Sequence[float]) -> float:
    try:
        return float(number(*values))  # type: ignore[operator]
    except NO_NUMBER:
        raise RefusedError("It has no finite value") from None


def _call(kind: str, arguments: Sequence[Node], rows: int, *more: str) -> Node:
    inside = ",".join([*(each.text for each in arguments), *more])
    nesting = 1 + max(each.nesting for each in arguments)
    return Node(kind, f"{kind}({inside})", nesting=nesting, arguments=tuple(arguments), rows=rows)


def _name(spec: FeatureSpec) -> str:
    """Write a feature as a call, `MACD_MACDHIST(…)` where it is one output of several, or a formula in parentheses."""
    if spec.name == FORMULA:
        return str(spec)  # in parentheses where it needs them, since it is placed
    name = f"{spec.name}_{spec.output.upper()}" if spec.output else spec.name
    inside = str(replace(spec, output=None)).partition("(")[2].removesuffix(")")
    return f"{name}({inside})"


def _place(spec: FeatureSpec) -> str:
    """Write a feature's place, `@ETHUSDT@1h`; a symbol that is no plain word stands in quotes."""
    symbol = "" if spec.symbol is None else spec.symbol
    symbol = f'@"{symbol}"' if re.search(r"\W", symbol) else f"@{symbol}" if symbol else ""
    return symbol + (f"@{spec.timeframe}" if spec.timeframe else "")


def _depth(text: str) -> int:
    depth = deepest = 0
    for mark in re.findall(r"[()]", text):
        depth += 1 if mark == "(" else -1
        deepest = max(depth, deepest)
    return deepest


def _within(node: Node, least: int) -> str:
    return node.text if node.precedence >= least else f"({node.text})"


def _nesting(node: Node, least: int) -> int:
    return node.nesting + (node.precedence < least)
