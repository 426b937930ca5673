"""What it costs to trade, told from prices and volumes: Kyle's lambda, Amihud's illiquidity and Roll's spread.

Each is computed of every window of `rows` rows by itself, so that a value does not depend on the windows before it. A
row's place in the answers is that of its window's last row. Beside the values stands why there is none: 0, or
`DEGENERATE` or `DIVISION_BY_ZERO` of the statuses.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.compiled import compiled
from mdplatform.features.guard import DEGENERATE, DIVISION_BY_ZERO
from mdplatform.features.talib_functions import Floats

LEAST_INTERVALS = 3
"""Kyle's regression needs so many intervals with trades: through two points a line always fits."""

Answer = tuple[Floats, NDArray[np.int8]]

_NOISE = 1e-12
"""A share of the prices or volumes in question below which a difference is rounding."""


def kyle_lambda(change: Floats, delta: Floats, volume: Floats, rows: int) -> Answer:
    """Give Kyle's lambda: the slope of an interval's price change on its signed volume, least squares with intercept.

    `change` is the last price less the first one of each interval (quote asset), `delta` taker buys less taker sells
    (base asset), so lambda is in quote asset for each unit of the base asset. Intervals whose `volume` is 0 are left
    out; fewer than 3 others, or deltas that are all the same, are degenerate. Kyle: Continuous Auctions and Insider
    Trading, Econometrica 53 (1985); as a regression in Hasbrouck: Empirical Market Microstructure (2007), ch. 7.
    """
    return _kyle_lambda(change, delta, volume, rows)


def amihud(close: Floats, quote_volume: Floats, rows: int) -> Answer:
    """Give Amihud's illiquidity: the mean of |close / close before − 1| / quote volume.

    In 1 / quote asset. Rows without volume are left out of the mean; where none is left it would divide by zero. The
    first row has no return, so windows count from the second. Amihud: Illiquidity and Stock Returns, Journal of
    Financial Markets 5 (2002); without the factor of 10⁶ that is used there.
    """
    returns = np.full(len(close), np.nan)
    returns[1:] = np.abs(close[1:] / close[:-1] - 1)
    ratios = np.full(len(close), np.nan)
    np.divide(returns, quote_volume, out=ratios, where=quote_volume > 0)
    return _mean_of_known(ratios, rows)


def roll_spread(price: Floats, rows: int) -> Answer:
    """Give Roll's effective spread: 2 √(−cov), of each price change with the one before it.

    In the quote asset. `rows` pairs of changes make a window; the covariance is the population's, each side with its
    own mean. Where it is zero or above there is no bounce to measure: degenerate. Roll: A Simple Implicit Measure of
    the Effective Bid-Ask Spread, Journal of Finance 39 (1984).
    """
    return _roll_spread(price, rows)


@compiled
def _kyle_lambda(change: Floats, delta: Floats, volume: Floats, rows: int) -> Answer:
    values = np.full(len(change), np.nan)
    reasons = np.zeros(len(change), np.int8)
    for last in range(rows - 1, len(change)):
        first = last - rows + 1
        count, mean_change, mean_delta, largest = 0, 0.0, 0.0, 0.0
        for row in range(first, last + 1):
            if volume[row] > 0:
                count += 1
                mean_change += change[row]
                mean_delta += delta[row]
                largest = max(largest, abs(delta[row]))
        reasons[last] = DEGENERATE
        if count < LEAST_INTERVALS:
            continue
        mean_change /= count
        mean_delta /= count
        both, own = 0.0, 0.0
        for row in range(first, last + 1):
            if volume[row] > 0:
                apart = delta[row] - mean_delta
                both += apart * (change[row] - mean_change)
                own += apart * apart
        if own > count * (_NOISE * largest) ** 2:
            values[last] = both / own
            reasons[last] = 0
    return values, reasons


@compiled
def _mean_of_known(ratios: Floats, rows: int) -> Answer:
    values = np.full(len(ratios), np.nan)
    reasons = np.zeros(len(ratios), np.int8)
    for last in range(rows, len(ratios)):
        count, total = 0, 0.0
        for row in range(last - rows + 1, last + 1):
            if not np.isnan(ratios[row]):
                count += 1
                total += ratios[row]
        if count:
            values[last] = total / count
        else:
            reasons[last] = DIVISION_BY_ZERO
    return values, reasons


@compiled
def _roll_spread(price: Floats, rows: int) -> Answer:
    values = np.full(len(price), np.nan)
    reasons = np.zeros(len(price), np.int8)
    for last in range(rows + 1, len(price)):
        first = last - rows + 1
        mean_now = (price[last] - price[first - 1]) / rows
        mean_before = (price[last - 1] - price[first - 2]) / rows
        covariance, largest = 0.0, price[first - 2]
        for row in range(first, last + 1):
            now, before = price[row] - price[row - 1], price[row - 1] - price[row - 2]
            covariance += (now - mean_now) * (before - mean_before)
            largest = max(largest, price[row], price[row - 1])
        covariance /= rows
        if -covariance > (_NOISE * largest) ** 2:
            values[last] = 2 * np.sqrt(-covariance)
        else:
            reasons[last] = DEGENERATE
    return values, reasons
