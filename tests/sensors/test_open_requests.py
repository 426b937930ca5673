"""No request waits for a run that is over, hangs, or was never asked for; and each has one final answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import pytest

from mdplatform.requests.answer import AnswerBody, Progress, Status
from tests.sensors.conftest import Strategies, Ticks

BARS = {"bars": ["BTCUSDT/2025-01"]}


def finals(strategies: Strategies) -> list[AnswerBody]:
    return [body for _, body in strategies.replies() if isinstance(body, AnswerBody)]


@contextmanager
def queries_counted(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Count the reads of Dagster's storage."""
    asked: list[str] = []
    for name in ("get_runs", "get_run_records", "get_run_by_id", "get_records_for_run"):

        def counted(
            *given: object, _name: str = name, _real: object = getattr(instance, name), **named: object
        ) -> object:
            asked.append(_name)
            return _real(*given, **named)  # type: ignore[operator]

        monkeypatch.setattr(instance, name, counted)
    yield asked


def test_a_run_that_fails_gives_its_requests_back_with_its_error(
    strategies: Strategies, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MDPLATFORM_DATA_SOURCE", "binance")
    monkeypatch.setenv("MDPLATFORM_ARCHIVE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("MDPLATFORM_ARCHIVE_RETRIES", "0")
    id = strategies.want(BARS)
    run = ticks.execute(ticks.tick("data_requests").run_requests[0])
    assert run.status is dg.DagsterRunStatus.FAILURE
    ticks.sweep()
    (back,) = strategies.take()
    assert back.envelope.id == id
    assert back.note.startswith(f"run {run.run_id} failed: ")
    assert "http://127.0.0.1:9" in back.note
    assert "\n" not in back.note


def test_a_run_that_is_cancelled_gives_its_requests_back(strategies: Strategies, ticks: Ticks) -> None:
    strategies.want(BARS)
    (run,) = ticks.launch(ticks.tick("data_requests"), dg.DagsterRunStatus.STARTED)
    ticks.sweep()
    assert strategies.take() == []
    ticks.instance.report_run_canceled(run)
    ticks.sweep()
    assert [each.note for each in strategies.take()] == [f"run {run.run_id} was cancelled"]


def test_a_request_goes_back_only_when_all_its_runs_are_over(strategies: Strategies, ticks: Ticks) -> None:
    strategies.want({"bars": ["BTCUSDT/2025-01", "BTCUSDT/2025-03"]})
    first, second = ticks.launch(ticks.tick("data_requests"), dg.DagsterRunStatus.STARTED)
    ticks.instance.report_run_canceled(first)
    ticks.sweep()
    assert strategies.take() == []
    ticks.instance.report_run_failed(second, "The disk is full.")
    ticks.sweep()
    (back,) = strategies.take()
    assert f"run {first.run_id} was cancelled" in back.note
    assert "The disk is full." in back.note


def test_a_run_that_ended_in_success_without_the_data_gives_its_requests_back(
    strategies: Strategies, ticks: Ticks
) -> None:
    strategies.want(BARS)
    (run,) = ticks.launch(ticks.tick("data_requests"), dg.DagsterRunStatus.SUCCESS)
    ticks.sweep()
    assert [each.note for each in strategies.take()] == [f"run {run.run_id} ended without it"]


def test_who_asks_again_for_what_a_run_just_could_not_bring_is_answered_without_another(
    strategies: Strategies, ticks: Ticks
) -> None:
    strategies.want(BARS)
    (run,) = ticks.launch(ticks.tick("data_requests"), dg.DagsterRunStatus.FAILURE)
    ticks.sweep()
    strategies.take()
    late = strategies.want(BARS)
    assert ticks.tick("data_requests").run_requests == []
    ticks.sweep()
    assert [(each.envelope.id, run.run_id in each.note) for each in strategies.take()] == [(late, True)]


def test_a_run_that_hangs_is_answered_for_at_the_deadline_once(strategies: Strategies, ticks: Ticks) -> None:
    strategies.want(BARS, seconds=0.5)
    ticks.cursors["open_requests"] = None
    data = ticks.tick("data_requests")
    (run,) = ticks.launch(data, dg.DagsterRunStatus.STARTED)
    answers: list[AnswerBody] = []
    for _ in range(30):
        ticks.tick("open_requests")
        answers += finals(strategies)
        if answers:
            break
    ticks.tick("open_requests")
    (answer,) = [*answers, *finals(strategies)]
    assert answer.status is Status.FAILED
    assert answer.problem is not None
    assert answer.problem.cause == f"The deadline has passed while run {run.run_id} was under way"
    assert strategies.take() == []


def test_what_was_read_but_never_run_is_wanted_anew(strategies: Strategies, ticks: Ticks) -> None:
    id = strategies.want(BARS)
    ticks.tick("open_requests")
    assert strategies.take() == []  # the sensor has not read it yet
    ticks.tick("data_requests")  # its runs are lost
    ticks.tick("open_requests")
    assert strategies.take() == []  # it may be starting them
    ticks.tick("data_requests")
    ticks.tick("open_requests")
    (back,) = strategies.take()
    assert (back.envelope.id, back.note) == (id, "")


def test_a_tick_that_is_lost_or_comes_twice_changes_nothing(strategies: Strategies, ticks: Ticks) -> None:
    strategies.want(BARS)
    ticks.launch(ticks.tick("data_requests"), dg.DagsterRunStatus.SUCCESS)
    ticks.tick("data_requests")
    ticks.evaluate("open_requests")
    ticks.evaluate("open_requests")
    ticks.sweep()
    (back,) = strategies.take()
    assert back.returned


def test_a_standing_request_is_given_back_once_when_its_runs_are_over(strategies: Strategies, ticks: Ticks) -> None:
    id = strategies.want(BARS, standing=True)
    (run,) = ticks.launch(ticks.tick("data_requests"), dg.DagsterRunStatus.STARTED)
    ticks.sweep()
    ticks.instance.report_run_canceled(run)
    ticks.sweep()
    (back,) = strategies.take()
    assert back.envelope.id == id
    strategies.park(back, BARS)
    ticks.sweep()
    assert strategies.take() == []


def test_who_waits_is_told_once_that_the_run_has_started(strategies: Strategies, ticks: Ticks) -> None:
    id = strategies.want(BARS)
    (run,) = ticks.launch(ticks.tick("data_requests"), dg.DagsterRunStatus.STARTED)
    ticks.sweep()
    ticks.sweep()
    told = [(id, body.stage, body.run_id) for id, body in strategies.replies() if isinstance(body, Progress)]
    assert told == [(id, "run_requested", ""), (id, "run_started", run.run_id)]


def test_thousands_of_open_requests_cost_a_tick_a_few_queries(
    strategies: Strategies, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategies.want_many([f"strategy-{number}" for number in range(2_000)], BARS)
    data = ticks.tick("data_requests")
    assert len(data.run_requests) == 1
    ticks.launch(data, dg.DagsterRunStatus.SUCCESS)
    ticks.tick("data_requests")
    with queries_counted(ticks.instance, monkeypatch) as asked:
        ticks.tick("open_requests")
    assert asked == ["get_runs"]
    assert len(strategies.take()) == 2_000


def test_nothing_goes_back_while_the_tick_that_read_it_may_be_making_runs_for_the_rest(
    strategies: Strategies, ticks: Ticks
) -> None:
    strategies.want(BARS)
    (first,) = ticks.launch(ticks.tick("data_requests"), dg.DagsterRunStatus.STARTED)
    ticks.sweep()
    id = strategies.want({"bars": ["BTCUSDT/2025-01", "BTCUSDT/2025-02"]})
    data = ticks.tick("data_requests")
    ticks.instance.report_run_failed(first, "The disk is full.")
    ticks.tick("open_requests")  # in a thread of its own, while the daemon makes the run for the second month
    assert id not in [each.envelope.id for each in strategies.take()]
    (second,) = ticks.launch(data, dg.DagsterRunStatus.STARTED)
    ticks.sweep()
    assert strategies.take() == []
    ticks.instance.report_run_canceled(second)
    ticks.sweep()
    assert [each.envelope.id for each in strategies.take()] == [id]
