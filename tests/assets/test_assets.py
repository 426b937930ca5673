"""The assets on a real Dagster instance: what they write, record, check and refuse."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from mdplatform.assets.checks import check_bars
from mdplatform.assets.partitions import Cell
from mdplatform.assets.technical_indicators import check_indicators
from mdplatform.definitions import defs
from mdplatform.errors import MaterializationFailed, UnknownAsset
from mdplatform.lake import Lake
from mdplatform.lake.partition import write_partition
from mdplatform.market.time import month_range
from mdplatform.market.timeframe import Timeframe
from mdplatform.resources import LakeResource, SettingsResource
from mdplatform.runs import Runs
from mdplatform.sensors.left_behind import PROCESS_TAG, left_behind
from mdplatform.sensors.running_month import running_month, running_month_panel
from mdplatform.settings import Settings

MONTHS = ["2025-01", "2025-02", "2025-03"]


def versions(instance: dg.DagsterInstance, asset: str) -> dict[str, str]:
    records = instance.fetch_materializations(dg.AssetKey(asset), limit=100).records
    return {
        str(record.partition_key): record.asset_materialization.tags["dagster/data_version"]
        for record in reversed(records)
        if record.asset_materialization
    }


def test_definitions_load_and_every_asset_says_what_it_is() -> None:
    specs = {spec.key.to_user_string(): spec for spec in defs().resolve_all_asset_specs()}
    assert set(specs) >= {"bars", "technical_indicators", "returns_panel", "trades"}
    for name, spec in specs.items():
        assert spec.owners, name
        assert spec.kinds, name
        assert spec.description, name
        assert spec.code_version, name
        assert "dagster/column_schema" in spec.metadata, name


def test_a_materialization_records_rows_and_a_picture_for_each_partition(runs: Runs) -> None:
    done = runs.materialize(["technical_indicators"], {"BTCUSDT": MONTHS[:2]})
    assert sorted(each.partition for each in done) == [f"{month}|BTCUSDT" for month in MONTHS[:2]]
    lake = Lake(Settings.load().lake_dir)
    for each in done:
        month = each.partition.split("|")[0]
        partition = lake.frames("technical_indicators").partition(f"BTCUSDT/{month}")
        assert partition is not None
        assert each.metadata["dagster/row_count"] == sum(group.rows for group in partition.header.groups.values())
        assert "data:image/svg+xml;base64," in each.metadata["plot"]


def test_the_same_run_again_changes_no_version_and_no_file(runs: Runs, market: Settings) -> None:
    months = {"ADAUSDT": MONTHS[1:2], "BTCUSDT": MONTHS[:2]}
    runs.materialize(["bars", "technical_indicators", "returns_panel"], months)
    instance = dg.DagsterInstance.from_config(str(market.dagster_dir))
    before = {name: versions(instance, name) for name in ("bars", "technical_indicators", "returns_panel")}
    files = {path: path.stat().st_mtime_ns for path in (market.lake_dir / "bars").rglob("*.parquet")}
    files |= {path: path.stat().st_mtime_ns for path in (market.lake_dir / "technical_indicators").rglob("*.parquet")}
    runs.materialize(["bars", "technical_indicators", "returns_panel"], months)
    assert {name: versions(instance, name) for name in before} == before
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_the_panel_holds_the_log_returns_of_every_symbol(runs: Runs, market: Settings) -> None:
    runs.materialize(["returns_panel"], {"BTCUSDT": ["2025-02"]})
    partition = Lake(market.lake_dir).frames("returns_panel").partition("2025-02")
    assert partition is not None
    panel = partition.read(Timeframe.H1)
    assert panel["symbol"].unique().sort().to_list() == ["ADAUSDT", "BTCUSDT"]
    assert panel.equals(panel.sort("symbol", "open_time"))
    start, end = month_range("2025-02")
    closes = Lake(market.lake_dir).bars.read("BTCUSDT", Timeframe.H1, start - 3_600_000_000, end)["close"].to_numpy()
    ours = panel.filter(pl.col("symbol") == "BTCUSDT")
    np.testing.assert_allclose(ours["log_return"].to_numpy(), np.diff(np.log(closes)), rtol=1e-12, atol=1e-14)
    assert ours.filter(pl.col("log_return").is_null())["reason"].to_list() == ["gap"] * ours["log_return"].null_count()


def test_a_broken_partition_fails_its_checks_and_stops_what_lies_downstream(runs: Runs, market: Settings) -> None:
    lake = Lake(market.lake_dir)
    partition = lake.bars.partition("BTCUSDT", "2025-02")
    assert partition is not None
    bars = partition.read("15m").with_columns(
        pl.col("open_time").dt.offset_by("7s"),
        pl.when(pl.int_range(pl.len()) == 5).then(-1.0).otherwise("low").alias("low"),
    )
    write_partition(lake.bars.path("BTCUSDT", "2025-02"), {"15m": bars}, partition.header.notes)
    with pytest.raises(MaterializationFailed, match=r"(?s)check"):
        runs.materialize(["bars", "technical_indicators"], {"BTCUSDT": ["2025-02"]})
    assert lake.frames("technical_indicators").partition("BTCUSDT/2025-02") is None


def test_a_run_without_any_bars_fails_and_says_what_to_do(runs: Runs) -> None:
    with pytest.raises(MaterializationFailed, match=r"No bars in any of the 1 partitions.*mdplatform ingest"):
        runs.materialize(["technical_indicators"], {"BTCUSDT": ["2024-03"]})


def test_a_month_without_bars_does_not_stop_the_others(runs: Runs) -> None:
    done = runs.materialize(["technical_indicators"], {"BTCUSDT": ["2024-12", "2025-01"]})
    rows = {each.partition: each.metadata["dagster/row_count"] for each in done}
    assert rows["2024-12|BTCUSDT"] == 0
    assert rows["2025-01|BTCUSDT"] > 0


def test_an_unknown_asset_is_refused_with_the_known_ones(runs: Runs) -> None:
    with pytest.raises(UnknownAsset, match="technical_indicators"):
        runs.materialize(["technical_indicator"], {"BTCUSDT": ["2025-01"]})


def test_fetching_asks_the_source_for_a_month_that_was_never_taken_in(runs: Runs, market: Settings) -> None:
    done = runs.materialize(["bars"], {"BTCUSDT": ["2025-04"]}, fetch=True)
    assert done[0].metadata["taken"] > 2800
    assert Lake(market.lake_dir).bars.months("BTCUSDT")[-1] == "2025-04"


def test_redis_away_fails_no_run(monkeypatch: pytest.MonkeyPatch, market: Settings, tmp_path: Path) -> None:
    monkeypatch.setenv("MDPLATFORM_REDIS_URL", f"unix://{tmp_path}/nothing.sock")
    with Runs(Settings.load()) as runs:
        done = runs.materialize(["bars", "technical_indicators"], {"BTCUSDT": ["2025-01"]})
    assert {each.asset for each in done} == {"bars", "technical_indicators"}


def test_the_schedule_asks_for_the_running_month_of_all_symbols_in_one_run(runs: Runs, market: Settings) -> None:
    instance = dg.DagsterInstance.from_config(str(market.dagster_dir))
    tick = datetime(2025, 4, 30, 23, 45, tzinfo=UTC)
    resources = {"lake": LakeResource(settings=SettingsResource())}
    with dg.build_schedule_context(instance, scheduled_execution_time=tick, resources=resources) as context:
        asked = running_month(context)
    assert isinstance(asked, dg.RunRequest)
    job = defs().resolve_job_def("running_month")
    result = job.execute_in_process(
        instance=instance,
        tags=asked.tags,
        run_config={**asked.run_config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    made = {
        (event.asset_key.to_user_string(), str(event.partition))
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    assert made == {
        (asset, f"2025-04|{symbol}") for asset in ("bars", "technical_indicators") for symbol in ("ADAUSDT", "BTCUSDT")
    }
    assert Lake(market.lake_dir).bars.months("ADAUSDT")[-1] == "2025-04"


def test_symbols_that_a_feed_has_brought_become_partitions_at_the_next_tick(settings: Settings) -> None:
    with Runs(settings):
        instance = dg.DagsterInstance.from_config(str(settings.dagster_dir))
    Lake(settings.lake_dir).universe.add("SOLUSDT", "simulated", Timeframe.M1)
    tick = datetime(2025, 4, 30, 23, 45, tzinfo=UTC)
    resources = {"lake": LakeResource(settings=SettingsResource())}
    with dg.build_schedule_context(instance, scheduled_execution_time=tick, resources=resources) as context:
        asked = running_month(context)
    assert isinstance(asked, dg.RunRequest)
    assert asked.tags["dagster/asset_partition_range_start"] == "2025-04|SOLUSDT"
    assert list(instance.get_dynamic_partitions("symbol")) == ["SOLUSDT"]


def test_the_schedule_skips_with_a_reason_where_no_symbol_has_a_source(settings: Settings) -> None:
    with Runs(settings):
        instance = dg.DagsterInstance.from_config(str(settings.dagster_dir))
    tick = datetime(2025, 1, 1, tzinfo=UTC)
    resources = {"lake": LakeResource(settings=SettingsResource())}
    with dg.build_schedule_context(instance, scheduled_execution_time=tick, resources=resources) as context:
        skipped = running_month(context)
    assert isinstance(skipped, dg.SkipReason)
    assert "mdplatform ingest" in str(skipped.skip_message)


def test_a_value_that_is_no_number_or_a_null_without_a_reason_fails_the_check(runs: Runs, market: Settings) -> None:
    runs.materialize(["technical_indicators"], {"BTCUSDT": ["2025-02"]})
    lake, cell = Lake(market.lake_dir), Cell("2025-02", "BTCUSDT")
    assert check_indicators(lake, [cell]).passed
    partition = lake.frames("technical_indicators").partition("BTCUSDT/2025-02")
    assert partition is not None
    frame = partition.read("1h")
    row, rsi = pl.int_range(pl.len()), pl.col("RSI(timeperiod=14)")
    broken = frame.with_columns(
        pl.when(row == 300).then(float("nan")).when(row == 301).then(None).otherwise(rsi).alias("RSI(timeperiod=14)")
    )
    lake.frames("technical_indicators").write("BTCUSDT/2025-02", {Timeframe.H1: broken}, partition.header.notes)
    result = check_indicators(lake, [cell])
    assert not result.passed
    assert result.metadata["rows_broken"].value == 2


def test_in_a_months_first_days_the_schedule_asks_for_the_month_before_too(runs: Runs, market: Settings) -> None:
    instance = dg.DagsterInstance.from_config(str(market.dagster_dir))
    resources = {"lake": LakeResource(settings=SettingsResource())}
    asked = {}
    for day in (1, 3, 4):
        tick = datetime(2025, 4, day, tzinfo=UTC)
        with dg.build_schedule_context(instance, scheduled_execution_time=tick, resources=resources) as context:
            request = running_month(context)
        assert isinstance(request, dg.RunRequest)
        asked[day] = request.tags["dagster/asset_partition_range_start"].split("|")[0]
    assert asked == {1: "2025-03", 3: "2025-03", 4: "2025-04"}


def test_a_source_that_fails_stops_no_other_symbol(market: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDPLATFORM_ARCHIVE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("MDPLATFORM_ARCHIVE_RETRIES", "0")
    lake = Lake(market.lake_dir)
    lake.universe.add("ADAUSDT", "binance_archive", Timeframe.M15)
    keys = [dg.MultiPartitionKey({"month": "2025-04", "symbol": symbol}) for symbol in ("ADAUSDT", "BTCUSDT")]
    result = (
        defs()
        .resolve_implicit_global_asset_job_def()
        .execute_in_process(
            instance=dg.DagsterInstance.from_config(str(market.dagster_dir)),
            asset_selection=[dg.AssetKey("bars")],
            tags={"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[1]},
            run_config={
                "ops": {"bars": {"config": {"fetch": True}}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
        )
    )
    assert result.success
    assert lake.bars.months("BTCUSDT")[-1] == "2025-04"
    failed = [each for each in result.get_asset_check_evaluations() if not each.passed]
    assert {each.check_name for each in failed} == {"source", "freshness"}
    unanswered = next(each for each in failed if each.check_name == "source").metadata["partitions_unanswered"].value
    assert list(unanswered) == ["2025-04|ADAUSDT"]


def test_a_source_that_fails_alone_fails_the_run(market: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    Lake(market.lake_dir).universe.add("ADAUSDT", "binance_archive", Timeframe.M15)
    monkeypatch.setenv("MDPLATFORM_ARCHIVE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("MDPLATFORM_ARCHIVE_RETRIES", "0")
    with Runs(Settings.load()) as runs, pytest.raises(MaterializationFailed, match=r"127\.0\.0\.1:9"):
        runs.materialize(["bars"], {"ADAUSDT": ["2025-04"]}, fetch=True)


def test_the_sensor_frees_what_killed_commands_held(market: Settings) -> None:
    instance = dg.DagsterInstance.from_config(str(market.dagster_dir))
    job = defs().resolve_implicit_global_asset_job_def()
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    held = [
        instance.create_run_for_job(job, status=status, tags={PROCESS_TAG: f"{socket.gethostname()}:{process}"})
        for status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED)
        for process in (gone.stdout.strip(), os.getpid())
    ]
    left_behind(dg.build_sensor_context(instance))
    statuses = [run.status for run in (instance.get_run_by_id(each.run_id) for each in held) if run]
    failed = dg.DagsterRunStatus.FAILURE
    assert statuses == [failed, dg.DagsterRunStatus.STARTED, failed, dg.DagsterRunStatus.NOT_STARTED]


def test_the_panel_of_the_running_month_is_asked_for_once_there_are_bars_in_it(runs: Runs, market: Settings) -> None:
    instance = dg.DagsterInstance.from_config(str(market.dagster_dir))
    resources = {"lake": LakeResource(settings=SettingsResource())}
    asked: list[dg.RunRequest | dg.SkipReason] = []
    for month in (3, 5):
        tick = datetime(2025, month, 2, 1, 5, tzinfo=UTC)
        with dg.build_schedule_context(instance, scheduled_execution_time=tick, resources=resources) as context:
            asked.append(running_month_panel(context))
    request, skipped = asked
    assert isinstance(request, dg.RunRequest)
    assert isinstance(skipped, dg.SkipReason)
    job = defs().resolve_job_def("running_month_panel")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = job.execute_in_process(instance=instance, tags=request.tags, run_config=quiet)
    assert {event.partition for event in result.get_asset_materialization_events()} == {"2025-02", "2025-03"}


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        ("schema", {"trade_count": pl.col("trade_count").cast(pl.Float64)}),
        ("grid", {"close_time": pl.col("close_time").dt.offset_by("1s")}),
        ("ohlc", {"high": pl.col("low") - 1.0}),
        ("duplicates", {"revision": pl.col("revision") + 1}),
    ],
)
def test_each_check_of_bars_fails_for_what_it_says(market: Settings, check: str, broken: dict[str, pl.Expr]) -> None:
    lake, cell = Lake(market.lake_dir), Cell("2025-02", "BTCUSDT")
    now = datetime(2025, 3, 2, tzinfo=UTC)
    assert all(each.passed for each in check_bars(lake, [cell], now))
    partition = lake.bars.partition("BTCUSDT", "2025-02")
    assert partition is not None
    bars = partition.read("15m").with_columns(**broken)
    write_partition(lake.bars.path("BTCUSDT", "2025-02"), {"15m": bars}, partition.header.notes)
    assert {each.check_name for each in check_bars(lake, [cell], now) if not each.passed} == {check}


def test_bars_that_end_days_before_their_month_are_not_fresh(market: Settings) -> None:
    lake, cell = Lake(market.lake_dir), Cell("2025-02", "BTCUSDT")
    partition = lake.bars.partition("BTCUSDT", "2025-02")
    assert partition is not None
    early = partition.read("15m").filter(pl.col("open_time").dt.day() < 20)
    write_partition(lake.bars.path("BTCUSDT", "2025-02"), {"15m": early}, partition.header.notes)
    now = datetime(2025, 4, 1, tzinfo=UTC)
    assert [each.check_name for each in check_bars(lake, [cell], now) if not each.passed] == ["freshness"]
