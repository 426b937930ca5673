"""Volume profiles by hand: exact fractions, lists and loops, written apart from the kernels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

Rows = dict[int, Fraction]


class Levels(NamedTuple):
    """The rows of the point of control and of the value area's ends."""

    control: int
    low: int
    high: int


def rows_of_trades(trades: Iterable[tuple[Fraction, Fraction]], size: Fraction) -> Rows:
    """Put each trade's quantity in the row of its price."""
    rows: Rows = {}
    for price, quantity in trades:
        row = math.floor(price / size)
        rows[row] = rows.get(row, Fraction(0)) + quantity
    return {row: volume for row, volume in rows.items() if volume}


def rows_of_bars(bars: Iterable[tuple[Fraction, Fraction, Fraction]], size: Fraction) -> Rows:
    """Spread the volume of each bar (low, high, volume) evenly over its rows."""
    rows: Rows = {}
    for low, high, volume in bars:
        touched = range(math.floor(low / size), math.floor(high / size) + 1)
        for row in touched:
            rows[row] = rows.get(row, Fraction(0)) + volume / len(touched)
    return {row: volume for row, volume in rows.items() if volume}


def levels(rows: Mapping[int, Fraction], share: Fraction, algorithm: str) -> Levels:
    """Find the point of control and the value area."""
    first, last = min(rows), max(rows)
    most = max(rows.values())
    middle = Fraction(first + last, 2)
    control = sorted((abs(row - middle), row) for row, volume in rows.items() if volume == most)[0][1]
    at_a_time = {"one_row": 1, "two_row": 2}[algorithm]
    above = list(range(control + 1, last + 1))
    below = list(range(control - 1, first - 1, -1))
    inside = [control]
    wanted = share * sum(rows.values())
    while sum(rows.get(row, Fraction(0)) for row in inside) < wanted:
        up, down = above[:at_a_time], below[:at_a_time]
        upper = sum((rows.get(row, Fraction(0)) for row in up), Fraction(0))
        lower = sum((rows.get(row, Fraction(0)) for row in down), Fraction(0))
        if up and (not down or upper >= lower):
            inside, above = inside + up, above[at_a_time:]
        else:
            inside, below = inside + down, below[at_a_time:]
    return Levels(control, min(inside), max(inside))
