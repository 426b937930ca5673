"""The assets of macro series: what a home has after series were taken in, and after they were revised."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from mdplatform.assets.common import SOURCE_PROBLEM
from mdplatform.assets.following import Watch
from mdplatform.assets.macro_features import FOLLOWING, PERIODS, SCHEMA, as_known, broken_rows, write_features
from mdplatform.assets.macro_series import check_series, fetch
from mdplatform.definitions import defs
from mdplatform.errors import UnknownSeries
from mdplatform.features import parse_feature
from mdplatform.features.data import Grid
from mdplatform.features.guard import REASONS
from mdplatform.features.macro import TRANSFORMS
from mdplatform.features.panel import evaluate_on
from mdplatform.ingest import Wanted, ingest
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData
from mdplatform.lake.partition import write_partition
from mdplatform.market.macro import MACRO
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.resources import LakeResource, SettingsResource
from mdplatform.runs import Runs
from mdplatform.sensors.fred_series import fred_series
from mdplatform.settings import Settings

from ..features.vintages import known_at, transformed
from ..sources.fred_server import KEY, OPEN, FredServer, Interval

MONTHS = [datetime(2022 + at // 12, at % 12 + 1, 1, tzinfo=UTC) for at in range(36)]
NOW = datetime(2025, 2, 1, tzinfo=UTC)


def release(month: datetime, later: int = 1) -> str:
    """Give the tenth day of a later month."""
    at = month.year * 12 + month.month - 1 + later
    return f"{at // 12}-{at % 12 + 1:02d}-10"


def intervals() -> list[Interval]:
    """Each month published in the next one, and revised in the one after; one month without a value."""
    told: list[Interval] = []
    for number, month in enumerate(MONTHS):
        day, first, second = f"{month:%Y-%m-%d}", release(month), release(month, 2)
        if number == 20:
            told.append((day, first, OPEN, "."))
        else:
            told.append((day, first, f"{second[:-2]}09", f"{100 + number}"))
            told.append((day, second, OPEN, f"{100 + number + 0.25}"))
    return told


@pytest.fixture(scope="module")
def fred() -> Iterator[FredServer]:
    with FredServer({"CPIAUCSL": intervals(), "UNRATE": intervals()[:20]}).running() as server:
        yield server


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory, fred: FredServer) -> tuple[Path, dict[str, dict[str, object]]]:
    """A home with two series and what was known of them; to be copied and never written."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MDPLATFORM_HOME", str(tmp_path_factory.mktemp("macro") / "home"))
        environment.setenv("MDPLATFORM_FRED_URL", fred.url)
        environment.setenv("MDPLATFORM_FRED_API_KEY", KEY)
        opened = Settings.load()
        report = ingest(["fred:CPIAUCSL", "fred:UNRATE"], Wanted(), opened)
        assert (report.taken, report.corrected) == (71 + 20, 0)
        with Runs(opened) as runs:
            done = runs.materialize(["macro_features"], ["CPIAUCSL", "UNRATE"])
            told = {each.partition: dict(each.metadata) for each in done}
            record = runs._instance.fetch_materializations(dg.AssetKey("macro_series"), limit=5).records
            for each in record:
                materialized = each.asset_materialization
                assert materialized is not None
                told[f"series {each.partition_key}"] = {
                    name: value.value for name, value in materialized.metadata.items()
                }
    return opened.home, told


@pytest.fixture
def home(
    taken: tuple[Path, dict[str, dict[str, object]]],
    settings: Settings,
    fred: FredServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    fred.series = {"CPIAUCSL": intervals(), "UNRATE": intervals()[:20]}
    fred.faults.clear()
    monkeypatch.setenv("MDPLATFORM_FRED_URL", fred.url)
    monkeypatch.setenv("MDPLATFORM_FRED_API_KEY", KEY)
    monkeypatch.setenv("MDPLATFORM_FRED_RETRIES", "0")
    shutil.copytree(taken[0], settings.home, ignore=shutil.ignore_patterns("valkey"))
    return Settings.load()


def test_a_series_has_every_vintage_and_tells_of_its_revisions(
    taken: tuple[Path, dict[str, dict[str, object]]],
) -> None:
    rows = Lake(taken[0] / "lake").table("macro").read(["CPIAUCSL"])
    assert rows.schema == MACRO.schema
    assert rows.height == 71
    assert rows["source"].unique().to_list() == ["fred:CPIAUCSL"]
    told = taken[1]["series CPIAUCSL"]
    assert told["observations"] == 36
    assert told["revised_observations"] == 35
    assert told["observations_without_value"] == 1
    assert told["vintages"] == 37
    assert told["released"] == "BLS consumer prices, 08:30 America/New_York"
    assert "data:image/svg+xml" in str(told["plot"])
    assert KEY not in str(taken[1])


def test_features_are_what_one_works_out_at_each_instant_and_change_at_each(
    taken: tuple[Path, dict[str, dict[str, object]]],
) -> None:
    lake = Lake(taken[0] / "lake")
    partition = lake.frames("macro_features").partition("CPIAUCSL")
    assert partition is not None
    made, vintages = partition.read("rows"), lake.table("macro").read(["CPIAUCSL"])
    assert dict(made.schema) == SCHEMA
    assert made["available_at"].is_sorted()
    for row in made.iter_rows(named=True):
        known = known_at(vintages, to_us(row["available_at"]))
        assert to_us(row["ref_period"]) == max(known)
        for name in TRANSFORMS:
            value, reason = transformed(known, name, PERIODS.get(name, 1), skip=False)
            assert row[f"{name}.status"] == reason
            assert (row[name] is None) == (value is None)
            if value is not None:
                assert row[name] == pytest.approx(value, rel=1e-9)
    told = made.drop("series_id", "available_at")
    assert all(one != other for one, other in zip(told.rows(), told.rows()[1:], strict=False))
    assert taken[1]["CPIAUCSL"]["dagster/row_count"] == made.height


def test_features_of_the_asset_are_those_of_frames(taken: tuple[Path, dict[str, dict[str, object]]]) -> None:
    lake = Lake(taken[0] / "lake")
    made = as_known("CPIAUCSL", lake.table("macro").read(["CPIAUCSL"]))
    row = made.filter(pl.col("available_at") <= datetime(2024, 6, 1, tzinfo=UTC)).row(-1, named=True)
    known = LakeData(lake, as_of=datetime(2024, 6, 1, tzinfo=UTC)).macro("CPIAUCSL")
    assert as_known("CPIAUCSL", known).row(-1, named=True) == row


def test_the_same_answer_again_changes_nothing(home: Settings) -> None:
    report = ingest(["fred:CPIAUCSL"], Wanted(), home)
    assert (report.taken, report.unchanged, report.corrected) == (0, 71, 0)
    assert report.run_ids == []


def test_a_new_release_makes_its_series_stale_and_no_other(home: Settings, fred: FredServer) -> None:
    lake = Lake(home.lake_dir)
    watch = Watch(lake, "macro_features", FOLLOWING)
    assert watch.stale() == {}
    fred.series["CPIAUCSL"] = [*intervals(), ("2025-01-01", "2025-02-12", OPEN, "140.5")]
    report = ingest(["fred:CPIAUCSL", "fred:UNRATE"], Wanted(), home)
    assert (report.taken, report.unchanged) == (1, 71 + 20)
    assert list(Watch(lake, "macro_features", FOLLOWING).stale()) == ["CPIAUCSL"]
    with Runs(home) as runs:
        runs.materialize(["macro_features"], ["CPIAUCSL"])
    assert Watch(lake, "macro_features", FOLLOWING).stale() == {}
    partition = lake.frames("macro_features").partition("CPIAUCSL")
    assert partition is not None
    assert partition.read("rows").row(-1, named=True)["value"] == 140.5


def test_series_of_fred_are_fetched_anew_where_it_is_asked_for(home: Settings, fred: FredServer) -> None:
    lake = Lake(home.lake_dir)
    fred.series["CPIAUCSL"] = [*intervals(), ("2025-01-01", "2025-02-12", OPEN, "140.5")]
    assert fetch(lake, home, "CPIAUCSL", NOW) is None
    assert lake.table("macro").merge("CPIAUCSL").taken == 1
    fred.faults.append("503")
    problem = fetch(lake, home, "CPIAUCSL", NOW)
    assert "HTTP 503" in str(problem)
    assert KEY not in str(problem)


def test_series_of_files_are_not_asked_for(home: Settings, fred: FredServer, tmp_path: Path) -> None:
    path = tmp_path / "SP500.csv"
    path.write_text("date,value\n2025-01-02,5868.55\n")
    ingest([str(path)], Wanted(taken_as="macro", observed=datetime(2025, 1, 3, tzinfo=UTC)), home)
    fred.requests.clear()
    assert fetch(Lake(home.lake_dir), home, "SP500", NOW) is None
    assert fetch(Lake(home.lake_dir), home, "NOPE", NOW) is None
    assert fred.requests == []


def test_what_a_file_corrects_is_a_revision_and_the_old_one_stays(home: Settings, tmp_path: Path) -> None:
    lake, path = Lake(home.lake_dir), tmp_path / "CPIAUCSL.csv"
    before = datetime.now(UTC)
    path.write_text("realtime_start,realtime_end,date,value\n2022-02-10,2022-03-09,2022-01-01,99.5\n")
    report = ingest([str(path)], Wanted(taken_as="macro"), home)
    assert (report.taken, report.corrected) == (0, 1)
    first = pl.col("vintage") == datetime(2022, 2, 10, tzinfo=UTC)
    assert LakeData(lake).macro("CPIAUCSL").filter(first)["value"].to_list() == [99.5]
    assert LakeData(lake, as_of=before).macro("CPIAUCSL").filter(first)["value"].to_list() == [100.0]


def test_checks_find_what_is_wrong(home: Settings) -> None:
    lake = Lake(home.lake_dir)
    store = lake.table("macro")

    def failed(now: datetime = NOW) -> set[str]:
        return {each.check_name or "" for each in check_series(lake, ["CPIAUCSL"], now) if not each.passed}

    assert failed() == set()
    assert failed(datetime(2025, 9, 1, tzinfo=UTC)) == {"fresh"}
    rows = store.read(["CPIAUCSL"])
    early = rows.with_columns(
        pl.when(pl.int_range(pl.len()) == 3)
        .then(pl.col("ref_period").dt.offset_by("-1d"))
        .otherwise("available_at")
        .alias("available_at")
    ).sort("available_at")
    write_partition(store.path("CPIAUCSL"), {"rows": early}, {}, "available_at")
    assert failed() == {"known_after"}
    write_partition(store.path("CPIAUCSL"), {"rows": pl.concat([rows, rows[-1:]])}, {}, "available_at")
    assert failed() == {"one_row"}
    write_partition(store.path("CPIAUCSL"), {"rows": rows.drop("vintage")}, {}, "available_at")
    assert failed() == {"schema"}
    store.path("CPIAUCSL").write_bytes(b"PAR1")
    assert failed() == {"schema"}


def test_a_null_without_a_reason_is_found(home: Settings) -> None:
    lake = Lake(home.lake_dir)
    path, partition = lake.frames("macro_features").path("UNRATE"), lake.frames("macro_features").partition("UNRATE")
    assert partition is not None
    rows = partition.read("rows")
    assert broken_rows(lake, "UNRATE") == 0
    assert set(rows.filter(pl.col("yoy").is_null())["yoy.status"]) <= set(REASONS)
    last = pl.int_range(pl.len()) == pl.len() - 1
    for broken in (None, math.nan, math.inf):
        spoiled = rows.with_columns(pl.when(last).then(broken).otherwise("value").alias("value"))
        write_partition(path, {"rows": spoiled}, {}, "available_at")
        assert broken_rows(lake, "UNRATE") == 1


def test_a_series_of_which_there_is_nothing_is_told_with_the_nearest(home: Settings) -> None:
    lake = Lake(home.lake_dir)
    assert write_features(lake, "NOPE") is None
    with pytest.raises(UnknownSeries, match="CPIAUCSL") as unknown:
        LakeData(lake).macro("CPIAUCS")
    assert "mdplatform ingest fred:CPIAUCS" in str(unknown.value)
    assert LakeData(lake, as_of=from_us(0)).macro("CPIAUCSL").is_empty()


def test_a_strategys_rows_have_the_series_as_it_was_known(home: Settings) -> None:
    begin = to_us(datetime(2025, 1, 10, 13, tzinfo=UTC))
    rows = Grid("BTCUSDT", Timeframe.M15, begin + np.arange(3) * Timeframe.M15.microseconds)
    specs = [parse_feature(f"{each}(series=CPIAUCSL)") for each in ("MACRO", "MACRO_YOY")]
    level, change = evaluate_on(rows, specs, LakeData(Lake(home.lake_dir))).values()
    assert level.outputs[0].tolist() == [134.0, 135.0, 135.0]  # of November, and from 13:30 on of December
    assert change.outputs[0][1] == pytest.approx(135.0 / 123.25 - 1)
    assert level.ages is not None
    assert level.ages.tolist()[1:] == [0, Timeframe.M15.microseconds]


def test_the_schedule_asks_fred_for_all_series_in_one_run(home: Settings, fred: FredServer, tmp_path: Path) -> None:
    path = tmp_path / "SP500.csv"
    path.write_text("date,value\n2025-01-02,5868.55\n")
    ingest([str(path)], Wanted(taken_as="macro", observed=datetime(2025, 1, 3, tzinfo=UTC)), home)
    fred.series["CPIAUCSL"] = [*intervals(), ("2025-01-01", "2025-02-12", OPEN, "140.5")]
    fred.series.pop("UNRATE")
    instance = dg.DagsterInstance.from_config(str(home.dagster_dir))
    asked = tick(instance)
    assert isinstance(asked, dg.RunRequest)
    assert KEY not in str(asked)
    result = (
        defs()
        .resolve_job_def("fred_series")
        .execute_in_process(
            instance=instance,
            tags=asked.tags,
            run_config={**asked.run_config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    )
    made = {
        (event.asset_key.to_user_string(), str(event.partition)): event.metadata
        for event in result.get_asset_materialization_events()
        for event in [event.step_materialization_data.materialization]
    }
    assert {key for asset, key in made if asset == "macro_features"} == {"CPIAUCSL", "SP500", "UNRATE"}
    assert made["macro_series", "CPIAUCSL"]["taken"].value == 1
    assert "does not exist" in str(made["macro_series", "UNRATE"][SOURCE_PROBLEM].value)
    checks = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert checks["source"] is False
    assert checks["one_row"] is True


def test_the_schedule_skips_with_a_reason_without_series_or_without_a_key(
    home: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MDPLATFORM_FRED_API_KEY")
    skipped = tick(dg.DagsterInstance.from_config(str(home.dagster_dir)))
    assert isinstance(skipped, dg.SkipReason)
    assert "MDPLATFORM_FRED_API_KEY" in str(skipped.skip_message)
    monkeypatch.setenv("MDPLATFORM_HOME", str(tmp_path / "bare"))
    with Runs(Settings.load()):
        bare = dg.DagsterInstance.from_config(str(Settings.load().dagster_dir))
    skipped = tick(bare)
    assert isinstance(skipped, dg.SkipReason)
    assert "mdplatform ingest fred:" in str(skipped.skip_message)


def tick(instance: dg.DagsterInstance) -> object:
    """Let the schedule's hour come."""
    resources = {"settings": SettingsResource(), "lake": LakeResource(settings=SettingsResource())}
    at = datetime(2025, 2, 12, 14, 40, tzinfo=UTC)
    with dg.build_schedule_context(instance, scheduled_execution_time=at, resources=resources) as context:
        return fred_series(context)
