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


@pytest.mark.parametrize("files_before_the_kill", [0, 1, 2])
def test_a_killed_run_leaves_whole_files_and_the_next_one_completes(
    market: Settings, files_before_the_kill: int
) -> None:
    process = subprocess.Popen([sys.executable, "-c", MATERIALIZE, *ARGUMENTS], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(written(market)) < max(1, files_before_the_kill) and process.poll() is None:
        assert time.monotonic() < deadline
        if files_before_the_kill == 0 and (market.lake_dir / "technical_indicators").exists():
            break
        time.sleep(0.001)  # what is awaited is a file of another process
    process.kill()
    process.wait()
    for path in written(market):
        partition = Partition.open(path)
        assert partition is not None
        for group in partition.header.groups:
            assert len(partition.read(group)) == partition.header.groups[group].rows
    with Runs(market) as runs:
        assert len(runs.materialize(["bars", "technical_indicators"], {"BTCUSDT": MONTHS})) == 6
    lake = Lake(market.lake_dir)
    assert all(lake.frames("technical_indicators").partition(f"BTCUSDT/{month}") for month in MONTHS)
    # a temporary file of the killed writer may stay for a while, hidden and under no partition's name
    assert all(path.name.startswith(".") for path in market.lake_dir.rglob("*.tmp"))


def test_a_run_whose_process_was_killed_is_marked_as_failed_by_the_next_one(market: Settings) -> None:
    process = subprocess.Popen([sys.executable, "-c", MATERIALIZE, *ARGUMENTS], stderr=subprocess.DEVNULL)
    instance = dg.DagsterInstance.from_config(str(market.dagster_dir))
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    deadline = time.monotonic() + 60
    while not (running := instance.get_runs(started)):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)  # what is awaited is a row of another process
    process.kill()
    process.wait()
    with Runs(market):
        run = instance.get_run_by_id(running[0].run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.FAILURE
