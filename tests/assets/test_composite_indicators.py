"""The asset of registered composites."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import numpy as np
import polars as pl

from mdplatform.assets.composite_indicators import (
    FOLLOWING,
    check_composites,
    composite_indicators,
    composites_of,
    inputs_of,
    write_composites,
)
from mdplatform.assets.partitions import Cell
from mdplatform.definitions import defs
from mdplatform.features import frame
from mdplatform.features.composites import standing_composites
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData
from mdplatform.market.timeframe import Timeframe
from mdplatform.runs import Runs
from mdplatform.settings import Settings

MONTHS = ["2025-01", "2025-02", "2025-03"]
NAMES = sorted(each.name for each in standing_composites())


def test_months_are_materialized_with_values_as_the_frame_gives_them(market: Settings, runs: Runs) -> None:
    done = runs.materialize(["composite_indicators"], {"BTCUSDT": ["2025-02"]})
    assert {each.asset for each in done} == {"composite_indicators"}
    lake = Lake(market.lake_dir)
    stored = lake.frames("composite_indicators").partition("BTCUSDT/2025-02")
    assert stored is not None
    given = stored.read(Timeframe.H1)
    expected = frame(
        "BTCUSDT", [each.spec for each in standing_composites()], "1h", "2025-02-01", "2025-03-01", data=LakeData(lake)
    )
    assert given.height == expected.height == 28 * 24
    for each in standing_composites():
        np.testing.assert_allclose(given[each.name], expected[str(each.spec)], rtol=1e-9, atol=1e-12)
        assert set(given[f"{each.name}.status"]) <= {"settled", "unsettled", "insufficient_history"}
    assert check_composites(lake, [Cell("2025-02", "BTCUSDT")]).passed


def test_a_month_is_the_same_alone_and_with_others_and_a_second_run_changes_no_version(market: Settings) -> None:
    lake = Lake(market.lake_dir)
    composites = composites_of(lake, "ADAUSDT")
    run = [Cell(month, "ADAUSDT") for month in MONTHS]
    together = write_composites(lake, run, composites)
    for cell in reversed(run):
        alone = write_composites(lake, [cell], composites)
        assert alone[cell][0] == together[cell][0]
        for timeframe, given in alone[cell][1].items():
            for name in NAMES:
                np.testing.assert_allclose(given[name], together[cell][1][timeframe][name], rtol=1e-9, atol=1e-12)


def test_a_registered_composite_is_materialized_too_and_makes_what_is_there_stale(market: Settings) -> None:
    lake = Lake(market.lake_dir)
    cell = Cell("2025-02", "BTCUSDT")
    write_composites(lake, [cell], composites_of(lake, "BTCUSDT"))
    before = inputs_of(lake, "BTCUSDT/2025-02")
    assert lake.frames("composite_indicators").note("BTCUSDT/2025-02", "inputs") == before
    lake.composites.add([{"name": "MINE", "formula": "close@ADAUSDT / close", "version": 1}])
    lake.composites.add([{"name": "MINE", "formula": "close@ADAUSDT / close * 2", "version": 2}])
    assert inputs_of(lake, "BTCUSDT/2025-02") != before
    assert lake.folder in FOLLOWING.folders(lake, "BTCUSDT/2025-02")
    composites = composites_of(lake, "BTCUSDT")
    assert [str(each) for each in composites if each.name == "MINE"] == ["MINE:2"]
    _, frames = write_composites(lake, [cell], composites)[cell]
    data = LakeData(lake)
    expected = frame("BTCUSDT", "close@ADAUSDT / close", "15m", "2025-02-01", "2025-03-01", data=data)
    np.testing.assert_allclose(frames[Timeframe.M15]["MINE"], 2 * expected.to_series(-1), rtol=1e-12)


def test_a_composite_of_a_symbol_that_is_not_there_is_left_out(market: Settings) -> None:
    lake = Lake(market.lake_dir)
    lake.composites.add([{"name": "FOREIGN", "formula": "close@NOSUCH / close"}])
    assert [each.name for each in composites_of(lake, "BTCUSDT")] == NAMES


def test_the_check_finds_a_value_that_is_no_number_and_a_null_without_a_reason(market: Settings) -> None:
    lake = Lake(market.lake_dir)
    cell = Cell("2025-01", "BTCUSDT")
    composites = composites_of(lake, "BTCUSDT")
    _, frames = write_composites(lake, [cell], composites)[cell]
    assert check_composites(lake, [cell]).passed
    name = composites[0].name
    hour = frames[Timeframe.H1]
    first = pl.int_range(pl.len()) == 700
    broken = hour.with_columns(
        pl.when(first).then(float("nan")).otherwise(pl.col(name)).alias(name),
        pl.when(pl.int_range(pl.len()) == 701)
        .then(None)
        .otherwise(pl.col(composites[1].name))
        .alias(composites[1].name),
    )
    lake.frames("composite_indicators").write("BTCUSDT/2025-01", {Timeframe.H1: broken}, {})
    result = check_composites(lake, [cell])
    assert not result.passed
    assert result.metadata["rows_broken"] == dg.MetadataValue.int(2)


def test_the_asset_says_what_it_is() -> None:
    spec = next(iter(composite_indicators.specs))
    assert spec.code_version is not None
    assert standing_composites()[0].spec.id in spec.code_version
    assert {each.asset_key.to_user_string() for each in spec.deps} == {"bars", "trades", "sentiment", "macro_series"}


def test_a_month_follows_from_the_days_of_its_symbol_that_there_are_and_blocks_no_run(runs: Runs) -> None:
    runs.register(["BTCUSDT", "ADAUSDT"], ["CPIAUCSL"])
    graph = (defs() if callable(defs) else defs).resolve_asset_graph()
    definition, days = (graph.get(dg.AssetKey(name)).partitions_def for name in ("composite_indicators", "trades"))
    assert definition is not None
    assert days is not None
    mapping = graph.get_partition_mapping(dg.AssetKey("composite_indicators"), dg.AssetKey("trades"))

    def days_of(month: str) -> list[str]:
        key = dg.MultiPartitionKey({"month": month, "symbol": "BTCUSDT"})
        found = mapping.get_upstream_mapped_partitions_result_for_partitions(
            definition.subset_with_partition_keys([key]), definition, days, dynamic_partitions_store=runs._instance
        )
        assert not found.required_but_nonexistent_subset.get_partition_keys()
        return sorted(found.partitions_subset.get_partition_keys())

    assert days_of("2025-02") == [f"2025-02-{day:02}|BTCUSDT" for day in range(1, 29)]
    today = datetime.now(UTC)
    assert days_of(f"{today:%Y-%m}")[-1] == f"{today:%Y-%m-%d}|BTCUSDT"
    done = runs.materialize(["bars", "composite_indicators"], {"BTCUSDT": MONTHS})
    assert len(done) == 2 * len(MONTHS)
