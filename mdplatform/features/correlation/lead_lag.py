"""Which series moves first: the correlation of each pair with one of them shifted, and the shift where it is largest.

A lag of k bars pairs a series at t with the other at t − k: above 0 the other one leads. At −k they change places, so
the table of −k is that of k, transposed. The best lag has the largest absolute correlation; of several within 1e-12 of
it, the one nearest 0, then the one above 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import ParameterOutOfRange
from mdplatform.features.correlation import pairwise
from mdplatform.features.correlation.matrix import LEAST_PERIODS, check_least
from mdplatform.features.correlation.panels import PanelLike, panel_of
from mdplatform.features.talib_functions import Floats

LARGEST_LAG = 1000
MOST_VALUES = 50_000_000
_TIE = 1e-12


@dataclass(frozen=True, eq=False)
class LeadLag:
    """For each pair of `symbols`: the best lag in bars, and the correlation at it.

    `lags[i, j] = k > 0` says that `symbols[j]` leads `symbols[i]` by k bars; `lags[j, i]` is then −k (or, where k and
    −k are equally good, k as well). `correlations` is NaN (and the lag 0) where there is none. `profile[k + max_lag]`
    is the table of lag k.
    """

    symbols: tuple[str, ...]
    max_lag: int
    lags: NDArray[np.int64]
    correlations: Floats
    profile: Floats
    observations: NDArray[np.int64]

    def pairs(self) -> pl.DataFrame:
        """Give each pair once: `symbol`, `reference`, `lag` (above 0: the reference leads), correlation, `at_zero`."""
        left, right = np.triu_indices(len(self.symbols), 1)
        names = pl.Series(self.symbols, dtype=pl.String)
        known = ~np.isnan(self.correlations[left, right])
        return pl.DataFrame(
            {
                "symbol": names.gather(left),
                "reference": names.gather(right),
                "lag": pl.Series(self.lags[left, right]).set(pl.Series(~known), None),
                "correlation": pl.Series(self.correlations[left, right], nan_to_null=True),
                "at_zero": pl.Series(self.profile[self.max_lag, left, right], nan_to_null=True),
            }
        )


def lead_lag(
    returns: PanelLike, max_lag: int, *, symbols: Sequence[str] | None = None, min_periods: int = LEAST_PERIODS
) -> LeadLag:
    """Give the best lag of each pair within ± `max_lag` bars, by Pearson's correlation over common rows.

    Raises `InvalidTable` and `ParameterOutOfRange`.
    """
    check_lag(max_lag)
    check_least(min_periods)
    panel = panel_of(returns, symbols)
    size, rows = len(panel.symbols), len(panel)
    if (2 * max_lag + 1) * size**2 > MOST_VALUES:
        raise ParameterOutOfRange(
            "Too many values at once", value=f"{size} symbols, max_lag {max_lag}", remedy="Take fewer symbols or lags"
        )
    profile = np.full((2 * max_lag + 1, size, size), np.nan)
    observations = np.zeros((2 * max_lag + 1, size, size), np.int64)
    for lag in range(max_lag + 1):
        late = panel.values[lag:]
        early = panel.values[: max(0, rows - lag)]
        pairs = pairwise.pearson(np.hstack([late, early]) if lag else late, min_periods)
        corner = (slice(0, size), slice(size, None)) if lag else (slice(None), slice(None))
        profile[max_lag + lag], observations[max_lag + lag] = pairs.correlation[corner], pairs.observations[corner]
        profile[max_lag - lag] = profile[max_lag + lag].T
        observations[max_lag - lag] = observations[max_lag + lag].T
    lags, best = best_lag(profile, max_lag)
    counted = np.take_along_axis(observations, (lags + max_lag)[None], axis=0)[0]
    return LeadLag(panel.symbols, max_lag, lags, best, profile, counted)


def best_lag(profile: Floats, max_lag: int) -> tuple[NDArray[np.int64], Floats]:
    """Choose along the first axis (lags −max_lag … max_lag); give lags (0 where there is none) and correlations."""
    lags, best = np.zeros(profile.shape[1:], np.int64), profile[max_lag].copy()
    for lag in (sign * size for size in range(1, max_lag + 1) for sign in (1, -1)):
        found = profile[max_lag + lag]
        better = ~np.isnan(found) & ~(np.abs(found) <= np.abs(best) + _TIE)
        lags[better], best[better] = lag, found[better]
    return lags, best


def check_lag(max_lag: object) -> None:
    """Refuse a number of bars that makes no sense. Raises `ParameterOutOfRange`."""
    is_count = isinstance(max_lag, int | np.integer) and not isinstance(max_lag, bool)
    if not is_count or not 1 <= max_lag <= LARGEST_LAG:  # type: ignore[operator]
        raise ParameterOutOfRange("max_lag", value=max_lag, remedy=f"Allowed: an integer from 1 to {LARGEST_LAG}")
