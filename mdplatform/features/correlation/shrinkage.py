"""Shrinkage of a sample's covariance to a target with fewer parameters, by Ledoit and Wolf's optimal intensity.

- `scaled_identity`: O. Ledoit, M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
  Journal of Multivariate Analysis 88 (2004). The target is the mean variance times the identity, so the answer depends
  on the series' relative volatility: divide them by it first where that is not wanted.
- `constant_correlation`: the same, "Honey, I shrunk the sample covariance matrix", Journal of Portfolio Management 30
  (2004). The target has the sample's variances, and their mean correlation for every pair.

Both take complete samples, and divide by the number of rows (not one less).
"""

from __future__ import annotations

import numpy as np

from mdplatform.features.talib_functions import Floats


def scaled_identity(values: Floats) -> tuple[Floats, float]:
    """Give the shrunk covariance of complete `values` (rows × columns), and the intensity in [0, 1]."""
    rows, columns = values.shape
    centred = values - values.mean(axis=0)
    sample = centred.T @ centred / rows
    mean_variance = float(np.trace(sample)) / columns
    squares = float(np.einsum("ij,ij->", sample, sample))
    distance = (squares - columns * mean_variance**2) / columns
    fourth = float((np.einsum("tn,tn->t", centred, centred) ** 2).sum()) / rows
    error = min(max((fourth - squares) / (rows * columns), 0.0), max(distance, 0.0))
    intensity = 0.0 if error == 0 else error / distance
    shrunk = (1 - intensity) * sample
    shrunk[np.diag_indices(columns)] += intensity * mean_variance
    return shrunk, intensity


def constant_correlation(values: Floats) -> tuple[Floats, float]:
    """Give the shrunk covariance of complete `values` (rows × columns), and the intensity in [0, 1]."""
    rows, columns = values.shape
    centred = values - values.mean(axis=0)
    sample = centred.T @ centred / rows
    deviations = np.sqrt(np.diagonal(sample))
    if columns < 2:
        return sample, 0.0
    correlation = sample / np.outer(deviations, deviations)
    mean_correlation = (correlation.sum() - columns) / (columns * (columns - 1))
    target = mean_correlation * np.outer(deviations, deviations)
    target[np.diag_indices(columns)] = deviations**2
    squared = centred**2
    variances_of_products = squared.T @ squared / rows - sample**2
    # how each variance errs along with each covariance: the mean of (x_i² − s_ii)(x_i x_j − s_ij)
    along = (centred * squared).T @ centred / rows - deviations[:, None] ** 2 * sample
    np.fill_diagonal(along, 0.0)
    shared = np.trace(variances_of_products) + mean_correlation * (along * deviations / deviations[:, None]).sum()
    distance = float(((target - sample) ** 2).sum())
    wanted = float(variances_of_products.sum() - shared)
    intensity = 0.0 if distance == 0 else min(1.0, max(0.0, wanted / distance / rows))
    return intensity * target + (1 - intensity) * sample, intensity
