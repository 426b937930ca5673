"""Cells: what a CSV, JSON, Parquet or Feather file holds, under the file's own names, for tables beside bars.

CSV comes as texts; `numbers` and `instants` convert what can be and give null for the rest, which the rules of the
dataset then set aside row by row, with the cells as they were.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from mdplatform.errors import EmptyFile, OversizedFile, TruncatedFile, UnknownColumns, UnknownFormat
from mdplatform.market.bars import INSTANT
from mdplatform.sources.columns import as_null, fold, has_name
from mdplatform.sources.times import instants_or_null
from mdplatform.sources.unpack import Content, unpack


@dataclass(frozen=True)
class Cells:
    """The cells of a file; where `named` is false its columns have numbers for names (`0`, `1`, …)."""

    frame: pl.DataFrame
    named: bool
    inner_name: str | None = None


def read_cells(path: Path, max_bytes: int) -> Cells:
    """Read a file whole. CSV and JSON may be packed, CSV with or without header, JSON an array or a line a row.

    Raises one of the errors of `SourceError`, always with the path.
    """
    return cells_of(unpack(path, max_bytes), path, max_bytes)


def cells_of(content: Content, path: Path, max_bytes: int) -> Cells:
    """Read what was unpacked of a file, as `read_cells` does."""
    if content.kind == "csv":
        cells = _read_csv(content.data, path)
    elif content.kind == "json":
        cells = Cells(_read_json(content.data, path), named=True)
    else:
        cells = Cells(_read_arrow(content, path, max_bytes), named=True)
    if cells.frame.is_empty():
        raise EmptyFile(f"{path} has no rows", value=0)
    return Cells(cells.frame, cells.named, content.inner_name)


def _read_csv(data: bytes, path: Path) -> Cells:
    body = data.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    try:
        first = pl.read_csv(
            io.BytesIO(body[: 1 << 17].split(b"\n", 1)[0]),
            has_header=False,
            infer_schema=False,
            truncate_ragged_lines=True,
        ).row(0)
        named = has_name([cell or "" for cell in first])
        frame = pl.read_csv(body, has_header=named, infer_schema=False, null_values=[""])
    except (pl.exceptions.PolarsError, UnicodeDecodeError, IndexError) as broken:
        _refuse_long_line(body, path)
        raise UnknownFormat(f"{path} cannot be read as CSV", value=str(broken).splitlines()[0][:120]) from None
    if frame.width == 1 and re.search(r"[;\t|]", frame.columns[0] if named else str(first[0])):
        raise UnknownFormat(f"{path} is not separated by commas", value=str(first[0])[:80])
    if not named:
        frame = frame.rename({name: str(at) for at, name in enumerate(frame.columns)})
    return Cells(frame, named)


def _refuse_long_line(body: bytes, path: Path) -> None:
    """Raise `UnknownFormat` for the first line that has more cells than the first, if there is one."""
    lines = csv.reader(io.StringIO(body.decode(errors="replace"), newline=""))
    try:
        expected, begins = len(next(lines, [])), lines.line_num + 1
        for cells in lines:
            if len(cells) > expected:
                raise UnknownFormat(
                    f"{path}, line {begins}: {len(cells)} cells, where the first line has {expected}",
                    value=",".join(cells)[:120],
                    remedy="Mend the line or leave it out",
                )
            begins = lines.line_num + 1
    except csv.Error:
        return  # a cell without an end: what polars says of it stands


def _read_json(data: bytes, path: Path) -> pl.DataFrame:
    text = data.removeprefix(b"\xef\xbb\xbf").strip()
    try:
        rows = msgspec.json.decode(text) if text.startswith(b"[") else msgspec.json.Decoder().decode_lines(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        if "truncated" in str(broken):
            raise TruncatedFile(f"{path} ends in the middle", value=data[-40:].decode(errors="replace")) from None
        raise UnknownFormat(f"{path} cannot be read as JSON", value=str(broken)[:120]) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UnknownFormat(
            f"{path} is not a list of rows", value=str(rows)[:120], remedy="Allowed: an array of objects, or one a line"
        )
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pl.DataFrame({name: _json_column([row.get(name) for row in rows]) for name in names})


def _json_column(cells: list[object]) -> pl.Series:
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds == {bool}:
        return pl.Series(cells, dtype=pl.Boolean)
    if kinds == {int} and all(cell is None or abs(cell) < 1 << 63 for cell in cells):  # type: ignore[arg-type]
        return pl.Series(cells, dtype=pl.Int64)
    return pl.Series([_text(cell) for cell in cells], dtype=pl.String)


def _text(cell: object) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell
    return msgspec.json.encode(cell).decode()


def _read_arrow(content: Content, path: Path, max_bytes: int) -> pl.DataFrame:
    try:
        source = pa.BufferReader(content.data)
        if content.kind == "parquet":
            batches = pa.parquet.ParquetFile(source).iter_batches(batch_size=65_536)
        else:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        kept, size = [], 0
        for batch in batches:
            size += batch.nbytes
            if size > max_bytes:
                raise OversizedFile(
                    f"{path} is larger than allowed, unpacked",
                    value=f"more than {max_bytes} bytes",
                    remedy="Raise MDPLATFORM_MAX_FILE_MB if you trust it",
                )
            batch.validate(full=True)
            kept.append(batch)
    except (pa.ArrowException, OSError, EOFError, IndexError, ValueError, MemoryError) as broken:
        raise TruncatedFile(
            f"{path} is a damaged {content.kind} file", value=str(broken)[:120], remedy="Fetch it again"
        ) from None
    if not kept:
        raise EmptyFile(f"{path} has no rows", value=0)
    frame = pl.from_arrow(pa.Table.from_batches(kept))
    assert isinstance(frame, pl.DataFrame)
    return frame


def choose(
    frame: pl.DataFrame, spellings: Mapping[str, str], given: Mapping[str, str], path: Path, allowed: Sequence[str] = ()
) -> dict[str, str]:
    """Give which column of `frame` is which of ours: `given` by the caller, else the first known spelling there is.

    Raises `UnknownColumns` for a name that is given and not there, or that is none of ours.
    """
    ours = [*spellings, *allowed]
    found: dict[str, str] = {}
    for name, theirs in given.items():
        if name not in ours:
            raise UnknownColumns(f"{name} is none of the columns that can be given", value=name, remedy=_of(ours))
        if theirs not in frame.columns:
            raise UnknownColumns(f"{path} has no column {theirs}", value=theirs, remedy=_of(frame.columns))
        found[name] = theirs
    by_folded: dict[str, str] = {}
    for column in frame.columns:
        by_folded.setdefault(fold(column), column)
    for name, known in spellings.items():
        if name not in found:
            there = (by_folded[fold(each)] for each in known.split() if fold(each) in by_folded)
            free = [each for each in there if each not in given.values()]
            if free:
                found[name] = free[0]
    return found


def _of(names: Sequence[str]) -> str:
    return f"Allowed: {', '.join(names)}"


def numbers(column: pl.Series, kind: pl.DataType | type[pl.DataType] = pl.Float64) -> pl.Series:
    """Give a column's numbers; null where a cell is none."""
    if column.dtype == pl.String:
        cast = column.cast(kind, strict=False)
        return cast if cast.null_count() == column.null_count() else column.str.strip_chars().cast(kind, strict=False)
    if column.dtype.is_numeric() or column.dtype == pl.Null:
        return column.cast(kind, strict=False)
    return pl.Series(column.name, [None] * len(column), dtype=kind)


def truths(column: pl.Series, true: Sequence[str] = ("true", "1"), false: Sequence[str] = ("false", "0")) -> pl.Series:
    """Give a column's truth values; null where a cell is none of the words."""
    if column.dtype == pl.Boolean:
        return column
    word = pl.col(column.name).cast(pl.String).str.strip_chars().str.to_lowercase()
    told = pl.when(word.is_in(list(true))).then(True).when(word.is_in(list(false))).then(False)
    return column.to_frame().select(told.alias(column.name)).to_series()


def texts(column: pl.Series) -> pl.Series:
    """Give a column as trimmed texts; null for the usual words for nothing."""
    if column.dtype == pl.Binary:  # what older writers of Parquet make of texts
        decoded = [None if each is None else each.decode("utf-8", "replace") for each in column.to_list()]
        column = pl.Series(column.name, decoded, pl.String)
    if column.dtype.is_nested():
        column = pl.Series(column.name, [None if each is None else str(each) for each in column.to_list()], pl.String)
    return as_null(column.cast(pl.String, strict=False))


def instants(column: pl.Series, path: Path) -> pl.Series:
    """Give a column's times in µs UTC; null where a cell is none. The unit of numbers is told for the whole file."""
    return instants_or_null(column, str(path)).cast(INSTANT)
