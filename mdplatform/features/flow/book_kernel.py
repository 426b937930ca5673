"""The order book, rebuilt message by message; `book.py` says by which rules.

A side is a sorted array of keys, the best level last, where nearly all changes are: bids by price, asks by minus price.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.compiled import compiled
from mdplatform.features.talib_functions import Floats

_FURTHEST_BACK = 100_000
"""How many messages before a snapshot are looked through for those that it does not hold yet."""


@compiled
def rebuild(
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    after: NDArray[np.int64],
    link: NDArray[np.int64],
    last_id: NDArray[np.int64],
    is_snapshot: NDArray[np.bool_],
    is_bid: NDArray[np.bool_],
    price: Floats,
    quantity: Floats,
    levels: NDArray[np.int64],
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Give the state after each message, in `order`.

    Message m has the rows `[starts[m], after[m])` and follows update `link[m]`. Gives: the place in `order` of the last
    message that is in the book (−1 where the book is not known), the best prices and their quantities (bid, its
    quantity, ask, its quantity; NaN of an empty side), and the quantity of so many best `levels` (bid, ask of each).
    """
    count = len(order)
    newest = np.full(count, -1, np.int64)
    best = np.full((count, 4), np.nan)
    depth = np.zeros((count, 2 * len(levels)))
    keys = np.empty((2, len(price) + 1))
    held = np.empty((2, len(price) + 1))
    sizes = np.zeros(2, np.int64)
    known, last, at = False, 0, -1
    for place in range(count):
        message = order[place]
        if is_snapshot[message]:
            sizes[:] = 0
            _apply(message, starts, after, is_bid, price, quantity, keys, held, sizes)
            known, last, at = True, int(last_id[message]), place
            first = place
            while first > max(0, place - _FURTHEST_BACK):
                before = order[first - 1]
                if not is_snapshot[before] and last_id[before] <= last:
                    break
                first -= 1
            for earlier in range(first, place):
                behind = order[earlier]
                if is_snapshot[behind] or last_id[behind] <= last:
                    continue
                if link[behind] > last:
                    known = False
                    break
                _apply(behind, starts, after, is_bid, price, quantity, keys, held, sizes)
                last = int(last_id[behind])
        elif known and last_id[message] > last:
            if link[message] > last:
                known = False
            else:
                _apply(message, starts, after, is_bid, price, quantity, keys, held, sizes)
                last, at = int(last_id[message]), place
        if known:
            newest[place] = at
            for side in range(2):
                size = sizes[side]
                if size:
                    best[place, 2 * side] = abs(keys[side, size - 1])
                    best[place, 2 * side + 1] = held[side, size - 1]
                for column in range(len(levels)):
                    total = 0.0
                    for level in range(min(levels[column], size)):
                        total += held[side, size - 1 - level]
                    depth[place, 2 * column + side] = total
    return newest, best, depth


@compiled
def _apply(
    message: int,
    starts: NDArray[np.int64],
    after: NDArray[np.int64],
    is_bid: NDArray[np.bool_],
    price: Floats,
    quantity: Floats,
    keys: Floats,
    held: Floats,
    sizes: NDArray[np.int64],
) -> None:
    for row in range(starts[message], after[message]):
        side = 0 if is_bid[row] else 1
        key = price[row] if is_bid[row] else -price[row]
        size = sizes[side]
        place = np.searchsorted(keys[side, :size], key)
        there = place < size and keys[side, place] == key
        if there and quantity[row] > 0:
            held[side, place] = quantity[row]
        elif there:
            for moved in range(place, size - 1):
                keys[side, moved], held[side, moved] = keys[side, moved + 1], held[side, moved + 1]
            sizes[side] = size - 1
        elif quantity[row] > 0:
            for moved in range(size, place, -1):
                keys[side, moved], held[side, moved] = keys[side, moved - 1], held[side, moved - 1]
            keys[side, place], held[side, place] = key, quantity[row]
            sizes[side] = size + 1
