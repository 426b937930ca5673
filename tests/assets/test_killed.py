"""A materialization that is killed leaves no half file, and the next one completes it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from mdplatform.lake import Lake
from mdplatform.lake.partition import Partition
from mdplatform.runs import Runs
from mdplatform.settings import Settings

MONTHS = ["2025-01", "2025-02", "2025-03"]
MATERIALIZE = "from mdplatform.cli import main; main()"
ARGUMENTS = ["materialize", "bars", "technical_indicators", "--symbols", "BTCUSDT"]


def written(settings: Settings) -> list[Path]:
    return sorted((settings.lake_dir / "technical_indicators").rglob("*.parquet"))


STARTED = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])


@pytest.mark.parametrize("moment", ["run started", "first file begun", "second file written"])
def test_a_killed_run_leaves_whole_files_is_marked_as_failed_by_the_next_one_and_completed(
    market: Settings, moment: str
) -> None:
    process = subprocess.Popen([sys.executable, "-c", MATERIALIZE, *ARGUMENTS], stderr=subprocess.DEVNULL)
    instance = dg.DagsterInstance.from_config(str(market.dagster_dir))
    has_come = {
        "run started": lambda: bool(instance.get_runs(STARTED)),
        "first file begun": (market.lake_dir / "technical_indicators").exists,
        "second file written": lambda: len(written(market)) >= 2,
    }[moment]
    deadline = time.monotonic() + 60
    while not has_come():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)  # what is awaited is a row or a file of another process
    process.kill()
    process.wait()
    killed = instance.get_runs(STARTED)
    assert killed or moment != "run started"
    for path in written(market):
        partition = Partition.open(path)
        assert partition is not None
        for group in partition.header.groups:
            assert len(partition.read(group)) == partition.header.groups[group].rows
    with Runs(market) as runs:
        assert [instance.get_run_by_id(each.run_id).status for each in killed] == (  # type: ignore[union-attr]
            [dg.DagsterRunStatus.FAILURE] * len(killed)
        )
        assert len(runs.materialize(["bars", "technical_indicators"], {"BTCUSDT": MONTHS})) == 6
    lake = Lake(market.lake_dir)
    assert all(lake.frames("technical_indicators").partition(f"BTCUSDT/{month}") for month in MONTHS)
    # a temporary file of the killed writer may stay for a while, hidden and under no partition's name
    assert all(path.name.startswith(".") for path in market.lake_dir.rglob("*.tmp"))
