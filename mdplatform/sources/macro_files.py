"""Files of macro series: FRED's CSV, bodies of its API, and tables of vintages in the same shape.

1. Columns are found by name: a date, a value (or FRED's way, a column a series), perhaps the series, and perhaps the
   days from and to which a value stood, `realtime_start` and `realtime_end`.
2. With these the file tells vintages, and every value is available from its release on (`vintages`).
3. Without them it tells the latest values alone. Nothing says when each was published, so that by default all of them
   are available from the instant at which the file is taken in (or its own `updated_at`), and none before. A file's
   modification time witnesses nothing: a copy or a checkout changes it. `lag_days` states instead how long after its
   date each value is published; what was revised since is revised in that, too.
4. Latest values are not mixed with vintages in one series. `observed` states on what day the file's values were those
   known: they are then one vintage, and go with either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path, PurePath
from typing import Any

import msgspec
import polars as pl

from mdplatform.errors import EmptyFile, MislabelledFile, UnknownColumns, UnknownFormat
from mdplatform.features.data import within
from mdplatform.market.macro import LATEST, MACRO, VINTAGES
from mdplatform.sources.cells import choose, read_cells
from mdplatform.sources.columns import fold
from mdplatform.sources.labels import stem_of
from mdplatform.sources.table_delivery import TableDelivery, TableOptions, set_aside_rows
from mdplatform.sources.unpack import unpack
from mdplatform.sources.vintages import (
    INTERVALS,
    OPEN_END,
    days,
    observed_values,
    read_days,
    read_values,
    rows_as_observed,
    rows_of_intervals,
)

SPELLINGS = {
    "date": "observation_date ref_period date period",
    "value": "value",
    "series_id": "series_id series",
    "realtime_start": "realtime_start vintage vintage_date",
    "realtime_end": "realtime_end",
}
"""Our names, and how files call them, folded."""

_SERIES = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_OF_BARS = {"open", "high", "low", "close", "volume", "adjclose"}
_ROWS = ("observations", "points")


@dataclass(frozen=True)
class _Table:
    """A file's rows under its own names, and what it says of itself."""

    frame: pl.DataFrame
    series: str | None = None
    written_at: datetime | None = None


def read_macro(path: Path, options: TableOptions) -> Iterator[TableDelivery]:
    """Give the observations of one file, one delivery a series. Raises errors of `SourceError`, and `InvalidTable`."""
    table = _read(path, options)
    found = choose(table.frame, SPELLINGS, options.columns, path)
    if "date" not in found:
        raise UnknownColumns(
            f"{path} is not a table of a macro series: date missing",
            value=", ".join(table.frame.columns)[:200],
            remedy="Say which column is which: --column date=NAME",
        )
    stated = {"--observed": options.observed, "--lag-days": options.lag_days}
    if "realtime_start" in found and (unused := [name for name, value in stated.items() if value is not None]):
        raise MislabelledFile(
            f"{path} has vintages, and says itself when its values were published",
            value=found["realtime_start"],
            remedy=f"Leave {' and '.join(unused)} out",
        )
    for series, cells in _by_series(path, table, found, options):
        notes: tuple[str, ...] = ()
        edge = read_days(cells[found["realtime_end"]]).max() if "realtime_end" in found else None
        cells, aside = _sound(cells, found, f"{path}")
        form, is_snapshot = VINTAGES, "realtime_start" not in found
        if cells.is_empty():
            rows = pl.DataFrame(schema=MACRO.delivered)
        elif not is_snapshot:
            until = edge if isinstance(edge, date) else None  # rows that are set aside end there, too
            rows = rows_of_intervals(series, _intervals(cells, found, f"{path}"), until)
        else:
            values = _values(cells, found, f"{path}")
            observed_at = _observed_at(path, table, values, options)
            rows = rows_as_observed(series, values, observed_at, options.lag_days)
            notes = (_note(path, observed_at, options.lag_days),)
            form = LATEST if options.observed is None or options.lag_days is not None else ""
        rows = within(rows, "available_at", options.start, options.end)
        source = f"file:{path.name}"
        yield TableDelivery.of(MACRO, source, rows, set_aside=aside, notes=notes, form=form, snapshot=is_snapshot)


def _sound(cells: pl.DataFrame, found: Mapping[str, str], where: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part the rows whose days and value can be read from the others, which are set aside by the rule they break."""
    times = [found[name] for name in ("date", "realtime_start", "realtime_end") if name in found]
    broken = pl.DataFrame([read_days(cells[name]).is_null().alias(name) for name in times]).select(
        pl.any_horizontal(pl.all()).alias("time"), read_values(cells[found["value"]], where)[1].alias("value")
    )
    rule = broken.select(
        pl.when("time").then(pl.lit("time_missing")).when("value").then(pl.lit("value_invalid")).alias("rule")
    ).to_series()
    return cells.filter(rule.is_null()), set_aside_rows(cells.filter(rule.is_not_null()), rule.drop_nulls())


def _read(path: Path, options: TableOptions) -> _Table:
    content = unpack(path, options.max_bytes)
    if content.kind == "json":
        try:
            body = msgspec.json.decode(content.data.removeprefix(b"\xef\xbb\xbf"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            body = None  # an object a line, or broken, which the reader of cells tells
        if isinstance(body, dict) and any(name in body for name in _ROWS):
            return _from_body(path, body)
    return _Table(read_cells(path, options.max_bytes).frame)


def _from_body(path: Path, body: Mapping[str, Any]) -> _Table:
    rows = next(body[name] for name in _ROWS if name in body)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UnknownFormat(f"{path} is no list of observations", value=str(rows)[:80])
    if not rows:
        raise EmptyFile(f"{path} has no observations", value=0)
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = {name: [None if row.get(name) is None else str(row[name]) for row in rows] for name in names}
    series = body.get("series_id")
    return _Table(
        pl.DataFrame(cells, schema=dict.fromkeys(names, pl.String)),
        series if isinstance(series, str) else None,
        _instant(body.get("updated_at")),
    )


def _instant(told: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(told) if isinstance(told, str) else None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _by_series(
    path: Path, table: _Table, found: dict[str, str], options: TableOptions
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Give the cells of each series, with its values in the column that `found` then says."""
    frame = table.frame
    if "series_id" in found:
        if "value" not in found:
            raise _without_value(path, frame)
        for key, part in frame.partition_by(found["series_id"], as_dict=True, maintain_order=True).items():
            yield _series(path, str(key[0] or "").strip(), options), part
        return
    if "value" in found:
        yield _series(path, table.series, options) if table.series else _named(path, options), frame
        return
    names = [name for name in frame.columns if name not in found.values()]
    if not names or any(fold(name) in _OF_BARS for name in names) or not all(map(_SERIES.fullmatch, names)):
        raise _without_value(path, frame)
    if options.symbol is not None and len(names) > 1:
        if options.symbol not in names:
            raise MislabelledFile(
                f"{path} has no column {options.symbol}, which --symbol says", value=", ".join(names)[:200]
            )
        names = [options.symbol]
    for name in names:
        found["value"] = name
        yield _series(path, name, options if len(names) == 1 else TableOptions()), frame


def _without_value(path: Path, frame: pl.DataFrame) -> UnknownColumns:
    return UnknownColumns(
        f"{path} is not a table of a macro series: value missing",
        value=", ".join(frame.columns)[:200],
        remedy="Say which column is which: --column value=NAME",
    )


def _series(path: Path, said: str, options: TableOptions) -> str:
    if not _SERIES.fullmatch(said):
        raise MislabelledFile(f"{path} says a series that can be none", value=said[:80])
    if options.symbol is not None and options.symbol != said:
        raise MislabelledFile(f"{path} is of the series {said}, but --symbol says {options.symbol}", value=said)
    return said


def _named(path: Path, options: TableOptions) -> str:
    said = options.symbol or stem_of(PurePath(path).name)
    if not _SERIES.fullmatch(said):
        raise MislabelledFile(f"{path} says no series", value=said[:80], remedy="Say it with --symbol")
    return said


def _values(cells: pl.DataFrame, found: Mapping[str, str], where: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "date": days(cells[found["date"]], where),
            "value": observed_values(cells[found["value"]], where),
        }
    )


def _intervals(cells: pl.DataFrame, found: Mapping[str, str], where: str) -> pl.DataFrame:
    values = _values(cells, found, where).with_columns(days(cells[found["realtime_start"]], where).alias("start"))
    if "realtime_end" in found:
        end = days(cells[found["realtime_end"]], where)
        values = values.with_columns(end.alias("end"))
    else:
        values = values.unique().sort("date", "start")
        until_next = pl.col("start").shift(-1).over("date") - pl.duration(days=1)
        values = values.with_columns(until_next.fill_null(OPEN_END).alias("end"))
    named = {"start": "realtime_start", "end": "realtime_end"}
    return values.rename(named).select(list(INTERVALS)).cast(INTERVALS)


def _observed_at(path: Path, table: _Table, values: pl.DataFrame, options: TableOptions) -> datetime:
    """Give the instant at which the file's values were known at the latest; never one before its newest observation."""
    now = options.taken_at or datetime.now(UTC)
    newest = values["date"].max()
    assert isinstance(newest, date)
    begins = datetime.combine(newest, time(), UTC)
    if options.observed is not None:
        if not begins <= options.observed < now + timedelta(days=1):
            raise MislabelledFile(
                f"{path} cannot have been observed then",
                value=f"{options.observed:%Y-%m-%d %H:%M} UTC",
                remedy=f"Its newest observation is of {newest}; say an instant from then to now, or leave it out",
            )
        return min(options.observed, now)  # of today the end is meant, and that is not yet
    written = table.written_at
    return written if written is not None and begins <= written <= now else now


def _note(path: Path, observed_at: datetime, lag_days: int | None) -> str:
    if lag_days is None:
        return (
            f"{path.name}: it has no vintages; its values are available from {observed_at:%Y-%m-%d %H:%M} UTC on, and "
            "not before. --observed states on what day they were what is known, --lag-days how long after its date a "
            "value is published"
        )
    return (
        f"{path.name}: it has no vintages; its values are those of {observed_at:%Y-%m-%d}, taken as published "
        f"{lag_days} days after their dates"
    )
