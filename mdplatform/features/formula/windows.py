"""The functions of formulas that look at several rows: `lag`, and windows' sums, deviations and ranks.

No sum runs on: a window of n rows is put together of blocks whose lengths are the powers of 2 in n, and each block of
its two halves, newest first. So a value depends on the rows of its window and nothing else, in one fixed order: it is
the same to the bit wherever history begins, it does not drift, and one bad row is forgotten when it has left. That
takes log2(n) passes over the column. Deviations are merged as Chan, Golub and LeVeque do ("Updating formulae and a
pairwise algorithm for computing sample variances", 1979), which loses nothing where the mean is large; a window of
equal values has a deviation of 0 exactly.

Rows that lack n rows before them get whatever: their codes say so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.formula.blocks import CODES, Codes, Column
from mdplatform.features.formula.operations import Floats
from mdplatform.features.guard import DEGENERATE, INSUFFICIENT_HISTORY, UNSETTLED

_FEW = 48
_NO_HISTORY = int(CODES[INSUFFICIENT_HISTORY])


def over_rows(kind: str, length: int, over: Column) -> Column:
    """Give a function of several rows (`nodes.WINDOWS`) of a column, and why it is null where it is."""
    codes = np.zeros(len(over.values), np.int8) if over.codes is None else over.codes
    with np.errstate(all="ignore"):
        if kind == "lag":
            values, codes = shifted(over.values, length), _shifted_codes(codes, length)
        else:
            values, codes = _FUNCTIONS[kind](over.values, length), _greatest_codes(codes, length)
    broken = ~np.isfinite(values) & (codes <= UNSETTLED)
    codes = np.where(broken, CODES[DEGENERATE], codes)
    return Column(np.where(codes > UNSETTLED, np.nan, values), codes if codes.any() else None)


def shifted(values: Floats, rows: int) -> Floats:
    """Give each row the value of `rows` rows before."""
    out = np.full(len(values), np.nan)
    if rows < len(values):
        out[rows:] = values[: len(values) - rows]
    return out


def _shifted_codes(codes: Codes, rows: int) -> Codes:
    out = np.full(len(codes), _NO_HISTORY, np.int8)
    if rows < len(codes):
        out[rows:] = codes[: len(codes) - rows]
    return out


def _greatest_codes(codes: Codes, length: int) -> Codes:
    """Give the greatest code of each window; one that begins before the first row lacks history."""
    out = codes.copy()
    covered = 1
    while covered < min(length, len(codes)):
        step = min(covered, length - covered)
        out[step:] = np.maximum(out[step:], out[: len(out) - step].copy())
        covered += step
    out[: length - 1] = _NO_HISTORY
    return out


def sums(values: Floats, length: int) -> Floats:
    """Give the sum of each window."""
    return _moments(values, length, deviations=False)[0]


def means(values: Floats, length: int) -> Floats:
    """Give the mean of each window."""
    return np.where(_is_flat(values, length), values, sums(values, length) / length)


def deviations(values: Floats, length: int) -> Floats:
    """Give the standard deviation of each window, of the population (divided by n), as TA-Lib's STDDEV."""
    squares = _moments(values, length, deviations=True)[1]
    squares[_is_flat(values, length)] = 0.0
    return np.sqrt(squares / length)


def ranks(values: Floats, length: int) -> Floats:
    """Give the rank of the newest value of each window as a share: 1 for the highest; ties share their mean rank.

    It is what `pandas.Series.rolling(n).rank(pct=True)` gives.
    """
    if length <= _FEW:
        below, equal = np.zeros(len(values)), np.ones(len(values))
        for back in range(1, min(length, len(values))):
            below[back:] += values[:-back] < values[back:]
            equal[back:] += values[:-back] == values[back:]
    else:
        from mdplatform.features.formula.rank_kernel import count

        places = np.unique(values, return_inverse=True)[1].astype(np.int64)
        below, equal = count(places, length, int(places.max(initial=0)) + 1)
    return (below + (equal + 1.0) / 2.0) / length


_FUNCTIONS = {"sum": sums, "mean": means, "std": deviations, "rank": ranks}


def _moments(values: Floats, length: int, *, deviations: bool) -> tuple[Floats, Floats]:
    """Give the sum of each window and, if wanted, its sum of squared deviations from its mean."""
    block, block_squares = values, np.zeros(len(values)) if deviations else values
    size = 1
    total = total_squares = np.empty(0)
    covered = 0
    while True:
        if length & size:
            if covered == 0:
                total, total_squares = block.copy(), block_squares.copy()
            else:
                older = shifted(block, covered)
                if deviations:
                    apart = total / covered - older / size
                    weight = covered * size / (covered + size)
                    total_squares = total_squares + shifted(block_squares, covered) + apart * apart * weight
                total = total + older
            covered += size
        if covered == length or size >= len(values):
            break
        older = shifted(block, size)
        if deviations:
            apart = block - older
            block_squares = block_squares + shifted(block_squares, size) + apart * apart / (2 * size)
        block = block + older
        size *= 2
    if covered != length:
        return np.full(len(values), np.nan), np.full(len(values), np.nan)
    return total, total_squares


def _is_flat(values: Floats, length: int) -> NDArray[np.bool_]:
    """Tell which windows hold one value only."""
    rows = np.arange(len(values))
    changed = np.ones(len(values), np.bool_)
    changed[1:] = values[1:] != values[:-1]
    flat: NDArray[np.bool_] = rows - np.maximum.accumulate(np.where(changed, rows, 0)) >= length - 1
    return flat
