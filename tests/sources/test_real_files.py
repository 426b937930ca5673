"""Real files of many writers: each is read whole, with the rows it has, or refused with the one right error."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow.feather
import pyarrow.parquet
import pytest

from mdplatform.errors import EmptyFile, MislabelledFile, SourceError, UnknownColumns, UnknownFormat
from mdplatform.sources.delivery import Delivery
from mdplatform.sources.files import find_files, read_file

FINOM = "klines/finom__static-klines/.klines-cache"
COINVIEW = "klines/hackingthemarkets__binance-tutorials/coinview/data"
LABELLED = {
    f"{COINVIEW}/15minutes.csv": ("BTCUSDT", "15m"),
    f"{COINVIEW}/5minutes.csv.gz": ("BTCUSDT", "5m"),
    f"{COINVIEW}/all_time_daily.csv.gz": ("BTCUSDT", "1d"),
}
REFUSED: dict[str, tuple[type[SourceError], str]] = {
    f"{FINOM}/ADAUSDT/1d/2016-01-01.json.gz": (EmptyFile, "no rows"),
    "defects/damiansdAlertsRocket__RocketAlerts/data/BTC-USD_1d.csv": (UnknownFormat, "line 2: volume is not a number"),
    "defects/freqtrade__freqtrade/tests/testdata/NOPAIR_XXX-4m.json": (EmptyFile, "no rows"),
    "defects/freqtrade__freqtrade/tests/testdata/UNITTEST_BTC-8m.feather": (EmptyFile, "is empty"),
    "defects/freqtrade__freqtrade/tests/testdata/futures/XRP_USDT_USDT-8h-funding_rate.feather": (
        UnknownColumns,
        "funding rates",
    ),
}
FOLDERS = ("klines", "ready/klines", "ready/defects", "defects")


def rows_in(path: Path) -> int:
    """Count a file's rows without any of the code under test."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    name = path.name.removesuffix(".gz")
    if name.endswith(".json"):
        return len(json.loads(data))
    if name.endswith(".parquet"):
        return int(pyarrow.parquet.read_table(io.BytesIO(data)).num_rows)
    if name.endswith(".feather"):
        return int(pyarrow.feather.read_table(io.BytesIO(data)).num_rows)
    lines = [line for line in csv.reader(io.StringIO(data.decode())) if line]
    return len(lines) - any("open" in cell.lower() for cell in lines[0])


def read(shared_data: Path, place: str) -> Delivery:
    (delivery,) = read_file(shared_data / place, *LABELLED.get(place, ()))
    return delivery


def test_every_file_is_read_whole_or_refused_as_expected(shared_data: Path) -> None:
    paths = [path for folder in FOLDERS for path in sorted((shared_data / folder).rglob("*")) if path.is_file()]
    assert len(paths) >= 90
    refused = set()
    for path in paths:
        place = path.relative_to(shared_data).as_posix()
        if place in REFUSED:
            kind, says = REFUSED[place]
            with pytest.raises(kind, match=says):
                read_file(path)
            refused.add(place)
        else:
            assert read(shared_data, place).rows.height == rows_in(path), place
    assert refused == set(REFUSED)


def test_a_folder_gives_every_one_of_its_files(shared_data: Path) -> None:
    assert len(find_files([shared_data / "klines"])) == sum(
        1 for path in (shared_data / "klines").rglob("*.*") if path.is_file()
    )


def test_files_that_say_no_label_ask_for_it(shared_data: Path) -> None:
    for place in LABELLED:
        with pytest.raises(MislabelledFile, match="--symbol"):
            read_file(shared_data / place)


@pytest.mark.parametrize(
    ("place", "typed"),
    [
        (
            "klines/owlacar-dotcom__isda/LTCUSDT-1m-2026-02.csv.gz",
            "ready/klines/binance_um_1m/LTCUSDT-1m-2026-02.parquet",
        ),
        (
            "klines/owlacar-dotcom__isda/NEARUSDT-1m-2025-02.csv.gz",
            "ready/klines/binance_um_1m/NEARUSDT-1m-2025-02.parquet",
        ),
        (f"{FINOM}/BTCUSDT/15m/2025-01-06.json.gz", "ready/klines/binance_spot_15m/BTCUSDT.parquet"),
        (f"{FINOM}/ADAUSDT/1d/2022-01-01.json.gz", "ready/klines/binance_spot_1d/ADAUSDT.parquet"),
    ],
)
def test_a_raw_file_has_the_values_of_its_typed_copy(shared_data: Path, place: str, typed: str) -> None:
    rows = read(shared_data, place).rows
    raw = pl.read_parquet(shared_data / typed)
    assert raw["open_time"].is_unique().all()
    copy = rows.select((pl.col("open_time").dt.epoch("ms")).alias("open_time")).join(
        raw, on="open_time", how="left", maintain_order="left"
    )
    assert copy["open"].null_count() == 0
    names = {"trades": "trade_count", "taker_buy_base": "taker_buy_volume", "taker_buy_quote": "taker_buy_quote_volume"}
    for name in (
        "open",
        "high",
        "low",
        "close",
        "volume",
        "quote_volume",
        "trades",
        "taker_buy_base",
        "taker_buy_quote",
    ):
        assert rows[names.get(name, name)].cast(pl.Float64).to_list() == copy[name].cast(pl.Float64).to_list(), name
    assert (rows["close_time"].dt.epoch("ms") - 1).to_list() == copy["close_time"].to_list()


def test_the_outage_of_march_2023_keeps_its_odd_close_and_its_missing_hour(shared_data: Path) -> None:
    rows = read(shared_data, "ready/klines/binance_spot_1h/BTCUSDT.parquet").rows
    noon = datetime(2023, 3, 24, 12, tzinfo=UTC)
    at_noon = rows.filter(pl.col("open_time") == noon)
    raw = pl.read_parquet(shared_data / "ready/klines/binance_spot_1h/BTCUSDT.parquet")
    delivered = raw.filter(pl.col("open_time") == int(noon.timestamp() * 1000))["close_time"].item()
    assert at_noon["volume"].item() == 0
    assert at_noon["close_time"].dt.epoch("ms").item() == delivered + 1
    assert at_noon["close_time"].item() != noon + timedelta(hours=1)
    assert rows.filter(pl.col("open_time") == noon + timedelta(hours=1)).is_empty()


def test_the_54_duplicated_minutes_all_arrive_in_their_order(shared_data: Path) -> None:
    place = "klines/taeminlee__cp/BTCUSDT-1m.csv.gz"
    rows = read(shared_data, place).rows
    assert rows.height - rows["open_time"].n_unique() == 54
    lines = gzip.decompress((shared_data / place).read_bytes()).decode().splitlines()[1:]
    assert rows["open_time"].dt.epoch("ms").to_list() == [int(line.split(",")[0]) for line in lines]
    assert rows["volume"].to_list() == [float(line.split(",")[5]) for line in lines]


def test_the_holes_of_801_minutes_are_not_filled(shared_data: Path) -> None:
    rows = read(shared_data, "ready/defects/bybit_ADAUSDT_1m_paging_holes_60d.parquet").rows
    jumps = rows["open_time"].diff().dt.total_minutes().drop_nulls()
    assert (jumps == 802).sum() == 87
    assert (jumps.filter(jumps != 802) == 1).all()


def test_float_seconds_beside_milliseconds_are_both_understood(shared_data: Path) -> None:
    rows = read(shared_data, f"{COINVIEW}/5minutes.csv.gz").rows
    assert rows["open_time"][0] == datetime(2020, 7, 1, tzinfo=UTC)
    assert ((rows["close_time"] - rows["open_time"]) == timedelta(minutes=5)).all()


def test_rows_that_lack_six_columns_arrive_with_nulls(shared_data: Path) -> None:
    rows = read(shared_data, "klines/in0-0__coin_trading/data/BTCUSDT_5m.csv.gz").rows
    short = rows.filter(pl.col("trade_count").is_null())
    assert short.height == 9
    assert short.select("close_time", "quote_volume", "taker_buy_volume").null_count().row(0) == (9, 9, 9)
    assert short["close"].null_count() == 0


def test_a_row_without_a_time_is_delivered_for_the_lake_to_judge(shared_data: Path) -> None:
    rows = read(shared_data, "defects/in0-0__coin_trading/_archive/market_data/BTCUSDT_1m_2025-08-12.csv").rows
    assert rows["open_time"].is_null().to_list() == [False] * 500 + [True]
    assert rows["close"][-1] == 118560.95
