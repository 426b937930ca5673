"""Blobs: what goes in comes out, damage is seen, and the version says whether the content is the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdplatform.market.timeframe import Timeframe
from mdplatform.serving.codec import BadBlob, Blob, content_version, decode, encode, make_batch

FRAME = pl.DataFrame(
    {
        "open_time": [datetime(2025, 1, 1, 0, 15 * i, tzinfo=UTC) for i in range(3)],
        "available_at": [datetime(2025, 1, 1, 0, 15 * i + 15 - 1, 59, 999_999, tzinfo=UTC) for i in range(3)],
        "X(a=1).b": [None, 1.5, -2.0],
        "status": ["gap", "unsettled", "settled"],
    },
    schema_overrides={"open_time": pl.Datetime("us", "UTC"), "available_at": pl.Datetime("us", "UTC")},
)


def blob_of(frame: pl.DataFrame = FRAME, **other: object) -> Blob:
    batch = make_batch(frame)
    version = content_version("BTCUSDT", Timeframe.M15, "X(a=1)", "engine 1", batch)
    blob = Blob("BTCUSDT", Timeframe.M15, "X(a=1)", "0f", batch, version, whole=False, engine="engine 1")
    return replace(blob, sequence=12, published_at=34, made_by="run 5", **other)


def test_a_blob_comes_back_as_it_was():
    blob = blob_of()
    again = decode(encode(blob))
    assert again.batch.equals(blob.batch)
    assert replace(again, batch=blob.batch) == blob
    assert pl.DataFrame(pl.from_arrow(again.batch)).equals(FRAME)


def test_any_arrow_reader_reads_a_blob_as_it_is():
    table = pa.ipc.open_stream(encode(blob_of())).read_all()
    assert table.column("X(a=1).b").to_pylist() == [None, 1.5, -2.0]
    assert table.schema.metadata[b"feature"] == b"X(a=1)"


def test_the_trailer_tells_the_order_at_fixed_places():
    trailer = encode(blob_of())[-48:]
    assert trailer[:5] == b"MDP1 "
    assert int(trailer[14:30]) == 12
    assert int(trailer[31:48]) == round(datetime(2025, 1, 1, 0, 44, 59, 999_999, tzinfo=UTC).timestamp() * 1e6)


def test_decoding_copies_no_values():
    raw = encode(blob_of())
    base = np.frombuffer(raw, np.uint8).__array_interface__["data"][0]
    values = decode(raw).batch.column("X(a=1).b").buffers()[1]
    assert base <= values.address < base + len(raw)


@given(st.binary(max_size=200))
def test_rubbish_is_a_bad_blob(raw: bytes):
    with pytest.raises(BadBlob):
        decode(raw)


@given(st.data())
def test_one_changed_byte_of_the_stream_is_seen(data: st.DataObject):
    raw = bytearray(encode(blob_of()))
    place = data.draw(st.integers(0, len(raw) - 49))
    raw[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadBlob):
        decode(bytes(raw))


@given(st.integers(0, 2000))
def test_a_cut_blob_is_bad(length: int):
    raw = encode(blob_of())
    with pytest.raises(BadBlob):
        decode(raw[: min(length, len(raw) - 1)])


def test_the_version_is_that_of_the_content_alone():
    same = pl.concat([FRAME.head(1), FRAME.slice(1)], rechunk=False)
    assert blob_of(same).version == blob_of().version
    # What lies under a null is not content.
    hidden = pa.Array.from_buffers(
        pa.float64(), 3, [pa.py_buffer(bytes([0b110])), pa.py_buffer(np.array([9.9, 1.5, -2.0]).tobytes())]
    )
    batch = blob_of().batch.set_column(2, "X(a=1).b", hidden)
    assert content_version("BTCUSDT", Timeframe.M15, "X(a=1)", "engine 1", batch) == blob_of().version


@pytest.mark.parametrize(
    "changed",
    [
        FRAME.with_columns(pl.Series("X(a=1).b", [None, 1.5, -2.0000000000000004])),
        FRAME.with_columns(pl.Series("X(a=1).b", [0.0, 1.5, -2.0])),
        FRAME.with_columns(pl.Series("status", ["gap", "settled", "settled"])),
        FRAME.with_columns(pl.col("open_time").dt.offset_by("1us")),
        FRAME.with_columns(pl.col("available_at").dt.offset_by("1us")),
        FRAME.rename({"X(a=1).b": "X(a=1).c"}),
        FRAME.head(2),
    ],
)
def test_any_change_of_content_changes_the_version(changed: pl.DataFrame):
    assert blob_of(changed).version != blob_of().version
