"""Where the bars of `trade_bars` end: the loops that go through trades one by one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.compiled import compiled
from mdplatform.features.talib_functions import Floats

_NOISE = 1e-12
"""The share by which a sum may miss a threshold through rounding: ten times 0.1 reach 1."""


@compiled
def threshold_ends(amounts: Floats, threshold: float) -> NDArray[np.int64]:
    """Give for each bar the row after its last trade."""
    ends = np.empty(len(amounts), np.int64)
    bars, total = 0, 0.0
    least = threshold * (1 - _NOISE)
    for row in range(len(amounts)):
        total += amounts[row]
        if total >= least:
            ends[bars] = row + 1
            bars += 1
            total = 0.0
    return ends[:bars].copy()


@compiled
def imbalance_ends(
    signed: Floats, expected_count: float, alpha: float, most: float
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Give for each bar the row after its last trade, its signed flow, and its threshold (NaN in the first bar)."""
    ends = np.empty(len(signed), np.int64)
    sums, thresholds = np.empty(len(signed)), np.empty(len(signed))
    bars, first, total, squares = 0, 0, 0.0, 0.0
    length, mean_total, mean_squares, mean_count, threshold = expected_count, 0.0, 0.0, 0.0, np.nan
    for row in range(len(signed)):
        total += signed[row]
        squares += signed[row] ** 2
        count = row + 1 - first
        if bars == 0:
            if count < expected_count:
                continue
            mean_total, mean_squares, mean_count, length = total, squares, float(count), float(count)
        elif abs(total) < threshold * (1 - _NOISE):
            continue
        else:
            mean_total += alpha * (total - mean_total)
            mean_squares += alpha * (squares - mean_squares)
            mean_count += alpha * (count - mean_count)
            length += alpha * (count - length)
        ends[bars] = row + 1
        sums[bars] = total
        thresholds[bars] = threshold
        bars += 1
        first, total, squares = row + 1, 0.0, 0.0
        length = min(max(length, expected_count / most), expected_count * most)
        threshold = max(length * abs(mean_total) / mean_count, np.sqrt(length * mean_squares / mean_count))
    return ends[:bars].copy(), sums[:bars].copy(), thresholds[:bars].copy()


@compiled
def cusum_rows(log_price: Floats, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Give the rows of the events and their sides, 1 or −1."""
    rows, sides = np.empty(len(log_price), np.int64), np.empty(len(log_price), np.int8)
    events, up, down = 0, 0.0, 0.0
    least = threshold * (1 - _NOISE)
    for row in range(1, len(log_price)):
        change = log_price[row] - log_price[row - 1]
        up, down = max(0.0, up + change), min(0.0, down + change)
        if up >= least or -down >= least:
            rows[events] = row
            sides[events] = 1 if up >= least else -1
            events += 1
            if up >= least:
                up = 0.0
            else:
                down = 0.0
    return rows[:events].copy(), sides[:events].copy()
