"""Kernels of single pairs, compiled: two series (NaN where missing), their common rows, every digit accounted for.

A series is *constant* on some rows if they differ by no more than rounding: `max − min <= 8 ε max|x|`. It has no
correlation, so what is left of one would be noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.compiled import compiled
from mdplatform.features.talib_functions import Floats

Places = NDArray[np.int64]

CONSTANT = 8 * np.finfo(np.float64).eps
_STRAY = 1e-14


@compiled
def exact_pair(x: Floats, y: Floats, half_life: float) -> float:
    """Give the correlation of two series over their common rows, in two passes (NaN where one is constant).

    With a `half_life` above 0 rows weigh half as much after so many rows, counted from the newest common one.
    """
    newest, count = -1, 0
    low_x = low_y = np.inf
    high_x = high_y = -np.inf
    for t in range(len(x)):
        if x[t] == x[t] and y[t] == y[t]:
            newest = t
            count += 1
            low_x, high_x = min(low_x, x[t]), max(high_x, x[t])
            low_y, high_y = min(low_y, y[t]), max(high_y, y[t])
    if count < 2 or _is_constant(low_x, high_x) or _is_constant(low_y, high_y):
        return np.nan
    middle_x, middle_y = (low_x + high_x) / 2, (low_y + high_y) / 2
    scale_x, scale_y = high_x - low_x, high_y - low_y
    rate = 0.0 if half_life <= 0 else np.log(2.0) / half_life
    total = mean_x = mean_y = 0.0
    for t in range(len(x)):
        if x[t] == x[t] and y[t] == y[t]:
            weight = np.exp(-rate * (newest - t))
            total += weight
            mean_x += weight * ((x[t] - middle_x) / scale_x)
            mean_y += weight * ((y[t] - middle_y) / scale_y)
    mean_x, mean_y = mean_x / total, mean_y / total
    xx = yy = xy = 0.0
    for t in range(len(x)):
        if x[t] == x[t] and y[t] == y[t]:
            weight = np.exp(-rate * (newest - t))
            u = (x[t] - middle_x) / scale_x - mean_x
            v = (y[t] - middle_y) / scale_y - mean_y
            xx += weight * u * u
            yy += weight * v * v
            xy += weight * u * v
    if not (xx > 0 and yy > 0):
        return np.nan
    return float(min(1.0, max(-1.0, xy / (np.sqrt(xx) * np.sqrt(yy)))))


@compiled
def exact_pairs(columns: Floats, left: Places, right: Places, half_life: float) -> Floats:
    """Give `exact_pair` of the rows `left[k]`, `right[k]` of `columns` (symbols × rows)."""
    found = np.empty(len(left))
    for k in range(len(left)):
        found[k] = exact_pair(columns[left[k]], columns[right[k]], half_life)
    return found


@compiled
def rank_correlations(
    columns: Floats, orders: Places, present: NDArray[np.bool_], left: Places, right: Places
) -> Floats:
    """Give Spearman's correlation of pairs over each pair's common rows, ties at their average rank.

    `columns` is symbols × rows, and `orders` the rows of each symbol in ascending order of its values. A pair is
    ranked by one walk along each order, without sorting anew: it takes time in proportion to the rows.
    """
    rows = columns.shape[1]
    found = np.empty(len(left))
    rank_x, rank_y = np.empty(rows), np.empty(rows)
    tied = np.empty(rows, np.int64)
    for k in range(len(left)):
        i, j = left[k], right[k]
        count = _ranks_within(columns[i], orders[i], present[i], present[j], rank_x, tied)
        _ranks_within(columns[j], orders[j], present[j], present[i], rank_y, tied)
        middle = (count + 1) / 2
        xx = yy = xy = 0.0
        for t in range(rows):
            if present[i, t] and present[j, t]:
                u, v = rank_x[t] - middle, rank_y[t] - middle
                xx += u * u
                yy += v * v
                xy += u * v
        found[k] = np.nan if xx == 0 or yy == 0 else min(1.0, max(-1.0, xy / (np.sqrt(xx) * np.sqrt(yy))))
    return found


@compiled
def _ranks_within(
    values: Floats, order: Places, own: NDArray[np.bool_], other: NDArray[np.bool_], ranks: Floats, tied: Places
) -> int:
    count = ties = 0
    last = np.nan
    for t in order:
        if not (own[t] and other[t]):
            continue
        if ties and values[t] != last:
            for at in range(ties):
                ranks[tied[at]] = count - (ties - 1) / 2
            ties = 0
        last = values[t]
        tied[ties] = t
        ties += 1
        count += 1
    for at in range(ties):
        ranks[tied[at]] = count - (ties - 1) / 2
    return count


@compiled
def _is_constant(low: float, high: float) -> bool:
    return bool(high - low <= CONSTANT * max(abs(low), abs(high)))


@compiled
def roll_pair(
    x: Floats, y: Floats, window: int, least: int, phase: int, step: int, tolerance: float
) -> tuple[Floats, Floats, Places, NDArray[np.int8]]:
    """Slide over two series; give for each `step`-th row (the last one is among them) what its window is worth.

    Gives correlation and beta of `x` to `y` (NaN where there is none), the number of common rows, and whether one of
    them (1: x, 2: y, 3: both) is constant. Sums of `u = (x − c) / g`, `v` alike, slide by one row: what enters is
    added, what leaves is taken away. Each change leaves a rounding of at most ε times the sum, so those are summed too,
    and the pair is computed anew over its window, about its own mean, when they exceed `tolerance` of the variance
    (an outlier that has left does that at once), and at every row whose number plus `phase` is a multiple of `window`:
    so values do not depend on where a series began, as long as it began a window before such a row.
    """
    rows = len(x)
    picked = (rows + step - 1) // step
    first = rows - 1 - (picked - 1) * step
    rho, beta = np.full(picked, np.nan), np.full(picked, np.nan)
    counts, constant = np.zeros(picked, np.int64), np.zeros(picked, np.int8)
    n = 0
    c_x = c_y = 0.0
    g_x = g_y = 1.0
    level_x = level_y = 0.0
    su = sv = suu = svv = suv = error_u = error_v = 0.0
    epsilon = np.finfo(np.float64).eps
    for t in range(rows):
        if x[t] == x[t] and y[t] == y[t]:
            u, v = (x[t] - c_x) / g_x, (y[t] - c_y) / g_y
            n += 1
            su, sv = su + u, sv + v
            suu, svv, suv = suu + u * u, svv + v * v, suv + u * v
            error_u, error_v = error_u + suu, error_v + svv
        out = t - window
        if out >= 0 and x[out] == x[out] and y[out] == y[out]:
            u, v = (x[out] - c_x) / g_x, (y[out] - c_y) / g_y
            n -= 1
            error_u, error_v = error_u + suu, error_v + svv
            su, sv = su - u, sv - v
            suu, svv, suv = suu - u * u, svv - v * v, suv - u * v
        scheduled = (t + phase) % window == 0
        emitted = t >= first and (t - first) % step == 0
        if not (scheduled or emitted):
            continue
        which = 0
        var_u, var_v = (suu - su * su / n, svv - sv * sv / n) if n else (0.0, 0.0)
        sound_u = var_u * tolerance >= epsilon * error_u and var_u > n * (_STRAY * level_x / g_x) ** 2
        sound_v = var_v * tolerance >= epsilon * error_v and var_v > n * (_STRAY * level_y / g_y) ** 2
        if scheduled or (n >= least and not (sound_u and sound_v)):
            start = max(0, t - window + 1)
            low_x = low_y = np.inf
            high_x = high_y = -np.inf
            for s in range(start, t + 1):
                if x[s] == x[s] and y[s] == y[s]:
                    low_x, high_x = min(low_x, x[s]), max(high_x, x[s])
                    low_y, high_y = min(low_y, y[s]), max(high_y, y[s])
            su = sv = suu = svv = suv = error_u = error_v = 0.0
            if n:
                which = int(_is_constant(low_x, high_x)) + 2 * int(_is_constant(low_y, high_y))
                g_x = high_x - low_x if high_x > low_x else 1.0
                g_y = high_y - low_y if high_y > low_y else 1.0
                level_x, level_y = max(abs(low_x), abs(high_x)), max(abs(low_y), abs(high_y))
                c_x, c_y = (low_x + high_x) / 2, (low_y + high_y) / 2
                for s in range(start, t + 1):
                    if x[s] == x[s] and y[s] == y[s]:
                        su += (x[s] - c_x) / g_x
                        sv += (y[s] - c_y) / g_y
                c_x, c_y = c_x + g_x * (su / n), c_y + g_y * (sv / n)
                su = sv = 0.0
                for s in range(start, t + 1):
                    if x[s] == x[s] and y[s] == y[s]:
                        u, v = (x[s] - c_x) / g_x, (y[s] - c_y) / g_y
                        su, sv = su + u, sv + v
                        suu, svv, suv = suu + u * u, svv + v * v, suv + u * v
                var_u, var_v = suu - su * su / n, svv - sv * sv / n
                error_u, error_v = suu, svv
        if emitted:
            at = (t - first) // step
            counts[at] = n
            if n >= least:
                constant[at] = which
                covariance = suv - su * sv / n
                if which == 0 and var_u > 0 and var_v > 0:
                    length = np.sqrt(var_u * var_v)  # so that a series has exactly 1 with itself
                    if not 0 < length < np.inf:
                        length = np.sqrt(var_u) * np.sqrt(var_v)
                    rho[at] = min(1.0, max(-1.0, covariance / length))
                if which < 2 and var_v > 0:
                    beta[at] = covariance / var_v * (g_x / g_y)
                    if which == 1:
                        beta[at] = 0.0
    return rho, beta, counts, constant


@compiled
def roll_ranks(x: Floats, y: Floats, window: int, least: int, step: int) -> tuple[Floats, Places, NDArray[np.int8]]:
    """Do what `roll_pair` does for Spearman's correlation, without beta.

    The rows of a window are kept in the order of either series: one is put in its place and one is taken out for each
    row that passes. Ranks are multiples of a half, so nothing is rounded before the last division.
    """
    rows = len(x)
    picked = (rows + step - 1) // step
    first = rows - 1 - (picked - 1) * step
    rho = np.full(picked, np.nan)
    counts, constant = np.zeros(picked, np.int64), np.zeros(picked, np.int8)
    by_x, by_y = np.empty(window + 1, np.int64), np.empty(window + 1, np.int64)
    deviations = np.empty(window)  # of the rank of x from the middle, at row % window
    n = 0
    for t in range(rows):
        out = t - window
        if out >= 0 and x[out] == x[out] and y[out] == y[out]:
            _take_out(by_x, n, x, out)
            _take_out(by_y, n, y, out)
            n -= 1
        if x[t] == x[t] and y[t] == y[t]:
            _put_in(by_x, n, x, t)
            _put_in(by_y, n, y, t)
            n += 1
        if t < first or (t - first) % step:
            continue
        at = (t - first) // step
        counts[at] = n
        if n < least:
            continue
        constant[at] = int(x[by_x[0]] == x[by_x[n - 1]]) + 2 * int(y[by_y[0]] == y[by_y[n - 1]])
        if constant[at]:
            continue
        xx = yy = xy = 0.0
        start = 0
        while start < n:
            stop = _tie_ends(by_x, n, x, start)
            deviation = (start + stop - n) / 2
            for k in range(start, stop):
                deviations[by_x[k] % window] = deviation
            xx += (stop - start) * deviation * deviation
            start = stop
        start = 0
        while start < n:
            stop = _tie_ends(by_y, n, y, start)
            deviation = (start + stop - n) / 2
            for k in range(start, stop):
                xy += deviation * deviations[by_y[k] % window]
            yy += (stop - start) * deviation * deviation
            start = stop
        rho[at] = min(1.0, max(-1.0, xy / np.sqrt(xx * yy)))
    return rho, counts, constant


@compiled
def _place(order: Places, n: int, values: Floats, value: float) -> int:
    """Find the first of `n` rows in ascending order whose value is not below `value`."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if values[order[middle]] < value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _put_in(order: Places, n: int, values: Floats, row: int) -> None:
    at = _place(order, n, values, values[row])
    for k in range(n, at, -1):
        order[k] = order[k - 1]
    order[at] = row


@compiled
def _take_out(order: Places, n: int, values: Floats, row: int) -> None:
    at = _place(order, n, values, values[row])
    while order[at] != row:
        at += 1
    for k in range(at, n - 1):
        order[k] = order[k + 1]


@compiled
def _tie_ends(order: Places, n: int, values: Floats, start: int) -> int:
    stop = start + 1
    while stop < n and values[order[stop]] == values[order[start]]:
        stop += 1
    return stop
