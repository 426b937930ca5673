"""The functions of formulas that look at several rows, a row at a time: the bits of `formula.windows`.

A window is put together of blocks whose lengths are powers of 2, each block of its two halves, newest first, as there.
Here each length of blocks keeps those that are still to be put together, so that a row costs a step for each length and
not one for each row of the window. NaN stands for what is null; it leaves with the rows that have it.
"""

from __future__ import annotations

from collections import deque
from math import isnan, nan, sqrt
from typing import Protocol


class LiveWindow(Protocol):
    """One function over rows: `value` gives it with `newest` as the next row, `push` makes that row one of the past."""

    def value(self, newest: float) -> float:
        """Give the value of the window that ends with `newest`; NaN where it is not full, or one of it is NaN."""
        ...

    def push(self) -> None:
        """Take in what `value` was given last."""
        ...


def live_window(kind: str, length: int) -> LiveWindow:
    """Give the function of that kind (`nodes.WINDOWS`), over no rows yet."""
    if kind == "lag":
        return _Lag(length)
    return _Rank(length) if kind == "rank" else _Blocks(kind, length)


class _Lag:
    def __init__(self, length: int) -> None:
        self._past = deque([nan] * length, length)
        self._newest = nan

    def value(self, newest: float) -> float:
        self._newest = newest
        return self._past[0]

    def push(self) -> None:
        self._past.append(self._newest)


class _Rank:
    def __init__(self, length: int) -> None:
        self._length = length
        self._past = deque([nan] * (length - 1), length - 1)
        self._newest = nan
        self._full_in = length - 1

    def value(self, newest: float) -> float:
        self._newest = newest
        if self._full_in or isnan(newest):
            return nan
        below = sum(1 for each in self._past if each < newest)
        equal = 1 + self._past.count(newest)
        return (below + (equal + 1.0) / 2.0) / self._length

    def push(self) -> None:
        self._past.append(self._newest)
        self._full_in = self._length - 1 if isnan(self._newest) else max(0, self._full_in - 1)


class _Blocks:
    """`sum`, `mean` and `std`: `_sums[k]` keeps the sums of blocks of 2ᵏ rows, newest last, `_squares` likewise.

    Squares are those of deviations from a block's mean.
    """

    def __init__(self, kind: str, length: int) -> None:
        self._kind, self._length = kind, length
        self._parts = [(size, covered) for size, covered in _parts(length)]
        kept = [max(size, covered) for size, covered in self._parts]
        self._sums = [deque([nan] * each, each) for each in kept]
        self._squares = [deque([nan] * each, each) for each in kept]
        self._same = 0
        self._last = nan
        self._pending: tuple[list[float], list[float], int, float] = ([], [], 0, nan)

    def value(self, newest: float) -> float:
        same = self._same + 1 if newest == self._last else 1
        block, square, total, total_square = newest, 0.0, nan, nan
        sums, squares = [], []
        is_std = self._kind == "std"
        taken = 0
        for at, (size, covered) in enumerate(self._parts):
            if at:
                half = size // 2
                older = self._sums[at - 1][-half]
                if is_std:
                    apart = block - older
                    square = square + self._squares[at - 1][-half] + apart * apart / (2 * half)
                block = block + older
            sums.append(block)
            squares.append(square)
            if not self._length & size:
                continue
            if not taken:
                total, total_square = block, square
            else:
                older = self._sums[at][-covered]
                if is_std:
                    apart = total / covered - older / size
                    weight = covered * size / (covered + size)
                    total_square = total_square + self._squares[at][-covered] + apart * apart * weight
                total = total + older
            taken += size
        self._pending = (sums, squares, same, newest)
        if self._kind == "sum":
            return total
        if same >= self._length:
            return newest if self._kind == "mean" else 0.0
        return total / self._length if self._kind == "mean" else sqrt(total_square / self._length)

    def push(self) -> None:
        sums, squares, self._same, self._last = self._pending
        for past, each in zip(self._sums, sums, strict=True):
            past.append(each)
        for past, each in zip(self._squares, squares, strict=True):
            past.append(each)


def _parts(length: int) -> list[tuple[int, int]]:
    """Give the sizes of blocks up to the largest in `length`, and how many rows are covered before each is added.

    >>> _parts(5), _parts(6)
    ([(1, 0), (2, 1), (4, 1)], [(1, 0), (2, 0), (4, 2)])
    """
    parts, covered, size = [], 0, 1
    while covered < length:
        parts.append((size, covered))
        covered += length & size
        size *= 2
    return parts
