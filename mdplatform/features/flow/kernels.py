"""The loops over trades that order flow's sums are made by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.compiled import compiled
from mdplatform.features.talib_functions import Floats


@compiled
def sum_sides(
    counts: NDArray[np.int64], price: Floats, quantity: Floats, is_buy: NDArray[np.bool_]
) -> tuple[Floats, Floats, Floats]:
    """Give for each i what was bought, sold and turned over in the trades `[counts[i], counts[i + 1])`."""
    rows = len(counts) - 1
    bought, sold, quote = np.zeros(rows), np.zeros(rows), np.zeros(rows)
    for row in range(rows):
        buys, sells, worth = 0.0, 0.0, 0.0
        for trade in range(counts[row], counts[row + 1]):
            share = 1.0 if is_buy[trade] else 0.0  # to branch to a sum would be guessed wrong half the time
            buys += quantity[trade] * share
            sells += quantity[trade] * (1.0 - share)
            worth += price[trade] * quantity[trade]
        bought[row], sold[row], quote[row] = buys, sells, worth
    return bought, sold, quote


@compiled
def size_quantiles(quantity: Floats, first: NDArray[np.int64], after: NDArray[np.int64], part: float) -> Floats:
    """Give the quantile of `quantity[first[i]:after[i]]` for each i, linear between trades; NaN of none."""
    values = np.full(len(first), np.nan)
    for row in range(len(first)):
        count = after[row] - first[row]
        if count > 0:
            ranked = np.sort(quantity[first[row] : after[row]])
            place = part * (count - 1)
            low = int(place)
            high = min(low + 1, count - 1)
            values[row] = ranked[low] + (ranked[high] - ranked[low]) * (place - low)
    return values


@compiled
def sliding_quantiles(
    ranked: Floats, ranks: NDArray[np.int64], first: NDArray[np.int64], after: NDArray[np.int64], part: float
) -> Floats:
    """Give what `size_quantiles` gives of `ranked[ranks]`, where windows ascend and overlap.

    `ranked` are the sizes that there are, ascending. How many of each are in the window is kept in a binary indexed
    tree (Fenwick 1994), so that what enters and what leaves costs the logarithm of their number.
    """
    values = np.full(len(first), np.nan)
    size = len(ranked)
    top = 1
    while 2 * top <= size:
        top *= 2
    tree = np.zeros(size + 1, np.int64)
    begin = end = 0
    for row in range(len(first)):
        for trade in range(begin, min(first[row], end)):
            node = ranks[trade] + 1
            while node <= size:
                tree[node] -= 1
                node += node & -node
        begin = first[row]
        for trade in range(max(end, begin), after[row]):
            node = ranks[trade] + 1
            while node <= size:
                tree[node] += 1
                node += node & -node
        end = max(end, after[row])
        count = after[row] - first[row]
        if count > 0:
            place = part * (count - 1)
            low = int(place)
            low_size = ranked[_rank_at(tree, low, top)]
            high_size = ranked[_rank_at(tree, min(low + 1, count - 1), top)]
            values[row] = low_size + (high_size - low_size) * (place - low)
    return values


@compiled
def _rank_at(tree: NDArray[np.int64], place: int, top: int) -> int:
    """Give the rank of the size in that place, from 0, of those that the tree counts."""
    node, left, step = 0, place, top
    while step > 0:
        if node + step < len(tree) and tree[node + step] <= left:
            node += step
            left -= tree[node]
        step //= 2
    return node
