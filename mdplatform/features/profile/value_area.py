"""The kernels of volume profiles: histograms of price rows, point of control and value area, nodes.

Volumes are integers here, in units so small that nothing is lost (`profile.units_of`). So sums are exact in any order,
what leaves a rolling window leaves no trace, and ties are ties. Bars spread their volume over rows by a division that
leaves a remainder: two sums of such rows count as equal when no more lies between them than the bars could have left.

1. The point of control is the row with the most volume; of equal ones the row nearest the middle between the lowest
   and the highest row with volume, then the lower.
2. The value area grows from it, by `step` rows at a time (2 for `two_row`, 1 for `one_row`): the next rows above are
   held against the next rows below, the side with more volume is taken, and the upper one where they are equal. Where a
   side has fewer rows left, those are held against the other's; a side without rows is not taken. Rows without
   volume count as rows. It ends when it holds the wanted share of the volume.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.compiled import compiled
from mdplatform.features.talib_functions import Floats
from mdplatform.features.ticks import EDGE

Integers = NDArray[np.int64]

_EDGE = EDGE


@compiled
def histogram(
    prices: Floats, quantities: Floats, sold: NDArray[np.bool_], size: float, lowest: int, rows: int, scale: float
) -> Integers:
    """Give the units bought and sold by takers (columns) in each of `rows` rows from `lowest` on.

    With an empty `sold` all of it counts as bought.
    """
    found = np.zeros((rows, 2), np.int64)
    told = len(sold) > 0
    for at in range(len(prices)):
        row = int(prices[at] / size * _EDGE) - lowest
        side = 1 if told and sold[at] else 0
        found[row, side] += int(np.rint(quantities[at] * scale))
    return found


@compiled
def spread(low: Integers, high: Integers, units: Integers, rows: int) -> Integers:
    """Give the units in each row where each bar's are spread evenly over its rows from `low` to `high`.

    What a division leaves goes to the bar's lowest rows, one unit each.
    """
    found = np.zeros(rows, np.int64)
    for at in range(len(low)):
        share, left = divmod(units[at], high[at] - low[at] + 1)
        for row in range(low[at], high[at] + 1):
            found[row] += share
        for row in range(low[at], low[at] + left):
            found[row] += 1
    return found


@compiled
def value_area(volumes: Integers, first: int, last: int, share: float, step: int, bars: int) -> tuple[int, int, int]:
    """Give the row of the point of control, and the lowest and highest row of the value area.

    `volumes` are looked at from row `first` to `last`, both of which have some; so many `bars` were spread over them, 0
    if they are of trades.
    """
    total = volumes[first]
    most = volumes[first]
    for row in range(first + 1, last + 1):
        total += volumes[row]
        most = max(most, volumes[row])
    slack = 4 * bars + (total >> 46) if bars > 0 else 0  # an integer that was a double has 53 bits
    control, nearest = first, last - first + 1
    for row in range(first, last + 1):
        if volumes[row] >= most - slack:
            away = abs(2 * row - first - last)
            if away < nearest:
                control, nearest = row, away
    wanted = share if bars == 0 else share * (1 - 1e-9)
    low = high = control
    inside = volumes[control]
    while inside / total < wanted and (low > first or high < last):
        above = min(step, last - high)
        below = min(step, low - first)
        upper = lower = np.int64(0)
        for row in range(high + 1, high + above + 1):
            upper += volumes[row]
        for row in range(low - below, low):
            lower += volumes[row]
        if below == 0 or (above > 0 and upper >= lower - slack):
            high += above
            inside += upper
        else:
            low -= below
            inside += lower
    return control, low, high


@compiled
def moving(
    low: Integers,
    high: Integers,
    units: Integers,
    begins: Integers,
    ends: Integers,
    rows: int,
    share: float,
    step: int,
    are_bars: bool,
) -> Integers:
    """Give what `value_area` gives (columns), and 1, for many windows of items; four zeros for one without volume.

    Window w holds the items `begins[w]` to `ends[w]` (exclusive), both ascending; an item's units are spread evenly
    over the rows `low` to `high`. The histogram is not built anew for each: what enters is added, what leaves is taken
    away.
    """
    volumes = np.zeros(rows, np.int64)
    found = np.zeros((len(begins), 4), np.int64)
    first, last = rows, -1  # the rows with volume lie between these
    begin = end = 0
    for window in range(len(begins)):
        if begins[window] >= end:  # nothing stays
            for row in range(first, last + 1):
                volumes[row] = 0
            first, last = rows, -1
            begin = end = begins[window]
        for item in range(end, ends[window]):
            part = units[item] // (high[item] - low[item] + 1)
            if part > 0:
                first, last = min(first, low[item]), max(last, high[item])
                for row in range(low[item], high[item] + 1):
                    volumes[row] += part
        for item in range(begin, begins[window]):
            part = units[item] // (high[item] - low[item] + 1)
            for row in range(low[item], high[item] + 1):
                volumes[row] -= part
        begin, end = begins[window], ends[window]
        while first <= last and volumes[first] == 0:
            first += 1
        while last >= first and volumes[last] == 0:
            last -= 1
        if first > last:
            first, last = rows, -1
            continue
        bars = end - begin if are_bars else 0
        control, lowest, highest = value_area(volumes, first, last, share, step, bars)
        found[window, 0], found[window, 1], found[window, 2] = control, lowest, highest
        found[window, 3] = 1
    return found


@compiled
def nodes(volumes: Integers, reach: int, turn: float) -> tuple[Integers, Integers]:
    """Give the rows of high and of low volume: the turns of the smoothed profile.

    Smoothed is the sum of the `2 × reach + 1` rows around each (outside there is none). Going up from the lowest row,
    a high is the largest row since the last low, once volume has fallen by `turn` of the largest of all below it; a low
    the smallest row since the last high, once volume has risen by as much above it; of equal rows the lowest. There
    is one low between each two highs, and none outside them.
    """
    count = len(volumes)
    smooth = np.zeros(count, np.int64)
    around = np.int64(0)
    for row in range(min(reach, count)):
        around += volumes[row]
    for row in range(count):
        if row + reach < count:
            around += volumes[row + reach]
        if row - reach - 1 >= 0:
            around -= volumes[row - reach - 1]
        smooth[row] = around
    delta = turn * smooth.max()
    highs, lows = [np.int64(0) for _ in range(0)], [np.int64(0) for _ in range(0)]
    climbing = True
    best, worst = np.int64(0), np.int64(0)
    for row in range(1, count + 1):
        volume = smooth[row] if row < count else np.int64(0)
        if climbing:
            if row < count and volume > smooth[best]:
                best = np.int64(row)
            elif smooth[best] - volume >= delta:
                highs.append(best)
                climbing, worst = False, np.int64(min(row, count - 1))
        elif row < count:
            if volume < smooth[worst]:
                worst = np.int64(row)
            elif volume - smooth[worst] >= delta:
                lows.append(worst)
                climbing, best = True, np.int64(row)
    return np.array(highs, dtype=np.int64), np.array(lows, dtype=np.int64)
