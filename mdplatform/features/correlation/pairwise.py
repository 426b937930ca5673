"""Correlation of many columns by matrix products, over the rows that each pair has in common.

1. Where nothing is missing, columns are centred, scaled to length 1 and multiplied: one product.
2. Else four products give, for each pair, the number of common rows (or their weight) and the sums of `x`, `x²` and
   `xy` over them. Three of them are taken against the distinct *patterns* of missing rows alone: series that share
   one, such as all that are complete, share its column.
3. Sums are taken about each column's own mean, and of numbers scaled to 1, so large levels cost no digits. Where a
   pair's common rows still cancel (its variance is a hundredth of the sum of squares, or rounding of its level), it is
   computed by itself, in two passes (`pair_kernels`).

A product of a matrix with its own transpose is symmetric to the last bit, and so is all that follows from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.talib_functions import Floats

_CANCELLED = 1e-2
_STRAY = 1e-14
_TINY = 1e-100
_BLOCK = 1 << 16
_CONSTANT = 8 * np.finfo(np.float64).eps


@dataclass(frozen=True, eq=False)
class Pairs:
    """For each pair: its correlation (NaN where null), its common rows, and whether a series is constant on them."""

    correlation: Floats
    observations: NDArray[np.int64]
    degenerate: NDArray[np.bool_]


def pearson(values: Floats, least: int, half_life: float | None = None) -> Pairs:
    """Give Pearson's correlation of each pair of columns of `values` (rows × columns, NaN where missing).

    A pair with fewer than `least` common rows has none. With a `half_life` rows weigh half as much after so many rows,
    counted from the newest. The matrix is symmetric to the last bit, within [−1, 1], and 1 on its diagonal.
    """
    low, high = _extremes(values)
    if len(values) and not np.isnan(low).any():
        return complete(values, least, half_life, low, high)
    present = ~np.isnan(values)
    first, pattern = patterns(present)
    if len(first) == 1 and half_life is None:  # one pattern for all: its rows are complete
        whole = np.ascontiguousarray(values[present[:, first[0]]])
        return complete(whole, least, half_life, *_extremes(whole))
    return _incomplete(values, present, first, pattern, least, half_life)


def complete(values: Floats, least: int, half_life: float | None, low: Floats, high: Floats) -> Pairs:
    """Do what `pearson` does where nothing is missing; `low` and `high` are each column's extremes."""
    rows, columns = values.shape
    observations = np.broadcast_to(np.int64(rows), (columns, columns))
    constant = is_constant(low, high)
    if rows < max(least, 1):
        nothing = np.full((columns, columns), np.nan)
        return Pairs(nothing, observations, np.zeros((columns, columns), np.bool_))
    weights = None if half_life is None else weights_of(rows, half_life)
    centred = values - (values.mean(axis=0) if weights is None else weights @ values / weights.sum())
    if (high - low < _TINY).any():
        centred /= np.where(high > low, high - low, 1.0)
    if weights is not None:
        centred *= np.sqrt(weights)[:, None]
        centred -= np.sqrt(weights)[:, None] * (np.sqrt(weights) @ centred / weights.sum())
    else:
        centred -= centred.mean(axis=0)
    length = np.sqrt(np.einsum("tn,tn->n", centred, centred))
    centred /= np.where(length > 0, length, 1.0)
    correlation = centred.T @ centred
    finish(correlation, constant | (length == 0))
    if constant.any():
        return Pairs(correlation, observations, constant[:, None] | constant[None, :])
    return Pairs(correlation, observations, np.broadcast_to(np.zeros((), np.bool_), (columns, columns)))


def _incomplete(
    values: Floats,
    present: NDArray[np.bool_],
    first: NDArray[np.int64],
    pattern: NDArray[np.int64],
    least: int,
    half_life: float | None,
) -> Pairs:
    rows, columns = values.shape
    weights = np.ones(rows) if half_life is None else weights_of(rows, half_life)
    low, high = (np.where(np.isnan(each), 0.0, each) for each in _extremes(values, ignore_missing=True))
    held = weights @ present
    filled = np.where(present, values, 0.0)
    centre = weights @ filled / np.where(held > 0, held, 1.0)
    scale = np.maximum(high - centre, centre - low)
    scale = np.where(scale > 0, scale, 1.0)
    centred = np.where(present, (filled - centre) / scale, 0.0)
    masks = present[:, first].astype(np.float64)
    counts = masks.T @ masks
    if half_life is None:
        weighed, weighty, common = centred, centred, counts
    else:
        root = np.sqrt(weights)[:, None]
        weighed, weighty = centred * root, centred * weights[:, None]
        common = (masks * root).T @ (masks * root)
    correlation = weighed.T @ weighed
    shifts, deviations = weighty.T @ masks, (weighed * weighed).T @ masks
    level = np.maximum(np.abs(low), np.abs(high)) / scale
    sound = np.empty(shifts.shape, np.bool_)
    for part in _blocks(columns):
        sound[part] = _moments(shifts[part], deviations[part], common[pattern[part]], level[part])
    for part in _blocks(columns):
        ours, theirs = (shifts[part], deviations[part]), (shifts[:, pattern[part]].T, deviations[:, pattern[part]].T)
        if len(first) < columns:
            ours = ours[0][:, pattern], ours[1][:, pattern]
        correlation[part] -= ours[0] * theirs[0]
        correlation[part] /= ours[1] * theirs[1]
        np.clip(correlation[part], -1.0, 1.0, out=correlation[part])
    np.fill_diagonal(correlation, 1.0)

    observations = _spread(counts.astype(np.int64), pattern)
    nothing = np.broadcast_to(np.zeros((), np.bool_), (columns, columns))
    constant = is_constant(low, high)
    if sound.all() and not constant.any() and counts.min() >= least:
        return Pairs(correlation, observations, nothing)
    few = observations < least
    degenerate = (constant[:, None] | constant[None, :]) & ~few
    sound = sound[:, pattern]
    left, right = np.nonzero(np.triu(~(sound & sound.T) & ~few & ~degenerate))
    if len(left):
        from mdplatform.features.correlation.pair_kernels import exact_pairs

        exact = exact_pairs(np.ascontiguousarray(values.T), left, right, half_life or 0.0)
        exact[(left == right) & ~np.isnan(exact)] = 1.0
        correlation[left, right] = correlation[right, left] = exact
        lost = np.isnan(exact)
        degenerate[left[lost], right[lost]] = degenerate[right[lost], left[lost]] = True
    correlation[few | degenerate] = np.nan
    return Pairs(correlation, observations, degenerate)


def _moments(sums: Floats, squares: Floats, common: Floats, level: Floats) -> NDArray[np.bool_]:
    """Turn sums into shifts (sum / √n) and squares into deviations (√ of n times the variance), in place.

    Tells where that cost no digits; where it did, a shift is 0 and a deviation 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        sums /= np.sqrt(common)
        variances = squares - sums * sums
        sound = variances > _CANCELLED * squares
        sound &= variances > common * (_STRAY * level[:, None]) ** 2
        sound &= common > _TINY
    np.sqrt(variances, out=squares, where=sound)
    if not sound.all():
        sums[~sound], squares[~sound] = 0.0, 1.0
    return sound


def _blocks(columns: int) -> Iterator[slice]:
    """Cut rows of a matrix into parts that stay in the processor's cache."""
    size = max(1, _BLOCK // max(columns, 1))
    return (slice(start, min(start + size, columns)) for start in range(0, columns, size))


def _spread(of_patterns: NDArray[np.int64], pattern: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(of_patterns) == len(pattern):
        return of_patterns
    spread: NDArray[np.int64] = of_patterns[pattern][:, pattern]
    return spread


def finish(correlation: Floats, constant: NDArray[np.bool_]) -> None:
    """Keep a matrix within its bounds, in place: [−1, 1], and 1 on the diagonal; null where a series is constant."""
    np.clip(correlation, -1.0, 1.0, out=correlation)
    np.fill_diagonal(correlation, 1.0)
    if constant.any():
        correlation[constant] = np.nan
        correlation[:, constant] = np.nan


def patterns(present: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the distinct columns of `present`: where each comes first, and which one each column is."""
    columns = present.shape[1]
    if not len(present):
        return np.zeros(1, np.int64), np.zeros(columns, np.int64)
    packed = np.ascontiguousarray(np.packbits(present, axis=0).T)
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, pattern = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == columns:  # in their own order nothing has to be spread
        return np.arange(columns), np.arange(columns)
    return first, pattern


def weights_of(rows: int, half_life: float) -> Floats:
    """Give each row's weight: 1 for the newest, half as much after `half_life` rows."""
    weights: Floats = np.exp2(-np.arange(rows)[::-1] / half_life)
    return weights


def is_constant(low: Floats, high: Floats) -> NDArray[np.bool_]:
    """Tell which series differ by no more than rounding: `max − min <= 8 ε max|x|`."""
    constant: NDArray[np.bool_] = high - low <= _CONSTANT * np.maximum(np.abs(low), np.abs(high))
    return constant


def _extremes(values: Floats, ignore_missing: bool = False) -> tuple[Floats, Floats]:
    if not len(values):
        nothing = np.full(values.shape[1], np.nan)
        return nothing, nothing
    if ignore_missing:
        return np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
    return values.min(axis=0), values.max(axis=0)
