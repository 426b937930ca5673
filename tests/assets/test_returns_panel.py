"""The checks of the panel of returns."""

from __future__ import annotations

import dagster as dg
import polars as pl
import pytest

from mdplatform.assets.returns_panel import ASSET, CHECKS, check_months, panel
from mdplatform.lake import Lake
from mdplatform.lake.partition import write_partition
from mdplatform.runs import Runs
from mdplatform.settings import Settings

ROW = pl.int_range(pl.len()) == 300


def test_what_a_run_wrote_passes_each_check(runs: Runs) -> None:
    runs.materialize([ASSET], ["2025-02"])
    for name in CHECKS:
        key = dg.AssetCheckKey(dg.AssetKey(ASSET), name)
        record = runs._instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        assert record.status.value == "SUCCEEDED"


@pytest.mark.parametrize(
    ("check", "column", "wrong"),
    [
        ("reasons", "log_return", float("nan")),
        ("reasons", "log_return", float("-inf")),
        ("reasons", "log_return", None),
        ("reasons", "reason", "gap"),
        ("grid", "open_time", pl.col("open_time").dt.offset_by("1m")),
        ("grid", "open_time", pl.col("open_time").dt.offset_by("4w")),
        ("grid", "open_time", pl.col("open_time").shift()),
        ("grid", "available_at", pl.col("open_time")),
        ("grid", "available_at", None),
    ],
)
def test_each_check_finds_the_row_that_breaks_it(market: Settings, check: str, column: str, wrong: object) -> None:
    lake = Lake(market.lake_dir)
    frames = {each.value: rows for each, rows in panel(lake, "2025-02").items()}
    frames["1h"] = frames["1h"].with_columns(
        pl.when(ROW).then(wrong if isinstance(wrong, pl.Expr) else pl.lit(wrong)).otherwise(column).alias(column)
    )
    write_partition(lake.frames(ASSET).path("2025-02"), frames)
    results = {each.check_name: each for each in check_months(lake, ["2025-02"])}
    assert {name for name, each in results.items() if not each.passed} == {check}
    assert results[check].metadata["partitions_broken"].value.keys() == {"2025-02 1h"}


def test_a_reason_off_the_list_is_none(market: Settings) -> None:
    lake = Lake(market.lake_dir)
    frames = {each.value: rows for each, rows in panel(lake, "2025-02").items()}
    said = pl.when(ROW).then(pl.lit("because")).otherwise("reason").alias("reason")
    none = pl.when(ROW).then(None).otherwise("log_return").alias("log_return")
    write_partition(lake.frames(ASSET).path("2025-02"), {"1h": frames["1h"].with_columns(said, none)})
    assert [each.passed for each in check_months(lake, ["2025-02"])] == [False, True]
