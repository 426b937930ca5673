"""A segment: one file of closed bars of 1m, as a feed logged them step by step.

Each step is a frame: a head (`_HEAD`: mark, length, checksum of the content, checksum of the head) and its content in
msgpack. A file is read in order:
1. a frame whose checksums agree is a step;
2. what is no frame, with none behind it, is the torn end of a write that nobody was told had succeeded: it is left out;
3. what is no frame in front of one, or where the file begins, is damage: `CorruptPartition`. What is whole around it
   is given by `whole_steps`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from struct import Struct
from zlib import crc32

import msgspec
import polars as pl

from mdplatform.errors import CorruptPartition
from mdplatform.market.bars import INSTANT, RAW_SCHEMA, VALUE_COLUMNS
from mdplatform.market.time import month_of
from mdplatform.market.timeframe import DAY_US

Row = tuple[int, int, float, float, float, float, float, float, float, float, float]
"""Open and close time (µs), and the nine values of `VALUE_COLUMNS`, NaN where they are not known."""

_MARK = b"\xf5md1"
_HEAD = Struct("<4sII")
_CHECK = Struct("<I")
_HEAD_SIZE = _HEAD.size + _CHECK.size


class Logged(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Bars of one symbol in their order, and when they were staged (µs)."""

    symbol: str
    staged_at: int
    rows: list[Row]


class Step(msgspec.Struct, array_like=True, frozen=True):
    """What one step of a feed staged, whole or not at all."""

    source: str
    bars: list[Logged]


@dataclass(frozen=True)
class Piece:
    """The part of a step that belongs to one symbol and month."""

    staged_at: int
    source: str
    rows: list[Row]


@dataclass(frozen=True)
class Segment:
    """A segment that nobody writes any more: its pieces by symbol and month, in the order they were staged."""

    path: Path
    parts: Mapping[tuple[str, str], Sequence[Piece]]

    @property
    def token(self) -> str:
        """What no other segment has in its name."""
        return self.path.stem.rpartition("-")[2]


def encode_step(step: Step) -> bytes:
    """Give the frame of a step."""
    content = msgspec.msgpack.encode(step)
    head = _HEAD.pack(_MARK, len(content), crc32(content))
    return head + _CHECK.pack(crc32(head)) + content


def read_segment(path: Path) -> Segment:
    """Read a segment that nobody writes any more. Raises `CorruptPartition`, and `OSError` where it is gone."""
    parts: dict[tuple[str, str], list[Piece]] = {}
    for step in _steps(path.read_bytes(), path):
        for logged in step.bars:
            by_month: dict[str, list[Row]] = {}
            for row in logged.rows:
                by_month.setdefault(_month_of_day(row[0] // DAY_US), []).append(row)
            for month, rows in by_month.items():
                parts.setdefault((logged.symbol, month), []).append(Piece(logged.staged_at, step.source, rows))
    return Segment(path, parts)


def whole_steps(data: bytes) -> bytes:
    """Give the frames of a damaged segment that are whole, one after the other."""
    found: list[bytes] = []
    at = 0
    while 0 <= at < len(data):
        content = _content(data, at)
        if content is None or not _is_step(content):
            at = data.find(_MARK, at + 1)
            continue
        behind = at + _HEAD_SIZE + len(content)
        found.append(data[at:behind])
        at = behind
    return b"".join(found)


def raw_frame(rows: Sequence[Row]) -> pl.DataFrame:
    """Give rows as a source delivers them (`RAW_SCHEMA`), in their order; what is not known is null."""
    schema = {"open_time": pl.Int64, "close_time": pl.Int64, **dict.fromkeys(VALUE_COLUMNS, pl.Float64)}
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pl.col("open_time", "close_time").cast(INSTANT), pl.col(VALUE_COLUMNS).fill_nan(None)
    )
    return frame.with_columns(pl.col("trade_count").round().cast(pl.Int64)).select(list(RAW_SCHEMA))


def _steps(data: bytes, path: Path) -> list[Step]:
    steps: list[Step] = []
    at = 0
    while at < len(data):
        content = _content(data, at)
        if content is None:
            if at == 0 or _goes_on_behind(data, at):
                raise _corrupt(path, f"byte {at:,} of {len(data):,}")
            break
        try:
            steps.append(_DECODER.decode(content))
        except msgspec.MsgspecError as unknown:
            raise _corrupt(path, str(unknown)) from unknown
        at += _HEAD_SIZE + len(content)
    return steps


def _content(data: bytes, at: int) -> bytes | None:
    """Give the content of the frame that begins at `at`, None if there is no whole one."""
    if len(data) - at < _HEAD_SIZE:
        return None
    head = data[at : at + _HEAD.size]
    mark, length, checksum = _HEAD.unpack(head)
    if mark != _MARK or _CHECK.unpack_from(data, at + _HEAD.size)[0] != crc32(head):
        return None
    content = data[at + _HEAD_SIZE : at + _HEAD_SIZE + length]
    return content if len(content) == length and crc32(content) == checksum else None


def _is_step(content: bytes) -> bool:
    try:
        _DECODER.decode(content)
    except msgspec.MsgspecError:
        return False
    return True


def _goes_on_behind(data: bytes, at: int) -> bool:
    """Tell whether a whole frame lies somewhere behind `at`: then what lies there was once whole too."""
    while (at := data.find(_MARK, at + 1)) >= 0:
        if _content(data, at) is not None:
            return True
    return False


@lru_cache(maxsize=64)
def _month_of_day(day: int) -> str:
    return month_of(day * DAY_US)


def _corrupt(path: Path, where: str) -> CorruptPartition:
    return CorruptPartition(f"A feed's log is damaged ({where})", value=str(path))


_DECODER = msgspec.msgpack.Decoder(Step)
