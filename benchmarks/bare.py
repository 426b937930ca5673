"""The bare side: TA-Lib's functions called on arrays with nothing around them, and the check of ours against them.

What a feature is worth is worked out anew here: rows without a hole are found by their times alone, and the library is
called with the parameters as keywords. Only the feature's text is taken from the platform.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import talib
from numpy.typing import NDArray

from benchmarks.measure import WrongResult
from mdplatform.features import FeatureSpec

Floats = NDArray[np.float64]
PERIODS = "periods"
_EXTREMES: dict[str, tuple[Callable[..., Any], ...]] = {
    "MAXINDEX": (np.argmax,),
    "MININDEX": (np.argmin,),
    "MINMAXINDEX": (np.argmin, np.argmax),
}


def columns_of(bars: pl.DataFrame) -> dict[str, Floats]:
    """Give the columns of numbers of bars as contiguous arrays of float64."""
    numbers = [name for name, kind in bars.schema.items() if kind.is_numeric() and name != "revision"]
    return {name: np.ascontiguousarray(bars[name].cast(pl.Float64).to_numpy()) for name in numbers}


def call(feature: FeatureSpec, columns: Mapping[str, Floats]) -> list[Any]:
    """Call the function once on whole columns; give its outputs."""
    parameters = {name: value for name, value in feature.parameters if name != "anchor"}
    answer = getattr(talib, feature.name)(*(columns[name] for name in feature.inputs), **parameters)
    return list(answer) if isinstance(answer, tuple) else [answer]


def call_all(features: Iterable[FeatureSpec], columns: Mapping[str, Floats]) -> int:
    """Call each function once; give how many outputs there were."""
    return sum(len(call(feature, columns)) for feature in features)


def expected(feature: FeatureSpec, bars: pl.DataFrame, step: int) -> list[Floats]:
    """Give the outputs on `bars`, each stretch without a hole (and each period of the anchor) by itself."""
    columns = columns_of(bars)
    opens = bars["open_time"].dt.epoch("us").to_numpy()
    usable = ~np.isnan(columns["close"])
    rows = np.flatnonzero(usable)
    begins = np.diff(opens[rows]) != step
    if "anchor" in dict(feature.parameters):
        period = bars["open_time"].dt.truncate({"month": "1mo", "day": "1d"}[str(feature.arguments["anchor"])])
        begins |= np.diff(period.dt.epoch("us").to_numpy()[rows]) != 0
    outputs = [np.full(len(bars), np.nan) for _ in feature.outputs]
    for stretch in np.split(rows, np.flatnonzero(begins) + 1):
        inside = {name: each[stretch] for name, each in columns.items()}
        parts = _rows_ago(feature, inside) if feature.name in _EXTREMES else call(feature, inside)
        for output, part in zip(outputs, parts, strict=True):
            output[stretch] = part
    return outputs


def _rows_ago(feature: FeatureSpec, columns: Mapping[str, Floats]) -> list[Floats]:
    """Say how long ago the extreme of the last rows was, the newest where several tie; the library counts otherwise."""
    values, period = columns[feature.inputs[0]], int(feature.arguments["timeperiod"])
    found = [np.full(len(values), np.nan) for _ in feature.outputs]
    if len(values) >= period:
        newest_first = np.lib.stride_tricks.sliding_window_view(values, period)[:, ::-1]
        for output, place_of in zip(found, _EXTREMES[feature.name], strict=True):
            output[period - 1 :] = place_of(newest_first, axis=1)
    return found


def check(
    features: Sequence[FeatureSpec],
    bars: pl.DataFrame,
    step: int,
    values: Mapping[str, Floats],
) -> int:
    """Hold `values` (by output column; NaN for null) against the library's, row by row; give how many are equal.

    A value that ours leaves out is not held against it, up to a tenth of them all: the library makes some up where
    there are none. Raises `WrongResult`.
    """
    equal = left_out = 0
    for feature in features:
        for column, wanted in zip(feature.columns, expected(feature, bars, step), strict=True):
            given = values[column]
            known = ~np.isnan(given)
            scale = np.nanmax(np.abs(given), initial=0.0)
            if not np.allclose(given[known], wanted[known], rtol=1e-9, atol=1e-9 * scale):
                worst = np.nanmax(np.abs(given[known] - wanted[known]))
                raise WrongResult(f"{column} differs from TA-Lib by up to {worst:g}")
            left_out += int(np.count_nonzero(~np.isnan(wanted) & ~known))
            equal += int(known.sum())
    if not equal or left_out > 0.1 * (equal + left_out):
        raise WrongResult(f"{left_out} of {equal + left_out} values are missing")
    return equal
