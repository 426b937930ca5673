"""The asset `order_flow`: what it writes for the days of a small world, and what its checks find."""

from __future__ import annotations

import shutil

import dagster as dg
import numpy as np
import polars as pl
import pytest

from mdplatform.assets.day_cells import DayCell
from mdplatform.assets.following import Watch
from mdplatform.assets.order_flow import FOLLOWING, SCHEMA, TIMEFRAMES, check_flow, unlike_bars
from mdplatform.assets.partitions import DAY_BY_SYMBOL, partition_key, with_day_before
from mdplatform.errors import MaterializationFailed
from mdplatform.features import frame, order_flow
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData
from mdplatform.lake.partition import write_partition
from mdplatform.market.bars import RAW_SCHEMA
from mdplatform.market.time import day_range, from_us, to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.runs import Runs
from mdplatform.settings import Settings

from ..features.kinds import world

DAYS = ["2025-01-27", "2025-01-28", "2025-01-29"]
"""The first one has no day before it."""
Made = tuple[Settings, dict[str, dict[str, object]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A home with more days than are looked at, and what the runs said of each; to be copied and never written."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MDPLATFORM_HOME", str(tmp_path_factory.mktemp("made") / "home"))
        opened = Settings.load()
        world.lake_in(opened.lake_dir)
        with Runs(opened) as runs:
            runs.register(["BTCUSDT", "NOPE"])
            done = runs.materialize(["order_flow"], {"BTCUSDT": DAYS})
    return opened, {each.partition.split("|")[0]: each.metadata for each in done}


@pytest.fixture(scope="module")
def lake(made: Made) -> Lake:
    return Lake(made[0].lake_dir)


@pytest.fixture
def copied(made: Made, settings: Settings) -> Settings:
    shutil.copytree(made[0].home, settings.home, ignore=shutil.ignore_patterns("valkey"))
    return settings


def rows(lake: Lake, day: str, timeframe: Timeframe = Timeframe.M1) -> pl.DataFrame:
    partition = lake.frames("order_flow").partition(f"BTCUSDT/{day}")
    assert partition is not None
    return partition.read(timeframe)


def test_a_day_has_a_row_for_each_of_its_bars(lake: Lake) -> None:
    for day in DAYS:
        for timeframe in TIMEFRAMES:
            found = rows(lake, day, timeframe)
            assert found.schema == SCHEMA
            start, end = day_range(day)
            opens = np.arange(start, end, timeframe.microseconds)
            assert found["open_time"].to_physical().to_list() == opens.tolist()
            assert found["available_at"].equals(found["close_time"].alias("available_at"))


def test_values_are_those_of_the_day_s_trades(lake: Lake) -> None:
    start, end = day_range(DAYS[1])
    trades = LakeData(lake).trades("BTCUSDT", start, end)
    punctual = trades["available_at"] == trades["time"]
    wanted = order_flow(trades, timeframe="1h").frame
    assert wanted is not None
    found = rows(lake, DAYS[1], Timeframe.H1)
    assert not punctual.all()  # some count a row later than they were made
    assert found["volume"].sum() == pytest.approx(wanted["volume"].sum(), rel=0.01)
    assert (found["volume"] - wanted["volume"]).abs().max() < wanted["volume"].max() * 0.05
    assert found["cvd"].to_list() == pytest.approx(found["delta"].cum_sum().to_list())
    assert found["delta"].to_list() == pytest.approx((found["taker_buy_volume"] - found["taker_sell_volume"]).to_list())


def test_the_same_features_read_from_the_lake_have_the_same_values(lake: Lake) -> None:
    named = {"vpin": "VPIN(buckets=50)", "cvd": "CVD(method=trades)", "size_p90": "TRADE_SIZE_QUANTILE(q=0.9)"}
    told = frame("BTCUSDT", list(named.values()), "15m", DAYS[2], "2025-01-30", data=LakeData(lake))
    found = rows(lake, DAYS[2], Timeframe.M15)
    for at, name in enumerate(named):
        assert found[name].equals(told.to_series(at - len(named)).alias(name)), name


def test_the_first_day_says_what_it_lacks(lake: Lake) -> None:
    first, second = rows(lake, DAYS[0]), rows(lake, DAYS[1])
    assert (first["vpin"].count(), first["large_buy_volume"].count()) == (0, 0)
    covered = first.filter(pl.col("delta.status") == "settled")
    assert covered.height > first.height * 0.9
    assert covered["vpin.status"].mode().to_list() == ["insufficient_history"]
    assert covered["large_buy_volume.status"].unique().to_list() == ["insufficient_history"]
    assert second["vpin"].is_between(0, 1).all()
    assert (second["vpin.status"] == "settled").mean() > 0.9  # type: ignore[operator]
    empty = second.filter(pl.col("trade_count") == 0)
    assert empty["taker_ratio.status"].unique().to_list() == ["division_by_zero"]
    assert empty["size_p50.status"].unique().to_list() == ["degenerate"]


def test_the_metadata_show_pictures_and_sums(lake: Lake, made: Made) -> None:
    told = made[1][DAYS[1]]
    assert told["dagster/row_count"] == sum(rows(lake, DAYS[1], each).height for each in TIMEFRAMES)
    assert told["delta"] == pytest.approx(rows(lake, DAYS[1])["delta"].sum())
    assert str(told["plot"]).count("data:image/svg+xml;base64,") == 2
    covered = [rows(lake, DAYS[1], each)["volume"] for each in TIMEFRAMES]
    assert told["uncovered_rows"] == sum(each.null_count() for each in covered)


def test_the_checks_pass_on_what_was_written_and_find_what_was_not(copied: Settings) -> None:
    lake = Lake(copied.lake_dir)
    cells = [DayCell(day, "BTCUSDT") for day in DAYS]
    assert {each.check_name: each.passed for each in check_flow(lake, cells)} == {"values": True, "sums": True}
    path, good = lake.frames("order_flow").path(f"BTCUSDT/{DAYS[1]}"), rows(lake, DAYS[1])
    for broken in (
        good.with_columns(vpin=pl.lit(1.5)),
        good.with_columns(delta=pl.lit(float("nan"))),
        good.with_columns(delta=pl.lit(None, dtype=pl.Float64)),
        good.with_columns(pl.lit("gap").alias("cvd.status")),
    ):
        write_partition(path, {"1m": broken}, {})
        results = {each.check_name: each for each in check_flow(lake, cells)}
        assert not results["values"].passed
        assert results["values"].severity == dg.AssetCheckSeverity.ERROR


def test_trades_that_do_not_add_up_to_the_bars_are_found(copied: Settings) -> None:
    lake, cell = Lake(copied.lake_dir), DayCell(DAYS[1], "BTCUSDT")
    assert unlike_bars(lake, cell) == 0
    store = lake.table("trades")
    partition = store.partition(cell.stored)
    assert partition is not None
    held = partition.read("rows")
    turned = held.with_columns(is_buyer_maker=pl.col("is_buyer_maker") ^ (pl.int_range(pl.len()) == 5))
    for wrong in (turned, held[1:]):
        write_partition(store.path(cell.stored), {"rows": wrong}, partition.header.notes, "time")
        assert unlike_bars(lake, cell) == 1
        found = {each.check_name: each for each in check_flow(lake, [cell])}["sums"]
        assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_of_a_day_that_is_not_over_there_are_the_bars_that_had_closed(copied: Settings) -> None:
    lake, key = Lake(copied.lake_dir), f"BTCUSDT/{DAYS[2]}"
    store = lake.table("trades")
    partition = store.partition(key)
    assert partition is not None
    noon = from_us(day_range(DAYS[2])[0] + world.DAY_US // 2 + 90_000_000)
    held = partition.read("rows").filter(pl.col("time") < noon).with_columns(ingested_at=pl.lit(noon))
    write_partition(store.path(key), {"rows": held.cast(store.dataset.schema)}, partition.header.notes, "time")
    with Runs(copied) as runs:
        runs.materialize(["order_flow"], {"BTCUSDT": DAYS[2:]})
    assert to_us(rows(lake, DAYS[2])["close_time"][-1]) == day_range(DAYS[2])[0] + world.DAY_US // 2 + 60_000_000
    assert rows(lake, DAYS[2], Timeframe.H1).height == 12


def test_what_a_fragment_of_a_day_does_not_cover_is_null_and_counted(copied: Settings) -> None:
    lake, key = Lake(copied.lake_dir), f"BTCUSDT/{DAYS[1]}"
    store = lake.table("trades")
    partition = store.partition(key)
    assert partition is not None
    start = day_range(DAYS[1])[0]
    at = pl.col("time").dt.epoch("us") - start
    held = partition.read("rows").filter(at.is_between(9 * world.HOUR_US, 12 * world.HOUR_US - 1))
    write_partition(store.path(key), {"rows": held}, partition.header.notes, "time")
    with Runs(copied) as runs:
        done = runs.materialize(["order_flow"], {"BTCUSDT": DAYS[1:]})
    told = {each.partition.split("|")[0]: each.metadata for each in done}
    hours = rows(lake, DAYS[1], Timeframe.H1)
    assert set(hours["delta.status"][:9]) | set(hours["delta.status"][12:]) == {"gap"}
    assert hours["volume"][9:12].count() > 0
    assert hours["cvd"].count() == 0
    assert rows(lake, DAYS[2], Timeframe.H1).select(pl.col("vpin", "large_buy_volume").count()).row(0) == (0, 0)
    assert int(str(told[DAYS[1]]["uncovered_rows"])) > 1440 * 20 / 24


def test_a_bar_beside_the_trades_that_is_corrected_makes_its_day_stale(copied: Settings) -> None:
    lake, key = Lake(copied.lake_dir), f"BTCUSDT/{DAYS[1]}"
    before = FOLLOWING.fingerprint(lake, key)
    start = day_range(DAYS[1])[0]
    bar = lake.bars.read("BTCUSDT", Timeframe.M5, start, start + world.STEP)
    changed = bar.select(list(RAW_SCHEMA)).with_columns(pl.col("volume") + 1)
    for batch in lake.inbox.stage("BTCUSDT", Timeframe.M5, "again", "1" * 64, changed, from_us(world.END)):
        lake.bars.merge("BTCUSDT", batch.month, [batch])
    assert FOLLOWING.fingerprint(lake, key) != before


def test_the_same_run_again_makes_the_same_version(copied: Settings) -> None:
    store = Lake(copied.lake_dir).frames("order_flow")
    before = store.partition(f"BTCUSDT/{DAYS[1]}")
    with Runs(copied) as runs:
        runs.materialize(["order_flow"], {"BTCUSDT": DAYS[1:2]})
    after = store.partition(f"BTCUSDT/{DAYS[1]}")
    assert before is not None
    assert after is not None
    assert before.header.data_version == after.header.data_version


def test_a_correction_makes_exactly_its_day_and_the_next_stale(copied: Settings) -> None:
    lake = Lake(copied.lake_dir)
    made = {f"BTCUSDT/{day}" for day in DAYS}
    assert not made & set(Watch(lake, "order_flow", FOLLOWING).stale())
    store, key = lake.table("trades"), f"BTCUSDT/{DAYS[1]}"
    row = store.read([key])[:1].with_columns(quantity=pl.col("quantity") + 1)
    store.stage(row.select(list(store.dataset.delivered)), "again", from_us(world.END))
    store.merge(key)
    assert made & set(Watch(lake, "order_flow", FOLLOWING).stale()) == {f"BTCUSDT/{day}" for day in DAYS[1:]}


def test_a_symbol_without_trades_fails_with_a_remedy(copied: Settings) -> None:
    with Runs(copied) as runs:  # noqa: SIM117
        with pytest.raises(MaterializationFailed, match="No trades in any"):
            runs.materialize(["order_flow"], {"NOPE": DAYS[:1]})


def test_a_day_follows_from_itself_and_the_day_before() -> None:
    found = with_day_before().get_upstream_mapped_partitions_result_for_partitions(
        DAY_BY_SYMBOL.empty_subset().with_partition_keys([str(partition_key("BTCUSDT/2025-02-01"))]),
        DAY_BY_SYMBOL,
        DAY_BY_SYMBOL,
        dynamic_partitions_store=dg.DagsterInstance.ephemeral(),
    )
    keys = sorted(str(key) for key in found.partitions_subset.get_partition_keys())
    assert keys == ["2025-01-31|BTCUSDT", "2025-02-01|BTCUSDT"]
