"""Spearman's correlation: Pearson's of ranks, ties at their average rank, over the rows that each pair has in common.

Columns that miss the same rows, or none, are ranked once and multiplied. Every other pair is ranked within its own
common rows; with the columns sorted once, that takes time in proportion to the rows, some 10 µs for 1,000 of them. So
2,000 series each with holes of its own take half a minute, and where a few were listed later it is a second or two.
"""

from __future__ import annotations

import numpy as np

from mdplatform.features.correlation.pairwise import Pairs, complete, patterns
from mdplatform.features.talib_functions import Floats


def spearman(values: Floats, least: int) -> Pairs:
    """Give Spearman's correlation of each pair of columns of `values` (rows × columns, NaN where missing).

    Null where fewer than `least` rows are common, or where all values of a series are equal on them.
    """
    present = ~np.isnan(values)
    first, pattern = patterns(present)
    if len(first) == 1:
        return _alike(values[present[:, first[0]]], least)
    masks = present[:, first].astype(np.float64)
    observations = (masks.T @ masks).astype(np.int64)[pattern][:, pattern]
    correlation = np.full(observations.shape, np.nan)
    for number in range(len(first)):
        columns = np.flatnonzero(pattern == number)
        whole = np.ix_(present[:, first[number]], columns)
        correlation[np.ix_(columns, columns)] = _alike(values[whole], least).correlation
    left, right = np.nonzero(np.triu((observations >= least) & (pattern[:, None] != pattern[None, :])))
    if len(left):
        from mdplatform.features.correlation.pair_kernels import rank_correlations

        by_column = np.ascontiguousarray(values.T)
        orders = np.argsort(by_column, axis=1)
        found = rank_correlations(by_column, orders, np.ascontiguousarray(present.T), left, right)
        correlation[left, right] = correlation[right, left] = found
    return Pairs(correlation, observations, np.isnan(correlation) & (observations >= least))


def _alike(values: Floats, least: int) -> Pairs:
    """Do it for columns without a hole."""
    ranked = average_ranks(values)
    low, high = (ranked.min(axis=0), ranked.max(axis=0)) if len(ranked) else np.zeros((2, values.shape[1]))
    return complete(ranked, max(least, 1), None, low, high)


def average_ranks(values: Floats) -> Floats:
    """Give the ranks of each column, from 1; equal values share the average of theirs.

    >>> average_ranks(np.array([[3.0], [1.0], [3.0]])).ravel().tolist()
    [2.5, 1.0, 2.5]
    """
    rows, columns = values.shape
    by_column = np.ascontiguousarray(values.T)
    order = np.argsort(by_column, axis=1)
    ordered = np.take_along_axis(by_column, order, axis=1)
    starts = np.ones((columns, rows), np.bool_)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    edges = np.flatnonzero(starts)
    lengths = np.diff(np.append(edges, starts.size))
    middle = edges % max(rows, 1) + (lengths + 1) / 2
    ranks = np.empty((columns, rows))
    np.put_along_axis(ranks, order, np.repeat(middle, lengths).reshape(columns, rows), axis=1)
    return np.ascontiguousarray(ranks.T)
