"""Blobs: how the newest rows of one feature lie in Redis.

A blob is an Arrow IPC stream, uncompressed, with one record batch, followed by a trailer of 48 bytes:

- columns: `open_time`, `available_at` (timestamp[us, UTC]), one float64 column per output, named by its canonical text,
  `status` (`settled`, `unsettled`, or the reason why the values are null) and, for features of slow series, `age`
  (duration[us], how old the value was at the row's close);
- schema metadata, all text: `symbol`, `timeframe`, `feature` (canonical), `spec_id`, `version` (a hash of the
  content), `sequence` (see `publisher`), `whole` (`1` if there are no older rows), `read_at` (when the lake was read)
  and `published_at` (microseconds), `made_by`, `engine`; where the rows depend on more than bars of their symbol
  `sequences`, those of all that they depend on, with commas between, of which `sequence` is the highest; where there is
  a choice of methods, the `method`;
- trailer: `MDP1`, the CRC-32 of the stream in 8 hexadecimal digits, the sequence in 16 and the watermark (the last
  row's `available_at` in microseconds) in 17 decimal digits, with blanks between. Arrow readers stop at the end of
  the stream, so that any language reads a blob as it is; a script in Redis finds the order of two blobs at fixed
  places.

Decoding copies nothing: the arrays lie in the bytes that came from Redis.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from mdplatform.market.timeframe import Timeframe
from mdplatform.serving.keys import blob_key

TRAILER_BYTES = 48
HIGHEST_SEQUENCE = 2**53 - 1  # the largest that a script in Redis compares exactly
_MAGIC = b"MDP1 "
_TIME = pa.timestamp("us", tz="UTC")
_AGE = pa.duration("us")
_KINDS: dict[str, pa.DataType] = {"open_time": _TIME, "available_at": _TIME, "status": pa.string(), "age": _AGE}


class BadBlob(ValueError):
    """Bytes that are not a blob, or a damaged one; the text says what is wrong."""


@dataclass(frozen=True)
class Blob:
    """The newest rows of one feature, with all that is told about them."""

    symbol: str
    timeframe: Timeframe
    feature: str
    spec_id: str
    batch: pa.RecordBatch
    version: str
    whole: bool
    engine: str
    read_at: int = 0
    sequence: int = 0
    published_at: int = 0
    made_by: str = ""
    sequences: tuple[int, ...] = ()
    method: str | None = None

    @property
    def key(self) -> str:
        """Its key in Redis."""
        return blob_key(self.symbol, self.timeframe, self.spec_id)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.batch.num_rows)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the output columns."""
        return tuple(name for name in self.batch.schema.names if name not in _KINDS)

    @property
    def watermark(self) -> int:
        """`available_at` of the last row in microseconds, 0 without rows."""
        if not self.batch.num_rows:
            return 0
        return int(self.batch.column("available_at")[-1].value or 0)


def make_batch(frame: pl.DataFrame) -> pa.RecordBatch:
    """Give a frame of `open_time, available_at, outputs…, status` and maybe `age` as one batch of plain Arrow types."""
    columns = {}
    for name in frame.columns:
        values = frame.get_column(name).rechunk().to_arrow()
        columns[name] = values.cast(_KINDS.get(name, pa.float64()))
    return pa.record_batch(columns)


def content_version(symbol: str, timeframe: Timeframe, feature: str, engine: str, batch: pa.RecordBatch) -> str:
    """Give the data version: equal for equal content, whoever computed it and whenever."""
    digest = hashlib.blake2b(digest_size=16)
    for text in (symbol, timeframe.value, feature, engine, *batch.schema.names):
        digest.update(text.encode() + b"\0")
    for name in batch.schema.names:
        column = batch.column(name)
        if name == "status":
            digest.update("\0".join(str(each) for each in column.to_pylist()).encode())
            continue
        values = pl.Series(column.cast(pa.int64()) if name in _KINDS else column)  # pyarrow's own way imports pandas
        digest.update(values.is_null().cast(pl.UInt8).to_numpy().tobytes())
        digest.update(
            values.fill_null(0).to_numpy().tobytes()
        )  # what lies under a null is arbitrary: it must not count
    return digest.hexdigest()


def encode(blob: Blob) -> bytes:
    """Give the bytes of a blob."""
    told = {
        "symbol": blob.symbol,
        "timeframe": blob.timeframe.value,
        "feature": blob.feature,
        "spec_id": blob.spec_id,
        "version": blob.version,
        "sequence": str(blob.sequence),
        "whole": str(int(blob.whole)),
        "read_at": str(blob.read_at),
        "published_at": str(blob.published_at),
        "made_by": blob.made_by,
        "engine": blob.engine,
    }
    if blob.sequences:
        told["sequences"] = ",".join(map(str, blob.sequences))
    if blob.method is not None:
        told["method"] = blob.method
    batch = blob.batch.replace_schema_metadata(told)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    stream = sink.getvalue().to_pybytes()
    return stream + b"%s%08x %016d %017d" % (_MAGIC, zlib.crc32(stream), blob.sequence, blob.watermark)


def decode(raw: bytes) -> Blob:
    """Read the bytes of a blob, without copying them. Raises `BadBlob`."""
    trailer = raw[-TRAILER_BYTES:]
    if len(raw) <= TRAILER_BYTES or not trailer.startswith(_MAGIC):
        raise BadBlob(f"these {len(raw)} bytes are not a blob")
    stream = memoryview(raw)[:-TRAILER_BYTES]
    if trailer[5:13] != b"%08x" % zlib.crc32(stream):
        raise BadBlob("the checksum is wrong")
    try:
        batch = pa.ipc.open_stream(pa.py_buffer(stream)).read_next_batch()
        told = {name.decode(): value.decode() for name, value in batch.schema.metadata.items()}
        return Blob(
            symbol=told["symbol"],
            timeframe=Timeframe(told["timeframe"]),
            feature=told["feature"],
            spec_id=told["spec_id"],
            batch=batch,
            version=told["version"],
            whole=told["whole"] == "1",
            engine=told["engine"],
            sequence=int(told["sequence"]),
            read_at=int(told["read_at"]),
            published_at=int(told["published_at"]),
            made_by=told["made_by"],
            sequences=tuple(map(int, told["sequences"].split(","))) if "sequences" in told else (),
            method=told.get("method"),
        )
    except (pa.ArrowException, StopIteration, AttributeError, KeyError, ValueError) as wrong:
        raise BadBlob(f"{type(wrong).__name__}: {wrong}") from None
