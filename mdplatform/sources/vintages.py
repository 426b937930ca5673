"""Vintages: from the intervals in which FRED's observations stood to rows of the macro dataset.

An interval says: the value of `date` was `value` from the release of `realtime_start` until that of the day after
`realtime_end`.

1. An interval that goes on with the value of the one before it is no release: whoever asks for a part of history is
   answered with intervals cut off at its edges, and an edge must never become a day of publication.
2. Where an observation ends and none follows, the agency withdrew it: from the day after it has no value. What ends
   with the newest day of all is cut off there, not withdrawn.
3. The release's day gets the clock time of its series (`release_clock`).
"""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl

from mdplatform.errors import InvalidTable, ParameterOutOfRange, UnknownFormat
from mdplatform.market.bars import INSTANT
from mdplatform.sources.columns import as_null
from mdplatform.sources.release_clock import published_at

OPEN_END = date(9999, 12, 31)
INTERVALS = pl.Schema(
    {"date": pl.Date(), "realtime_start": pl.Date(), "realtime_end": pl.Date(), "value": pl.Float64()}
)


def days(column: pl.Series, where: str) -> pl.Series:
    """Give the days that a column says, as `read_days` does. Raises `UnknownFormat` for what is none."""
    read = read_days(column)
    _refuse_cell(column, read.is_null(), "is not a day, such as 2025-01-31", where)
    return read


def read_days(column: pl.Series) -> pl.Series:
    """Give the days that a column says, as dates, times or ISO 8601 texts; null for what is none."""
    if column.dtype.is_temporal() and column.dtype != pl.Time and not isinstance(column.dtype, pl.Duration):
        return column.cast(pl.Date)
    return as_null(column.cast(pl.String)).str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)


def observed_values(column: pl.Series, where: str) -> pl.Series:
    """Give the numbers of a column, as `read_values` does. Raises `UnknownFormat` for what is none."""
    read, broken = read_values(column, where)
    _refuse_cell(column, broken, "is no number", where)
    return read


def read_values(column: pl.Series, where: str) -> tuple[pl.Series, pl.Series]:
    """Give the numbers of a column, of which `.` and nothing are null, and which of its cells are no finite number.

    Raises `UnknownFormat` for a column that cannot have numbers at all.
    """
    if column.dtype != pl.String:
        if not (column.dtype.is_numeric() or column.dtype == pl.Null):
            raise UnknownFormat(f"{where}: column {column.name} has no numbers", value=str(column.dtype))
        read = column.cast(pl.Float64).fill_nan(None)
        return read, read.is_infinite().fill_null(False)
    told = as_null(column).replace(".", None)
    read = told.cast(pl.Float64, strict=False)
    return read, (read.is_null() & told.is_not_null()) | ~read.is_finite().fill_null(True)


def _refuse_cell(column: pl.Series, broken: pl.Series, what: str, where: str) -> None:
    if broken.any():
        row = int(broken.arg_true()[0])
        raise UnknownFormat(f"{where}, row {row + 1}: {column.name} {what}", value=str(column[row])[:80])


def rows_of_intervals(series: str, intervals: pl.DataFrame, until: date | None = None) -> pl.DataFrame:
    """Give the rows (`MACRO.delivered`) of one series from `INTERVALS`, ascending by `available_at`.

    What ends on the day `until` was cut off there; without it that is the newest of all ends.

    Raises `InvalidTable` where an observation has two values at one time, or an interval ends before it starts.
    """
    held = intervals.unique().sort("date", "realtime_start", "realtime_end")
    edge = pl.col("realtime_end").max() if until is None else pl.lit(until)
    start, end, value = pl.col("realtime_start"), pl.col("realtime_end"), pl.col("value")
    end_before, value_before = end.shift().over("date"), value.shift().over("date")
    is_repeat = end_before.is_not_null() & value_before.eq_missing(value)
    told = held.with_columns(
        (is_repeat & (start <= _day_after(end_before))).fill_null(False).alias("goes_on"),
        (~is_repeat & (start <= end_before)).fill_null(False).alias("overlaps"),
        (start.shift(-1).over("date") <= _day_after(end)).fill_null(end == edge).alias("is_followed"),
    )
    _refuse(series, told.filter(end < start), "ends before it starts")
    _refuse(series, told.filter("overlaps"), "has two values at one time")
    withdrawn = told.filter(~pl.col("is_followed") & value.is_not_null()).select(
        "date", _day_after(end).alias("realtime_start"), pl.lit(None, pl.Float64).alias("value")
    )
    rows = pl.concat([told.filter(~pl.col("goes_on")).select(withdrawn.columns), withdrawn])
    clock = _clock(series, rows["realtime_start"])
    return _delivered(series, rows.join(clock, on="realtime_start"))


def rows_as_observed(
    series: str, values: pl.DataFrame, observed_at: datetime, lag_days: int | None = None
) -> pl.DataFrame:
    """Give the rows (`MACRO.delivered`) of the values of a series as they stood at one instant, `date` and `value`.

    Nothing tells when each was published, so that all are available from `observed_at` on and nothing is known of the
    past before it. With `lag_days` the caller states that each is published so many days after its `date`: it is then
    available at the series' clock time of that day, at the latest at `observed_at`. Revisions made since are in the
    values all the same, and `published_at` stays null.

    Raises `InvalidTable` where a day has two values, and `ParameterOutOfRange` for a negative lag.
    """
    if lag_days is not None and lag_days < 0:
        raise ParameterOutOfRange("Nothing is published before its date", value=lag_days, remedy="Days from 0 on")
    held = values.unique().sort("date")
    twice = held.filter(pl.col("date").is_duplicated())
    if twice.height:
        raise InvalidTable(f"{series} has two values for one day", value=f"{twice['date'][0]}")
    observed_day = observed_at.astimezone(UTC).date()
    if lag_days is None:
        rows = held.with_columns(
            pl.lit(observed_day).alias("realtime_start"), pl.lit(observed_at).cast(INSTANT).alias("available_at")
        )
    else:
        day = pl.min_horizontal(pl.col("date") + pl.duration(days=lag_days), pl.lit(observed_day))
        rows = held.with_columns(day.alias("realtime_start"))
        rows = rows.join(_clock(series, rows["realtime_start"]), on="realtime_start").with_columns(
            pl.min_horizontal("available_at", pl.lit(observed_at).cast(INSTANT)).alias("available_at")
        )
    return _delivered(series, rows.with_columns(pl.lit(None, INSTANT).alias("published_at")))


def _refuse(series: str, broken: pl.DataFrame, what: str) -> None:
    if broken.height:
        first = broken.row(0, named=True)
        raise InvalidTable(
            f"The observation of {series} for {first['date']} {what}",
            value=f"{first['realtime_start']} … {first['realtime_end']}",
        )


def _day_after(day: pl.Expr) -> pl.Expr:
    """Give the day after, and for the open end that itself: there is no day after it."""
    return pl.when(day == OPEN_END).then(day).otherwise(day + pl.duration(days=1))


def _clock(series: str, days: pl.Series) -> pl.DataFrame:
    distinct = days.unique().sort()
    instants = [published_at(series, day) for day in distinct.to_list()]
    at = pl.Series("published_at", instants, dtype=INSTANT)
    return pl.DataFrame([distinct.alias("realtime_start"), at, at.alias("available_at")])


def _delivered(series: str, rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(
        pl.lit(series).alias("series_id"),
        pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("ref_period"),
        "value",
        "published_at",
        pl.col("realtime_start").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("vintage"),
        "available_at",
    ).sort("available_at", "ref_period", "vintage")
