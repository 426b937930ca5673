"""`correlation_matrix`: the correlation of each pair of many series, by the estimator that is asked for.

1. The panel is read (`panels`); with `sample="common"` rows in which any series is missing are left out.
2. Pearson's, exponentially weighted or Spearman's correlations are computed (`pairwise`, `ranks`).
3. Shrinkage takes the place of Pearson's estimate (`shrinkage`), repair mends what is not positive semi-definite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from mdplatform.errors import ParameterOutOfRange
from mdplatform.features.correlation import pairwise
from mdplatform.features.correlation.nearest_psd import nearest_correlation
from mdplatform.features.correlation.pairwise import Pairs
from mdplatform.features.correlation.panels import PanelLike, panel_of
from mdplatform.features.correlation.ranks import spearman
from mdplatform.features.correlation.result import Correlations
from mdplatform.features.correlation.shrinkage import constant_correlation, scaled_identity
from mdplatform.features.talib_functions import Floats

METHODS = ("pearson", "spearman", "exponential")
SAMPLES = ("pairwise", "common")
SHRINKAGES = ("ledoit_wolf", "constant_correlation")
REPAIRS = ("nearest_psd",)
LEAST_PERIODS = 3
"""The fewest rows that give anything else than ±1."""


def correlation_matrix(
    returns: PanelLike,
    *,
    symbols: Sequence[str] | None = None,
    method: str = "pearson",
    half_life: float | None = None,
    sample: str = "pairwise",
    min_periods: int = LEAST_PERIODS,
    shrinkage: str | None = None,
    repair: str | None = None,
) -> Correlations:
    """Give the correlation matrix of a panel of returns (see `panel_of` for what that may be).

    - `method`: `pearson`; `spearman` (of ranks, ties averaged); `exponential`, Pearson's with weights that halve with
      every `half_life` rows of age (counted on the grid, holes included).
    - `sample`: `pairwise`, over the rows that each pair has in common; `common`, over those that all have.
    - `min_periods`: fewest common rows of a pair, 2 or more; with fewer it is null, `insufficient_history`.
    - `shrinkage`: `ledoit_wolf` (2004, to the scaled identity) or `constant_correlation` (Ledoit–Wolf 2003), of a
      `pearson` estimate over a `common` sample or a panel without holes.
    - `repair`: `nearest_psd` (Higham 2002), where the matrix is not positive semi-definite; it needs all pairs. Series
      that are null throughout are left as they are.

    What was done is named in the answer's `estimator`. Raises `InvalidTable` for what is no panel, and
    `ParameterOutOfRange` for an option that is unknown or does not go with another.

    >>> answer = correlation_matrix(np.array([[1.0, 2.0], [2.0, 4.1], [3.0, 5.9]]), symbols=["A", "B"])
    >>> answer.matrix.round(4).tolist(), answer.estimator
    ([[1.0, 0.999], [0.999, 1.0]], 'pearson, pairwise')
    """
    check_options(method, half_life, sample, min_periods, shrinkage, repair)
    panel = panel_of(returns, symbols)
    values = panel.values
    if sample == "common":
        values = _common(values, half_life is not None)
    intensity = None
    is_ranked = method == "spearman"
    pairs = spearman(values, min_periods) if is_ranked else pairwise.pearson(values, min_periods, half_life)
    matrix = pairs.correlation
    if shrinkage is not None:
        matrix, intensity = _shrunk(values, pairs, shrinkage)
    answer = Correlations(
        symbols=panel.symbols,
        matrix=matrix,
        observations=pairs.observations,
        method=method,
        sample=sample,
        min_periods=min_periods,
        rows=len(panel),
        half_life=half_life,
        shrinkage=shrinkage,
        shrinkage_intensity=intensity,
        open_time=panel.time(-1),
    )
    return answer if repair is None else repaired(answer)


def repaired(answer: Correlations) -> Correlations:
    """Give the nearest matrix that is positive semi-definite, or the same one where it is.

    Raises `ParameterOutOfRange` where a pair is null of symbols that are not null throughout.
    """
    if answer.is_psd:
        return answer
    known = np.flatnonzero(~np.isnan(np.diagonal(answer.matrix)))
    places = np.ix_(known, known)
    part = answer.matrix[places]
    if np.isnan(part).any():
        left, right = (int(known[each[0]]) for each in np.nonzero(np.isnan(part)))
        raise ParameterOutOfRange(
            "A matrix with null pairs cannot be repaired",
            value=f"{answer.symbols[left]} and {answer.symbols[right]}",
            remedy="Leave symbols out (`.whole()`, then `repaired`), lower min_periods, or take the common sample",
        )
    if not len(part):
        return answer
    matrix = answer.matrix.copy()
    matrix[places] = nearest_correlation(part)
    return replace(answer, matrix=matrix, repaired=True)


def _common(values: Floats, keep_rows: bool) -> Floats:
    """Leave out rows in which any series is missing, or blank them where their number counts (as an age)."""
    whole = np.flatnonzero(~np.isnan(values).any(axis=1))
    if len(whole) == len(values):
        return values
    if not keep_rows:
        return values[whole]
    kept = np.full_like(values, np.nan)
    kept[whole] = values[whole]
    return kept


def _shrunk(values: Floats, pairs: Pairs, shrinkage: str) -> tuple[Floats, float | None]:
    if np.isnan(values).any():
        raise ParameterOutOfRange(
            f"{shrinkage} needs a sample without holes", value="pairwise", remedy='Take sample="common"'
        )
    known = np.flatnonzero(~np.isnan(np.diagonal(pairs.correlation)))
    matrix = np.full_like(pairs.correlation, np.nan)
    if not len(known):
        return matrix, None
    estimate = scaled_identity if shrinkage == "ledoit_wolf" else constant_correlation
    size = np.abs(values[:, known]).max()  # so that no square is too large or too small for a double
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance, intensity = estimate(values[:, known] / size)
        deviations = np.sqrt(np.diagonal(covariance))
        part = covariance / (deviations[:, None] * deviations[None, :])
    pairwise.finish(part, np.zeros(len(known), np.bool_))
    matrix[np.ix_(known, known)] = part
    return matrix, intensity


def check_options(
    method: str, half_life: float | None, sample: str, min_periods: int, shrinkage: str | None, repair: str | None
) -> None:
    """Refuse options that are unknown or don't go together, before there are returns. Raises what the matrix would."""
    for name, value, allowed in (
        ("method", method, METHODS),
        ("sample", sample, SAMPLES),
        ("shrinkage", shrinkage, (None, *SHRINKAGES)),
        ("repair", repair, (None, *REPAIRS)),
    ):
        if value not in allowed:
            told = ", ".join(str(each) for each in allowed)
            raise ParameterOutOfRange(f"Unknown {name} of a correlation", value=value, remedy=f"Allowed: {told}")
    check_least(min_periods)
    if method == "exponential":
        if not isinstance(half_life, Real) or isinstance(half_life, bool) or not 0.1 <= half_life <= 1e9:
            raise ParameterOutOfRange(
                "half_life of exponential weights", value=half_life, remedy="Allowed: a number of rows from 0.1 to 1e9"
            )
    elif half_life is not None:
        raise ParameterOutOfRange(f"{method} has no half_life", value=half_life, remedy='Take method="exponential"')
    if shrinkage is not None and method != "pearson":
        raise ParameterOutOfRange(f"{shrinkage} shrinks Pearson's estimate", value=method, remedy='method="pearson"')


def check_least(min_periods: Any, most: int = 2**31 - 1) -> None:
    """Refuse a number of observations that makes no sense. Raises `ParameterOutOfRange`."""
    is_count = isinstance(min_periods, int | np.integer) and not isinstance(min_periods, bool)
    if not is_count or not 2 <= min_periods <= most:
        raise ParameterOutOfRange(
            "min_periods of a correlation", value=min_periods, remedy=f"Allowed: an integer from 2 to {most}"
        )
