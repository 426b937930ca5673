"""The assets of trades and depth, and running any asset by any partition."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from mdplatform.assets.depth import holes as holes_in_sequence
from mdplatform.assets.partitions import DAY_BY_SYMBOL, MONTH, MONTH_BY_SYMBOL, SERIES
from mdplatform.assets.plan import Group, fitting, plan
from mdplatform.assets.trades import holes
from mdplatform.errors import MaterializationFailed, NoData, UnknownAsset
from mdplatform.ingest import Wanted, ingest
from mdplatform.lake import Lake
from mdplatform.market.depth import DEPTH
from mdplatform.market.trades import TRADES
from mdplatform.runs import Runs
from mdplatform.runs.inputs import Asked, keys_for, keys_for_each
from mdplatform.serving.keys import need_key
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect

START = datetime(2025, 1, 30, tzinfo=UTC)
NOW = datetime(2025, 2, 3, tzinfo=UTC)
KEYS = ["BTCUSDT/2025-01-30", "BTCUSDT/2025-01-31", "BTCUSDT/2025-02-01"]


def trades(days: int = 3, symbol: str = "BTCUSDT", price: float = 5.0, per_day: int = 4) -> pl.DataFrame:
    numbers = range(days * per_day)
    times = [START + timedelta(days=1) * (number / per_day) for number in numbers]
    return pl.DataFrame(
        {
            "symbol": [symbol] * len(times),
            "trade_id": list(numbers),
            "time": times,
            "price": [price + number for number in numbers],
            "quantity": [2.0] * len(times),
            "is_buyer_maker": [number % 4 == 0 for number in numbers],
            "available_at": times,
        },
        schema=TRADES.delivered,
    )


@pytest.fixture
def runs(settings: Settings) -> Iterator[Runs]:
    with Runs(settings) as opened:
        opened.register(["BTCUSDT"])
        yield opened


def stage(settings: Settings, rows: pl.DataFrame, hours: int = 0) -> None:
    Lake(settings.lake_dir).table("trades").stage(rows, "test", NOW + timedelta(hours=hours))


def checks(runs: Runs, run_id: str) -> dict[str, dg.AssetCheckEvaluation]:
    records = runs._instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    found = [record.event_log_entry.dagster_event.event_specific_data for record in records]  # type: ignore[union-attr]
    return {each.check_name: each for each in found}  # type: ignore[union-attr,misc]


def test_what_waits_becomes_partitions_with_metadata_worth_looking_at(settings: Settings, runs: Runs) -> None:
    stage(settings, trades())
    done = runs.materialize(["trades"], KEYS)
    assert [each.partition for each in done] == [f"{key[8:]}|BTCUSDT" for key in KEYS]
    assert len({each.run_id for each in done}) == 1
    told = done[1].metadata
    assert (told["dagster/row_count"], told["taken"], told["unchanged"], told["corrected"]) == (4, 4, 0, 0)
    assert (told["volume"], told["buy_share"]) == (8.0, 0.75)
    assert told["range"] == "2025-01-31 00:00:00.000000 … 2025-01-31 18:00:00.000000 UTC"
    assert "image/svg" in told["plot"]
    assert set(checks(runs, done[0].run_id)) == {"schema", "order", "duplicates", "values", "ids", "source"}
    assert all(each.passed for each in checks(runs, done[0].run_id).values())


def test_a_repeated_run_has_the_same_data_version_and_a_correction_another(settings: Settings, runs: Runs) -> None:
    def version() -> str:
        runs.materialize(["trades"], KEYS[:1])
        event = runs._instance.get_latest_data_version_record(dg.AssetKey("trades"), partition_key="2025-01-30|BTCUSDT")
        assert event is not None
        tags = event.event_log_entry.dagster_event.event_specific_data.materialization.tags  # type: ignore[union-attr]
        return str(tags["dagster/data_version"])

    stage(settings, trades())
    first = version()
    assert version() == first
    stage(settings, trades(1, price=9.0), 1)
    assert version() != first


def test_a_day_without_trades_is_materialized_and_says_so(runs: Runs) -> None:
    [done] = runs.materialize(["trades"], ["BTCUSDT/2025-01-05"])
    assert done.metadata["dagster/row_count"] == 0
    assert "no trades" in done.metadata["note"]


def test_what_is_wrong_in_the_lake_is_found_by_its_check(settings: Settings, runs: Runs) -> None:
    lake = Lake(settings.lake_dir)
    early = trades(1).with_columns(pl.col("available_at") - timedelta(seconds=1))
    lake.table("trades").stage(early, "test", NOW)
    with pytest.raises(MaterializationFailed, match="trades: order"):
        runs.materialize(["trades"], KEYS[:1])
    stage(settings, trades(2, per_day=8).filter(pl.col("trade_id") != 11)[8:], 1)
    found = checks(runs, runs.materialize(["trades"], KEYS[1:2])[0].run_id)
    assert [name for name, each in found.items() if not each.passed] == ["ids"]
    assert found["ids"].severity == dg.AssetCheckSeverity.WARN


def test_a_trade_whose_time_was_corrected_has_its_revisions_in_order(settings: Settings, runs: Runs) -> None:
    stage(settings, trades(1))
    runs.materialize(["trades"], KEYS[:1])
    times = pl.col("time", "available_at") - timedelta(seconds=1)
    stage(settings, trades(1)[2:].with_columns(times), 1)
    [done] = runs.materialize(["trades"], KEYS[:1])
    assert done.metadata["corrected"] == 2
    assert all(each.passed for each in checks(runs, done.run_id).values())


def test_depth_counts_messages_snapshots_and_holes(settings: Settings, runs: Runs) -> None:
    rows = pl.DataFrame(
        [("BTCUSDT", START, first, last, None, snapshot, True, 5.0, 1.0, START) for first, last, snapshot in MESSAGES],
        schema=DEPTH.delivered,
        orient="row",
    )
    Lake(settings.lake_dir).table("depth").stage(rows, "test", NOW)
    with connect(settings) as client:
        [done] = runs.materialize(["depth"], KEYS[:1])
        announced = [int(client.get(need_key(each, "BTCUSDT")) or 0) > 0 for each in ("depth", "trades", "bars")]
        assert announced == [True, False, False], "only what reads depth has become old"
        stage(settings, trades())
        runs.materialize(["trades"], KEYS[:1])
        first = int(client.get(need_key("trades", "BTCUSDT")) or 0)
        runs.materialize(["trades"], KEYS[:1])
        assert int(client.get(need_key("trades", "BTCUSDT")) or 0) == first > 0, "nothing new is not announced"
    told = done.metadata
    assert (told["taken"], told["messages"], told["snapshots"], told["holes_in_sequence"]) == (5, 4, 1, 1)
    found = checks(runs, done.run_id)
    assert [name for name, each in found.items() if not each.passed] == ["sequence"]


MESSAGES = [(1, 4, False), (3, 3, True), (5, 6, False), (8, 9, False), (10, 10, False)]


def test_holes_in_numbers_are_counted_and_our_own_numbers_have_none() -> None:
    assert holes(pl.Series([5, 6, 7])) == 0
    assert holes(pl.Series([5, 7, 7, 10])) == 3
    assert holes(pl.Series([10**18 + 5, 10**18 + 10**6])) == 0
    assert holes(pl.Series([], dtype=pl.Int64)) == 0


def test_holes_in_the_sequence_follow_the_ids_of_spot_and_of_futures() -> None:
    def rows(*ids: tuple[int, int, int | None]) -> pl.DataFrame:
        heads = ("first_update_id", "last_update_id", "previous_update_id")
        return pl.DataFrame(ids, schema=dict.fromkeys(heads, pl.Int64), orient="row").with_columns(is_snapshot=False)

    assert holes_in_sequence(rows((1, 2, None), (3, 5, None), (6, 6, None))) == 0
    assert holes_in_sequence(rows((1, 2, None), (4, 5, None), (7, 7, None))) == 2
    assert holes_in_sequence(rows((1, 2, None), (2, 5, None))) == 0  # an overlap has none
    assert holes_in_sequence(rows((1, 2, 0), (7, 9, 2), (11, 12, 10))) == 1
    assert holes_in_sequence(rows()) == 0


# -- any asset by any partition ---------------------------------------------------------------------------------------


def test_keys_fit_the_definitions_that_file_them() -> None:
    keys = ["BTCUSDT/2025-01", "ETHUSDT/2025-01-31", "2024-12", "CPIAUCSL", "A-1/2025-02-01"]
    assert fitting(MONTH_BY_SYMBOL, keys) == ["A-1/2025-02", "BTCUSDT/2025-01", "ETHUSDT/2025-01"]
    assert fitting(DAY_BY_SYMBOL, keys) == ["A-1/2025-02-01", "ETHUSDT/2025-01-31"]
    assert fitting(MONTH, keys) == ["2024-12", "2025-01", "2025-02"]
    assert fitting(SERIES, keys) == ["CPIAUCSL"]


def test_ranges_are_of_days_months_and_series_that_follow_one_another_and_bounded() -> None:
    days = [f"BTCUSDT/{datetime(2025, 1, 1) + timedelta(days=each):%Y-%m-%d}" for each in range(40) if each != 35]  # noqa: DTZ001
    runs = plan([Group(DAY_BY_SYMBOL, ("trades",), days)], [])
    assert [(each.first, each.last, each.partitions) for each in runs] == [
        ("2025-01-01|BTCUSDT", "2025-01-31|BTCUSDT", 31),
        ("2025-02-01|BTCUSDT", "2025-02-04|BTCUSDT", 4),
        ("2025-02-06|BTCUSDT", "2025-02-09|BTCUSDT", 4),
    ]
    months = [f"{year}-{month:02d}" for year in (2023, 2024) for month in range(1, 13)][:14]
    assert [each.partitions for each in plan([Group(MONTH, ("a", "b"), months)], [])] == [24, 4]
    series = plan([Group(SERIES, ("macro_series",), ["CPI", "M2", "VIX"])], ["VIX", "GDP", "M2", "CPI"])
    assert [(each.first, each.last) for each in series] == [("VIX", "VIX"), ("M2", "CPI")]


def test_series_are_registered_and_materialized_by_name(settings: Settings, runs: Runs) -> None:
    done = runs.materialize(["macro_series"], ["UNRATE", "CPIAUCSL"])
    assert sorted(each.partition for each in done) == ["CPIAUCSL", "UNRATE"]
    assert sorted(runs.series()) == ["CPIAUCSL", "UNRATE"]


def test_what_cannot_be_a_partition_of_an_asset_is_refused_before_any_run(runs: Runs) -> None:
    for asset, key in (("trades", "2025-01"), ("bars", "CPIAUCSL"), ("macro_series", "BTCUSDT/2025-01")):
        with pytest.raises(NoData, match=f"one of {asset}"):
            runs.materialize([asset], [key])
    with pytest.raises(NoData, match="MDPLATFORM_FIRST_MONTH"):
        runs.materialize(["trades"], ["BTCUSDT/2016-12-31"])
    with pytest.raises(NoData, match="the running day"):
        runs.materialize(["trades"], ["BTCUSDT/2999-01-01"])
    with pytest.raises(UnknownAsset):
        runs.materialize(["trade"], KEYS)
    assert runs.materialize(["trades"], []) == []


def test_what_has_inputs_is_what_is_there_and_what_waits(settings: Settings, runs: Runs) -> None:
    lake = Lake(settings.lake_dir)
    assert keys_for(runs, lake, "trades", Asked()) == []
    stage(settings, trades(2))
    runs.materialize(["trades"], KEYS[:1])
    stage(settings, trades(1, symbol="ETHUSDT"), 1)
    assert keys_for(runs, lake, "trades", Asked()) == [*KEYS[:2], "ETHUSDT/2025-01-30"]
    assert keys_for(runs, lake, "trades", Asked(symbols=["ETHUSDT"])) == ["ETHUSDT/2025-01-30"]
    assert keys_for(runs, lake, "trades", Asked(first="2025-01-31", last="2025-02")) == KEYS[1:2]
    assert keys_for(runs, lake, "trades", Asked(last="2025-01")) == [*KEYS[:2], "ETHUSDT/2025-01-30"]
    assert keys_for(runs, lake, "volume_profile", Asked()) == KEYS[:1]  # what waits is no input until it is merged
    together = keys_for_each(runs, lake, ["trades", "volume_profile", "order_flow"], Asked())
    assert together["volume_profile"] == together["order_flow"] == [*KEYS[:2], "ETHUSDT/2025-01-30"]
    assert keys_for(runs, lake, "bars", Asked()) == []
    assert keys_for(runs, lake, "bars", Asked(symbols=["BTCUSDT"], first="2025-01", last="2025-02", fetch=True)) == [
        "BTCUSDT/2025-01",
        "BTCUSDT/2025-02",
    ]


def test_the_trades_of_a_real_day_are_the_exchanges_own_bars(settings: Settings, shared_data: Path) -> None:
    path = shared_data / "ready/ticks/binance_spot_aggtrades_XRPETH_20191011-13.parquet"
    report = ingest([str(path)], Wanted(taken_as="trades"), settings)
    assert (report.taken, report.unchanged, len(report.partitions)) == (12_477, 0, 3)
    store = Lake(settings.lake_dir).table("trades")
    ours = store.read(store.keys("XRPETH/")).group_by_dynamic("time", every="1m").agg(pl.col("quantity").sum())
    theirs = pl.read_ipc(shared_data / "ticks/freqtrade__freqtrade/tests/testdata/XRP_ETH-1m.feather")
    assert ours["time"].dt.epoch("us").to_list() == theirs["date"].dt.epoch("us").to_list()
    assert ((ours["quantity"] - theirs["volume"]).abs() < 1e-6).all()
