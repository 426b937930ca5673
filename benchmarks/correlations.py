"""Correlations: 500 and 2,000 symbols × 1,000 bars, against `pandas.DataFrame.corr` and against bare BLAS.

Bare BLAS is what a matrix of correlations cannot do without: columns centred and scaled once, and one product; with
holes the four products of numbers and masks, and the arithmetic that makes correlations of them, unguarded. pandas is
timed once or twice beside each, since it takes up to a minute; its answer is what ours is held against.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.measure import Comparison, WrongResult, compare, in_turns
from mdplatform.features import Correlations, correlation_matrix, rolling_correlation

ROWS = 1_000
SYMBOLS = (500, 2_000)
WINDOW = 500
_PART = "correlations"
Floats = NDArray[np.float64]


def run(short: bool) -> Iterator[Comparison]:
    """Compare each size, complete and with one number in twenty missing."""
    for count in SYMBOLS:
        for holes in (0.0, 0.05):
            values = _returns(count, holes)
            ours = partial(correlation_matrix, values, symbols=[f"S{each}" for each in range(count)])
            what = f"{count:,} symbols × {ROWS:,} bars" + (", 5 % missing" if holes else "")
            bare = partial(_products_of_masks if holes else _product, values)
            _check(ours(), bare())
            turns = (5 if short else 20) if count == SYMBOLS[0] else (3 if short else 10)
            times = in_turns(turns, ours=ours, bare=bare)
            yield compare(_PART, what, "four products" if holes else "one product", times, **_amount(count))
            frame = pd.DataFrame(values)
            if count == SYMBOLS[0] or not short:
                times = in_turns(3 if count == SYMBOLS[0] else 1, ours=ours, bare=partial(frame.corr, min_periods=3))
                _check(ours(), frame.corr(min_periods=3).to_numpy())
                yield compare(_PART, what, "pandas.DataFrame.corr", times, **_amount(count))
    yield from _others(short)


def _others(short: bool) -> Iterator[Comparison]:
    """Compare Spearman's with holes, and a window that slides over a pair."""
    values = _returns(100 if short else 500, 0.05)
    names = [f"S{each}" for each in range(values.shape[1])]
    ours = partial(correlation_matrix, values, symbols=names, method="spearman")
    theirs = partial(pd.DataFrame(values).corr, method="spearman", min_periods=3)
    _check(ours(), theirs().to_numpy())
    what = f"Spearman's, {len(names)} symbols × {ROWS:,} bars, 5 % missing"
    yield compare(_PART, what, "pandas.DataFrame.corr", in_turns(1, ours=ours, bare=theirs), **_amount(len(names)))

    pair = np.random.default_rng(2).normal(size=(100_000, 2))
    slide = partial(rolling_correlation, pair, WINDOW, symbols=["A", "B"])
    left, right = pd.Series(pair[:, 0]), pd.Series(pair[:, 1])
    of_pandas = partial(left.rolling(WINDOW, min_periods=3).corr, right)
    if not np.allclose(slide().values[:, 0], of_pandas(), atol=1e-9, equal_nan=True):
        raise WrongResult("rolling correlation differs from pandas'")
    times = in_turns(5 if short else 20, ours=slide, bare=of_pandas)
    yield compare(
        _PART,
        f"one pair, window {WINDOW}, {len(pair):,} rows",
        "pandas rolling.corr",
        times,
        amount=len(pair),
        amount_unit="rows",
    )


def _returns(symbols: int, holes: float) -> Floats:
    random = np.random.default_rng(symbols)
    values = 0.01 * (random.normal(size=(ROWS, 1)) * 0.6 + random.normal(size=(ROWS, symbols)))
    values[random.random(values.shape) < holes] = np.nan
    return values


def _product(values: Floats) -> Floats:
    centred = values - values.mean(axis=0)
    centred /= np.sqrt(np.einsum("tn,tn->n", centred, centred))
    product: Floats = centred.T @ centred
    return product


def _products_of_masks(values: Floats) -> Floats:
    present = ~np.isnan(values)
    masks = present.astype(np.float64)
    filled = np.where(present, values, 0.0)
    counts, products = masks.T @ masks, filled.T @ filled
    sums, squares = filled.T @ masks, (filled * filled).T @ masks
    variances = squares - sums * sums / counts
    found: Floats = (products - sums * sums.T / counts) / np.sqrt(variances * variances.T)
    return found


def _check(ours: Correlations, theirs: Floats) -> None:
    if not np.allclose(ours.matrix, theirs, atol=1e-9, equal_nan=True):
        raise WrongResult(f"correlations differ by up to {np.nanmax(np.abs(ours.matrix - theirs)):g}")


def _amount(symbols: int) -> dict[str, object]:
    return {"amount": symbols * (symbols - 1) // 2, "amount_unit": "pairs"}
