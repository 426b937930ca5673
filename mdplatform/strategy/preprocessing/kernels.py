"""The arithmetic of the steps that look back: each row from itself and a fixed number of rows before it.

Each sum is made in one order, from the row itself backwards, however many rows are given at once; so a row has the same
bits whether it comes alone with its past, or in the middle of a year. Arrays are rows x columns, NaN where missing.
"""

from __future__ import annotations

import numpy as np

from mdplatform.strategy.preprocessing.table import Floats

_ROWS = 2_048
"""Rows that are worked on at once, so that they stay in the processor's cache; more where windows are long."""


def log_returns(values: Floats, periods: int) -> Floats:
    """Give ln(x[t] / x[t - periods]), NaN where either is missing or not above zero."""
    made = np.full_like(values, np.nan)
    if len(values) > periods:
        now, then = values[periods:], values[:-periods]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = np.where((now > 0) & (then > 0), now / then, np.nan)
            logs = np.log(np.ascontiguousarray(ratio))
        made[periods:] = np.where(np.isfinite(logs), logs, np.nan)
    return made


def weighted_sum(values: Floats, weights: Floats) -> Floats:
    """Give sum(weights[i] * x[t - i]) of each row, NaN where any of these is missing or before the first."""
    width, made = len(weights), np.full_like(values, np.nan)
    size = max(_ROWS, 4 * width)
    for start in range(width - 1, len(values), size):
        stop = min(len(values), start + size)
        if stop - start < width:
            for row in range(start, stop):
                block = values[row - width + 1 : row + 1][::-1] * weights[:, None]
                made[row] = np.add.accumulate(block, axis=0)[-1]
            continue
        total = weights[0] * values[start:stop]
        for back in range(1, width):
            total += weights[back] * values[start - back : stop - back]
        made[start:stop] = total
    return made


def rolling_z(values: Floats, window: int, least: int, first: int = 0) -> Floats:
    """Give (x[t] - mean) / standard deviation (the population's) over the last `window` rows, itself included.

    Missing values are left out; NaN where x[t] is missing, where fewer than `least` are there, where all are equal, and
    before the row `first`. Distances are taken from x[t] before they are summed: a high level costs no precision.
    """
    padded = np.concatenate([np.full((window - 1, values.shape[1]), np.nan), values])
    made = np.full_like(values, np.nan)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for start in range(first, len(values), max(_ROWS, 4 * window)):
            stop = min(len(values), start + max(_ROWS, 4 * window))
            if stop - start >= window:
                made[start:stop] = _many_z(padded[start : stop + window - 1], window, least)
                continue
            for row in range(start, stop):
                made[row] = _one_z(padded[row : row + window][::-1], least)
    return made


def _many_z(padded: Floats, window: int, least: int) -> Floats:
    now = padded[window - 1 :]
    size = len(now)
    total, squares, count = np.zeros_like(now), np.zeros_like(now), np.zeros_like(now)
    for back in range(window):
        distance = padded[window - 1 - back : window - 1 - back + size] - now
        there = ~np.isnan(distance)
        total += np.where(there, distance, 0.0)
        count += there
    mean = total / count
    for back in range(window):
        distance = padded[window - 1 - back : window - 1 - back + size] - now - mean
        squares += np.where(np.isnan(distance), 0.0, distance * distance)
    return _z(mean, squares, count, least)


def _one_z(block: Floats, least: int) -> Floats:
    distance = block - block[0]
    there = ~np.isnan(distance)
    count = there.sum(axis=0).astype(np.float64)
    mean: Floats = np.add.accumulate(np.where(there, distance, 0.0), axis=0)[-1] / count
    left = distance - mean
    squares: Floats = np.add.accumulate(np.where(np.isnan(left), 0.0, left * left), axis=0)[-1]
    return _z(mean, squares, count, least)


def _z(mean: Floats, squares: Floats, count: Floats, least: int) -> Floats:
    deviation = np.sqrt(squares / count)
    z = (0.0 - mean) / deviation
    told: Floats = np.where((count >= least) & (deviation > 0) & np.isfinite(z), z, np.nan)
    return told


def carried(values: Floats, most: int) -> Floats:
    """Give each row's value, or where it is missing the newest one of at most `most` rows before."""
    made = values.copy()
    for back in range(1, most + 1):
        older = np.full_like(values, np.nan)
        older[back:] = values[:-back]
        made = np.where(np.isnan(made), older, made)
    return made
