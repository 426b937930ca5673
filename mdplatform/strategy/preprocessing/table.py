"""Rows on their way through the steps: one array of numbers, with the names of its columns and whose rows they are.

Polars and pandas frames, arrays of numpy and single rows (mappings) become a `Table`, and are given back as what they
were. Feature columns are those that hold numbers; the keys of a frame (`symbol`, `open_time`, `<feature>.status`, …)
go through untouched. A null and a NaN are one thing: a value that is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdplatform.strategy.preprocessing.columns import (
    instants,
    is_forming_in,
    is_key,
    number,
    pandas_columns,
    pandas_numbers,
    polars_numbers,
    to_instant,
)
from mdplatform.strategy.preprocessing.refusal import refused

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

PRESENT = ".present"
"""What follows the name of a feature in that of its mask: 1 where the value was there, 0 where a step put one in."""


@dataclass(frozen=True)
class Table:
    """Numbers (rows x columns, NaN where missing) and what is known of them.

    `origin` is each row's place in what was given; `symbols`, `times` (µs, open times) and `lengths` (close less open)
    are None where the rows do not tell. `runs` counts the unbroken runs of each symbol's rows: a step that looks back
    never looks from one into another. `is_forming` tells that a row is of a bar that has not closed.
    """

    values: Floats
    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    origin: Indices
    runs: NDArray[np.int64]
    symbols: NDArray[np.object_] | None = None
    times: NDArray[np.int64] | None = None
    lengths: NDArray[np.int64] | None = None
    known_at: NDArray[np.int64] | None = None
    timeframes: tuple[str, ...] = ()
    is_forming: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, rows: Any, names: Sequence[str] | None = None) -> Table:
        """Take in a polars or pandas frame, an array, a mapping (one row), or a table as it is.

        `names` are those of the columns of a mapping or an array, which tell none or no order by themselves. Raises
        `InvalidPreprocessing`.
        """
        if isinstance(rows, Table):
            return rows
        if isinstance(rows, Mapping):
            return _of_mapping(rows, names)
        room = type(rows).__module__.partition(".")[0]
        if room == "polars" and hasattr(rows, "get_columns"):
            return _of_columns({each.name: each for each in rows.get_columns()}, rows.height, polars_numbers)
        if room == "pandas" and hasattr(rows, "columns"):
            return _of_columns(pandas_columns(rows), len(rows), pandas_numbers)
        if isinstance(rows, np.ndarray | list | tuple):
            return _of_array(rows, names)
        if hasattr(rows, "__array__"):
            return _of_array(rows, names)
        if hasattr(rows, "toarray"):
            raise refused("Sparse data is not taken", value=type(rows).__name__, remedy="Give `rows.toarray()`")
        raise refused(
            "These are no rows",
            value=type(rows).__name__,
            remedy="Give a polars or pandas frame (collect a lazy one), a 2-D array, or a mapping for one row",
        )

    def closed(self) -> Table:
        """Give this table; raise `InvalidPreprocessing` where a row is of a bar that still forms.

        Such a row is none of training, nor one that rows after it may look back on.
        """
        if self.is_forming:
            remedy = "`peek` takes it, and forgets it; or leave out the rows where `is_closed` is false"
            raise refused("A bar still forms", field="is_closed", value=False, remedy=remedy)
        return self

    def like(self, rows: Any) -> Any:
        """Give this table in the form of `rows`, which it was made of: keys as they were, missing values as null."""
        if isinstance(rows, Table):
            return self
        if isinstance(rows, Mapping):
            if not len(self):
                return None
            told = {name: None if np.isnan(each) else float(each) for name, each in zip(*self._first(), strict=True)}
            return {**rows, **told}
        room = type(rows).__module__.partition(".")[0]
        if room == "polars":
            import polars as pl

            columns = [pl.Series(name, self.values[:, at]).fill_nan(None) for at, name in enumerate(self.names)]
            return rows[self.origin].with_columns(columns)
        if room == "pandas":
            return rows.iloc[self.origin].assign(**{name: self.values[:, at] for at, name in enumerate(self.names)})
        return self.values

    def _first(self) -> tuple[tuple[str, ...], Floats]:
        return self.names, self.values[0]

    def take(self, rows: Indices | NDArray[np.bool_]) -> Table:
        """Give some of the rows."""
        picked: dict[str, Any] = {
            name: getattr(self, name)[rows]
            for name in ("values", "origin", "runs", "symbols", "times", "lengths", "known_at")
            if getattr(self, name) is not None
        }
        return replace(self, **picked)

    def with_values(self, values: Floats, names: Sequence[str]) -> Table:
        """Give the same rows with other columns; those that are new are float64."""
        known = dict(zip(self.names, self.dtypes, strict=True))
        return replace(
            self, values=values, names=tuple(names), dtypes=tuple(known.get(each, "float64") for each in names)
        )

    def pieces(self) -> Iterator[tuple[str, int, Indices]]:
        """Give each symbol's unbroken runs: the symbol (`""` where the rows tell none), the run, and its rows."""
        if not len(self):
            return
        for symbol, rows in self.by_symbol():
            runs = self.runs[rows]
            edges = np.flatnonzero(np.diff(runs)) + 1
            for part in np.split(rows, edges):
                yield symbol, int(self.runs[part[0]]), part

    def by_symbol(self) -> list[tuple[str, Indices]]:
        """Give each symbol's rows, in order."""
        if self.symbols is None:
            return [("", np.arange(len(self)))]
        if len(self) == 1:
            return [(str(self.symbols[0]), np.zeros(1, dtype=np.intp))]
        names, inverse = np.unique(self.symbols.astype(str), return_inverse=True)
        return [(str(name), np.flatnonzero(inverse == at)) for at, name in enumerate(names)]


def _of_array(rows: Any, names: Sequence[str] | None) -> Table:
    array = np.asarray(rows)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise refused(
            "An array of rows x columns of numbers is needed",
            value=f"{array.ndim}-D of {array.dtype}",
            remedy="Shape it",
        )
    if names is not None and len(names) != array.shape[1]:
        raise refused(f"{array.shape[1]} columns where {len(names)} are known", value=list(names))
    told = tuple(names) if names is not None else tuple(f"x{at}" for at in range(array.shape[1]))
    return _checked(np.array(array, dtype=np.float64, order="C"), told, (str(array.dtype),) * len(told))


def _of_mapping(row: Mapping[str, Any], names: Sequence[str] | None) -> Table:
    features = [name for name in row if not is_key(name)]
    order = [name for name in names if name in row] if names is not None else []
    order += [name for name in features if name not in set(order)]
    values = np.empty((1, len(order)))
    for at, name in enumerate(order):
        values[0, at] = number(row[name], name)
    return _checked(
        values,
        tuple(order),
        ("",) * len(order),  # a number of Python has no type of a column
        symbols=None if row.get("symbol") is None else np.array([row["symbol"]], dtype=object),
        **{
            name: None if row.get(key) is None else np.array([to_instant(row[key], key)], dtype=np.int64)
            for name, key in (("opens", "open_time"), ("closes", "close_time"), ("known_at", "available_at"))
        },
        timeframes=() if row.get("timeframe") is None else (str(row["timeframe"]),),
        is_forming=is_forming_in([row.get("is_closed")]),
    )


def _of_columns(columns: Mapping[str, Any], height: int, numbers: Any) -> Table:
    names = [name for name in columns if not is_key(name)]
    taken = [numbers(columns[name], name) for name in names]
    values = np.empty((height, len(names)))
    for at, (column, _) in enumerate(taken):
        values[:, at] = column
    times = {
        name: instants(columns[key], key) if key in columns else None
        for name, key in (("opens", "open_time"), ("closes", "close_time"), ("known_at", "available_at"))
    }
    told = columns.get("timeframe")
    return _checked(
        values,
        tuple(names),
        tuple(dtype for _, dtype in taken),
        symbols=np.array(columns["symbol"].to_numpy(), dtype=object) if "symbol" in columns else None,
        **times,
        timeframes=() if told is None else tuple(sorted({str(each) for each in told.unique()})),
        is_forming="is_closed" in columns and is_forming_in(columns["is_closed"].to_numpy()),
    )


def _checked(
    values: Floats,
    names: tuple[str, ...],
    dtypes: tuple[str, ...],
    *,
    symbols: NDArray[np.object_] | None = None,
    opens: NDArray[np.int64] | None = None,
    closes: NDArray[np.int64] | None = None,
    known_at: NDArray[np.int64] | None = None,
    timeframes: tuple[str, ...] = (),
    is_forming: bool = False,
) -> Table:
    if len(timeframes) > 1:
        raise refused(
            "The rows are of several timeframes",
            field="timeframe",
            value=", ".join(timeframes),
            remedy="One preprocessing takes the rows of one timeframe",
        )
    if not names:
        raise refused("There is no column of features", remedy="Give at least one column of numbers")
    if np.isinf(values).any():
        row, column = (int(each[0]) for each in np.nonzero(np.isinf(values)))
        raise refused("A value is infinite", field=names[column], value=f"row {row}", remedy="Leave it null")
    if symbols is not None and any(each is None or each != each for each in symbols):
        raise refused("A row names no symbol", field="symbol")
    size = len(values)
    table = Table(
        values, names, dtypes, np.arange(size), np.zeros(size, dtype=np.int64), symbols, opens,
        None if opens is None or closes is None else closes - opens,
        known_at if known_at is not None else closes, timeframes, is_forming,
    )  # fmt: skip
    if opens is not None and size > 1:
        for symbol, rows in table.by_symbol():
            steps = np.diff(opens[rows])
            if (steps <= 0).any():
                at = int(np.flatnonzero(steps <= 0)[0]) + 1
                raise refused(
                    f"The rows{f' of {symbol}' if symbol else ''} do not ascend by time",
                    field="open_time", value=f"row {int(rows[at])}", remedy="Sort them, and give each bar once",
                )  # fmt: skip
    return table
