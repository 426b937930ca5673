"""Real files in the lake: whole ones to the last digit, broken ones as broken as they are."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet
import pytest

from mdplatform.lake import Lake
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.sources.files import read_file

from .deliveries import HOUR, MINUTE, opens, states

TAKEN_IN = datetime(2026, 6, 1, tzinfo=UTC)
EXACT = {"open": "open", "high": "high", "low": "low", "close": "close", "volume": "volume", "trade_count": "trades"}
CLOSE = {
    "quote_volume": "quote_volume",
    "taker_buy_volume": "taker_buy_base",
    "taker_buy_quote_volume": "taker_buy_quote",
}
M1, M5, M15, H1, H4, D1 = map(Timeframe, ("1m", "5m", "15m", "1h", "4h", "1d"))


def ingest(lake: Lake, paths: Iterable[Path]) -> Counter[str]:
    """Take files in one after the other, as `mdplatform ingest` does; give the counts, rules among them."""
    counts: Counter[str] = Counter()
    for number, path in enumerate(paths):
        for delivery in read_file(path):
            at = TAKEN_IN + number * timedelta(minutes=1)
            named = delivery.symbol, delivery.timeframe, delivery.source, delivery.content_hash
            for batch in lake.inbox.stage(*named, delivery.rows, at):
                report = lake.bars.merge(batch.symbol, batch.month, lake.inbox.pending(batch.symbol, batch.month))
                lake.inbox.clear(batch)
                counts.update(taken=report.taken, unchanged=report.unchanged, corrected=report.corrected)
                counts.update(disagreements=report.disagreements, **report.quarantined)
    return +counts


def raw_rows(path: Path) -> list[dict[str, Any]]:
    """Read a file without any code of the platform; an exchange's close time keeps its last millisecond."""
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


def assert_equals_the_exchange(built: pl.DataFrame, published: dict[int, dict[str, Any]]) -> int:
    compared = 0
    for row in built.iter_rows(named=True):
        theirs = published.get(to_us(row["open_time"]) // 1000)
        if theirs is not None:
            compared += 1
            assert {name: row[name] for name in EXACT} == {name: theirs[their] for name, their in EXACT.items()}
            for name, their in CLOSE.items():
                assert row[name] == pytest.approx(theirs[their], rel=1e-15, abs=0), (row["open_time"], name)
    return compared


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT", "ADAUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT"])
def test_quarters_are_taken_whole_and_give_the_hours_and_days_of_the_exchange(
    shared_data: Path, tmp_path: Path, symbol: str
) -> None:
    folder = shared_data / "ready" / "klines"
    quarters = folder / "binance_spot_15m" / f"{symbol}.parquet"
    lake = Lake(tmp_path)
    assert ingest(lake, [quarters]) == {"taken": 17_568}
    bars = lake.bars.read(symbol, M15)
    assert (len(bars), set(bars["state"])) == (17_568, {"observed"})
    assert assert_equals_the_exchange(bars, {row["open_time"]: row for row in raw_rows(quarters)}) == 17_568
    for timeframe, most, least in ((H1, 4392, 48), (D1, 183, 183)):
        theirs = folder / f"binance_spot_{timeframe}" / f"{symbol}.parquet"
        built = lake.bars.read(symbol, timeframe)
        assert states(built) == "o" * most
        if theirs.exists():
            published = {row["open_time"]: row for row in raw_rows(theirs)}
            assert assert_equals_the_exchange(built, published) >= least
    assert ingest(lake, [quarters]) == {"unchanged": 17_568}


def test_minutes_of_near_give_the_published_five_minutes_in_all_nine_values(shared_data: Path, tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert ingest(lake, [shared_data / "ready/klines/binance_um_1m/NEARUSDT-1m-2025-02.parquet"]) == {"taken": 40_320}
    published = raw_rows(shared_data / "klines/lucaserib__Trading-backtest/data/NEARUSDT-5m-2025-02.csv.gz")
    built = lake.bars.read("NEARUSDT", M5)
    assert len(built) == len(published) == 8064
    names = [name.replace("trade_count", "count") for name in (*EXACT, *CLOSE)]
    for ours, theirs in zip(built.iter_rows(named=True), published, strict=True):
        assert to_us(ours["open_time"]) == int(theirs["open_time"]) * 1000
        assert [float(ours[name]) for name in (*EXACT, *CLOSE)] == [float(theirs[name]) for name in names]


def test_the_outage_of_march_2023_is_a_gap_and_no_day_is_built_over_it(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "ready" / "klines"
    lake = Lake(tmp_path)
    assert ingest(lake, [folder / "binance_spot_1h/BTCUSDT.parquet"]) == {"taken": 26_302, "early_close": 1}
    noon = datetime(2023, 3, 24, 12, tzinfo=UTC)
    around = lake.bars.read("BTCUSDT", H1, to_us(noon) - 2 * HOUR, to_us(noon) + 4 * HOUR)
    assert states(around) == "ooggoo"
    assert around["close"].is_null().to_list() == [False, False, True, True, False, False]
    (file,) = (tmp_path / "quarantine").rglob("*.parquet")
    set_aside = pl.read_parquet(file)
    assert set_aside.select("open_time", "rule", "volume").row(0) == (noon, "early_close", 0.0)
    days = lake.bars.read("BTCUSDT", D1)
    partial = days.filter(pl.col("state") == "gap")["open_time"].to_list()
    assert partial == [noon.replace(hour=0)]
    assert states(lake.bars.read("BTCUSDT", H4, to_us(noon), to_us(noon) + 4 * HOUR)) == "g"
    published = {row["open_time"]: row for row in raw_rows(folder / "binance_spot_1d/BTCUSDT.parquet")}
    assert assert_equals_the_exchange(days.filter(pl.col("state") != "gap"), published) == 3 * 365


def test_duplicated_minutes_correct_themselves_and_the_half_bars_stay_readable(
    shared_data: Path, tmp_path: Path
) -> None:
    path = shared_data / "klines/taeminlee__cp/BTCUSDT-1m.csv.gz"
    by_time: dict[int, list[dict[str, Any]]] = {}
    for row in raw_rows(path):
        by_time.setdefault(int(row["timestamp"]) * 1000, []).append(row)
    lake = Lake(tmp_path)
    assert ingest(lake, [path]) == {"taken": len(by_time), "unchanged": 30, "corrected": 24}
    bars = lake.bars.read("BTCUSDT", M1)
    read = {to_us(row["open_time"]): row for row in bars.iter_rows(named=True) if row["state"] != "gap"}
    assert read.keys() == by_time.keys()
    assert all(read[at]["volume"] == float(rows[-1]["volume"]) for at, rows in by_time.items())
    assert all(read[at]["close"] == float(rows[-1]["close"]) for at, rows in by_time.items())
    halves = {at: rows for at, rows in by_time.items() if len(rows) == 2 and rows[0] != rows[1]}
    assert len(halves) == 24
    found = pl.concat(lake.bars.revisions("BTCUSDT", month, M1) for month in lake.bars.months("BTCUSDT"))
    by_revision = {(to_us(row["open_time"]), row["revision"]): row["volume"] for row in found.iter_rows(named=True)}
    assert {at for at, revision in by_revision if revision > 0} == halves.keys()
    for at, (half, final) in halves.items():
        assert (by_revision[at, 0], by_revision[at, 1]) == (float(half["volume"]), float(final["volume"]))
    assert ingest(lake, [path]) == {"unchanged": len(by_time) + 54}
    assert lake.bars.read("BTCUSDT", M1).equals(bars)


def test_paging_holes_are_gaps_and_nothing_is_built_over_them(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "ready/defects/bybit_ADAUSDT_1m_paging_holes_60d.parquet"
    there = sorted(
        to_us(row["ts"].to_pydatetime() if hasattr(row["ts"], "to_pydatetime") else row["ts"]) for row in raw_rows(path)
    )
    steps = Counter((after - before) // MINUTE for before, after in pairwise(there))
    assert steps == {1: 17_512, 802: 87}
    lake = Lake(tmp_path)
    assert ingest(lake, [path]) == {"taken": 17_600}
    bars = lake.bars.read("ADAUSDT", M1)
    assert opens(bars.filter(pl.col("state") != "gap")) == there
    assert (bars["state"] == "gap").sum() == 87 * 801
    minutes = set(there)
    for timeframe in (M5, M15, H1, H4, D1):
        length = timeframe.microseconds
        whole = {at for at in minutes if at % length == 0 and all(at + n in minutes for n in range(0, length, MINUTE))}
        built = lake.bars.read("ADAUSDT", timeframe)
        assert set(opens(built.filter(pl.col("state") != "gap"))) == whole
    assert lake.bars.read("ADAUSDT", D1).is_empty()


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ADAUSDT"])
@pytest.mark.parametrize("timeframe", ["1m", "5m"])
def test_overlapping_polls_end_with_what_the_last_of_each_said(
    shared_data: Path, tmp_path: Path, symbol: str, timeframe: str
) -> None:
    folder = shared_data / "klines/vinny-Kev__money-printer/data/production"
    paths = sorted(folder.glob(f"production_{symbol}_{timeframe}_*.parquet"))
    assert len(paths) >= 8
    last: dict[int, float] = {}
    said = Counter()
    for path in paths:
        for delivery in read_file(path):
            for opened, volume in delivery.rows.select(pl.col("open_time").dt.epoch("us"), "volume").rows():
                said["unchanged" if last.get(opened) == volume else "corrected" if opened in last else "taken"] += 1
                last[opened] = volume
    lake = Lake(tmp_path)
    assert ingest(lake, paths) == said
    assert 0 < said["corrected"] <= len(paths) - 1
    bars = lake.bars.read(symbol, Timeframe(timeframe)).filter(pl.col("state") != "gap")
    assert dict(zip(opens(bars), bars["volume"], strict=True)) == last
    at_once = Lake(tmp_path / "at once")
    for path in paths:
        for delivery in read_file(path):
            named = delivery.symbol, delivery.timeframe, delivery.source, delivery.content_hash
            at_once.inbox.stage(*named, delivery.rows, TAKEN_IN)
    for month in at_once.inbox.months(symbol):
        at_once.bars.merge(symbol, month, at_once.inbox.pending(symbol, month))
    values = bars.columns[:15]
    assert at_once.bars.read(symbol, Timeframe(timeframe)).select(values).equals(bars.select(values))


@pytest.mark.parametrize(("symbol", "hole", "lacking"), [("BTCUSDT", 223, 9), ("ETHUSDT", 223, 9), ("SOLUSDT", 0, 9)])
def test_a_hole_and_missing_amounts_stay_what_they_are(
    shared_data: Path, tmp_path: Path, symbol: str, hole: int, lacking: int
) -> None:
    path = shared_data / f"klines/in0-0__coin_trading/data/{symbol}_5m.csv.gz"
    lake = Lake(tmp_path)
    counts = ingest(lake, [path])
    assert counts == {"taken": len(raw_rows(path))}
    bars = lake.bars.read(symbol, M5)
    assert (bars["state"] == "gap").sum() == hole
    observed = bars.filter(pl.col("state") != "gap")
    assert observed["close"].null_count() == observed["volume"].null_count() == 0
    assert observed["quote_volume"].null_count() == lacking
    amounts = dict(zip(opens(observed), observed["quote_volume"], strict=True))
    five = 5 * MINUTE
    whole = {at for at in amounts if at % HOUR == 0 and all(at + n in amounts for n in range(0, HOUR, five))}
    hours = lake.bars.read(symbol, H1).filter(pl.col("state") != "gap")
    assert set(opens(hours)) == whole
    without = {at for at in whole if any(amounts[at + n] is None for n in range(0, HOUR, five))}
    assert set(opens(hours.filter(pl.col("quote_volume").is_null()))) == without
