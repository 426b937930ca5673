"""Where no worker lives, a run stands in as one."""

from __future__ import annotations

import dagster as dg
import pytest

from mdplatform.sensors import stranded_requests as sensor
from tests.sensors.conftest import Strategies, Ticks


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensor, "IDLE_SECONDS", 0.0)


def test_a_request_that_nobody_takes_has_a_run_stand_in(strategies: Strategies, ticks: Ticks) -> None:
    id = strategies.send()
    (request,) = ticks.tick("stranded_requests").run_requests
    assert request.tags[f"mdplatform.request/{id}"] == id
    assert request.run_key.startswith(id)


def test_one_run_stands_in_at_a_time(strategies: Strategies, ticks: Ticks) -> None:
    strategies.send()
    (run,) = ticks.launch(ticks.tick("stranded_requests"), dg.DagsterRunStatus.STARTED)
    assert ticks.tick("stranded_requests").skip_message == "A run stands in already."
    ticks.instance.report_run_failed(run)
    assert len(ticks.tick("stranded_requests").run_requests) == 1


def test_living_workers_are_left_to_their_work(strategies: Strategies, ticks: Ticks) -> None:
    strategies.send()
    strategies.beat()
    assert "1 workers live" in ticks.tick("stranded_requests").skip_message
