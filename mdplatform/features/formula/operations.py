"""The operations of formulas on columns and on single numbers: the same bits both ways.

`+ - * /`, roots and comparisons are exact in IEEE 754, so Python's floats and numpy's columns agree; what a library
approximates (`exp`, `log`, broken powers) is numpy's in both ways; a whole power is one chain of products in both.

What has no finite number for an answer (a division by 0, the logarithm of 0, an overflow) has none here either: a
column gets NaN or an infinity there, a single number the same or an exception of `NO_NUMBER`. Why is told by `reason`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.guard import DEGENERATE, DIVISION_BY_ZERO

Floats: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = Callable[..., object]
Number: TypeAlias = Callable[..., float]

GREATEST_POWER = 64
"""The bounds of an exponent: from −64 to 64."""
NO_NUMBER = (ZeroDivisionError, ValueError, OverflowError)
OR, AND, NOT, COMPARISON, ADDITION, PRODUCT, MINUS, POWER, ATOM = range(1, 10)
"""How tightly signs bind, loosest first."""


@dataclass(frozen=True, slots=True)
class Operation:
    """`columns(*arguments, out)` writes what `number(*arguments)` gives; `sign` and `precedence` are how it is written.

    `tells` says that the processor's flags are enough to know of a result that is no finite number.
    """

    arity: int
    columns: Columns
    number: Number
    sign: str = ""
    precedence: int = ATOM
    commutes: bool = False
    tells: bool = True


def _extreme(ufunc: Any) -> Columns:
    def columns(left: Any, right: Any, out: Floats) -> None:
        ufunc(left, right, out=out)

    return columns


def _compare(ufunc: Any) -> Columns:
    def columns(left: Any, right: Any, out: Floats) -> None:
        np.copyto(out, ufunc(left, right))

    return columns


def _connect(ufunc: Any) -> Columns:
    def columns(left: Any, right: Any, out: Floats) -> None:
        np.copyto(out, ufunc(np.not_equal(left, 0.0), np.not_equal(right, 0.0)))

    return columns


def _not(value: Any, out: Floats) -> None:
    np.copyto(out, np.equal(value, 0.0))


def _where(condition: Any, then: Any, otherwise: Any, out: Floats) -> None:
    np.copyto(out, otherwise)
    np.copyto(out, then, where=np.not_equal(condition, 0.0))


def _clip(value: Any, low: Any, high: Any, out: Floats) -> None:
    np.maximum(value, low, out=out)
    np.minimum(out, high, out=out)


def _exp(value: float) -> float:
    return float(np.exp(value)) if value < 709.0 else _quiet(np.exp, value)


def _log(value: float) -> float:
    return float(np.log(value)) if value > 0.0 else math.nan


def _quiet(ufunc: Any, *arguments: float) -> float:
    with np.errstate(all="ignore"):
        return float(ufunc(*arguments))


def _sign(value: float) -> float:
    return float((value > 0.0) - (value < 0.0))


OPERATIONS = {
    "add": Operation(2, np.add, operator.add, "+", ADDITION, commutes=True),
    "sub": Operation(2, np.subtract, operator.sub, "-", ADDITION),
    "mul": Operation(2, np.multiply, operator.mul, "*", PRODUCT, commutes=True),
    "div": Operation(2, np.divide, operator.truediv, "/", PRODUCT),
    "neg": Operation(1, np.negative, operator.neg, "-", MINUS),
    "lt": Operation(2, _compare(np.less), lambda a, b: float(a < b), "<", COMPARISON),
    "le": Operation(2, _compare(np.less_equal), lambda a, b: float(a <= b), "<=", COMPARISON),
    "eq": Operation(2, _compare(np.equal), lambda a, b: float(a == b), "==", COMPARISON, commutes=True),
    "ne": Operation(2, _compare(np.not_equal), lambda a, b: float(a != b), "!=", COMPARISON, commutes=True),
    "and": Operation(2, _connect(np.logical_and), lambda a, b: float(a != 0 and b != 0), " and ", AND, commutes=True),
    "or": Operation(2, _connect(np.logical_or), lambda a, b: float(a != 0 or b != 0), " or ", OR, commutes=True),
    "not": Operation(1, _not, lambda a: float(a == 0), "not ", NOT),
    "where": Operation(3, _where, lambda c, a, b: a if c != 0 else b),
    "min": Operation(2, _extreme(np.minimum), min, commutes=True),
    "max": Operation(2, _extreme(np.maximum), max, commutes=True),
    "clip": Operation(3, _clip, lambda x, low, high: min(max(x, low), high)),
    "abs": Operation(1, np.abs, abs),
    "sign": Operation(1, np.sign, _sign),
    "sqrt": Operation(1, np.sqrt, math.sqrt),
    "exp": Operation(1, np.exp, _exp, tells=False),
    "log": Operation(1, np.log, _log, tells=False),
}
"""By name; signs are written between (or before) their arguments, the others as calls. `**` is made by `power`."""


def power(exponent: float) -> Operation:
    """Give the operation `x ** exponent`."""
    if exponent.is_integer():
        whole = int(exponent)
        return Operation(1, partial(_whole_columns, whole), partial(_whole_number, whole))
    return Operation(1, partial(_broken_columns, exponent), partial(_broken_number, exponent), tells=False)


def reason(name: str, exponent: float, arguments: Sequence[Any]) -> Any:
    """Give the status of results that are no finite number; `arguments` are numbers or columns. 0 / 0 is degenerate."""
    if name == "div" or (name == "pow" and exponent < 0):
        dividend = arguments[0] if name == "div" else 1.0
        by_zero = np.equal(arguments[-1], 0.0) & np.not_equal(dividend, 0.0)
        return np.where(by_zero, np.int8(DIVISION_BY_ZERO), np.int8(DEGENERATE))
    return np.int8(DEGENERATE)


def _whole_number(exponent: int, base: float) -> float:
    product = 1.0 if exponent == 0 else base
    for bit in bin(abs(exponent))[3:]:
        product = product * product * base if bit == "1" else product * product
    return 1.0 / product if exponent < 0 else product


def _whole_columns(exponent: int, base: Any, out: Floats) -> None:
    np.copyto(out, 1.0 if exponent == 0 else base)
    for bit in bin(abs(exponent))[3:]:
        np.multiply(out, out, out=out)
        if bit == "1":
            np.multiply(out, base, out=out)
    if exponent < 0:
        np.divide(1.0, out, out=out)


def _broken_number(exponent: float, base: float) -> float:
    return _quiet(np.power, base, exponent)


def _broken_columns(exponent: float, base: Any, out: Floats) -> None:
    np.power(base, exponent, out=out)
