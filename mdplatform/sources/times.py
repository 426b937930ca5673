"""Times of files: epoch numbers in four units, texts, and the two ways to write the end of a bar.

1. Numbers are seconds, ms, µs or ns by magnitude, one unit a column; between 2005 and 2100 no two units overlap.
2. Texts are ISO 8601 with or without offset; without one they are UTC.
3. `close_time` is made exclusive by the step that brings most bars to the timeframe's length (0, 1 µs, 1 ms or 1 s);
   a bar that closes early keeps its odd end.
4. A timeframe that its rows contradict is refused.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from mdplatform.errors import MislabelledFile, UnknownTimeUnit
from mdplatform.market.bars import INSTANT
from mdplatform.market.timeframe import Timeframe
from mdplatform.sources.columns import Place, as_null, refuse_first

_EARLIEST, _LATEST = 1_104_537_600, 4_102_444_800  # 2005-01-01 and 2100-01-01 in seconds
_PER_SECOND = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f%:z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%+",
    "%Y-%m-%d %H:%M:%S%.fZ",
    "%Y-%m-%d %H:%M:%S%.f UTC",
    "%Y-%m-%d %H:%M",
)
_STEPS = (1_000, 1, 0, 1_000_000)
_ALLOWED = "Allowed: seconds, milli-, micro- or nanoseconds since 1970 in one unit, or ISO 8601; from 2005 to 2100"


def to_instants(column: pl.Series, path: str, place: Place) -> pl.Series:
    """Give a column of times as `Datetime("us", "UTC")`; finer than a microsecond is cut off. Nulls stay null.

    Raises `UnknownTimeUnit` for numbers of no unit or of several, and for years outside 2005 to 2100.
    """
    if column.dtype == pl.String:
        column = _from_text(as_null(column), path, place)
    if column.dtype == pl.Date:
        column = column.cast(pl.Datetime("us"))
    if isinstance(column.dtype, pl.Datetime):
        zoned = column.dt.replace_time_zone("UTC") if column.dtype.time_zone is None else column
        instants = zoned.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
        _check_years(instants, path, place)
        return instants
    if not column.dtype.is_numeric():
        raise UnknownTimeUnit(f"{path}: column {column.name} has no times", value=str(column.dtype), remedy=_ALLOWED)
    return _from_numbers(column, path, place)


def instants_or_null(column: pl.Series, path: str) -> pl.Series:
    """Give a column of times as `to_instants` does, with null for cells that are no time from 2005 to 2100.

    Raises `UnknownTimeUnit` where numbers are in several units.
    """
    if column.dtype == pl.String:
        column = as_null(column)
        figures = column.cast(pl.Int64, strict=False)
        if figures.null_count() > column.null_count():
            figures = column.cast(pl.Float64, strict=False)
        mostly = figures.null_count() - column.null_count() <= len(column) // 2
        column = figures if mostly else _parse(column)[0]
    if column.dtype.is_numeric():
        sane = pl.any_horizontal(
            pl.first().is_between(_EARLIEST * scale, _LATEST * scale, closed="left") for scale in _PER_SECOND.values()
        )
        column = column.to_frame().select(pl.when(sane).then(pl.first())).to_series()
        return _from_numbers(column, path, lambda row: f"row {row + 1}")
    if column.dtype == pl.Date:
        column = column.cast(pl.Datetime("us"))
    if isinstance(column.dtype, pl.Datetime):
        zoned = column.dt.replace_time_zone("UTC") if column.dtype.time_zone is None else column
        instants = zoned.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
        seconds = pl.first().dt.epoch("s")
        sane = seconds.is_between(_EARLIEST, _LATEST, closed="left")
        return instants.to_frame().select(pl.when(sane).then(pl.first())).to_series()
    return pl.Series(column.name, [None] * len(column), dtype=INSTANT)


def _from_text(column: pl.Series, path: str, place: Place) -> pl.Series:
    for kind in (pl.Int64, pl.Float64):
        numbers = column.cast(kind, strict=False)
        if numbers.null_count() == column.null_count():
            return numbers
    parsed, broken = _parse(column)
    if broken.any():
        numeric = column.cast(pl.Float64, strict=False).is_not_null()
        refuse_first(column, broken & ~numeric, "is not a time", path, place)
        raise UnknownTimeUnit(
            f"{path}: column {column.name} mixes numbers and texts", value=column.filter(broken)[0], remedy=_ALLOWED
        )
    return parsed


def _parse(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Give the times that texts say, and which of them say none."""
    parsed = pl.Series(column.name, [None] * len(column), dtype=INSTANT)
    days = column.str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1} 00:00:00")
    for form in _FORMATS:
        if parsed.null_count() == column.null_count():
            break
        found = days.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
        parsed = parsed.to_frame().select(pl.coalesce(pl.first(), found)).to_series()
    return parsed.alias(column.name), parsed.is_null() & column.is_not_null()


def _from_numbers(column: pl.Series, path: str, place: Place) -> pl.Series:
    numbers = column.drop_nulls()
    if numbers.dtype.is_float():
        numbers = numbers.drop_nans()
    if numbers.is_empty():
        return column.cast(pl.Int64, strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    unit = _unit_of(float(numbers[0]))
    if unit is None or _unit_of(float(numbers.min())) != unit or _unit_of(float(numbers.max())) != unit:  # type: ignore[arg-type]
        texts = {number: _unit_of(float(number)) for number in (numbers[0], numbers.min(), numbers.max())}  # type: ignore[arg-type]
        units = {each for each in texts.values() if each}
        cause = (
            f"{path}: column {column.name} mixes {' and '.join(sorted(units))}"
            if len(units) > 1
            else f"{path}: column {column.name} is in no known unit of time"
        )
        value = next((number for number, each in texts.items() if each != unit), numbers[0])
        raise UnknownTimeUnit(cause, value=numbers[0] if unit is None else value, remedy=_ALLOWED)
    scale = _PER_SECOND[unit]
    if column.dtype.is_float():
        column = (column.fill_nan(None) * (10**6 / scale)).round()
        micros = column.cast(pl.Int64)
    elif scale <= 10**6:
        micros = column.cast(pl.Int64) * (10**6 // scale)
    else:
        micros = column.cast(pl.Int64) // (scale // 10**6)
    return micros.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _unit_of(number: float) -> str | None:
    for unit, scale in _PER_SECOND.items():
        if _EARLIEST * scale <= number < _LATEST * scale:
            return unit
    return None


def _check_years(instants: pl.Series, path: str, place: Place) -> None:
    seconds = instants.dt.epoch("s")
    outside = ((seconds < _EARLIEST) | (seconds >= _LATEST)).fill_null(False)
    if outside.any():
        row = int(outside.arg_true()[0])
        raise UnknownTimeUnit(
            f"{path}, {place(row)}: {instants.name} is outside 2005 to 2100", value=str(instants[row]), remedy=_ALLOWED
        )


def close_step(opens: pl.Series, closes: pl.Series, timeframe: Timeframe, path: str) -> int:
    """Give what makes these close times exclusive, in µs. Raises `MislabelledFile` if they say another timeframe."""
    lengths = (closes.cast(pl.Int64) - opens.cast(pl.Int64)).drop_nulls().to_numpy()
    if lengths.size == 0:
        return 0
    counts = {
        (each, step): int(np.count_nonzero(lengths + step == each.microseconds))
        for each in Timeframe
        for step in _STEPS
    }
    (said, _), most = max(counts.items(), key=lambda item: item[1])
    own_step, own = max(((step, counts[timeframe, step]) for step in _STEPS), key=lambda item: item[1])
    if own and own == most:
        return own_step
    if most:
        raise _contradiction(path, timeframe, f"most of its bars close {said} after they open")
    ends = closes.drop_nulls().cast(pl.Int64).to_numpy()
    return next((step for step in (1_000, 1) if np.all((ends + step) % 1_000_000 == 0)), 0)


def check_spacing(opens: pl.Series, timeframe: Timeframe, path: str, *, closes_agree: bool) -> None:
    """Refuse rows that lie closer than `timeframe`, or on a coarser grid where no close time says otherwise.

    Few rows may lie on a coarser grid by chance, where minutes without trades have no bar.
    """
    spacings = np.diff(np.sort(opens.drop_nulls().cast(pl.Int64).to_numpy()))
    spacings = spacings[spacings > 0]
    if spacings.size == 0:
        return
    usual = int(pl.Series(spacings).mode().min())  # type: ignore[arg-type]
    known = usual in {each.microseconds for each in Timeframe}
    finer = usual < timeframe.microseconds and (known or spacings.size >= 3)
    coarser = known and spacings.size >= 8 and int(np.gcd.reduce(spacings)) > timeframe.microseconds
    if finer or (coarser and not closes_agree):
        raise _contradiction(path, timeframe, f"most of its rows are {usual / 60_000_000:g} minutes apart")


def _contradiction(path: str, timeframe: Timeframe, what: str) -> MislabelledFile:
    return MislabelledFile(
        f"{path} is labelled {timeframe}, but {what}",
        value=timeframe.value,
        remedy="Say the right one with --timeframe",
    )
