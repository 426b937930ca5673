"""Raw recordings of a websocket: what they give, and what becomes of lines that are none."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import polars as pl
import pytest

from mdplatform.errors import (
    EmptyFile,
    MislabelledFile,
    OversizedFile,
    PlatformError,
    SourceUnavailable,
    TruncatedFile,
    UnknownFormat,
)
from mdplatform.market.depth import DEPTH
from mdplatform.market.trades import TRADES
from mdplatform.sources.recording import read_recording
from mdplatform.sources.table_delivery import TableDelivery, TableOptions
from mdplatform.sources.trade_files import AGGREGATED, SINGLE, read_trades

AT = 1_723_161_255_000
"""An exchange's instant, in ms; the receiver's clock is in ns."""


def line(received_ms: int, data: dict[str, object], stream: str = "x@y") -> str:
    return f"{received_ms * 10**6} {json.dumps({'stream': stream, 'data': data})}"


def trade(number: int, at: int = AT, **more: object) -> dict[str, object]:
    return {
        "e": "trade", "E": at + 1, "s": "BTCUSDT", "t": number, "p": "61837.63", "q": "0.02", "T": at, "m": True,
        "M": True,
    } | more  # fmt: skip


def diff(first: int, last: int, at: int = AT, **more: object) -> dict[str, object]:
    return {
        "e": "depthUpdate", "E": at, "s": "BTCUSDT", "U": first, "u": last, "b": [["61737.63", "0.00"]],
        "a": [["61837.64", "1.546"], ["61839.85", "2"]],
    } | more  # fmt: skip


def put(folder: Path, lines: list[str], name: str = "btcusdt.gz", ending: str = "\n") -> Path:
    path = folder / name
    data = ("\n".join(lines) + ending).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def read(path: Path, **options: object) -> dict[str, TableDelivery]:
    given = {each.dataset.name: each for each in read_recording(path, TableOptions(**options))}  # type: ignore[arg-type]
    for each in given.values():
        assert each.rows.schema == each.dataset.delivered
    return given


def epoch(rows: pl.DataFrame, name: str) -> list[int]:
    return rows[name].dt.epoch("ms").to_list()


def test_a_row_is_available_when_it_happened_or_was_received_whichever_is_later(tmp_path: Path) -> None:
    behind, ahead = line(AT - 1_270, trade(1)), line(AT + 40, trade(2))
    rows = read(put(tmp_path, [behind, ahead]))["trades"].rows
    assert epoch(rows, "time") == [AT, AT]
    assert epoch(rows, "available_at") == [AT + 1, AT + 40]


def test_a_message_of_depth_is_a_row_a_level_with_its_ids(tmp_path: Path) -> None:
    rows = read(put(tmp_path, [line(AT, diff(5, 9, pu=4))]))["depth"].rows
    assert rows.select("first_update_id", "last_update_id", "previous_update_id").unique().rows() == [(5, 9, 4)]
    assert rows.select("is_snapshot", "is_bid", "price", "quantity").rows() == [
        (False, True, 61737.63, 0.0),
        (False, False, 61837.64, 1.546),
        (False, False, 61839.85, 2.0),
    ]
    assert read(put(tmp_path, [line(AT, diff(5, 9))]))["depth"].rows["previous_update_id"].null_count() == 3


def test_a_message_without_a_level_leaves_no_hole_in_the_sequence(tmp_path: Path) -> None:
    nothing: dict[str, object] = {"b": [], "a": []}
    spot = [line(AT, diff(5, 9)), line(AT, diff(10, 12) | nothing), line(AT, diff(13, 13) | nothing)]
    heads = ("first_update_id", "last_update_id", "previous_update_id")

    def ids(*more: str) -> list[tuple[object, ...]]:
        rows = read(put(tmp_path, [*spot, *more]))["depth"].rows
        return rows.select(heads).unique(maintain_order=True).rows()

    assert ids(line(AT, diff(14, 20))) == [(5, 9, None), (10, 20, None)]
    assert ids(line(AT, diff(15, 20))) == [(5, 9, None), (15, 20, None)]
    futures = line(AT, diff(30, 33, pu=25) | nothing)
    assert ids(futures, line(AT, diff(40, 44, pu=33)))[1:] == [(30, 44, 25)]
    assert ids(futures, line(AT, diff(40, 44, pu=34)))[1:] == [(40, 44, 34)]


def test_a_snapshot_has_its_files_symbol_and_the_latest_time_known_then(tmp_path: Path) -> None:
    body = {"lastUpdateId": 7, "bids": [["10.0", "1.0"]], "asks": [["11.0", "2.0"]]}
    lines = [line(AT - 1_270, diff(5, 9)), f"{(AT - 1_200) * 10**6} {json.dumps(body)}"]
    rows = read(put(tmp_path, lines))["depth"].rows.filter("is_snapshot")
    assert rows["symbol"].unique().to_list() == ["BTCUSDT"]
    assert epoch(rows, "time") == [AT, AT]
    dated = f"{AT * 10**6} {json.dumps(body | {'E': AT + 3, 'T': AT + 2})}"
    assert epoch(read(put(tmp_path, [lines[0], dated]))["depth"].rows.filter("is_snapshot"), "time") == [AT + 3] * 2
    alone = read(put(tmp_path, [lines[1]]), symbol="ETHUSDT")["depth"].rows
    assert alone["symbol"].to_list() == ["ETHUSDT"] * 2
    assert epoch(alone, "time") == [AT - 1_200] * 2
    with pytest.raises(MislabelledFile, match="--symbol"):
        read(put(tmp_path, [lines[1]]))


def test_single_trades_are_taken_before_aggregated_ones(tmp_path: Path) -> None:
    aggregated = {"e": "aggTrade", "E": AT, "s": "BTCUSDT", "a": 50, "p": "1.0", "q": "2.0", "T": AT, "m": False}
    both = read(put(tmp_path, [line(AT, trade(1)), line(AT, aggregated)]))["trades"]
    assert (both.rows["trade_id"].to_list(), both.form) == ([1], SINGLE)
    assert any("aggregated" in note for note in both.notes)
    alone = read(put(tmp_path, [line(AT, aggregated)]))["trades"]
    assert (alone.rows["trade_id"].to_list(), alone.form) == ([50], AGGREGATED)


def test_a_stream_that_is_not_combined_is_read_too(tmp_path: Path) -> None:
    assert read(put(tmp_path, [f"{AT} {json.dumps(trade(3))}"], "x.log"))["trades"].rows["trade_id"].to_list() == [3]


@pytest.mark.parametrize("ending", ["", "\n"])
def test_lines_that_cannot_be_read_are_named_and_not_fatal(tmp_path: Path, ending: str) -> None:
    garbage = ["no line at all", "12 {", f"{AT} [1,2]", "\x00\xff", f"late {json.dumps(trade(9))}"]
    lines = [line(AT, trade(1)), *garbage, line(AT, trade(2)), line(AT, trade(3))[:60]]
    delivery = read(put(tmp_path, lines, ending=ending))["trades"]
    assert delivery.rows["trade_id"].to_list() == [1, 2]
    rules = delivery.set_aside["rule"].to_list()
    assert rules == ["unreadable_line"] * 5 + (["cut_line"] if not ending else ["unreadable_line"])
    assert delivery.set_aside["row"][0] == "no line at all"


def test_a_cut_gzip_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = put(tmp_path, [line(AT + n, trade(n, AT + n)) for n in range(5_000)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    delivery = read(path)["trades"]
    assert 1_000 < delivery.rows.height < 4_500
    assert delivery.rows["trade_id"].to_list() == list(range(delivery.rows.height))
    assert any("cut" in note for note in delivery.notes)
    assert delivery.set_aside["rule"].to_list() in ([], ["cut_line"])


def test_a_flipped_byte_inside_a_gzip_file_is_said_and_not_guessed_around(tmp_path: Path) -> None:
    path = put(tmp_path, [line(AT + n, trade(n, AT + n)) for n in range(500)])
    whole = path.read_bytes()
    refused = 0
    for at in (*range(20, len(whole) - 8, 997), *range(len(whole) - 8, len(whole))):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            given = read(path)
        except TruncatedFile as damaged:
            refused += "damaged gzip file" in str(damaged)
        else:  # to unpack it, bytes are lacking at the end
            assert any("cut or damaged" in note for note in given["trades"].notes)
    assert refused > 8
    path.write_bytes(whole[:12])
    with pytest.raises(TruncatedFile, match="ends before anything"):
        read(path)


def test_what_is_no_regular_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.log")
    for path in (tmp_path / "pipe.log", Path("/dev/zero")):
        with pytest.raises(SourceUnavailable, match="is no regular file"):
            read(path)


def test_a_file_over_the_limit_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "long.log"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room on the disk, and would not fit into memory
    with pytest.raises(OversizedFile):
        read(path, max_bytes=1 << 20)


@pytest.mark.parametrize(("mark", "name"), [(b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\x00", "xz"), (b"BZh9", "bzip2")])
def test_what_is_packed_otherwise_is_named(tmp_path: Path, mark: bytes, name: str) -> None:
    path = tmp_path / "btcusdt.dat"
    path.write_bytes(mark + bytes(range(256)))
    for taken in (read_recording, read_trades):
        with pytest.raises(UnknownFormat) as refused:
            list(taken(path, TableOptions()))
        assert str(refused.value) == f"{path} is packed with {name}, which is not read. Unpack it first ({name} -d)"


def test_an_error_shows_no_binary(tmp_path: Path) -> None:
    path = tmp_path / "btcusdt.dat"
    path.write_bytes(bytes(range(256)))
    for taken in (read_recording, read_trades):
        with pytest.raises(UnknownFormat) as refused:
            list(taken(path, TableOptions()))
        assert "'no text'" in str(refused.value)


def test_two_gzip_files_one_behind_the_other_are_one(tmp_path: Path) -> None:
    first, second = (put(tmp_path, [line(AT, trade(n))], f"{n}.gz").read_bytes() for n in (1, 2))
    (tmp_path / "both.gz").write_bytes(first + second)
    assert read(tmp_path / "both.gz")["trades"].rows["trade_id"].to_list() == [1, 2]


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (trade(2, p="0"), "price_not_positive"),
        (trade(2, p="much"), "price_missing"),
        (trade(2, p=None), "price_missing"),
        (trade(2, q="-1"), "quantity_invalid"),
        (trade(2, T=None), "time_missing"),
        (trade(2, T=1), "time_missing"),
        (trade(2, t=None), "key_missing"),
        (trade(2, s=None, t="x"), "key_missing"),
        (trade(1, q="5"), "comes_twice"),
        (diff(1, 2, b=[["1.0"]], a=[]), "price_missing"),
        (diff(1, 2, b=[["1.0", "-1"]], a=[]), "quantity_invalid"),
        (diff(1, 2, E=None, a=[]), "time_missing"),
        (diff(1, None, a=[]), "key_missing"),  # type: ignore[arg-type]
    ],
)
def test_a_message_with_a_bad_value_is_set_aside_by_its_rule(
    tmp_path: Path, data: dict[str, object], rule: str
) -> None:
    given = read(put(tmp_path, [line(AT, trade(1)), line(AT, data)]))
    rules = [each for delivery in given.values() for each in delivery.set_aside["rule"]]
    assert rules == [rule]
    assert given["trades"].rows["trade_id"].to_list() == [1]


def test_messages_of_other_kinds_are_counted(tmp_path: Path) -> None:
    ticker = {"u": 1, "s": "BTCUSDT", "b": "1", "B": "2", "a": "3", "A": "4"}
    lines = [line(AT, trade(1)), line(AT, ticker), line(AT, ticker), f'{AT * 10**6} {{"result":null,"id":1}}']
    notes = read(put(tmp_path, lines))["trades"].notes
    assert any("bookTicker 2" in note and "other 1" in note for note in notes)


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([], EmptyFile),
        (["x"], UnknownFormat),
        (["open_time,open,high", "1,2,3"], UnknownFormat),
        ([line(AT, {"channel": "l2Book"})], UnknownFormat),
        ([line(AT, trade(1, s="../x"))], PlatformError),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, lines: list[str], error: type[PlatformError]) -> None:
    with pytest.raises(error, match=r"btcusdt\.gz"):
        read(put(tmp_path, lines))


def test_a_recording_is_bounded_and_its_symbol_must_agree(tmp_path: Path) -> None:
    path = put(tmp_path, [line(AT, trade(n)) for n in range(1_000)])
    with pytest.raises(OversizedFile):
        read(path, max_bytes=50_000)
    with pytest.raises(MislabelledFile, match="BTCUSDT"):
        read(path, symbol="ETHUSDT")


def test_only_what_is_in_the_range_is_given(tmp_path: Path) -> None:
    path = put(tmp_path, [line(AT, trade(n, AT + n)) for n in range(10)])
    rows = read(path, start=(AT + 3) * 1000, end=(AT + 5) * 1000)["trades"].rows
    assert rows["trade_id"].to_list() == [3, 4]


def test_the_real_recordings_are_whole(shared_data: Path) -> None:
    folder = shared_data / "live/nkaz001__hftbacktest/examples/spot"
    both = [read(folder / f"btcusdt_2024080{day}.gz") for day in (8, 9)]
    trades = pl.concat([each["trades"].rows for each in both])
    assert trades.height == 19_904
    assert (trades["trade_id"].diff().drop_nulls() == 1).all()
    depth = pl.concat([each["depth"].rows for each in both])
    assert depth.filter("is_snapshot")["last_update_id"].n_unique() == 1
    messages = (
        depth.filter(~pl.col("is_snapshot")).select("first_update_id", "last_update_id").unique(maintain_order=True)
    )
    assert (messages["first_update_id"] == messages["last_update_id"].shift() + 1)[1:].all()
    for rows in (trades, depth):  # the receiver's clock is behind: it is not believed
        assert (rows["available_at"] >= rows["time"]).all()
        assert (rows["available_at"] - rows["time"]).dt.total_milliseconds().max() < 1_000  # type: ignore[operator]
    assert all(each.set_aside.is_empty() for of_day in both for each in of_day.values())
    futures = read(shared_data / "live/nkaz001__collect-binancefutures/sample_data/btcusdt_20220811.dat.gz")
    assert futures["depth"].rows["is_snapshot"].any()
    assert futures["depth"].rows.filter(~pl.col("is_snapshot"))["previous_update_id"].null_count() == 0
    assert {TRADES.name, DEPTH.name} == set(futures)
