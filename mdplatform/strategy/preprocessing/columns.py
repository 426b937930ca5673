"""The columns of frames: which of them hold features, and the numbers and instants in them.

A column is one of polars or pandas, a cell a value of a mapping. A null and a NaN are one thing: a value that is
missing. What cannot be taken is refused with the name of its column.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdplatform.errors import InvalidPreprocessing
from mdplatform.strategy.preprocessing.refusal import refused

KEYS = frozenset(
    {
        *("symbol", "timeframe", "open_time", "close_time", "available_at", "ingested_at", "time", "at"),
        *("state", "source", "is_closed", "revision", "status", "quality"),
    }
)
"""Columns that say which row it is and how it came about; they are no features."""
KEY_SUFFIXES = (".status", ".age")
EARLIEST, LATEST = 1_104_537_600_000_000, 4_102_444_800_000_000
"""2005 and 2100 in µs: a whole number before or after is no instant of market data, or one in another unit."""


def is_key(name: str) -> bool:
    """Tell whether a column says which row it is rather than holding a feature."""
    return name in KEYS or name.endswith(KEY_SUFFIXES)


def number(value: Any, name: str) -> float:
    """Give a cell's number, NaN where it is missing. Raises `InvalidPreprocessing`."""
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise refused("This is no number", field=name, value=value, remedy="Give a number, or None where it is missing")
    return float(value)


def to_instant(value: Any, name: str) -> int:
    """Give an instant in microseconds; a datetime without a zone is UTC. Raises `InvalidPreprocessing`."""
    if isinstance(value, datetime) and value == value:  # pandas' NaT, which is none, is not
        told = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        since = told - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if not EARLIEST <= value < LATEST:
            raise refused("Not from 2005 to 2099", field=name, value=value, remedy="Give microseconds of UTC")
        return int(value)
    raise refused("This is no instant", field=name, value=value, remedy="Give a datetime, or microseconds of UTC")


def is_forming_in(closed: Any) -> bool:
    """Tell whether a bar has not closed, by the cells of `is_closed`; one that is missing says nothing."""
    return any(isinstance(each, bool | np.bool_) and not each for each in closed)


def polars_numbers(column: Any, name: str) -> tuple[NDArray[Any], str]:
    """Give the numbers of a column of polars, and its type, empty where it has none. Raises `InvalidPreprocessing`."""
    dtype = column.dtype
    if str(dtype) == "Null":
        return np.full(len(column), np.nan), ""
    if not dtype.is_numeric() or dtype.is_decimal():
        raise _no_numbers(name, dtype)
    return column.cast(type(column)([0.0]).dtype).to_numpy(), str(dtype).lower()


def pandas_columns(frame: Any) -> dict[str, Any]:
    """Give the columns of a frame of pandas by name, and the keys in its index. Raises `InvalidPreprocessing`."""
    keys = [name for name in frame.index.names if isinstance(name, str) and is_key(name)]
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise refused("Two columns have one name", field=str(repeated[0]))
    strange = [name for name in frame.columns if not isinstance(name, str)]
    if strange:
        raise refused("A column's name is no text", value=strange[0])
    told: dict[str, Any] = {name: frame.index.get_level_values(name) for name in keys if name not in frame.columns}
    return {**told, **{name: frame[name] for name in frame.columns}}


def pandas_numbers(column: Any, name: str) -> tuple[NDArray[Any], str]:
    """Give the numbers of a column of pandas, and its type, empty where it has none. Raises `InvalidPreprocessing`."""
    dtype = column.dtype
    if str(dtype) == "object" and column.isna().all():
        return np.full(len(column), np.nan), ""
    if getattr(dtype, "kind", "O") not in "fiu":
        raise _no_numbers(name, dtype)
    return column.to_numpy(dtype=np.float64, na_value=np.nan), str(dtype).lower()


def _no_numbers(name: str, dtype: object) -> InvalidPreprocessing:
    return refused(
        "This column holds no numbers", field=name, value=str(dtype), remedy="Leave it out, or make it numbers"
    )


def instants(column: Any, name: str) -> NDArray[np.int64]:
    """Give the instants of a column in microseconds; those without a zone are UTC. Raises `InvalidPreprocessing`."""
    if type(column).__module__.startswith("polars"):
        if column.dtype.base_type().__name__ not in ("Datetime", "Date"):
            raise refused("This column holds no instants", field=name, value=str(column.dtype))
        made = column.dt.epoch("us")
        missing, found = made.null_count() > 0, made.fill_null(0).to_numpy()
    else:
        import pandas as pd

        if not pd.api.types.is_datetime64_any_dtype(column.dtype):
            raise refused("This column holds no instants", field=name, value=str(column.dtype))
        index = pd.DatetimeIndex(column)
        aware = index.tz_localize("UTC") if index.tz is None else index
        missing, found = bool(index.isna().any()), aware.as_unit("us").asi8
    if missing:
        raise refused("An instant is missing", field=name)
    return np.asarray(found, dtype=np.int64)
