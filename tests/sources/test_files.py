"""Files that are read: every form in which bars are written comes out as the same rows."""

from __future__ import annotations

import gzip
import json
import string
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mdplatform.errors import MislabelledFile, SourceUnavailable, UnknownTimeframe
from mdplatform.market.bars import RAW_SCHEMA, VALUE_COLUMNS
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.sources.files import Files, find_files, read_file

from .files_as_written import DUMP, HEADERS, JANUARY_2025, PER_SECOND, Bar, bars, dump, row, save, zipped

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LENGTHS = {"1m": 60, "15m": 900, "1h": 3600, "1d": 86_400}


def expected(written: list[Bar]) -> list[tuple[object, ...]]:
    """The rows of these bars, worked out with the standard library alone."""
    return [
        (
            EPOCH + timedelta(seconds=bar.open_time),
            EPOCH + timedelta(seconds=bar.close_time),
            *map(float, (*bar.prices, bar.volume, bar.quote_volume)),
            int(bar.count),
            float(bar.taker),
            float(bar.taker_quote),
        )
        for bar in written
    ]


decimals = st.decimals(min_value="0.00000001", max_value="999999", places=8, allow_nan=False).map(str)


@st.composite
def written_bars(draw: st.DrawFn, length: int) -> list[Bar]:
    start = draw(st.integers(1_104_537_600 // 604_800 + 1, 4_102_444_800 // 604_800 - 60)) * 604_800
    steps = draw(st.lists(st.integers(0, 40), min_size=1, max_size=25))
    written = []
    for step in steps:
        at = start + step * length
        numbers = draw(st.tuples(*[decimals] * 8))
        written.append(Bar(at, at + length, numbers[:4], *numbers[4:6], str(draw(st.integers(0, 10**9))), *numbers[6:]))
    # The usual spacing has to be the timeframe's, as it is in a real file.
    return written + [Bar(at.open_time, at.close_time) for at in bars(45, length, start)]


@hypothesis_settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_was_written_is_read_in_every_unit_header_packing_and_line_end(data: st.DataObject) -> None:
    timeframe = data.draw(st.sampled_from(sorted(LENGTHS)))
    written = data.draw(written_bars(LENGTHS[timeframe]))
    table = dump(
        written,
        unit=data.draw(st.sampled_from(["ms", "us", "ns"])),
        header=data.draw(st.sampled_from(sorted(HEADERS))),
        newline=data.draw(st.sampled_from(["\n", "\r\n"])),
        last=data.draw(st.booleans()),
    )
    with tempfile.TemporaryDirectory() as folder:
        packing = data.draw(st.sampled_from(["csv", "csv.gz", "zip"]))
        path = save(Path(folder), f"BTCUSDT-{timeframe}-2025-01", table, packing)
        (delivery,) = read_file(path)
    assert (delivery.symbol, delivery.timeframe, delivery.source) == ("BTCUSDT", timeframe, f"file:{path.name}")
    assert delivery.rows.schema == RAW_SCHEMA
    assert delivery.rows.rows() == expected(written)


@hypothesis_settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_was_written_is_read_as_json_parquet_and_feather_too(data: st.DataObject) -> None:
    written = data.draw(written_bars(60))
    with tempfile.TemporaryDirectory() as folder:
        body = [
            [cell if at in (1, 2, 3, 4, 5, 7, 9, 10, 11) else int(cell) for at, cell in enumerate(row(bar).split(","))]
            for bar in written
        ]
        paths = {
            ending: Path(folder) / f"BTCUSDT-1m.{ending}" for ending in ("json", "json.gz", "zip", "parquet", "feather")
        }
        text = json.dumps(body, indent=data.draw(st.sampled_from([None, 2]))).encode()
        paths["json"].write_bytes(text)
        paths["json.gz"].write_bytes(gzip.compress(text))
        paths["zip"].write_bytes(zipped({"BTCUSDT-1m.json": text, "README.txt": b"about"}))
        table = pl.DataFrame(body, orient="row", schema=DUMP.split(","))
        table.write_parquet(paths["parquet"], row_group_size=7)
        table.write_ipc(paths["feather"], compression="lz4")
        for path in paths.values():
            assert read_file(path)[0].rows.rows() == expected(written), path.name


def test_the_platforms_own_columns_are_read_back_from_parquet_and_csv(tmp_path: Path) -> None:
    opens = [EPOCH + timedelta(seconds=JANUARY_2025 + 900 * at) for at in range(5)]
    table = pl.DataFrame(
        {
            "symbol": "ETHUSDT",
            "timeframe": "15m",
            "open_time": opens,
            "close_time": [each + timedelta(minutes=15) for each in opens],
            **{name: [1.5, 2.5, 3.5, 4.5, None] for name in VALUE_COLUMNS if name != "trade_count"},
            "trade_count": [1, 2, 3, 4, None],
            "is_closed": True,
            "state": ["observed"] * 4 + ["gap"],
        }
    )
    table.write_parquet(tmp_path / "some.parquet")
    table.write_csv(tmp_path / "some.csv")
    for name in ("some.parquet", "some.csv"):
        (delivery,) = read_file(tmp_path / name)
        assert (delivery.symbol, delivery.timeframe) == ("ETHUSDT", "15m")
        assert delivery.rows.rows() == table.select(RAW_SCHEMA.names()).rows()


@pytest.mark.parametrize(
    "form",
    ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S+00:00", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M"],
)
def test_texts_are_times_in_utc(tmp_path: Path, form: str) -> None:
    times = [EPOCH + timedelta(seconds=bar.open_time) for bar in bars(5)]
    lines = ["date,open,high,low,close,volume"] + [f"{each.strftime(form)},1,2,0.5,1.5,9" for each in times]
    (tmp_path / "BTCUSDT_1m.csv").write_text("\n".join(lines))
    (delivery,) = read_file(tmp_path / "BTCUSDT_1m.csv")
    assert delivery.rows["open_time"].to_list() == times
    assert delivery.rows["close_time"].null_count() == 5
    assert delivery.rows["trade_count"].null_count() == 5


def test_an_offset_is_taken_into_account_and_days_are_midnights(tmp_path: Path) -> None:
    head = "date,open,high,low,close,volume\n"
    (tmp_path / "A_1h.csv").write_text(
        head + "2025-01-01 05:30:00+05:30,1,1,1,1,1\n2025-01-01 06:30:00+05:30,1,1,1,1,1\n"
    )
    (tmp_path / "A_1d.csv").write_text(head + "2025-01-01,1,1,1,1,1\n2025-01-02,1,1,1,1,1\n")
    midnight = datetime(2025, 1, 1, tzinfo=UTC)
    assert read_file(tmp_path / "A_1h.csv")[0].rows["open_time"][0] == midnight
    assert read_file(tmp_path / "A_1d.csv")[0].rows["open_time"].to_list() == [midnight, midnight + timedelta(days=1)]


def test_two_time_columns_may_be_in_different_units(tmp_path: Path) -> None:
    lines = []
    for bar in bars(4, 300):
        cells = row(bar).split(",")
        lines.append(",".join([f"{bar.open_time}.0", *cells[1:]]))
    (tmp_path / "5minutes.csv").write_text("\n".join(lines))
    (delivery,) = read_file(tmp_path / "5minutes.csv", symbol="btcusdt", timeframe="5m")
    assert delivery.rows.rows() == expected(bars(4, 300))


@pytest.mark.parametrize("unit", sorted(PER_SECOND))
def test_seconds_to_nanoseconds_are_told_apart_without_a_close_time(tmp_path: Path, unit: str) -> None:
    lines = ["ts,open,high,low,close,volume"] + [f"{bar.open_time * PER_SECOND[unit]},1,2,0.5,1.5,9" for bar in bars(4)]
    (tmp_path / "BTCUSDT_1m.csv").write_text("\n".join(lines))
    assert read_file(tmp_path / "BTCUSDT_1m.csv")[0].rows["open_time"].to_list() == [
        EPOCH + timedelta(seconds=bar.open_time) for bar in bars(4)
    ]


def test_a_bar_that_closes_early_keeps_its_odd_end(tmp_path: Path) -> None:
    written = bars(6)
    written[3] = Bar(written[3].open_time, written[3].open_time + 17)
    (tmp_path / "BTCUSDT-1m.csv").write_bytes(dump(written))
    assert read_file(tmp_path / "BTCUSDT-1m.csv")[0].rows.rows() == expected(written)


def test_duplicates_disorder_and_impossible_rows_survive(tmp_path: Path) -> None:
    written = bars(6)
    wild = [
        *written,
        written[2],
        written[0],
        Bar(written[5].open_time + 7, written[5].open_time + 67, ("0", "-1", "5", "1")),
    ]
    (tmp_path / "BTCUSDT-1m.csv").write_bytes(dump(wild))
    assert read_file(tmp_path / "BTCUSDT-1m.csv")[0].rows.rows() == expected(wild)


def test_empty_trailing_cells_are_nulls_and_counts_may_be_written_as_floats(tmp_path: Path) -> None:
    lines = [row(bar).replace(",7,", ",7.0,") for bar in bars(4)]
    lines[3] = ",".join([*lines[3].split(",")[:6], "", "", "", "", "", ""])
    (tmp_path / "BTCUSDT-1m.csv").write_text("\n".join([DUMP, *lines]) + "\n")
    rows = read_file(tmp_path / "BTCUSDT-1m.csv")[0].rows
    assert rows["trade_count"].to_list() == [7, 7, 7, None]
    assert rows.row(3)[1] is None
    assert rows.row(3)[2:7] == (10.5, 11.0, 9.25, 10.0, 3.5)


def test_a_byte_order_mark_quotes_and_blank_last_lines_do_no_harm(tmp_path: Path) -> None:
    table = dump(bars(3), header="dump").decode().replace("10.5", '"10.5"')
    (tmp_path / "BTCUSDT-1m.csv").write_text("\ufeff" + table + "\n\n", encoding="utf-8")
    assert read_file(tmp_path / "BTCUSDT-1m.csv")[0].rows.rows() == expected(bars(3))


@pytest.mark.parametrize(
    ("place", "symbol", "timeframe"),
    [
        ("BTCUSDT-1m-2025-02.csv", "BTCUSDT", "1m"),
        ("BTCUSDT_1m.csv", "BTCUSDT", "1m"),
        ("ETH_USDT-1m.csv", "ETH_USDT", "1m"),
        ("1000SHIBUSDT-1m-2025-01-03.csv", "1000SHIBUSDT", "1m"),
        ("BTCUSDT_250328-1m-2025-01.csv", "BTCUSDT_250328", "1m"),
        ("production_BTCUSDT_1m_20250628_141159.csv", "BTCUSDT", "1m"),
        ("cache/BTCUSDT/1m/2025-01-06.csv", "BTCUSDT", "1m"),
        ("binance_spot_1m/BTCUSDT.csv", "BTCUSDT", "1m"),
        ("klines/1m/BTCUSDT-2025Q1.csv", "BTCUSDT", "1m"),
    ],
)
def test_names_and_folders_say_symbol_and_timeframe(tmp_path: Path, place: str, symbol: str, timeframe: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dump(bars(4)))
    (delivery,) = read_file(path)
    assert (delivery.symbol, delivery.timeframe) == (symbol, timeframe)


def test_the_caller_wins_over_the_name(tmp_path: Path) -> None:
    path = tmp_path / "TESTBTCUSDT-1m.csv"
    path.write_bytes(dump(bars(4)))
    assert read_file(path, symbol="BTCUSDT")[0].symbol == "BTCUSDT"


def test_a_file_of_several_symbols_gives_a_delivery_each(tmp_path: Path) -> None:
    lines = ["symbol,interval," + DUMP]
    for bar in bars(4):
        lines += [f"{symbol},1m,{row(bar)}" for symbol in ("BTCUSDT", "ethusdt")]
    (tmp_path / "all.csv").write_text("\n".join(lines))
    deliveries = read_file(tmp_path / "all.csv")
    assert [each.symbol for each in deliveries] == ["BTCUSDT", "ETHUSDT"]
    assert all(each.rows.rows() == expected(bars(4)) for each in deliveries)
    with pytest.raises(MislabelledFile, match="ETHUSDT"):
        read_file(tmp_path / "all.csv", symbol="BTCUSDT")


def test_sparse_minutes_and_a_single_row_are_no_contradiction(tmp_path: Path) -> None:
    sparse = [Bar(JANUARY_2025 + 60 * at, JANUARY_2025 + 60 * at + 60) for at in (0, 3, 7, 12, 14, 21, 24, 27)]
    (tmp_path / "A-1m.csv").write_bytes(dump(sparse))
    assert read_file(tmp_path / "A-1m.csv")[0].rows.height == 8
    (tmp_path / "B-1d.csv").write_bytes(dump(bars(1, 86_400)))
    assert read_file(tmp_path / "B-1d.csv")[0].rows.height == 1


def test_a_folder_expands_to_what_can_be_read_and_links_are_followed(tmp_path: Path) -> None:
    for place in ("b/BTCUSDT-1m.csv", "a/ETHUSDT-1m.csv.gz", "a/notes.md", "a/ETHUSDT-1m.zip.CHECKSUM"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(dump(bars(2)))
    (tmp_path / "b" / "SOLUSDT-1m.csv").symlink_to(tmp_path / "b" / "BTCUSDT-1m.csv")
    found = find_files([tmp_path, tmp_path / "b" / "BTCUSDT-1m.csv"])
    assert [path.name for path in found] == ["ETHUSDT-1m.csv.gz", "BTCUSDT-1m.csv", "SOLUSDT-1m.csv"]
    assert read_file(found[2])[0].symbol == "SOLUSDT"
    with pytest.raises(SourceUnavailable):
        find_files([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceUnavailable):
        find_files([tmp_path / "empty"])


def test_files_are_a_source_like_any_other(tmp_path: Path) -> None:
    end_of_january = JANUARY_2025 + 31 * 86_400
    (tmp_path / "BTCUSDT-1h.csv").write_bytes(dump(bars(48, 3600, end_of_january - 86_400)))
    (tmp_path / "ETHUSDT-1h.csv").write_bytes(dump(bars(48, 3600, end_of_january - 86_400)))
    start, end = (end_of_january - 3 * 3600) * 10**6, (end_of_january + 2 * 3600) * 10**6
    deliveries = list(Files([tmp_path]).bars("BTCUSDT", Timeframe.H1, start, end))
    assert [each.rows.height for each in deliveries] == [3, 2]
    assert to_us(deliveries[0].rows["open_time"][0]) == start


def test_the_content_hash_depends_on_rows_symbol_and_timeframe_alone(tmp_path: Path) -> None:
    same = [save(tmp_path, "BTCUSDT-1m", dump(bars(5), header=header), packing) for header, packing in
            (("none", "csv"), ("title", "csv.gz"), ("dump", "zip"))]  # fmt: skip
    assert len({read_file(path)[0].content_hash for path in same}) == 1
    changed = [
        dump([*bars(4), Bar(JANUARY_2025 + 240, JANUARY_2025 + 300, volume="3.6")]),
        dump(list(reversed(bars(5)))),
        dump([*bars(5), bars(5)[4]]),
        dump(bars(5)).replace(b",7,", b",,"),
    ]
    hashes = set()
    for letter, table in zip(string.ascii_lowercase, changed, strict=False):
        (tmp_path / letter).mkdir()
        hashes.add(read_file(save(tmp_path / letter, "BTCUSDT-1m", table, "csv"))[0].content_hash)
    hashes.add(read_file(same[0], symbol="ETHUSDT")[0].content_hash)
    hashes.add(read_file(same[0])[0].content_hash)
    assert len(hashes) == 6


def test_a_timeframe_that_is_not_ours_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT-3d.csv").write_bytes(dump(bars(4, 3 * 86_400)))
    with pytest.raises(UnknownTimeframe, match="3d"):
        read_file(tmp_path / "BTCUSDT-3d.csv")
