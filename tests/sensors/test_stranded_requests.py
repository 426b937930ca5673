"""Where no worker lives, a run stands in as one."""

from __future__ import annotations

import dagster as dg
import pytest

from mdplatform.requests import making
from mdplatform.requests.answer import AnswerBody, Status
from mdplatform.sensors import stranded_requests as sensor
from tests.conftest import Market
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


def test_the_run_answers_as_a_worker_does_and_ends_when_nothing_is_left(
    strategies: Strategies, ticks: Ticks, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensor, "_NOTHING_LEFT_SECONDS", 0.5)
    market.walk("BTCUSDT", 200)
    request = making.make(
        "TECHNICAL_INDICATORS", strategy_id="momentum", symbols=["BTCUSDT"], indicators=["RSI"], timeframes=["15m"]
    )
    strategies.ask(request)
    run = ticks.execute(ticks.tick("stranded_requests").run_requests[0])
    assert run.is_success
    (answer,) = [body for _, body in strategies.replies() if isinstance(body, AnswerBody)]
    assert answer.status is Status.OK
    assert answer.worker == f"run-{run.run_id[:8]}"
    assert ticks.tick("stranded_requests").run_requests == []


def test_the_run_ends_when_a_worker_lives(strategies: Strategies, ticks: Ticks) -> None:
    strategies.want({"bars": ["BTCUSDT/2025-01"]})  # parked: there is work left until its run is over
    strategies.send()
    (request,) = ticks.tick("stranded_requests").run_requests
    strategies.beat()
    assert ticks.execute(request).is_success
