"""Files: Binance's dumps, REST bodies, Parquet, Feather and CSV, taken as they are or refused whole.

For one file:
1. `unpack` reads it up to a bound, verifies the checksum beside it and opens zip and gzip.
2. `tables` finds which of its columns is which of a bar's and parses the cells.
3. `labels`, the caller and the rows say symbol and timeframe; a file in which they contradict each other is refused.
4. `times` tells the unit of its times, makes ends exclusive and compares the rows with the timeframe.
Rows are neither sorted nor repaired nor dropped: what is wrong with a single row is for the lake to judge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path, PurePath

import polars as pl

from mdplatform.errors import (
    InvalidSymbol,
    MislabelledFile,
    SourceUnavailable,
    UnknownColumns,
    UnknownFormat,
    UnknownTimeframe,
)
from mdplatform.market.bars import RAW_SCHEMA
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import month_range, months_between, to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.sources.columns import LABELS, Place, to_numbers
from mdplatform.sources.delivery import Delivery
from mdplatform.sources.labels import labels_of, other_kind_of
from mdplatform.sources.tables import Table, read_table
from mdplatform.sources.times import check_spacing, close_step, to_instants
from mdplatform.sources.unpack import unpack

DEFAULT_MAX_BYTES = 2048 * 1024**2
ENDINGS = (
    ".csv", ".csv.gz", ".csv.zip", ".zip", ".json", ".json.gz", ".json.zip", ".parquet", ".pq", ".feather", ".arrow",
)  # fmt: skip


_COUNTED_IN_CONTRACTS = re.compile(r"[A-Z0-9]+USD_(PERP|\d{6})")


def find_files(paths: Iterable[str | Path], endings: tuple[str, ...] = ENDINGS) -> list[Path]:
    """Give the files of `paths`: a file as it is, a folder with all that lies in it and has one of `endings`, sorted.

    Raises `SourceUnavailable` for a path that does not exist, and for a folder with nothing to read.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if path.is_dir():
            inside = sorted(
                each
                for each in path.rglob("*")
                if each.name.lower().endswith(endings) and not each.name.startswith(".") and each.is_file()
            )
            if not inside:
                raise SourceUnavailable(
                    f"{path} holds no file that can be read", remedy=f"Looked for {' '.join(endings)}"
                )
            found |= dict.fromkeys(inside)
        elif path.exists():
            found[path] = None
        else:
            raise SourceUnavailable(f"{path} does not exist", remedy="Give the path of a file or of a folder")
    return list(found)


def read_file(
    path: str | Path,
    symbol: str | None = None,
    timeframe: str | Timeframe | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> list[Delivery]:
    """Give what a file holds: one delivery a symbol and timeframe, its rows in the file's order.

    `symbol` and `timeframe` win over the file's name; columns of the rows must agree with either. Raises an error of
    the family `SourceError`, `InvalidSymbol` or `UnknownTimeframe`; then nothing of the file is given.
    """
    path = Path(path)
    given = parse_symbol(symbol) if symbol is not None else None, Timeframe.parse(timeframe) if timeframe else None
    content = unpack(path, max_bytes)
    if kind := other_kind_of(path.absolute()):
        raise UnknownColumns(f"{path} is not a table of bars, and its name says {kind}", value=path.name)
    table = read_table(content, str(path), max_bytes)
    try:
        parts = _parts(path, table, _names(path, content.inner_name, given), given)
    except (InvalidSymbol, UnknownTimeframe) as refused:
        refused.cause = f"{path}: {refused.cause.lower()}"
        raise
    return [_deliver(path, *part) for part in parts]


class Files:
    """Files as a source among others: those of `paths` that hold the symbol and timeframe asked for."""

    name = "files"

    def __init__(self, paths: Iterable[str | Path], max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.paths = find_files(paths)
        self.max_bytes = max_bytes

    def bars(self, symbol: str, timeframe: Timeframe, start: int, end: int) -> Iterator[Delivery]:
        """Give the bars that open in `[start, end)` (µs), file by file and month by month."""
        for path in self.paths:
            for delivery in read_file(path, max_bytes=self.max_bytes):
                if delivery.symbol == parse_symbol(symbol) and delivery.timeframe == timeframe:
                    yield from by_month(delivery, start, end)


def by_month(delivery: Delivery, start: int, end: int) -> Iterator[Delivery]:
    """Part a delivery into UTC months, oldest first, and leave out what opens outside `[start, end)` (µs)."""
    opens = delivery.rows.get_column("open_time")
    low, high = opens.min(), opens.max()
    if low is None or high is None:
        return
    low_us, high_us = max(start, to_us(low)), min(end, to_us(high) + 1)  # type: ignore[arg-type]
    instants = pl.col("open_time").cast(pl.Int64)
    for month in months_between(low_us, high_us):
        first, after = month_range(month)
        rows = delivery.rows.filter((instants >= max(first, start)) & (instants < min(after, end)))
        if rows.height:
            yield Delivery.of(delivery.symbol, delivery.timeframe, delivery.source, rows)


def _names(
    path: Path, inner_name: str | None, given: tuple[str | None, Timeframe | None]
) -> tuple[str | None, Timeframe | None]:
    """Give symbol and timeframe as the caller or the file's name and folders say; the name inside a zip must agree."""
    said_symbol, said_timeframe = labels_of(path.absolute())
    symbol, timeframe = given
    if inner_name is not None:
        inner_symbol, inner_timeframe = labels_of(PurePath(inner_name))
        for what, outer, inner in (
            ("symbol", symbol or said_symbol, inner_symbol),
            ("timeframe", timeframe or said_timeframe, inner_timeframe),
        ):
            if outer and inner and outer != inner:
                raise MislabelledFile(f"{path} says {what} {outer}, but holds {inner_name}", value=inner)
        said_symbol, said_timeframe = said_symbol or inner_symbol, said_timeframe or inner_timeframe
    if symbol is None and said_symbol is not None:
        try:
            symbol = parse_symbol(said_symbol)
        except InvalidSymbol:
            symbol = None
    if timeframe is None and said_timeframe is not None:
        timeframe = Timeframe.parse(said_timeframe)
    return symbol, timeframe


def _parts(
    path: Path,
    table: Table,
    named: tuple[str | None, Timeframe | None],
    given: tuple[str | None, Timeframe | None],
) -> list[tuple[str, Timeframe, Table]]:
    """Part the rows by the symbols and timeframes of their own columns, and hold these against what is said."""
    cells = table.cells
    own = [name for name in LABELS if name in cells.columns]
    for name in own:
        if cells.get_column(name).cast(pl.String).str.strip_chars().is_in(["", None], nulls_equal=True).any():
            raise UnknownFormat(f"{path}: some rows have no {name}", value=name)
    cells = cells.with_columns(pl.col(own).cast(pl.String).str.strip_chars()).with_row_index("row")
    parts = []
    for part in cells.partition_by(own, maintain_order=True) if own else [cells]:
        said = {name: part.get_column(name)[0] for name in own}
        symbol = parse_symbol(said["symbol"]) if "symbol" in said else named[0]
        timeframe = Timeframe.parse(said["timeframe"]) if "timeframe" in said else named[1]
        for what, label, mine, caller in (
            ("symbol", named[0], symbol, given[0]),
            ("timeframe", named[1], timeframe, given[1]),
        ):
            if mine is None:
                raise MislabelledFile(
                    f"{path} says its {what} neither in its name nor in its rows", remedy=f"Say it with --{what}"
                )
            if label is not None and label != mine:
                by = f"--{what}" if caller else "its name"
                raise MislabelledFile(f"{path} has rows of {what} {mine}, but {by} says {label}", value=str(label))
        assert symbol is not None
        assert timeframe is not None
        parts.append((symbol, timeframe, Table(part, partial(_place_in, table.place, part.get_column("row")))))
    return parts


def _place_in(place: Place, rows: pl.Series, row: int) -> str:
    return place(int(rows[row]))


def _deliver(path: Path, symbol: str, timeframe: Timeframe, table: Table) -> Delivery:
    cells, where = table.cells, str(path)
    if _COUNTED_IN_CONTRACTS.fullmatch(symbol) and "quote_volume" in cells.columns:
        raise UnknownColumns(
            f"{path} is of a coin-margined future, whose volumes are contracts and coins",
            value=symbol,
            remedy="Take spot or USD-margined bars",
        )
    if "is_closed" in cells.columns:
        closed = cells.get_column("is_closed").cast(pl.String).str.to_lowercase().is_in(["true", "1"])
        if not closed.all():
            raise UnknownFormat(
                f"{path}, {table.place(int((~closed).arg_true()[0]))}: a bar that is not closed",
                value=cells.get_column("is_closed")[int((~closed).arg_true()[0])],
                remedy="Leave forming bars out",
            )
    opens = to_instants(cells.get_column("open_time"), where, table.place)
    if opens.null_count() == len(opens):
        raise UnknownColumns(f"{path} has no times", value="open_time")
    if "close_time" in cells.columns:
        closes = to_instants(cells.get_column("close_time"), where, table.place)
    else:
        closes = pl.Series("close_time", [None] * len(opens), dtype=RAW_SCHEMA["close_time"])
    step = close_step(opens, closes, timeframe, where)
    check_spacing(opens, timeframe, where, closes_agree=closes.null_count() < len(closes))
    values = to_numbers(cells, where, table.place)
    rows = values.with_columns(opens.alias("open_time"), (closes + timedelta(microseconds=step)).alias("close_time"))
    return Delivery.of(symbol, timeframe, f"file:{path.name}", rows.select(RAW_SCHEMA.names()).cast(RAW_SCHEMA))
