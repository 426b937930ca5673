"""Bars as the arrays that kernels want, made once for all features: contiguous float64, and where they have holes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import InvalidBars
from mdplatform.features.degenerate import Runs
from mdplatform.features.guard import Holes, find_holes
from mdplatform.features.talib_functions import Floats
from mdplatform.market.timeframe import Timeframe

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

BarsLike: TypeAlias = "pl.DataFrame | pa.Table | pd.DataFrame"


@dataclass
class BarArrays:
    """The columns of one symbol's bars in one timeframe, rows in order of `open_time` (microseconds)."""

    open_time: NDArray[np.int64]
    step: int | None
    gaps: NDArray[np.bool_] | None
    columns: dict[str, Floats]
    _unusable: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    _holes: dict[tuple[frozenset[str], str | None], Holes] = field(default_factory=dict)
    _runs: dict[tuple[str, ...], Runs] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            finite = np.isfinite(values)
            if not finite.all():
                self._unusable[name] = ~finite

    @property
    def is_contiguous(self) -> bool:
        """Whether no row is missing, and none lies off the grid of the first."""
        rows = len(self.open_time)
        if self.step is None:
            return False
        return rows < 2 or int(self.open_time[-1] - self.open_time[0]) == self.step * (rows - 1)

    def holes(self, inputs: Iterable[str], anchor: str | None) -> Holes:
        """Give the segments without a hole in `inputs`, cut at each anchor where there is one."""
        broken = frozenset(name for name in inputs if name in self._unusable)
        key = (broken, anchor)
        if key not in self._holes:
            unusable = [(name, self._unusable[name]) for name in sorted(broken)]
            self._holes[key] = find_holes(self.open_time, self.step, self.gaps, unusable, anchor)
        return self._holes[key]

    def runs(self, kind: str, columns: tuple[str, ...]) -> Runs:
        """Give the runs of rows in which the columns are of that kind (see `degenerate`)."""
        key = (kind, *columns)
        if key not in self._runs:
            self._runs[key] = Runs(kind, [self.columns[name] for name in columns])
        return self._runs[key]


def read_bars(bars: BarsLike, timeframe: Timeframe | str | None, inputs: Iterable[str]) -> BarArrays:
    """Give the arrays of `inputs` and the times of `bars` (polars, Arrow or pandas), which are not written to.

    The timeframe is the one given, else that of the column `timeframe`, else the smallest step between rows.
    Raises InvalidBars for a missing column, for rows out of order or twice, or of several symbols or timeframes.
    """
    frame = as_polars(bars)
    wanted = sorted(set(inputs))
    missing = [name for name in ("open_time", *wanted) if name not in frame.columns]
    if missing:
        raise InvalidBars(
            "Bars lack columns that a feature reads",
            value=", ".join(missing),
            remedy=f"They have: {', '.join(frame.columns)}"
            + (
                ". `periods` is an input of MAVP alone: name a column, as in `MAVP(close,trade_count)`, or add it"
                if "periods" in missing
                else ""
            ),
        )
    open_time = _instants(frame.get_column("open_time"))
    length = _timeframe(frame, timeframe)
    step = _checked_step(open_time, length)
    _check_single(frame, "symbol")
    gaps = None
    if "state" in frame.columns:
        marked = frame.get_column("state") == "gap"
        if marked.any():
            gaps = marked.fill_null(False).to_numpy()
    return BarArrays(open_time, step, gaps, {name: _floats(frame.get_column(name)) for name in wanted})


def as_polars(bars: BarsLike) -> pl.DataFrame:
    """Give `bars` as a polars frame; what can be shared is not copied."""
    if isinstance(bars, pl.DataFrame):
        return bars
    module = type(bars).__module__.partition(".")[0]
    try:
        if module == "pyarrow":
            converted = pl.from_arrow(bars)
        elif module == "pandas":
            named = bars.reset_index() if bars.index.name == "open_time" else bars  # type: ignore[union-attr]
            converted = pl.from_pandas(named)  # type: ignore[arg-type]
        else:
            converted = None
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise InvalidBars("Bars cannot be read", value=str(error)) from error
    if not isinstance(converted, pl.DataFrame):
        raise InvalidBars("Bars are a frame of polars or pandas, or a table of Arrow", value=type(bars).__name__)
    return converted


def _instants(series: pl.Series) -> NDArray[np.int64]:
    if not isinstance(series.dtype, pl.Datetime):
        raise InvalidBars(
            "open_time is not a column of UTC instants", value=str(series.dtype), remedy="Cast it to Datetime(us, UTC)"
        )
    if series.null_count():
        raise InvalidBars("open_time is null in some rows", value=series.null_count())
    kind = pl.Datetime(
        "us", series.dtype.time_zone
    )  # in any zone the number below is UTC's; without one it is taken so
    return (series if series.dtype == kind else series.cast(kind)).to_physical().to_numpy()


def _floats(series: pl.Series) -> Floats:
    try:
        # a time or a truth value could be cast to a number as well, and would be none
        if not (series.dtype.is_numeric() or series.dtype in (pl.String, pl.Null)):
            raise pl.exceptions.InvalidOperationError
        values = series.cast(pl.Float64).to_numpy()
    except pl.exceptions.PolarsError as error:
        raise InvalidBars(f"Column {series.name} is not numbers", value=str(series.dtype)) from error
    return np.ascontiguousarray(values)


def _check_single(frame: pl.DataFrame, column: str) -> None:
    if column in frame.columns and frame.height and frame.get_column(column).n_unique() > 1:
        found = ", ".join(str(each) for each in frame.get_column(column).unique().sort().head(5))
        raise InvalidBars(f"Bars of more than one {column}", value=found, remedy=f"Compute each {column} by itself")


def _timeframe(frame: pl.DataFrame, given: Timeframe | str | None) -> Timeframe | None:
    _check_single(frame, "timeframe")
    told = None
    if "timeframe" in frame.columns and frame.height:
        text = frame.get_column("timeframe")[0]
        told = None if text is None else Timeframe.parse(text)
    if given is None:
        return told
    asked = Timeframe.parse(given)
    if told is not None and told is not asked:
        raise InvalidBars("Bars are of another timeframe", value=told.value, remedy=f"Asked for {asked.value}")
    return asked


def _checked_step(open_time: NDArray[np.int64], timeframe: Timeframe | None) -> int | None:
    length = timeframe.microseconds if timeframe else None
    if len(open_time) < 2:
        return length
    steps = np.diff(open_time)
    smallest = int(steps.min())
    if smallest <= 0 or (length is not None and smallest < length):
        row = int(np.argmin(steps)) + 1
        instant = np.datetime64(int(open_time[row]), "us")
        if smallest > 0:
            raise InvalidBars(
                f"Row {row} is closer to the one before than a bar of {timeframe} is long", value=f"{instant}Z"
            )
        problem = "twice" if smallest == 0 else "out of order"
        remedy = "Sort the bars by open_time, one row each"
        raise InvalidBars(f"open_time of row {row} is {problem}", value=f"{instant}Z", remedy=remedy)
    return length if length is not None else smallest
