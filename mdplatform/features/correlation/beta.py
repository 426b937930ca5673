"""Beta to a reference: the slope of each series on it, covariance over the reference's variance, over common rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from mdplatform.features.correlation.matrix import LEAST_PERIODS, check_least
from mdplatform.features.correlation.pairwise import is_constant
from mdplatform.features.correlation.panels import PanelLike, panel_of
from mdplatform.features.guard import DEGENERATE, INSUFFICIENT_HISTORY, STATUSES


def beta_to(
    returns: PanelLike, reference: str, *, symbols: Sequence[str] | None = None, min_periods: int = LEAST_PERIODS
) -> pl.DataFrame:
    """Give the beta of each symbol to `reference` (its own is 1): `symbol`, `beta`, `observations`, `reason`.

    It is null with `insufficient_history` where there are fewer than `min_periods` common rows, and with `degenerate`
    where the reference is constant on them. Raises `InvalidTable` and `ParameterOutOfRange`.
    """
    check_least(min_periods)
    panel = panel_of(returns, symbols)
    against = panel.values[:, panel.index(reference)]
    rows: list[tuple[str, float | None, int, str | None]] = []
    for name, values in zip(panel.symbols, panel.values.T, strict=True):
        common = ~(np.isnan(values) | np.isnan(against))
        count = int(common.sum())
        if count < min_periods:
            rows.append((name, None, count, STATUSES[INSUFFICIENT_HISTORY]))
            continue
        x, y = values[common], against[common]
        if is_constant(np.array([y.min()]), np.array([y.max()]))[0]:
            rows.append((name, None, count, STATUSES[DEGENERATE]))
            continue
        scale = y.max() - y.min()
        y = (y - y.mean()) / scale
        y -= y.mean()
        rows.append((name, float((x - x.mean()) @ y / (y @ y) / scale), count, None))
    schema = {"symbol": pl.String, "beta": pl.Float64, "observations": pl.Int64, "reason": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")
