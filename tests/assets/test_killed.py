"""A materialization that is killed leaves no half file, and the next one completes it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg

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


def killed_when(has_come: Callable[[], bool]) -> None:
    """Start a materialization, and kill it at a moment."""
    process = subprocess.Popen([sys.executable, "-c", MATERIALIZE, *ARGUMENTS], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not has_come():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)  # what is awaited is a file of another process
    process.kill()
    process.wait()


def check_files(settings: Settings) -> None:
    """See that each file under a partition's name is whole."""
    for path in written(settings):
        partition = Partition.open(path)
        assert partition is not None
        for group in partition.header.groups:
            assert len(partition.read(group)) == partition.header.groups[group].rows


def test_runs_killed_at_any_moment_leave_whole_files_are_marked_as_failed_by_the_next_and_completed(
    market: Settings,
) -> None:
    instance = dg.DagsterInstance.from_config(str(market.dagster_dir))
    begun = market.lake_dir / "technical_indicators"

    def statuses() -> list[dg.DagsterRunStatus]:
        return [instance.get_run_by_id(each).status for each in killed]  # type: ignore[union-attr]

    killed: list[str] = []
    moments = {
        "first file begun": begun.exists,
        "second file written": lambda: len(written(market)) >= 2,
    }
    for moment, has_come in moments.items():
        killed_when(has_come)
        # the one that was killed before this one was seen by it
        assert statuses() == [dg.DagsterRunStatus.FAILURE] * len(killed)
        left = [each.run_id for each in instance.get_runs(STARTED)]
        assert left or moment != "first file begun"
        killed += left
        check_files(market)
        if moment == "first file begun":
            shutil.rmtree(begun)
    with Runs(market) as runs:
        assert statuses() == [dg.DagsterRunStatus.FAILURE] * len(killed)
        assert len(runs.materialize(["bars", "technical_indicators"], {"BTCUSDT": MONTHS})) == 6
    lake = Lake(market.lake_dir)
    assert all(lake.frames("technical_indicators").partition(f"BTCUSDT/{month}") for month in MONTHS)
    # a temporary file of the killed writer may stay for a while, hidden and under no partition's name
    assert all(path.name.startswith(".") for path in market.lake_dir.rglob("*.tmp"))
