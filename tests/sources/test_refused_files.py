"""Files that are refused whole, each with its own error, its path, and what to do."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from mdplatform.errors import (
    ChecksumMismatch,
    EmptyFile,
    InvalidSymbol,
    MislabelledFile,
    OversizedFile,
    PlatformError,
    SourceUnavailable,
    TruncatedFile,
    UnknownColumns,
    UnknownFormat,
    UnknownTimeframe,
    UnknownTimeUnit,
)
from mdplatform.sources.files import read_file

from .files_as_written import DUMP, JANUARY_2025, Bar, bars, dump, row, zipped

GOOD = dump(bars(60), header="dump")
HEAD = "open_time,open,high,low,close,volume\n"


def parquet(frame: pl.DataFrame) -> Callable[[Path], object]:
    return frame.write_parquet


def table(columns: str, rows: list[tuple[object, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=columns.split(","), orient="row")


def damaged_zip() -> bytes:
    whole = bytearray(zipped({"BTCUSDT-1m.csv": GOOD}))
    whole[200] ^= 0xFF
    return bytes(whole)


def encrypted_zip() -> bytes:
    whole = bytearray(zipped({"BTCUSDT-1m.csv": GOOD}))
    whole[6] |= 1
    whole[whole.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(whole)


def times(*numbers: object) -> bytes:
    return (HEAD + "".join(f"{number},1,2,0.5,1.5,9\n" for number in numbers)).encode()


FIRST = JANUARY_2025
MIXED = times(FIRST * 1000, FIRST * 1000 + 60_000, (FIRST + 120) * 10**6)
AGGREGATED = (
    b"agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n1,2,3,4,5,6,true\n"
)
HEADERLESS_TRADES = b"4611,4.5,1,4.5,1738368000000,true\n4612,4.6,1,4.6,1738368000100,false\n"
FUNDING = b"calc_time,funding_interval_hours,last_funding_rate\n1738368000000,8,0.0001\n"

REFUSED: dict[str, tuple[str, bytes, type[PlatformError], str]] = {
    "nothing in it": ("BTCUSDT-1m.csv", b"", EmptyFile, "empty"),
    "blank lines only": ("BTCUSDT-1m.csv", b"\n\n", EmptyFile, "nothing in it"),
    "a header only": ("BTCUSDT-1m.csv", f"{DUMP}\n".encode(), EmptyFile, "header and no rows"),
    "no klines": ("BTCUSDT-1m.json", b"[]", EmptyFile, "no rows"),
    "an empty file in a zip": ("BTCUSDT-1m.zip", zipped({"BTCUSDT-1m.csv": b""}), EmptyFile, "nothing in it"),
    "an empty file in gzip": ("BTCUSDT-1m.csv.gz", gzip.compress(b""), EmptyFile, "nothing in it"),
    "a row cut in the middle": ("BTCUSDT-1m.csv", GOOD[:-40], TruncatedFile, "line 61 has"),
    "a row cut after a comma": ("BTCUSDT-1m.csv", GOOD[:-2], TruncatedFile, "middle of its last row"),
    "JSON cut": ("BTCUSDT-1m.json", b'[[1735689600000,"1","2"', TruncatedFile, "ends in the middle"),
    "gzip cut": ("BTCUSDT-1m.csv.gz", gzip.compress(GOOD)[:-20], TruncatedFile, "damaged gzip"),
    "zip cut": ("BTCUSDT-1m.zip", zipped({"BTCUSDT-1m.csv": GOOD})[:-30], TruncatedFile, "damaged zip"),
    "zip damaged": ("BTCUSDT-1m.zip", damaged_zip(), TruncatedFile, "damaged zip"),
    "zip encrypted": ("BTCUSDT-1m.zip", encrypted_zip(), TruncatedFile, "encrypted"),
    "no table in the zip": ("BTCUSDT-1m.zip", zipped({"README.txt": b"x"}), UnknownFormat, "0 CSV or JSON"),
    "two tables in the zip": ("BTCUSDT-1m.zip", zipped({"a.csv": GOOD, "b.csv": GOOD}), UnknownFormat, "2 CSV or JSON"),
    "a page of HTML": ("BTCUSDT-1m.csv", b"<html><body>404</body></html>", UnknownFormat, "none of the formats"),
    "binary": ("BTCUSDT-1m.csv", b"\x80\x04\x95\0\0\0", UnknownFormat, "none of the formats"),
    "not UTF-8": ("BTCUSDT-1m.csv", b"\xff\xfeopen,high", UnknownFormat, "cannot be read as CSV"),
    "semicolons": ("BTCUSDT-1m.csv", GOOD.replace(b",", b";"), UnknownFormat, "not separated by commas"),
    "an error of the API": ("BTCUSDT-1m.json", b'{"code":-1121,"msg":"Invalid symbol."}', UnknownFormat, "-1121"),
    "broken JSON": ("BTCUSDT-1m.json", b'[[1735689600000,"1",]]', UnknownFormat, "cannot be read as JSON"),
    "JSON rows of two lengths": ("BTCUSDT-1m.json", b'[[1,"1","1","1","1","1"],[1]]', UnknownFormat, "row 2: 1 fields"),
    "JSON with an object in it": ("BTCUSDT-1m.json", b'[[1,"1","1","1","1",{}]]', UnknownFormat, "row 1"),
    "a short row in the middle": ("BTCUSDT-1m.csv", GOOD.replace(b",15.2,0\n", b"\n", 1), UnknownFormat,
                                  "line 2: 10 fields"),
    "a short row made up for by a long one": ("BTCUSDT-1m.csv", GOOD.replace(b",7,", b",", 1).replace(b",7,", b",7,7,",
                                              1), UnknownFormat, "line 2: 11 fields"),
    "a quote that is left open": ("BTCUSDT-1m.csv", GOOD.replace(b",10.5,", b',"10.5,', 1), UnknownFormat, "CSV"),
    "a header in the middle": ("BTCUSDT-1m.csv", GOOD + GOOD, UnknownFormat, "line 62: open_time is not a time"),
    "a long row": ("BTCUSDT-1m.csv", GOOD + b"1,2,3,4,5,6,7,8,9,10,11,12,13\n", UnknownFormat, "line 62: 13 fields"),
    "words among numbers": ("BTCUSDT-1m.csv", GOOD.replace(b"10.5", b"10.5x", 1), UnknownFormat, "line 2: open is not"),
    "joined volumes": ("BTCUSDT-1m.csv", times(FIRST * 1000) + f"{FIRST + 60}000,1,2,1,1,116.290097.82\n".encode(),
                       UnknownFormat, "line 3: volume is not a number: '116.290097.82'"),
    "half a trade": ("BTCUSDT-1m.csv", GOOD.replace(b",7,", b",7.5,", 1), UnknownFormat, "line 2: trade_count is not"),
    "words for a time": ("BTCUSDT-1m.csv", times("yesterday", "today"), UnknownFormat, "line 2: open_time is not"),
    "a forming bar": ("BTCUSDT-1m.csv", b"is_closed," + HEAD.encode() + b"false,1735689600000,1,1,1,1,1\n",
                      UnknownFormat, "not closed"),
    "aggregated trades": ("BTCUSDT-1m.csv", AGGREGATED, UnknownColumns, "look like aggregated trades"),
    "trades without a header": ("BTCUSDT-1m.csv", HEADERLESS_TRADES, UnknownColumns, "look like trades"),
    "funding rates": ("BTCUSDT-1m.csv", FUNDING, UnknownColumns, "look like funding rates"),
    "funding rates by name": ("XRPUSDT-8h-funding_rate.csv", times(FIRST), UnknownColumns, "funding rates"),
    "no volume": ("BTCUSDT-1m.csv", b"date,open,high,low,close\n1,1,1,1,1\n", UnknownColumns, "volume missing"),
    "nine columns and no header": ("BTCUSDT-1m.csv", b"1,2,3,4,5,6,7,8,9\n", UnknownColumns, "9 columns"),
    "a column twice": ("BTCUSDT-1m.csv", b"open_time,open,high,low,close,close,volume\n1,1,1,1,1,1,1\n",
                       UnknownColumns, "two columns for close"),
    "coin-margined": ("BTCUSD_PERP-1m-2025-01.csv", GOOD, UnknownColumns, "coin-margined"),
    "a time in no unit": ("BTCUSDT-1m.csv", times(20250101, 20250102), UnknownTimeUnit, "no known unit"),
    "the year 2101": ("BTCUSDT-1m.csv", times(4_133_980_800_000), UnknownTimeUnit, "no known unit"),
    "the year 2004": ("BTCUSDT-1m.csv", times(1_072_915_200), UnknownTimeUnit, "no known unit"),
    "the year 2101 in words": ("BTCUSDT-1m.csv", times("2101-01-01 00:00:00"), UnknownTimeUnit, "outside 2005"),
    "two units in one file": ("BTCUSDT-1m.csv", MIXED, UnknownTimeUnit, "mixes microseconds and milliseconds"),
    "numbers and words for times": ("BTCUSDT-1m.csv", times(FIRST * 1000, "2025-01-01 00:01:00"), UnknownTimeUnit,
                                    "mixes numbers and texts"),
    "one time that is zero": ("BTCUSDT-1m.csv", times(FIRST * 1000, 0), UnknownTimeUnit, "no known unit"),
    "5m rows in a 1m file": ("BTCUSDT-1m.csv", dump(bars(9, 300)), MislabelledFile, "close 5m after"),
    "5m rows in a 1m file in microseconds": ("BTCUSDT-1m.csv", dump(bars(9, 300), "us"), MislabelledFile, "close 5m"),
    "1m rows in a 5m file": ("BTCUSDT-5m.csv", dump(bars(9)), MislabelledFile, "close 1m after"),
    "5m rows in a 1m file without ends": ("BTCUSDT-1m.csv", times(*range(FIRST, FIRST + 3000, 300)),
                                          MislabelledFile, "5 minutes apart"),
    "1m rows in a 5m file without ends": ("BTCUSDT-5m.csv", times(*range(FIRST, FIRST + 3000, 60)),
                                          MislabelledFile, "1 minutes apart"),
    "another symbol in its rows": ("BTCUSDT-1m.csv", f"symbol,{DUMP}\nETHUSDT,{row(bars(1)[0])}\n".encode(),
                                   MislabelledFile, "rows of symbol ETHUSDT, but its name says BTCUSDT"),
    "another timeframe in its rows": ("BTCUSDT-1m.csv", f"interval,{DUMP}\n5m,{row(bars(1, 300)[0])}\n".encode(),
                                      MislabelledFile, "rows of timeframe 5m"),
    "another symbol inside the zip": ("BTCUSDT-1m.zip", zipped({"ETHUSDT-1m.csv": GOOD}), MislabelledFile, "holds ETH"),
    "no symbol anywhere": ("some-1m.csv", GOOD, MislabelledFile, "--symbol"),
    "no timeframe anywhere": ("BTCUSDT.csv", GOOD, MislabelledFile, "--timeframe"),
    "a month as timeframe": ("BTCUSDT-1mo-2025-01.csv", GOOD, UnknownTimeframe, "1mo"),
    "a symbol that is none": ("all.csv", f"symbol,interval,{DUMP}\n../x,1m,{row(bars(1)[0])}\n".encode(),
                              InvalidSymbol, "../x"),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_a_file_is_refused_with_one_clear_error_for(case: str, tmp_path: Path) -> None:
    name, data, kind, says = REFUSED[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PlatformError) as refused:
        read_file(tmp_path / name)
    assert type(refused.value) is kind
    assert says in str(refused.value)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("ending", ["parquet", "feather"])
def test_a_cut_or_damaged_table_is_truncated(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"BTCUSDT-1m.{ending}"
    frame = table(
        "open_time,open,high,low,close,volume", [(FIRST + 60 * at, 1.0, 2.0, 0.5, 1.5, 9.0) for at in range(99)]
    )
    frame.write_parquet(path) if ending == "parquet" else frame.write_ipc(path)
    whole = path.read_bytes()
    assert read_file(path)[0].rows.height == 99
    middle = len(whole) // 2
    for data in (whole[:-7], whole[:middle], whole[:8] + bytes(len(whole) - 16) + whole[-8:]):
        path.write_bytes(data)
        with pytest.raises(TruncatedFile, match="BTCUSDT-1m"):
            read_file(path)


def test_a_parquet_of_something_else_or_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-1m.parquet"
    table("price,is_buyer_maker,time", [(1.0, True, 5)]).write_parquet(path)
    with pytest.raises(UnknownColumns, match="look like trades"):
        read_file(path)
    table(HEAD.strip(), [(FIRST, 1.0, 1.0, 1.0, 1.0, 1.0)]).head(0).write_parquet(path)
    with pytest.raises(EmptyFile):
        read_file(path)
    table(HEAD.strip(), [(FIRST, True, 1.0, 1.0, 1.0, 1.0)]).write_parquet(path)
    with pytest.raises(UnknownColumns, match="open has no numbers"):
        read_file(path)


def test_a_parquet_with_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-1m.parquet"
    table(HEAD.strip(), [(FIRST, "10.5", "11", "9", "10", "3")]).write_parquet(path, compression="uncompressed")
    assert read_file(path)[0].rows["open"].item() == 10.5
    path.write_bytes(path.read_bytes().replace(b"10.5", b"\xff\xfe.5"))
    with pytest.raises(TruncatedFile, match="damaged parquet"):
        read_file(path)


def test_a_checksum_beside_the_file_is_verified(tmp_path: Path) -> None:
    path, beside = tmp_path / "BTCUSDT-1m.zip", tmp_path / "BTCUSDT-1m.zip.CHECKSUM"
    path.write_bytes(zipped({"BTCUSDT-1m.csv": GOOD}))
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    for text in (f"{right}  BTCUSDT-1m.zip\n", f"{right.upper()} *BTCUSDT-1m.zip", right):
        beside.write_text(text)
        assert read_file(path)[0].rows.height == 60
    for text in (f"{'0' * 64}  BTCUSDT-1m.zip\n", "nothing", ""):
        beside.write_text(text)
        with pytest.raises(ChecksumMismatch, match="BTCUSDT-1m"):
            read_file(path)


@pytest.mark.parametrize("packing", ["csv.gz", "zip", "csv", "json.gz"])
def test_a_bomb_is_refused_while_it_unpacks(packing: str, tmp_path: Path) -> None:
    path = tmp_path / f"BTCUSDT-1m.{packing}"
    much = b"0" * 40_000_000
    path.write_bytes({"zip": zipped({"a.csv": much}), "csv": much}.get(packing, gzip.compress(much)))
    with pytest.raises(OversizedFile, match="MDPLATFORM_MAX_FILE_MB"):
        read_file(path, max_bytes=1_000_000)


def test_the_size_that_a_zip_states_is_not_believed(tmp_path: Path) -> None:
    packed = bytearray(zipped({"BTCUSDT-1m.csv": b"0" * 5_000_000}))
    at = packed.rindex(b"PK\x01\x02")
    packed[at + 24 : at + 28] = (100).to_bytes(4, "little")
    (tmp_path / "BTCUSDT-1m.zip").write_bytes(bytes(packed))
    with pytest.raises((OversizedFile, TruncatedFile)):
        read_file(tmp_path / "BTCUSDT-1m.zip", max_bytes=1_000_000)


def test_a_parquet_bomb_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-1m.parquet"
    pl.select(pl.repeat(FIRST, 2_000_000).alias("open_time"), *(pl.repeat(1.0, 2_000_000).alias(name) for name in
              ("open", "high", "low", "close", "volume"))).write_parquet(path)  # fmt: skip
    assert path.stat().st_size < 1_000_000
    with pytest.raises(OversizedFile):
        read_file(path, max_bytes=1_000_000)


def test_a_path_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="does not exist"):
        read_file(tmp_path / "BTCUSDT-1m.csv")
    with pytest.raises(SourceUnavailable, match="no regular file"):
        read_file(tmp_path)
    os.mkfifo(tmp_path / "BTCUSDT-1m.csv")
    with pytest.raises(SourceUnavailable, match="no regular file"):
        read_file(tmp_path / "BTCUSDT-1m.csv")


def test_the_caller_is_held_to_the_same_rules(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-1m.csv"
    path.write_bytes(GOOD)
    with pytest.raises(UnknownTimeframe, match="15M"):
        read_file(path, timeframe="15M")
    with pytest.raises(InvalidSymbol):
        read_file(path, symbol="a/b")
    with pytest.raises(MislabelledFile, match="labelled 5m"):
        read_file(path, timeframe="5m")


def test_numbers_beyond_64_bits_are_no_times(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-1m.json"
    path.write_text(json.dumps([[10**30, "1", "1", "1", "1", "1"]]))
    with pytest.raises(UnknownTimeUnit):
        read_file(path)
    lone = Bar(FIRST, FIRST + 60)
    (tmp_path / "A-1m.csv").write_text(row(lone).replace(str(FIRST * 1000), "9" * 40, 1))
    with pytest.raises(UnknownTimeUnit):
        read_file(tmp_path / "A-1m.csv")
