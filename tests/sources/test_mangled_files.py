"""Files mangled at random: whatever the damage, the answer is rows or one of the platform's own errors."""

from __future__ import annotations

import gzip
import json
import tempfile
from functools import cache
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mdplatform.errors import PlatformError
from mdplatform.market.bars import RAW_SCHEMA
from mdplatform.sources.files import read_file

from .files_as_written import DUMP, bars, dump, row, zipped

ENDINGS = ("csv", "csv.gz", "zip", "json", "parquet", "feather")


@cache
def whole(ending: str) -> bytes:
    written = bars(30)
    if ending.startswith("csv"):
        text = dump(written, header="dump")
        return gzip.compress(text, mtime=0) if ending.endswith("gz") else text
    if ending == "zip":
        return zipped({"BTCUSDT-1m.csv": dump(written)})
    cells = [[int(cell) if cell.isdigit() else cell for cell in row(bar).split(",")] for bar in written]
    if ending == "json":
        return json.dumps(cells).encode()
    table = pl.DataFrame(cells, orient="row", schema=DUMP.split(","))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole"
        table.write_parquet(path) if ending == "parquet" else table.write_ipc(path, compression="zstd")
        return path.read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
@hypothesis_settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_a_mangled_file_gives_rows_or_one_of_our_errors(ending: str, data: st.DataObject) -> None:
    mangled = bytearray(whole(ending))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(mangled) - 1, 0)))
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "repeat", "zero"]))
        if how == "flip" and mangled:
            mangled[at] ^= data.draw(st.integers(1, 255))
        elif how == "cut":
            del mangled[at:]
        elif how == "insert":
            mangled[at:at] = data.draw(
                st.sampled_from([b",", b"\n", b'"', b"\0", b"-", b"e", b"\xff", b"[", b"9" * 30])
            )
        elif how == "repeat":
            mangled[at:at] = mangled[at : at + 40]
        else:
            mangled[at : at + 8] = bytes(len(mangled[at : at + 8]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"BTCUSDT-1m.{ending}"
        path.write_bytes(bytes(mangled))
        said, deliveries = str(path), []
        try:
            deliveries = read_file(path, max_bytes=10_000_000)
        except PlatformError as refused:
            said = str(refused)
        assert str(path) in said
        assert all(each.rows.schema == RAW_SCHEMA and each.rows.height for each in deliveries)
