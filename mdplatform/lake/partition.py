"""One partition is one Parquet file: written whole or not at all, read by key, a part at a time.

Rows lie in *groups* (a group is a timeframe; rows ascend by open time), each in row groups of its own, and the file's
metadata says which; so that a reader of the last few rows of one timeframe touches nothing else. The data version is
the hash of the content, and every page carries a checksum that is verified as it is read.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mdplatform.errors import CorruptPartition
from mdplatform.market.time import from_us
from mdplatform.market.timeframe import DAY_US

_KEY = b"mdplatform"
_ROW_GROUP = 15_000
_LONGEST_WRITE_SECONDS = 600.0


class Group(msgspec.Struct, frozen=True):
    """Where the rows of one group lie: its row groups, and the first and last time (microseconds) in each.

    `data_version` is the hash of the group's own content, and `days` that of the values of each UTC day (`2025-01-31`),
    where they are kept; so that what follows from a part of the file knows whether that part has changed.
    """

    rows: int
    row_groups: list[int]
    bounds: list[tuple[int, int]]
    data_version: str = ""
    days: dict[str, str] = {}


class Header(msgspec.Struct, frozen=True):
    """What a partition's file says of itself."""

    data_version: str
    groups: dict[str, Group]
    notes: dict[str, Any] = {}


Span = tuple[int, int]
"""The first and the last of some times (microseconds)."""


@dataclass(frozen=True)
class Before:
    """The header of the file that a new one replaces, and within which times each changed group has other rows."""

    header: Header
    changed: Mapping[str, Span]

    def group(self, name: str) -> Group | None:
        """Give a group that has not changed."""
        return None if name in self.changed else self.header.groups.get(name)

    def days(self, name: str) -> dict[str, str]:
        """Give the hashes of the days of a group that have not changed."""
        group = self.header.groups.get(name)
        if group is None or name not in self.changed:
            return group.days if group else {}
        first, last = (_day(time) for time in self.changed[name])
        return {day: known for day, known in group.days.items() if not first <= day <= last}


def content_hash(frames: Mapping[str, pl.DataFrame]) -> str:
    """Hash the content of `frames`: equal for equal rows, however their memory is laid out.

    >>> frame = pl.DataFrame({"a": [1, None, 3]})
    >>> content_hash({"1h": frame}) == content_hash({"1h": pl.concat([frame[:1], frame[1:]], rechunk=False)})
    True
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, frame in frames.items():
        _feed(name, as_table(frame), digest)
    return digest.hexdigest()


def _versions(tables: Mapping[str, pa.Table], before: Before | None) -> tuple[str, dict[str, str]]:
    """Give the hash of all the content, and of each group's alone; what `before` knows is not hashed again."""
    known = {name: group for name in tables if before and (group := before.group(name)) and group.data_version}
    versions = {name: group.data_version for name, group in known.items()}
    if before and before.header.groups.keys() == known.keys() == tables.keys():
        return before.header.data_version, versions
    whole = hashlib.blake2b(digest_size=16)
    for number, (name, table) in enumerate(tables.items()):
        own = [hashlib.blake2b(digest_size=16)] if number and name not in known else []
        _feed(name, table, whole, *own)
        if name not in known:
            versions[name] = (own or [whole])[0].hexdigest()  # up to its end the whole is the first group
    return whole.hexdigest(), versions


def _feed(name: str, table: pa.Table, *digests: hashlib.blake2b) -> None:
    for column, array in zip(table.column_names, table.columns, strict=True):
        start = f"{name}\0{column}\0{array.type}\0{len(array)}\0{array.null_count}\0".encode()
        for part in (start, *_content(array)):
            for digest in digests:
                digest.update(part)


def _content(column: Any) -> Iterator[Any]:
    """Give the values of a column as buffers: what lies under a null, or in which chunk, does not show."""
    if column.null_count:
        yield np.packbits(column.is_null().to_numpy())
    if pa.types.is_boolean(column.type):
        yield np.packbits(column.fill_null(False).to_numpy())
        return
    chunks = column.chunks
    if pa.types.is_large_string(column.type):  # few distinct ones
        encoded = column.dictionary_encode().chunks
        yield msgspec.json.encode(encoded[0].dictionary.to_pylist() if encoded else [])
        chunks = [each.indices for each in encoded]
    for array in chunks:
        numbers = array.view(pa.int64()) if pa.types.is_temporal(array.type) else array
        yield np.ascontiguousarray((numbers.fill_null(0) if numbers.null_count else numbers).to_numpy())


def as_table(frame: pl.DataFrame | pa.Table) -> pa.Table:
    """Give `frame` as Arrow lays it out in files."""
    if isinstance(frame, pa.Table):
        return frame
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def write_partition(
    path: Path,
    groups: Mapping[str, pl.DataFrame | pa.Table],
    notes: Mapping[str, Any] | None = None,
    time_column: str = "open_time",
    hashed_by_day: Sequence[str] = (),
    before: Before | None = None,
) -> Header:
    """Write `groups` (one or more frames of one schema) to `path`: temporary file, fsync, rename, fsync.

    The rows of a group ascend by `time_column`; the header gets a hash of each day's values in the columns
    `hashed_by_day` (numbers), if there are any. What is the same as `before` is not hashed anew. Empty frames make no
    group; where all are empty, the file has the schema and no rows. Two writers of the same path do not harm each
    other: the last one to end wins.
    """
    tables = {name: as_table(frame) for name, frame in groups.items()}
    schema = next(iter(tables.values())).schema
    tables = {name: table for name, table in tables.items() if len(table)}
    whole, versions = _versions(tables, before)
    placed: dict[str, Group] = {}
    number = 0
    for name, table in tables.items():
        times = _times(table.column(time_column))
        bounds = [_bounds(times[at : at + _ROW_GROUP]) for at in range(0, len(table), _ROW_GROUP)]
        known = before.days(name) if before else {}
        days = _hashed_days(table, times, hashed_by_day, known) if hashed_by_day else {}
        placed[name] = Group(len(table), list(range(number, number + len(bounds))), bounds, versions[name], days)
        number += len(bounds)
    header = Header(whole, placed, dict(notes or {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    _clean_up(path)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with temporary.open("wb") as file:
            _write(file, tables.values(), schema, header)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _fsync_folder(path.parent)
    return header


def _hashed_days(
    table: pa.Table, times: np.ndarray[Any, Any], columns: Sequence[str], known: Mapping[str, str]
) -> dict[str, str]:
    """Hash time and `columns` of each day that is not `known`; NaN stands for null, so that equal days hash equal."""
    days = times // DAY_US
    edges = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    return {
        (day := _day(int(times[start]))): known.get(day)
        or _hashed(table.slice(start, stop - start), times[start:stop], columns)
        for start, stop in pairwise(edges)
    }


def _hashed(rows: pa.Table, times: np.ndarray[Any, Any], columns: Sequence[str]) -> str:
    numbers = [column.to_numpy() for column in rows.select(columns).columns]
    digest = hashlib.blake2b(times.tobytes(), digest_size=8)
    digest.update(np.column_stack(numbers).astype(np.float64, order="C").tobytes())
    return digest.hexdigest()


def _day(time: int) -> str:
    return _day_of(time // DAY_US)


@lru_cache(maxsize=1024)
def _day_of(number: int) -> str:
    return f"{from_us(number * DAY_US):%Y-%m-%d}"


def _clean_up(path: Path) -> None:
    """Remove what killed writers of `path` left behind; a young file may belong to one that is still writing."""
    for left_behind in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - left_behind.stat().st_mtime > _LONGEST_WRITE_SECONDS:
                left_behind.unlink()


def _times(column: Any) -> np.ndarray[Any, Any]:
    """Give times in microseconds; NaN, and so floats, where any is null."""
    instants = pl.Series(column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64()))
    times: np.ndarray[Any, Any] = instants.to_numpy()  # pyarrow's own way to numpy imports pandas
    return times


def _bounds(times: np.ndarray[Any, Any]) -> Span:
    known = times[~np.isnan(times)]
    return (int(known.min()), int(known.max())) if len(known) else (0, 0)


def _write(file: Any, tables: Iterable[pa.Table], schema: pa.Schema, header: Header) -> None:
    schema = schema.with_metadata({_KEY: msgspec.json.encode(header)})
    texts: Any = [field.name for field in schema if pa.types.is_large_string(field.type)]
    times = {field.name: "DELTA_BINARY_PACKED" for field in schema if pa.types.is_temporal(field.type)}
    pruned_by = [*texts, *times]  # nobody looks for rows by the range of their numbers
    # measured on bars: as small as zstd with dictionaries everywhere, and read in a third of the time
    options: dict[str, Any] = {
        "compression": "lz4",
        "use_dictionary": texts,
        "column_encoding": times,
        "write_statistics": pruned_by,
    }
    with pq.ParquetWriter(file, schema, write_page_checksum=True, **options) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(schema.metadata), row_group_size=_ROW_GROUP)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Partition:
    """An open partition; `Partition.open(path)` gives None where there is no file."""

    path: Path
    header: Header
    _file: pq.ParquetFile

    @classmethod
    def open(cls, path: Path) -> Partition | None:
        """Open the file at `path` and read its header. Raises `CorruptPartition`."""
        try:
            file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
            metadata = (file.schema_arrow.metadata or {})[_KEY]
            return cls(path, msgspec.json.decode(metadata, type=Header), file)
        except FileNotFoundError:
            return None
        except (pa.ArrowException, OSError, KeyError, msgspec.MsgspecError) as broken:
            raise _corrupt(path, broken) from broken

    def read(
        self, group: str, columns: Sequence[str] | None = None, start: int | None = None, end: int | None = None
    ) -> pl.DataFrame:
        """Read `group`, or those of its row groups that reach into `[start, end)` of open times; maybe no rows.

        Raises `CorruptPartition`.
        """
        frame = pl.from_arrow(self.table(group, columns, start, end))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def table(
        self, group: str, columns: Sequence[str] | None = None, start: int | None = None, end: int | None = None
    ) -> pa.Table:
        """Read as `read` does, without the conversion to polars."""
        placed = self.header.groups.get(group, Group(0, [], []))
        numbers = [
            number
            for number, (first, last) in zip(placed.row_groups, placed.bounds, strict=True)
            if (start is None or last >= start) and (end is None or first < end)
        ]
        try:
            table = self._file.read_row_groups(numbers, columns=list(columns) if columns else None, use_threads=False)
        except (pa.ArrowException, OSError) as broken:
            raise _corrupt(self.path, broken) from broken
        return table.replace_schema_metadata(None)


def _corrupt(path: Path, broken: Exception) -> CorruptPartition:
    return CorruptPartition(
        f"A file of the lake cannot be read ({type(broken).__name__})",
        value=str(path),
        remedy="Move it away and materialize its partition again",
    )
