"""The one adapter to TA-Lib: it runs any function of the registry on plain arrays.

The library is imported at the first call, since that takes half a second. It is given every parameter by position, so
that none of its defaults is relied on.

Two things are made of what it returns. Integer outputs become floats. The functions that give the *index* of a row
count from wherever the array began, which says nothing outside of it; here they say how many rows ago it was.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from inspect import unwrap
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdplatform.features import registry
from mdplatform.features.spec import FeatureSpec

Floats = NDArray[np.float64]

INDEX_FUNCTIONS = frozenset({"MAXINDEX", "MININDEX", "MINMAXINDEX"})


def run(spec: FeatureSpec, columns: Sequence[Floats]) -> list[Floats]:
    """Give the outputs of the function on `columns`: contiguous, finite, of one length; they are not written to.

    Rows before the lookback are NaN.
    """
    settings = [value for name, value in spec.parameters if name != "anchor"]
    answer = _function(spec.name)(*columns, *settings)
    outputs = answer if isinstance(answer, tuple) else (answer,)
    if all(each.dtype == np.float64 for each in outputs):
        return list(outputs)
    floats = [each.astype(np.float64) for each in outputs]
    if spec.name in INDEX_FUNCTIONS:
        floats = [_rows_ago(columns[0], each) for each in outputs]
    for each in floats:
        each[: spec.lookback] = np.nan  # where the library puts zeros
    return floats


def _rows_ago(values: Floats, places: NDArray[np.integer[Any]]) -> Floats:
    """Count rows back from each row to the newest that has the value which the library found at `places`.

    Of rows that tie, the library takes one or another, as history happens to begin; here it is the newest.
    """
    rows = np.arange(len(values))
    groups = np.unique(values, return_inverse=True)[1]
    marks = np.sort(groups * len(values) + rows)  # rows of one value side by side, in order
    newest = marks[np.searchsorted(marks, groups[places] * len(values) + rows, side="right") - 1] % len(values)
    return np.asarray(rows - newest, np.float64)


@cache
def _library() -> ModuleType:
    library = import_module("talib")
    installed = version_of(library)
    if installed != registry.engine():
        warnings.warn(
            f"Values are computed by {installed} but identified as {registry.engine()}'s: install that version, or run "
            "`python -m mdplatform.features.generate`",
            stacklevel=2,
        )
    return library


def version_of(library: ModuleType) -> str:
    """Give the name and version of the engine, wrapper and C library both."""
    return f"talib {library.__version__} (C {library.__ta_version__.decode().split()[0]})"


@cache
def _function(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = unwrap(getattr(_library(), name))  # without the search for frames
    return function
