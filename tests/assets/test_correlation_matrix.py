"""The asset `correlation_matrix`: what it writes and records, as of when, and what its checks find."""

from __future__ import annotations

import base64
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mdplatform.assets.correlation_matrix import ASSET, SCHEMA, check_months, inputs_of, matrices_of, returns_of
from mdplatform.assets.following import INPUTS
from mdplatform.errors import MaterializationFailed
from mdplatform.lake import Lake
from mdplatform.lake.partition import write_partition
from mdplatform.market.time import month_range
from mdplatform.market.timeframe import Timeframe
from mdplatform.runs import Runs
from mdplatform.settings import Settings

FOUR_WEEKS = timedelta(days=28)


@pytest.fixture(scope="module")
def made_once(taken_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with the panels and matrices of two months, to be copied and never written."""
    home = tmp_path_factory.mktemp("correlated") / "home"
    shutil.copytree(taken_in, home, ignore=shutil.ignore_patterns("valkey"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MDPLATFORM_HOME", str(home))
        settings = Settings.load()
        with Runs(settings) as runs:
            runs.materialize(["returns_panel", ASSET], {"BTCUSDT": ["2025-01", "2025-02"]})
    return settings.lake_dir


@pytest.fixture
def made(made_once: Path, tmp_path: Path) -> Lake:
    """A lake of the test's own with the panels and matrices of two months."""
    return Lake(shutil.copytree(made_once, tmp_path / "lake"))


def test_each_day_has_the_correlation_of_the_four_weeks_that_end_with_it(made: Lake) -> None:
    partition = made.frames(ASSET).partition("2025-02")
    assert partition is not None
    assert set(partition.header.groups) == {"15m", "1h", "4h", "1d"}
    rows = partition.read("1h")
    assert rows.schema == pl.Schema(SCHEMA)
    assert rows["available_at"].to_list() == [datetime(2025, 2, 2, tzinfo=UTC) + timedelta(days=n) for n in range(28)]
    returns = []
    for symbol in ("ADAUSDT", "BTCUSDT"):
        bars = made.bars.read(symbol, Timeframe.H1)
        returns.append(
            dict(zip(bars["open_time"], np.diff(np.log(bars["close"].to_numpy()), prepend=np.nan), strict=True))
        )
    for row in rows.iter_rows(named=True):
        end = row["available_at"]
        assert row["open_time"] == end - timedelta(hours=1)
        both = [
            (value, returns[1][at])
            for at, value in returns[0].items()
            if end - FOUR_WEEKS <= at < end and not np.isnan(value) and not np.isnan(returns[1][at])
        ]
        assert row["observations"] == len(both)
        assert row["correlation"] == pytest.approx(np.corrcoef(np.array(both).T)[0, 1], abs=1e-12)
        assert (row["symbol_a"], row["symbol_b"], row["reason"]) == ("ADAUSDT", "BTCUSDT", None)


def test_history_that_is_too_short_says_so(made: Lake) -> None:
    partition = made.frames(ASSET).partition("2025-01")
    assert partition is not None
    days = partition.read("1d")
    assert days["reason"].to_list()[:13] == ["insufficient_history"] * 13
    assert days.filter(pl.col("observations") >= 14)["correlation"].null_count() == 0
    assert days["correlation"].is_null().equals(days["reason"].is_not_null())


def test_a_materialization_records_eigenvalues_the_order_of_clusters_and_a_heat_map(
    runs: Runs, market: Settings
) -> None:
    done = runs.materialize(["returns_panel", ASSET], {"BTCUSDT": ["2025-02"]})
    ours = next(each for each in done if "plot" in each.metadata and "clusters_order" in each.metadata)
    assert ours.metadata["clusters_order"] == "ADAUSDT BTCUSDT"
    svg = base64.b64decode(re.search(r"base64,([^)]*)", ours.metadata["plot"]).group(1)).decode()  # type: ignore[union-attr]
    assert svg.count(">ADAUSDT<") == svg.count(">BTCUSDT<") == svg.count(">1.00<") == 2
    partition = Lake(market.lake_dir).frames(ASSET).partition("2025-02")
    assert partition is not None
    assert partition.header.notes["is_psd"] == dict.fromkeys(("15m", "1h", "4h", "1d"), True)


def test_the_same_month_again_is_the_same_version(runs: Runs, market: Settings) -> None:
    versions = []
    for assets in (["returns_panel", ASSET], [ASSET]):
        runs.materialize(assets, {"BTCUSDT": ["2025-02"]})
        partition = Lake(market.lake_dir).frames(ASSET).partition("2025-02")
        assert partition is not None
        versions.append(partition.header.data_version)
    assert versions[0] == versions[1]


def test_a_month_without_returns_fails_and_says_what_to_do(runs: Runs) -> None:
    with pytest.raises(MaterializationFailed, match=r"No returns of any symbol in 2024-03.*returns_panel"):
        runs.materialize([ASSET], {"BTCUSDT": ["2024-03"]})


def test_a_month_of_which_no_day_has_ended_is_empty_and_says_so(made: Lake) -> None:
    panel = made.frames("returns_panel").partition("2025-02")
    assert panel is not None
    hours = {"1h": panel.read("1h").filter(pl.col("open_time") < datetime(2025, 2, 1, 5, tzinfo=UTC))}
    write_partition(made.frames("returns_panel").path("2025-02"), hours)
    frames, newest = matrices_of(made, "2025-02")
    assert (newest, {each.value: len(rows) for each, rows in frames.items()}) == ({}, {"1h": 0})
    made.frames(ASSET).write("2025-02", frames, {})
    assert all(each.passed for each in check_months(made, ["2025-02"]))


def test_a_month_depends_on_its_panel_and_the_one_before_alone(made: Lake) -> None:
    found = returns_of(made, "2025-02", Timeframe.H4)
    assert found is not None
    panel, ends = found
    assert panel.open_time is not None
    start, end = month_range("2025-02")
    assert int(panel.open_time[0]) == start - 27 * 86_400_000_000
    assert int(panel.open_time[ends[-1]]) == end - 4 * 3_600_000_000


def test_only_a_return_that_a_window_reaches_makes_a_month_stale(made: Lake) -> None:
    partition = made.frames(ASSET).partition("2025-02")
    panel = made.frames("returns_panel").partition("2025-01")
    assert partition is not None
    assert panel is not None
    assert partition.header.notes[INPUTS] == inputs_of(made, "2025-02") != ""
    frames = {name: panel.read(name) for name in panel.header.groups}
    for day, is_stale in ((4, False), (5, True)):  # the first window is from 5 January to the end of 1 February
        at = pl.col("open_time") == datetime(2025, 1, day, tzinfo=UTC)
        changed = {
            name: rows.with_columns(log_return=pl.when(at).then(0.5).otherwise("log_return"))
            for name, rows in frames.items()
        }
        write_partition(made.frames("returns_panel").path("2025-01"), changed)
        assert (inputs_of(made, "2025-02") != partition.header.notes[INPUTS]) is is_stale
    assert inputs_of(made, "2024-05") == ""


def test_checks_find_what_is_out_of_bounds_doubled_or_not_positive_semi_definite(made: Lake) -> None:
    at = datetime(2025, 2, 1, tzinfo=UTC)
    pairs = [("A", "B", 0.9), ("A", "C", 0.9), ("B", "C", -0.9)]

    def write(rows: list[tuple[str, str, float | None]]) -> dict[str, bool]:
        frame = pl.DataFrame(
            [(a, b, "1h", at, at, value, 50, None, "pearson") for a, b, value in rows], schema=SCHEMA, orient="row"
        )
        write_partition(made.frames(ASSET).path("2025-02"), {"1h": frame})
        return {each.check_name: each.passed for each in check_months(made, ["2025-02"]) if each.check_name}

    assert write(pairs) == {"bounds": True, "symmetric": True, "psd": False}
    assert write([("A", "B", 1.5)])["bounds"] is False
    assert write([("A", "B", None)])["bounds"] is False
    assert write([("A", "B", 0.5), ("A", "B", 0.5)])["symmetric"] is False
    assert write([("B", "A", 0.5)])["symmetric"] is False
    assert write([("A", "B", 0.5)]) == {"bounds": True, "symmetric": True, "psd": True}
