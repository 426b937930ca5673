"""Look-ahead: whether values use what was known only after their row's bar was.

1. Compute the features in the rows of a grid, from all data.
2. For some of these rows, spread over the grid, compute them again as if nothing after the row's T had happened
   (`Truncated`), in the rows up to it. T is when the row's own bar was available (`features.arrival`).
3. Each value and status that differs was made of what came later. Comparing all rows up to the cut, not only the last,
   finds values that look far ahead too.

Functions of your own are checked in the same way: each is called with the bars, and with those of them
that were available.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import InvalidFeature, NoData, ParameterOutOfRange
from mdplatform.features.arrival import on_time
from mdplatform.features.data import Data, Grid, Truncated, Values, default_data, grid_of, within
from mdplatform.features.guard import STATUSES
from mdplatform.features.panel import as_instant, evaluate_on
from mdplatform.features.parse import FeatureLike, parse_feature
from mdplatform.features.spec import FeatureSpec
from mdplatform.features.talib_functions import Floats
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import from_us, iso, to_us
from mdplatform.market.timeframe import Timeframe

OwnFeature: TypeAlias = Callable[[pl.DataFrame], Any]
"""A function of bars (`BAR_SCHEMA`, ascending, gaps as rows) that gives a value for each, as a series or an array."""

MOST_SHOWN = 10
_TOLERANCE = 1e-9  # of the value's size, or of the usual one where values cross zero
_SEED = 7


@dataclass(frozen=True)
class Difference:
    """A row whose value or status is another one once later data is known.

    `value` and `status` are those of the computation from all data, `value_then` and `status_then` those from what was
    known at `known_at`, the T of a row at or after this one.
    """

    feature: str
    output: str
    open_time: datetime
    known_at: datetime
    value: float | None
    value_then: float | None
    status: str
    status_then: str

    def __str__(self) -> str:
        now, then = (_shown(*each) for each in ((self.value, self.status), (self.value_then, self.status_then)))
        return f"{self.output} at {iso(self.open_time)}: {then} as known at {iso(self.known_at)}, {now} with later data"


@dataclass(frozen=True)
class LookaheadReport:
    """What was found; `differences` are the first few of each feature, `counts` all of them by feature."""

    symbol: str
    timeframe: str
    rows: int
    cuts: int
    counts: Mapping[str, int]
    differences: tuple[Difference, ...] = ()
    without_values: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether no value looks ahead, and there were values to tell by."""
        return not any(self.counts.values()) and not self.without_values

    def to_dict(self) -> dict[str, Any]:
        """Give the form that `mdplatform check-lookahead --json` prints."""
        return {
            "symbol": self.symbol,
            "timeframe": self.timeframe,
            "rows": self.rows,
            "cuts": self.cuts,
            "passed": self.passed,
            "features": dict(self.counts),
            "without_values": list(self.without_values),
            "differences": [
                {
                    "feature": each.feature,
                    "output": each.output,
                    "open_time": iso(each.open_time),
                    "known_at": iso(each.known_at),
                    "value": each.value,
                    "value_then": each.value_then,
                    "status": each.status,
                    "status_then": each.status_then,
                }
                for each in self.differences
            ],
        }


def check_lookahead(
    features: Iterable[FeatureLike | OwnFeature] | FeatureLike | OwnFeature,
    data: Data | None = None,
    symbol: str = "BTCUSDT",
    timeframe: Timeframe | str = "15m",
    *,
    start: datetime | str | None = None,
    end: datetime | str | None = None,
    rows: int = 1000,
    samples: int = 30,
) -> LookaheadReport:
    """Look for values that use what was known only after their row closed.

    Checks the newest `rows` rows with `start <= open_time < end`, cutting the data off at T of `samples` of them.
    `features` are named as everywhere, or are functions of bars (`OwnFeature`). Without `data` the platform's
    home is read. Raises what `frame` raises, `ParameterOutOfRange` for numbers out of range, and `InvalidFeature` for a
    function that gives no value for each row.

    >>> from mdplatform.features import TableData
    >>> check_lookahead("RSI", TableData(), "BTCUSDT", "1h")
    Traceback (most recent call last):
    mdplatform.errors.NoData: No 1h bars of BTCUSDT to check on. There are bars of: none
    """
    given = [features] if isinstance(features, str | Mapping | FeatureSpec) or callable(features) else list(features)
    checked = {_name(each): each if callable(each) else parse_feature(each) for each in given}
    name, length = parse_symbol(symbol), Timeframe.parse(timeframe)
    for what, number, least in (("rows", rows, 2), ("samples", samples, 1)):
        if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= 1_000_000:
            raise ParameterOutOfRange(f"{what} is refused", value=number, remedy=f"Allowed: {least} to 1000000")
    begin, stop = (None if each is None else to_us(as_instant(each)) for each in (start, end))
    source = data if data is not None else default_data()
    bars = source.bars(name, length, begin, stop)
    if bars.is_empty():
        known = ", ".join(source.symbols()) or "none"
        raise NoData(f"No {length} bars of {name} to check on", remedy=f"There are bars of: {known}")
    grid = grid_of(bars.tail(rows))
    cuts = _cuts(len(grid), samples)
    counts, differences, without = {}, [], []
    for text, feature in checked.items():
        compute = _of_function(text, feature, on_time(bars)) if callable(feature) else _of_feature(feature, source)
        whole = compute(grid, None)
        found = _differences(text, _outputs(feature, text, whole), whole, grid, compute, cuts)
        counts[text] = len(found)
        differences += found[:MOST_SHOWN]
        if not any(np.isfinite(each).any() for each in whole.outputs):
            without.append(text)
    return LookaheadReport(name, length.value, len(grid), len(cuts), counts, tuple(differences), tuple(without))


_Compute: TypeAlias = Callable[[Grid, int | None], Values]


def _cuts(rows: int, samples: int) -> list[int]:
    """Give rows spread over all, one at a random place in each stretch: no hour of the day is favoured."""
    edges = np.linspace(0, rows, min(samples, rows) + 1).astype(np.int64)
    return [int(each) for each in np.random.default_rng(_SEED).integers(edges[:-1], edges[1:])]


def _of_feature(spec: FeatureSpec, data: Data) -> _Compute:
    def compute(grid: Grid, at: int | None) -> Values:
        return evaluate_on(grid, [spec], data if at is None else Truncated(data, at))[spec]

    return compute


def _of_function(name: str, function: OwnFeature, bars: pl.DataFrame) -> _Compute:
    """Give the function all bars that were available at T of the last row, and take its values in the grid's rows."""

    def compute(grid: Grid, at: int | None) -> Values:
        known = bars if at is None else within(bars, "open_time", None, int(grid.open_time[-1]) + 1)
        try:
            answer = function(known)
        except Exception as error:
            raise InvalidFeature(
                f"{name} fails", value=f"{type(error).__name__}: {error}", remedy="It is called with a frame of bars"
            ) from error
        outputs = tuple(each[-len(grid) :] for each in _arrays(name, answer, known.height))
        nulls = np.any([np.isnan(each) for each in outputs], axis=0)
        return Values(outputs, np.where(nulls, len(STATUSES), 0).astype(np.int8))

    return compute


def _arrays(name: str, answer: Any, rows: int) -> list[Floats]:
    series = answer.get_columns() if isinstance(answer, pl.DataFrame) else [answer]
    try:
        arrays = [pl.Series(each).cast(pl.Float64).fill_null(np.nan).to_numpy() for each in series]
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise InvalidFeature(f"{name} gives no numbers", value=type(answer).__name__, remedy=str(error)) from error
    if not arrays or any(len(each) != rows for each in arrays):
        found = len(arrays[0]) if arrays else 0
        raise InvalidFeature(
            f"{name} gives no value for each row", value=found, remedy=f"Give {rows}, one for each bar"
        )
    return arrays


def _differences(
    feature: str, names: list[str], whole: Values, grid: Grid, compute: _Compute, cuts: list[int]
) -> list[Difference]:
    found: dict[tuple[int, str], Difference] = {}
    sizes = [_usual(each) for each in whole.outputs]
    for cut in cuts:
        at = int(grid.known_at[cut])
        then = compute(Grid(grid.symbol, grid.timeframe, grid.open_time[: cut + 1], grid.known_at[: cut + 1]), at)
        other_status = then.statuses != whole.statuses[: cut + 1]
        for name, size, value, value_then in zip(names, sizes, whole.outputs, then.outputs, strict=True):
            differs = other_status | ~_same(value_then, value[: cut + 1], size)
            for row in np.flatnonzero(differs).tolist():
                found.setdefault(
                    (row, name),
                    Difference(
                        feature,
                        name,
                        from_us(int(grid.open_time[row])),
                        from_us(at),
                        _number(value[row]),
                        _number(value_then[row]),
                        _word(whole.statuses[row]),
                        _word(then.statuses[row]),
                    ),
                )
    return [found[key] for key in sorted(found)]


def _usual(values: Floats) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(np.median(finite)) if len(finite) else 0.0


def _same(left: Floats, right: Floats, usual: float) -> NDArray[np.bool_]:
    close = np.abs(left - right) <= _TOLERANCE * np.maximum(np.abs(right), usual)
    same: NDArray[np.bool_] = close | (np.isnan(left) & np.isnan(right)) | (left == right)
    return same


def _outputs(feature: FeatureSpec | OwnFeature, name: str, values: Values) -> list[str]:
    if isinstance(feature, FeatureSpec):
        return [f"{each}{feature.place}" for each in feature.columns]
    several = len(values.outputs) > 1
    return [f"{name}[{at}]" if several else name for at in range(len(values.outputs))]


def _name(feature: FeatureLike | OwnFeature) -> str:
    if callable(feature):
        return f"{feature.__module__}:{getattr(feature, '__qualname__', type(feature).__name__)}"
    spec = parse_feature(feature)
    return f"{spec}{spec.place}"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _word(status: int) -> str:
    return STATUSES[status] if status < len(STATUSES) else "null"


def _shown(value: float | None, status: str) -> str:
    if value is None:
        return f"null ({status})" if status != "null" else "null"
    return f"{value:.10g}" if status in (STATUSES[0], "null") else f"{value:.10g} ({status})"
