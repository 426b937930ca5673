"""Tables: the cells of a CSV, JSON, Parquet or Feather content, under a bar's column names, not yet converted.

CSV is parsed as numbers at once; only where a cell is none, it is read again as text, so that the error can say which.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from mdplatform.errors import EmptyFile, OversizedFile, TruncatedFile, UnknownFormat
from mdplatform.sources.columns import (
    LABELS,
    TIMES,
    Place,
    find_columns,
    find_positions,
    has_name,
)
from mdplatform.sources.unpack import Content


@dataclass(frozen=True, slots=True)
class Table:
    """Cells under a bar's column names, and a way to say where a row stands in the file."""

    cells: pl.DataFrame
    place: Place


def read_table(content: Content, path: str, max_bytes: int) -> Table:
    """Give the cells of `content`. Raises one of the errors of `SourceError`, always with the path."""
    if content.kind == "csv":
        return _read_csv(content.data, path)
    if content.kind == "json":
        return _read_json(content.data, path)
    return _read_arrow(content, path, max_bytes)


def _read_csv(data: bytes, path: str) -> Table:
    data = data.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    body = data.rstrip(b"\r\n \t")
    first, second = _first_rows(body, path)
    header = has_name(first)
    found = find_columns(first, path) if header else find_positions(len(first), first, path)
    if header and not second:
        raise EmptyFile(f"{path} has a header and no rows", value=0)
    sample = second if header else first
    _check_fields(body, len(first), path, ends=len(body) < len(data))

    names = {at: name for name, at in found.items()}
    schema = {names.get(at, f"unused {at}"): _guess(names.get(at), sample, at) for at in range(len(first))}
    wanted = list(found)
    skip = {"skip_lines": 1} if header else {}
    try:
        cells = pl.read_csv(body, has_header=False, schema=schema, **skip)  # type: ignore[arg-type]
    except (pl.exceptions.PolarsError, UnicodeDecodeError):
        try:
            texts = dict.fromkeys(schema, pl.String())
            cells = pl.read_csv(body, has_header=False, schema=texts, **skip)  # type: ignore[arg-type]
        except (pl.exceptions.PolarsError, UnicodeDecodeError) as broken:
            _refuse_uneven(body, len(first), path)
            raise UnknownFormat(f"{path} cannot be read as CSV", value=str(broken).splitlines()[0]) from None
    if cells.height != body.count(b"\n") + 1 - header:
        raise UnknownFormat(f"{path} cannot be read as CSV: a quote runs over several lines", value=cells.height)
    lines_before = 2 if header else 1
    return Table(cells.select(wanted), lambda row: f"line {row + lines_before}")


def _first_rows(body: bytes, path: str) -> tuple[list[str], list[str]]:
    """Give the cells of the first two lines."""
    lines = body[: 1 << 17].split(b"\n", 2)[:2]
    try:
        rows = [csv.reader(io.StringIO(line.decode().rstrip("\r")), strict=True) for line in lines]
        cells = [next(row, []) for row in rows] + [[]]
    except (UnicodeDecodeError, csv.Error) as broken:
        raise UnknownFormat(f"{path} cannot be read as CSV", value=str(broken)) from None
    if len(cells[0]) == 1 and re.search(r"[;\t|]", cells[0][0]):
        raise UnknownFormat(f"{path} is not separated by commas", value=cells[0][0][:80])
    return cells[0], cells[1]


def _check_fields(body: bytes, count: int, path: str, *, ends: bool) -> None:
    """Refuse lines with fewer or more fields than the first; the last one is cut if it has fewer."""
    at = body.rfind(b"\n")
    last, before = body[at + 1 :], body[max(at - 2, 0) : max(at, 0)].rstrip(b"\r")
    if not ends and last.endswith(b",") and before and not before.endswith(b","):
        raise TruncatedFile(f"{path} ends in the middle of its last row", value=last[-80:].decode(errors="replace"))
    if body.count(b",") == (count - 1) * (body.count(b"\n") + 1) and last.count(b",") == count - 1:
        return
    _refuse_uneven(body, count, path)


def _refuse_uneven(body: bytes, count: int, path: str) -> None:
    for number, line in enumerate(io.BytesIO(body), start=1):
        fields = line.count(b",") + 1
        if fields == count or b'"' in line:
            continue
        shown = line[:120].decode(errors="replace").strip()
        if fields < count and not line.endswith(b"\n"):
            raise TruncatedFile(
                f"{path} ends in the middle of its last row: line {number} has {fields} fields, not {count}",
                value=shown,
            )
        raise UnknownFormat(f"{path}, line {number}: {fields} fields, not {count}", value=shown)


def _guess(name: str | None, sample: list[str], at: int) -> pl.DataType:
    """Give the type in which a column is tried first, from its first cell."""
    cell = sample[at].strip() if at < len(sample) else ""
    if name is None or name in LABELS:
        return pl.String()
    if name in TIMES:
        return pl.Int64() if re.fullmatch(r"\d+", cell) else pl.Float64() if _is_float(cell) else pl.String()
    if name == "is_closed":
        return pl.String()
    return pl.Int64() if name == "trade_count" and re.fullmatch(r"\d+", cell) else pl.Float64()


def _is_float(cell: str) -> bool:
    return re.fullmatch(r"\d+\.\d*|\d+(\.\d*)?[eE]\+?\d+", cell) is not None


def _read_json(data: bytes, path: str) -> Table:
    try:
        body = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        if "truncated" in str(broken):
            raise TruncatedFile(f"{path} ends in the middle", value=data[-40:].decode(errors="replace")) from None
        raise UnknownFormat(f"{path} cannot be read as JSON", value=str(broken)) from None
    if isinstance(body, list) and not body:
        raise EmptyFile(f"{path} has no rows", value="[]")
    if not isinstance(body, list) or not all(isinstance(row, list) for row in body):
        raise UnknownFormat(
            f"{path} is not the body of a kline request",
            value=str(body)[:120],
            remedy="Allowed: an array of arrays of 12",
        )
    count = len(body[0])
    for number, row in enumerate(body, start=1):
        if len(row) != count:
            raise UnknownFormat(f"{path}, row {number}: {len(row)} fields, not {count}", value=str(row)[:120])
        if any(cell is not None and type(cell) not in (int, float, str) for cell in row):
            raise UnknownFormat(f"{path}, row {number}: a field is neither number nor text", value=str(row)[:120])
    found = find_positions(count, [str(cell) for cell in body[0]], path)
    columns = list(zip(*body, strict=True))
    return Table(pl.DataFrame([_json_column(name, columns[at]) for name, at in found.items()]), _row)


def _json_column(name: str, cells: tuple[object, ...]) -> pl.Series:
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds <= {int} and name in (*TIMES, "trade_count"):
        try:
            return pl.Series(name, cells, dtype=pl.Int64)
        except (OverflowError, TypeError):
            pass
    texts = [cell if cell is None else str(cell) for cell in cells]
    return pl.Series(name, texts, dtype=pl.String)


def _row(row: int) -> str:
    return f"row {row + 1}"


def _read_arrow(content: Content, path: str, max_bytes: int) -> Table:
    """Read Parquet or Feather batch by batch, only the columns that are a bar's, up to `max_bytes` of them."""
    try:
        source = pa.BufferReader(content.data)
        if content.kind == "parquet":
            file = pa.parquet.ParquetFile(source)
            names = list(file.schema_arrow.names)
            found = find_columns(names, path)
            batches = file.iter_batches(batch_size=65_536, columns=[names[at] for at in found.values()])
        else:
            reader = pa.ipc.open_file(source)
            names = list(reader.schema.names)
            found = find_columns(names, path)
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
            chosen = batch.select([names[at] for at in found.values()])
            chosen.validate(full=True)  # a text that is not UTF-8 would end the process further on
            kept.append(chosen)
    except (pa.ArrowException, OSError, EOFError, IndexError, ValueError, MemoryError) as broken:
        raise TruncatedFile(
            f"{path} is a damaged {content.kind} file", value=str(broken)[:120], remedy="Fetch it again"
        ) from None
    if not kept or not sum(batch.num_rows for batch in kept):
        raise EmptyFile(f"{path} has no rows", value=0)
    table = pl.from_arrow(pa.Table.from_batches(kept))
    assert isinstance(table, pl.DataFrame)
    return Table(table.rename({names[at]: name for name, at in found.items()}), _row)
