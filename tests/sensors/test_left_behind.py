"""Runs whose process was killed: they are marked as failed, and nobody else's are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData

from mdplatform.sensors.left_behind import LEFT_BEHIND, PROCESS_TAG, fail_dead, fail_left_behind
from tests.sensors.conftest import Strategies, Ticks

BARS = {"bars": ["BTCUSDT/2025-01"]}


@pytest.fixture
def dead_process() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


@pytest.fixture
def started(strategies: Strategies, ticks: Ticks, tmp_path: Path) -> Callable[[int | None, Path], dg.DagsterRun]:
    """Make a run that a code server has launched, and that has logged its process."""

    def make(process: int | None, server: Path) -> dg.DagsterRun:
        strategies.want(BARS)
        (run,) = ticks.launch(ticks.tick("data_requests"), dg.DagsterRunStatus.STARTED)
        ticks.instance.add_run_tags(
            run.run_id, {".dagster/grpc_info": f'{{"host": "localhost", "socket": "{server}"}}'}
        )
        if process is not None:
            ticks.instance.report_engine_event("Started process for run.", run, EngineEventData.in_process(process))
        return run

    return make


def test_a_run_whose_process_and_code_server_are_gone_is_marked_and_its_requests_want_it_anew(
    strategies: Strategies,
    ticks: Ticks,
    started: Callable[[int | None, Path], dg.DagsterRun],
    dead_process: int,
    tmp_path: Path,
) -> None:
    run = started(dead_process, tmp_path / "gone")
    assert fail_left_behind(ticks.instance) == []  # a command does not judge what ran elsewhere
    assert ticks.tick("left_behind").skip_message == f"Marked as failed: {run.run_id}"
    failed = ticks.instance.get_run_by_id(run.run_id)
    assert failed is not None
    assert failed.status is dg.DagsterRunStatus.FAILURE
    assert LEFT_BEHIND.items() <= failed.tags.items()
    ticks.sweep()
    (back,) = strategies.take()
    assert back.note == ""
    strategies.park(back, BARS)
    (again,) = ticks.launch(ticks.tick("data_requests"), dg.DagsterRunStatus.STARTED)
    assert again.run_id != run.run_id
    assert f"mdplatform.request/{back.envelope.id}" in again.tags


def test_a_standing_request_wants_a_run_that_was_left_behind_anew_once(
    strategies: Strategies,
    ticks: Ticks,
    started: Callable[[int | None, Path], dg.DagsterRun],
    dead_process: int,
    tmp_path: Path,
) -> None:
    run = started(dead_process, tmp_path / "gone")
    standing = strategies.want(BARS, standing=True)
    ticks.tick("data_requests")  # it joins
    assert fail_dead(ticks.instance) == [run.run_id]
    ticks.sweep()
    (back,) = [each for each in strategies.take() if each.envelope.id == standing]
    strategies.park(back, {"bars": ["ETHUSDT/2025-01"]})
    ticks.sweep()
    ticks.sweep()
    assert standing not in [each.envelope.id for each in strategies.take()]


def test_a_run_that_was_launched_and_never_began_is_marked(
    ticks: Ticks, started: Callable[[int | None, Path], dg.DagsterRun], tmp_path: Path
) -> None:
    run = started(None, tmp_path / "gone")
    assert fail_dead(ticks.instance) == [run.run_id]


def test_a_run_goes_on_whose_code_server_or_process_lives(
    ticks: Ticks, started: Callable[[int | None, Path], dg.DagsterRun], dead_process: int, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        run = started(dead_process, tmp_path / "s")
        assert fail_dead(ticks.instance) == []  # its code server will say so itself
    words = "import multiprocessing, sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", words], stdin=subprocess.PIPE) as living:
        ticks.instance.report_engine_event("Resumed.", run, EngineEventData.in_process(living.pid))
        ticks.instance.delete_run(run.run_id)
        started(living.pid, tmp_path / "gone")
        assert fail_dead(ticks.instance) == []


def test_a_number_that_another_process_has_got_is_no_sign_of_life(
    ticks: Ticks, started: Callable[[int | None, Path], dg.DagsterRun], tmp_path: Path
) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        run = started(other.pid, tmp_path / "gone")
        assert fail_dead(ticks.instance) == [run.run_id]


def test_runs_that_were_not_launched_or_run_in_a_command_that_lives_are_left_alone(
    strategies: Strategies, ticks: Ticks
) -> None:
    strategies.want(BARS)
    (run,) = ticks.launch(ticks.tick("data_requests"))
    ticks.instance.add_run_tags(run.run_id, {PROCESS_TAG: f"{socket.gethostname()}:{os.getpid()}"})
    assert ticks.tick("left_behind").skip_message == "Nothing was left behind."
