"""Bars that close by what was traded, and CUSUM events, as rows of a grid of time see them.

1. Trades are taken in the order in which they became known, and bars (`trade_bars`) begin anew with each UTC day: the
   unfinished bar at midnight is dropped. So a value depends on the trades since the start of the day in which its row
   opened, and on nothing else.
2. A bar belongs to the row in which the trade that completes it became known. A row tells how many did so in it, and
   what the newest one was at its close; before the first one since the start of its day there is none to tell of, and
   the row has `insufficient_history`.
3. Events are counted in the row in which their trade became known; the first trade of a day has no return before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.flow.trade_bars import amounts_of
from mdplatform.features.guard import INSUFFICIENT_HISTORY
from mdplatform.features.known_trades import KnownTrades, by_day
from mdplatform.features.talib_functions import Floats
from mdplatform.features.trade_arrays import TradeArrays
from mdplatform.market.timeframe import DAY_US

Integers = NDArray[np.int64]

MEASURE_OF = {"TICK_BARS": "tick", "VOLUME_BARS": "volume", "DOLLAR_BARS": "dollar"}


def bars_in_rows(
    name: str, given: Mapping[str, Any], trades: KnownTrades
) -> tuple[tuple[Floats, ...], NDArray[np.int8]]:
    """Give the bars completed in each row, and open, high, low, close and volume of the newest; and why there is none.

    Prices are in the quote asset, volumes in the base asset.
    """
    grid = trades.grid
    outputs = np.full((6, len(grid)), np.nan)
    for rows, days in _pieces(trades):
        made = np.concatenate([_bars(each, _ends(name, given, each)) for each in days], axis=1)
        closed = made[0].astype(np.int64)
        after = np.searchsorted(closed, grid.close_time[rows])
        outputs[0, rows] = after - np.searchsorted(closed, grid.open_time[rows])
        some = after > 0
        outputs[1:, np.arange(rows.start, rows.stop)[some]] = made[1:, after[some] - 1]
    return tuple(outputs), np.where(np.isnan(outputs[1]), np.int8(INSUFFICIENT_HISTORY), np.int8(0))


def events_in_rows(threshold: float, trades: KnownTrades) -> tuple[Floats, Floats]:
    """Give how often in each row the CUSUM filter of log returns fired upwards and downwards."""
    from mdplatform.features.flow.trade_bar_kernels import cusum_rows

    grid = trades.grid
    up, down = np.zeros(len(grid)), np.zeros(len(grid))
    for rows, days in _pieces(trades):
        for each in days:
            at, sides = cusum_rows(np.log(each.price), threshold)
            for found, side in ((up, 1), (down, -1)):
                times = each.time[at[sides == side]]
                first, after = (np.searchsorted(times, edge[rows]) for edge in (grid.open_time, grid.close_time))
                found[rows] += after - first
    return up, down


def day_starts(trades: KnownTrades) -> Integers:
    """Give for each row the start of the UTC day in which it opened: from then on, trades count."""
    return np.asarray(trades.grid.open_time - trades.grid.open_time % DAY_US)


def _pieces(trades: KnownTrades) -> Iterator[tuple[slice, list[TradeArrays]]]:
    """Give the rows that open in one day, and the trades of each day from its start to the last one's close."""
    for day, rows in by_day(trades.grid.open_time):
        end = int(trades.grid.close_time[rows][-1])
        yield rows, [trades.between(each, min(each + DAY_US, end)) for each in range(day, end, DAY_US)]


def _ends(name: str, given: Mapping[str, Any], trades: TradeArrays) -> Integers:
    from mdplatform.features.flow.trade_bar_kernels import imbalance_ends, threshold_ends

    if name in MEASURE_OF:
        return threshold_ends(amounts_of(trades, MEASURE_OF[name]), float(given["size"]))
    amounts = amounts_of(trades, str(given["measure"]))
    signed = np.where(trades.is_buy, amounts, -amounts)
    alpha = min(2 / (float(given["span"]) + 1), 1.0)
    return imbalance_ends(signed, float(given["expected_count"]), alpha, float(given["most"]))[0]


def _bars(trades: TradeArrays, ends: Integers) -> Floats:
    """Give of each bar (columns) when it was completed, then its open, high, low, close and volume (rows)."""
    if not len(ends):
        return np.empty((6, 0))
    starts, last = np.append(0, ends)[:-1], int(ends[-1])
    price, quantity = trades.price[:last], trades.quantity[:last]
    return np.stack(
        [
            trades.time[ends - 1].astype(np.float64),  # microseconds of this age are whole in a double
            price[starts],
            np.maximum.reduceat(price, starts),
            np.minimum.reduceat(price, starts),
            price[ends - 1],
            np.add.reduceat(quantity, starts),
        ]
    )
