"""One partition is one Parquet file: written whole or not at all, read by key, a part at a time.

Rows lie in *groups* (a group is a timeframe; rows ascend by open time), each in row groups of its own, and the file's metadata says which; so that
a reader of the last few rows of one timeframe touches nothing else. The data version is the hash of the content.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mdplatform.errors import CorruptPartition

_KEY = b"mdplatform"
_ROW_GROUP = 15_000


class Group(msgspec.Struct, frozen=True):
    """Where the rows of one group lie: its row groups, and the first and last open time (microseconds) in each."""

    rows: int
    row_groups: list[int]
    bounds: list[tuple[int, int]]


class Header(msgspec.Struct, frozen=True):
    """What a partition's file says of itself."""

    data_version: str
    groups: dict[str, Group]
    notes: dict[str, Any] = {}


def content_hash(frames: Mapping[str, pl.DataFrame]) -> str:
    """Hash the content of `frames`: equal for equal rows, whatever wrote them."""
    digest = hashlib.blake2b(digest_size=16)
    for name, frame in frames.items():
        digest.update(name.encode())
        sink = pa.BufferOutputStream()
        table = _arrow(frame).combine_chunks()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        digest.update(sink.getvalue())
    return digest.hexdigest()


def _arrow(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def write_partition(path: Path, groups: Mapping[str, pl.DataFrame], notes: Mapping[str, Any] | None = None) -> Header:
    """Write `groups` (frames of one schema, empty ones left out) to `path`: temporary file, fsync, rename, fsync."""
    groups = {name: frame for name, frame in groups.items() if len(frame)}
    placed: dict[str, Group] = {}
    number = 0
    for name, frame in groups.items():
        bounds = [_bounds(frame["open_time"][at : at + _ROW_GROUP]) for at in range(0, len(frame), _ROW_GROUP)]
        placed[name] = Group(len(frame), list(range(number, number + len(bounds))), bounds)
        number += len(bounds)
    header = Header(content_hash(groups), placed, dict(notes or {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    for left_behind in path.parent.glob(f".{path.name}.*.tmp"):
        left_behind.unlink(missing_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with temporary.open("wb") as file:
            _write(file, groups, header)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _fsync_folder(path.parent)
    return header


def _bounds(opens: pl.Series) -> tuple[int, int]:
    known = opens.dt.epoch("us").drop_nulls()
    return (known.min(), known.max()) if len(known) else (0, 0)  # type: ignore[return-value]


def _write(file: Any, groups: Mapping[str, pl.DataFrame], header: Header) -> None:
    tables = [_arrow(frame) for frame in groups.values()]
    schema = tables[0].schema.with_metadata({_KEY: msgspec.json.encode(header)})
    with pq.ParquetWriter(file, schema, compression="zstd", compression_level=1) as writer:
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
            file = pq.ParquetFile(path, memory_map=True)
            metadata = (file.schema_arrow.metadata or {})[_KEY]
            return cls(path, msgspec.json.decode(metadata, type=Header), file)
        except FileNotFoundError:
            return None
        except (pa.ArrowException, OSError, KeyError, msgspec.MsgspecError) as broken:
            raise _corrupt(path, broken) from broken

    def read(
        self, group: str, columns: Sequence[str] | None = None, start: int | None = None, end: int | None = None
    ) -> pl.DataFrame:
        """Read `group`, or those of its row groups that reach into `[start, end)` of open times; maybe no rows."""
        placed = self.header.groups.get(group, Group(0, [], []))
        numbers = [
            number
            for number, (first, last) in zip(placed.row_groups, placed.bounds, strict=True)
            if (start is None or last >= start) and (end is None or first < end)
        ]
        try:
            table = self._file.read_row_groups(numbers, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as broken:
            raise _corrupt(self.path, broken) from broken
        frame = pl.from_arrow(table.replace_schema_metadata(None))
        assert isinstance(frame, pl.DataFrame)
        return frame


def _corrupt(path: Path, broken: Exception) -> CorruptPartition:
    return CorruptPartition(
        f"A file of the lake cannot be read ({type(broken).__name__})",
        value=str(path),
        remedy="Move it away and materialize its partition again",
    )
