"""Features of bars: the one function that batch, on-demand and live callers share.

1. `parse.py` reads each feature; `bar_arrays.py` checks the bars and makes their arrays, once.
2. `graph.py` groups the features that share a computation, so that each is made once.
3. `guard.py` cuts the rows into segments without a hole; `talib_functions.py` computes each segment.
4. `degenerate.py` finds the values that the library makes up; every row gets a status, and a value or none.

Formulas of indicators and columns run over what was computed so. Where there are features of other kinds or places, or
formulas over bars of which some are missing, all are computed by their kinds (`panel.py`) from the bars, as long as
those are all that they need (`bars_alone.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from mdplatform.errors import UnknownFeature
from mdplatform.features.bar_arrays import BarArrays, BarsLike, read_bars
from mdplatform.features.bars_alone import bars_alone, timeframe_of
from mdplatform.features.formula.program import Program, compiled
from mdplatform.features.graph import computations, inputs_of
from mdplatform.features.guard import SETTLED, STATUSES, UNSETTLED
from mdplatform.features.indicators import evaluate_one
from mdplatform.features.kinds import INDICATORS
from mdplatform.features.panel import evaluate_on
from mdplatform.features.parse import FeatureLike, parse_feature, parse_features
from mdplatform.features.spec import FORMULA, FeatureSpec
from mdplatform.features.talib_functions import Floats
from mdplatform.market.bars import INSTANT
from mdplatform.market.timeframe import Timeframe

_WORDS = pl.Series(STATUSES)


@dataclass(frozen=True)
class Evaluation:
    """What features are worth in each row of the bars, and why not where they are worth nothing.

    `values` holds each output column by its name (float64; NaN stands for null), `statuses` the status of each row by
    the feature's canonical text (int8, an index in `STATUSES`); `@` and its place follow, where a feature is of another
    timeframe than the bars. The arrays are not to be written to.
    """

    open_time: NDArray[np.int64]
    features: tuple[FeatureSpec, ...]
    values: dict[str, Floats]
    statuses: dict[str, NDArray[np.int8]]
    feature_of: dict[str, str]

    def status(self, feature: FeatureLike) -> pl.Series:
        """Give the status of each row (String): `settled`, `unsettled`, or the reason why there is no value."""
        spec = parse_feature(feature)
        name = next((each for each in (f"{spec}{spec.place}", spec.canonical) if each in self.statuses), None)
        if name is None:
            raise UnknownFeature(spec.canonical, self.statuses)
        return _WORDS.gather(self.statuses[name]).alias(name)

    def table(self) -> pa.Table:
        """Give `open_time` and a float64 column for each output; what has no value is null, never NaN."""
        columns: list[Any] = [self._times().to_arrow()]
        valid: dict[int, pa.Buffer] = {}  # by the array of statuses, which features of the same lengths share
        for name, values in self.values.items():
            statuses = self.statuses[self.feature_of[name]]
            if id(statuses) not in valid:
                valid[id(statuses)] = pa.py_buffer(np.packbits(statuses <= UNSETTLED, bitorder="little").data)
            buffers: list[pa.Buffer | None] = [valid[id(statuses)], pa.py_buffer(values.data)]
            columns.append(pa.Array.from_buffers(pa.float64(), len(values), buffers))
        return pa.table(columns, names=["open_time", *self.values])

    def frame(self) -> pl.DataFrame:
        """Give `open_time`, a column for each output, and for each feature its status as `<canonical text>.status`."""
        words: dict[int, pl.Series] = {}
        columns = [self._times()]
        for name, values in self.values.items():
            columns.append(pl.Series(name, values, nan_to_null=True))
        for name, statuses in self.statuses.items():
            if id(statuses) not in words:
                words[id(statuses)] = _WORDS.gather(statuses)
            columns.append(words[id(statuses)].alias(f"{name}.status"))
        return pl.DataFrame(columns)

    def _times(self) -> pl.Series:
        return pl.Series("open_time", self.open_time).cast(INSTANT)


def compute(
    bars: BarsLike, features: Iterable[FeatureLike] | FeatureLike, timeframe: Timeframe | str | None = None
) -> pa.Table:
    """Give an Arrow table: `open_time` and a float64 column for each output, named by its canonical text.

    Takes what `evaluate` takes and raises what it raises.

    >>> from datetime import UTC, datetime, timedelta
    >>> days = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=each) for each in range(4)]
    >>> bars = pl.DataFrame({"open_time": days, "close": [1.0, 3.0, 5.0, 10.0]})
    >>> compute(bars, "SMA(period=3)").column("SMA(timeperiod=3)").to_pylist()
    [None, None, 3.0, 6.0]
    """
    return evaluate(bars, features, timeframe).table()


def evaluate(
    bars: BarsLike, features: Iterable[FeatureLike] | FeatureLike, timeframe: Timeframe | str | None = None
) -> Evaluation:
    """Give the values of `features` on `bars`, and the status of each row.

    `bars` are one symbol's in one timeframe, as a polars or pandas frame or an Arrow table, with `open_time` and the
    columns that the features read (and `state` and `timeframe`, where they are known), ordered by `open_time`; they
    are not written to. The timeframe is the one given, or that of the column; without either the smallest step between
    rows is taken for it. A feature of a longer timeframe, `RSI@1h` on bars of 15m, is computed on bars built of these.

    Raises InvalidBars for bars that cannot be computed on, and for those whose timeframe is not known where a feature
    names one; InvalidFeature for a feature that needs more than these bars, as one of a timeframe that cannot be built
    of them; and what `parse_feature` raises, before any work.
    """
    specs = parse_features(features)
    formulas = {spec: compiled(str(spec)) for spec in specs if spec.name == FORMULA}
    plain = [spec for spec in specs if spec not in formulas]
    plain += [each for program in formulas.values() for each in program.features]
    placed = {spec.timeframe for spec in (*specs, *plain) if spec.timeframe is not None}
    is_elsewhere = placed and (formulas or placed != {timeframe_of(bars, timeframe)})
    if is_elsewhere or not all(_is_plain(spec) for spec in plain) or any(spec.symbol for spec in formulas):
        return _evaluate_any(bars, specs, timeframe)
    columns = [name for program in formulas.values() for name in program.bar_columns]
    arrays = read_bars(bars, timeframe, (*inputs_of(plain), *columns))
    if formulas and len(arrays.open_time) > 1 and not arrays.is_contiguous:
        return _evaluate_any(bars, specs, timeframe)
    values: dict[str, Floats] = {}
    statuses: dict[str, NDArray[np.int8]] = {}
    computed = {whole: evaluate_one(whole, arrays) for whole in computations(plain)}
    for spec in specs:
        if spec in formulas:
            inputs = _inputs_of(formulas[spec], arrays, computed)
            values[spec.columns[0]], statuses[spec.canonical] = formulas[spec].columns(inputs)
            continue
        outputs, status = computed[spec.whole]
        places = [spec.definition.outputs.index(each) for each in spec.outputs]
        values.update(zip(spec.columns, (outputs[place] for place in places), strict=True))
        statuses[spec.canonical] = status
    feature_of = {column: spec.canonical for spec in specs for column in spec.columns}
    return Evaluation(arrays.open_time, specs, values, statuses, feature_of)


def _is_plain(spec: FeatureSpec) -> bool:
    """Tell whether a feature is an indicator of the bars themselves."""
    return spec.symbol is None and spec.name != FORMULA and spec.definition.kind == INDICATORS


def _inputs_of(
    program: Program, arrays: BarArrays, computed: Mapping[FeatureSpec, tuple[list[Floats], NDArray[np.int8]]]
) -> dict[str, tuple[Floats, NDArray[np.int8]]]:
    """Give the columns of a formula, and its features as they were computed."""
    inputs: dict[str, tuple[Floats, NDArray[np.int8]]] = {}
    for name in program.bar_columns:
        values, outside = arrays.columns[name], arrays.holes([name], None).outside
        if outside is None:
            inputs[name] = values, np.zeros(len(values), np.int8)
        else:
            inputs[name] = np.where(outside == SETTLED, values, np.nan), outside
    names = (name for name in program.inputs if name not in program.bar_columns)
    for name, spec in zip(names, program.features, strict=True):
        outputs, status = computed[spec.whole]
        inputs[name] = outputs[spec.definition.outputs.index(spec.outputs[0])], status
    return inputs


def _evaluate_any(bars: BarsLike, specs: tuple[FeatureSpec, ...], timeframe: Timeframe | str | None) -> Evaluation:
    """Evaluate features of every kind, from the bars alone."""
    own = bars_alone(bars, specs, timeframe)
    answers = evaluate_on(own.grid, specs, own.data)
    values: dict[str, Floats] = {}
    statuses: dict[str, NDArray[np.int8]] = {}
    feature_of: dict[str, str] = {}
    for spec, found in answers.items():
        place = spec.placed(
            None if spec.symbol == own.grid.symbol else spec.symbol,
            None if spec.timeframe is own.grid.timeframe else spec.timeframe,
        ).place
        name = f"{spec}{place}"
        columns = [f"{column}{place}" for column in spec.columns]
        values.update(zip(columns, (each[own.rows] for each in found.outputs), strict=True))
        statuses[name] = found.statuses[own.rows]
        feature_of.update(dict.fromkeys(columns, name))
    return Evaluation(own.grid.open_time[own.rows], specs, values, statuses, feature_of)
