"""The live features of one symbol and timeframe: opened from history, then a bar at a time.

What `update` gives for a bar is what `features.evaluate` gives for it on the same bars from the same beginning, bit for
bit: values and statuses. (Profiles: to 1e-9 and their statuses exactly, since the unit in which a batch counts volume
depends on all of its rows.)

1. A bar is checked: it is the next one, or bars are missing before it, which count as gaps.
2. Indicators and order flow go on from their state (`indicators`); profiles are computed anew from the bars of their
   window (`profiles`).
3. Formulas are computed of these, on the one row, or on the newest rows where they look back (`formulas`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite, isnan, nan
from struct import Struct
from types import MappingProxyType

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import InvalidBars
from mdplatform.features.bar_arrays import BarArrays, as_polars, read_bars
from mdplatform.features.compute import Evaluation, evaluate
from mdplatform.features.formula.program import Program, compiled
from mdplatform.features.guard import GAP, MISSING_VOLUME, SETTLED
from mdplatform.features.live.ability import refuse_others, way_of
from mdplatform.features.live.formulas import LiveFormula
from mdplatform.features.live.indicators import LiveIndicators, columns_of
from mdplatform.features.live.profiles import COLUMNS as PROFILE_COLUMNS
from mdplatform.features.live.profiles import LiveProfiles
from mdplatform.features.parse import FeatureLike, parse_features
from mdplatform.features.spec import FORMULA, FeatureSpec
from mdplatform.features.talib_functions import Floats
from mdplatform.market.bars import PRICE_COLUMNS, STATES, VALUE_COLUMNS
from mdplatform.market.resample import complete_grid
from mdplatform.market.time import from_us, iso
from mdplatform.market.timeframe import Timeframe

_NOTHING = (nan,) * len(VALUE_COLUMNS)
_PRICES = len(PRICE_COLUMNS)


class LiveValues(msgspec.Struct, frozen=True, gc=False):
    """The values of one bar: `packed` are the bytes of `numbers` (little-endian), `codes` those of `statuses`."""

    packed: bytes
    codes: bytes

    @property
    def numbers(self) -> NDArray[np.float64]:
        """The numbers by column, NaN for null; the array cannot be written to."""
        return np.frombuffer(self.packed, "<f8")

    @property
    def statuses(self) -> NDArray[np.int8]:
        """The statuses by feature (`guard.STATUSES`); the array cannot be written to."""
        return np.frombuffer(self.codes, np.int8)


class LiveFeatures:
    """State of features between bars; `specs` fix the order of columns and statuses.

    `columns` name the numbers, feature by feature, and `counts` say how many of them each feature has. `ways` says of
    each feature, by its canonical text, whether it is `incremental` or `recomputed` (`ability`).

    `history` is a table of closed bars (`BAR_SCHEMA`, newest revisions, complete grid, ascending) that reaches up to
    the bar before the first update; with no rows, history begins with the first update. Raises `InvalidFeature` for a
    feature that cannot be live, `InvalidBars` for history that cannot be computed on, and what `parse_feature` raises.
    One thread may use it at a time.
    """

    specs: tuple[FeatureSpec, ...]
    columns: tuple[str, ...]
    counts: tuple[int, ...]
    ways: Mapping[str, str]

    def __init__(self, features: Sequence[FeatureLike], timeframe: Timeframe, history: pl.DataFrame) -> None:
        timeframe, history = Timeframe.parse(timeframe), as_polars(history)
        self.specs = parse_features(features)
        symbol = history["symbol"][0] if history.height and "symbol" in history.columns else None
        refuse_others(self.specs, timeframe, symbol)
        self.columns = tuple(column for spec in self.specs for column in spec.columns)
        self.counts = tuple(len(spec.columns) for spec in self.specs)
        self.ways = MappingProxyType({spec.canonical: way_of(spec) for spec in self.specs})
        self._step = timeframe.microseconds
        self._timeframe = timeframe
        programs = {spec: compiled(str(spec)) for spec in self.specs if spec.name == FORMULA}
        parts = [spec for spec in self.specs if spec not in programs]
        parts += [each for program in programs.values() for each in program.features]
        wholes = list(dict.fromkeys(spec.whole for spec in parts))
        indicators = [spec for spec in wholes if spec.definition.kind != "profile"]
        profiles = [spec for spec in wholes if spec.definition.kind == "profile"]
        bar_columns = list(dict.fromkeys(name for program in programs.values() for name in program.bar_columns))
        named = {*bar_columns, *(name for spec in indicators for name in columns_of(spec))}
        arrays, history = _read(history, timeframe, named | set(PROFILE_COLUMNS if profiles else ()))
        self._next = int(arrays.open_time[-1]) + self._step if len(arrays.open_time) else None
        self._indicators = LiveIndicators(indicators, self._step, arrays)
        self._profiles = LiveProfiles(profiles, timeframe) if profiles else None
        if self._profiles is not None:
            self._profiles.begin([arrays.columns[name] for name in PROFILE_COLUMNS])
        self._bar_columns = [VALUE_COLUMNS.index(name) for name in bar_columns]
        self._formulas: list[LiveFormula] = []
        self._place(programs, [*indicators, *profiles], bar_columns)
        self._begin_formulas(list(programs.values()), arrays, history)
        self._looks_back = max((each.rows for each in self._formulas), default=0)

    @property
    def next_open(self) -> int | None:
        """The open time of the bar that is due next (microseconds), None where no bar was yet."""
        return self._next

    def update(self, open_time: int, values: Sequence[float], state: str = "observed") -> LiveValues:
        """Take the next closed bar in: nine values as in `VALUE_COLUMNS`, NaN for null; give the features at its close.

        A bar that is not the next one on the grid, or a `gap`, cuts the segment as in a batch. Raises `InvalidBars` for
        one that opens before the last, and for values that are no bar; the state stays as it was.
        """
        row = self._checked(open_time, values, state)
        open_time = int(open_time)
        if self._next is not None and open_time != self._next:
            self._miss((open_time - self._next) // self._step)
        given = self._take(open_time, row, state == "gap", True)
        self._next = open_time + self._step
        return given

    def peek(self, open_time: int, values: Sequence[float]) -> LiveValues:
        """Give the features as they would be if the forming bar closed like this; nothing is committed."""
        row = self._checked(open_time, values, "observed")
        if self._next is None or open_time == self._next:
            return self._take(open_time, row, False, False)
        due, indicators, formulas = self._next, self._indicators.save(), [each.save() for each in self._formulas]
        bars = None if self._profiles is None else self._profiles.held.copy()
        try:
            self._miss((open_time - due) // self._step)
            return self._take(open_time, row, False, False)
        finally:
            self._next = due
            self._indicators.restore(indicators)
            for formula, saved in zip(self._formulas, formulas, strict=True):
                formula.restore(saved)
            if self._profiles is not None and bars is not None:
                self._profiles.held = bars

    def _place(self, programs: Mapping[FeatureSpec, Program], wholes: list[FeatureSpec], names: list[str]) -> None:
        """Lay out numbers and statuses: of indicators, profiles, columns of bars, formulas; say which are wanted."""
        first, places = 0, {}
        for at, whole in enumerate(wholes):
            places[whole] = first, at
            first += len(whole.outputs)
        columns = {name: (first + at, len(wholes) + at) for at, name in enumerate(names)}
        numbers: list[int] = []
        statuses: list[int] = []
        count, unit = first + len(names), len(wholes) + len(names)
        for spec in self.specs:
            if spec in programs:
                numbers.append(count + len(self._formulas))
                statuses.append(unit + len(self._formulas))
                program = programs[spec]
                features = iter(program.features)
                inputs = [columns.get(name) or _place_of(next(features), places) for name in program.inputs]
                self._formulas.append(LiveFormula(program, inputs))
                continue
            begin, status = places[spec.whole]
            numbers += [begin + spec.definition.outputs.index(each) for each in spec.outputs]
            statuses.append(status)
        everything = numbers == list(range(count + len(self._formulas))) and len(statuses) == unit + len(self._formulas)
        self._wanted = None if everything else (numbers, statuses)
        self._pack = Struct(f"<{len(numbers)}d").pack

    def _begin_formulas(self, programs: Sequence[Program], arrays: BarArrays, history: pl.DataFrame) -> None:
        """Give the formulas that look back the history of their inputs."""
        looking_back = [each for each in programs if each.rows]
        if not looking_back or not len(arrays.open_time):
            return
        found = evaluate(history, [spec for each in looking_back for spec in each.features], self._timeframe)
        for program, formula in zip(programs, self._formulas, strict=True):
            if program.rows:
                features = iter(program.features)
                inputs = [
                    _column(name, arrays) if name in program.bar_columns else _feature(next(features), found)
                    for name in program.inputs
                ]
                formula.begin([values for values, _ in inputs], [statuses for _, statuses in inputs])

    def _checked(self, open_time: int, values: Sequence[float], state: str) -> tuple[float, ...]:
        """Give the values of a bar as a tuple, NaN for those of a gap. Raises `InvalidBars` for what is no bar."""
        if type(open_time) is not int or open_time != self._next:
            self._check_time(open_time)
        if state not in STATES:
            raise InvalidBars("A bar has no such state", value=state, remedy=f"Allowed: {', '.join(STATES)}")
        if state == "gap":
            return _NOTHING
        try:
            row = tuple(map(float, values))
        except (TypeError, ValueError) as error:
            raise InvalidBars("A bar has nine numbers, NaN for null", value=repr(values)[:80]) from error
        if len(row) != len(VALUE_COLUMNS):
            raise InvalidBars("A bar has nine numbers, NaN for null", value=len(row), remedy=", ".join(VALUE_COLUMNS))
        opened, high, low, close, volume, quote, count, bought, quote_bought = row
        if not (0 < low <= opened <= high < inf and low <= close <= high):
            _check_prices(row)
        if not (volume >= 0 <= quote and count >= 0 <= bought and quote_bought >= 0 and sum(row) < inf):
            _check_amounts(row)
        return row

    def _check_time(self, open_time: int) -> None:
        if isinstance(open_time, bool) or not isinstance(open_time, int | np.integer):
            raise InvalidBars("An open time is an integer, microseconds since 1970", value=repr(open_time)[:40])
        if not self._timeframe.is_aligned(int(open_time)):
            raise InvalidBars(f"A bar opens off the grid of {self._timeframe}", value=open_time)
        if self._next is not None and open_time < self._next:
            last = iso(from_us(self._next - self._step))
            raise InvalidBars("A bar opens before or with the last one", value=open_time, remedy=f"The last: {last}")

    def _miss(self, rows: int) -> None:
        """Take so many gaps in: the first, and those at which formulas look back. Those between change nothing."""
        assert self._next is not None
        between = max(0, rows - self._looks_back - 1)
        for at in range(rows - between):
            self._take(self._next, _NOTHING, True, True)
            self._next += self._step
            if at == 0:
                self._indicators.skip(between)
                self._next += between * self._step
                if self._profiles is not None:
                    self._profiles.skip(between)

    def _take(self, open_time: int, row: tuple[float, ...], is_gap: bool, keep: bool) -> LiveValues:
        numbers, statuses = self._indicators.take(open_time, row, is_gap, keep)
        if self._profiles is not None:
            bar = [row[VALUE_COLUMNS.index(name)] for name in PROFILE_COLUMNS]
            for outputs, status in self._profiles.values(open_time, bar, keep):
                numbers += outputs
                statuses.append(status)
        if self._formulas:
            for place in self._bar_columns:
                status = SETTLED if isfinite(row[place]) else GAP if is_gap or place < _PRICES else MISSING_VOLUME
                statuses.append(status)
                numbers.append(row[place] if status == SETTLED else nan)
            found = [formula.value(numbers, statuses, keep) for formula in self._formulas]
            numbers += [value for value, _ in found]
            statuses += bytes([status for _, status in found])
        if self._wanted is not None:
            places, whose = self._wanted
            numbers, statuses = [numbers[each] for each in places], bytearray([statuses[each] for each in whose])
        return LiveValues(self._pack(*numbers), bytes(statuses))


def _read(history: pl.DataFrame, timeframe: Timeframe, names: set[str]) -> tuple[BarArrays, pl.DataFrame]:
    arrays = read_bars(history, timeframe, names)
    if len(arrays.open_time) and not timeframe.is_aligned(int(arrays.open_time[0])):
        raise InvalidBars(f"History opens off the grid of {timeframe}", value=int(arrays.open_time[0]))
    if len(arrays.open_time) > 1 and not arrays.is_contiguous:
        history = complete_grid(history, timeframe)
        arrays = read_bars(history, timeframe, names)
    return arrays, history


def _check_prices(row: Sequence[float]) -> None:
    """Raise `InvalidBars` for prices that are none; those that are null are not looked at."""
    prices = [each for each in row[:_PRICES] if not isnan(each)]
    if any(not 0 < each < inf for each in prices):
        raise InvalidBars("A price of a bar is zero, negative or infinite", value=row[:_PRICES])
    if prices and (max(prices) > row[1] or min(prices) < row[2]):
        raise InvalidBars("A bar's high is below, or its low above, another price", value=row[:_PRICES])


def _check_amounts(row: Sequence[float]) -> None:
    """Raise `InvalidBars` for amounts that are none; those that are null are not looked at."""
    amounts = row[_PRICES:]
    if any(each < 0 or each == inf for each in amounts):
        raise InvalidBars("An amount of a bar is negative or infinite", value=list(amounts))


def _place_of(spec: FeatureSpec, places: Mapping[FeatureSpec, tuple[int, int]]) -> tuple[int, int]:
    first, status = places[spec.whole]
    return first + spec.definition.outputs.index(spec.outputs[0]), status


def _column(name: str, arrays: BarArrays) -> tuple[Floats, Floats]:
    values, outside = arrays.columns[name], arrays.holes([name], None).outside
    if outside is None:
        return values, np.zeros(len(values))
    return np.where(outside == SETTLED, values, np.nan), outside.astype(np.float64)


def _feature(spec: FeatureSpec, found: Evaluation) -> tuple[Floats, Floats]:
    own = spec.placed(None, None)
    return found.values[own.columns[0]], found.statuses[str(own)].astype(np.float64)
