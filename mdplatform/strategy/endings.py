"""The final answers that the strategy's side gives itself: not admitted, cancelled, overdue, lost."""

from __future__ import annotations

import time

from mdplatform.requests.answer import AnswerBody, Problem, Status
from mdplatform.requests.request import RequestType
from mdplatform.strategy.pending import Pending

_OF_RUNS = ("waiting_for_run", "run_requested", "run_started")
"""The stages in which a request waits for a run."""


def refused(pending: Pending, open_now: int, retry_after_seconds: float) -> AnswerBody:
    """Say that too many requests are open."""
    problem = Problem(
        error="RequestRejected",
        cause="Too many requests are in flight",
        value=str(open_now),
        remedy=f"Send it again, with another id, after {retry_after_seconds:g} s, or with a higher priority",
        retry_after_seconds=retry_after_seconds,
    )
    return _ending(pending, Status.REJECTED, problem)


def taken(pending: Pending) -> AnswerBody:
    """Say that another request has its id."""
    problem = Problem(
        error="InvalidRequest",
        cause="The id of another request",
        field="request_id",
        value=pending.id,
        remedy="Give each request an id of its own, or none",
    )
    return _ending(pending, Status.REJECTED, problem)


def cancelled(pending: Pending) -> AnswerBody:
    """Say that the strategy does not want it any more; for a standing request that is a good end."""
    if pending.is_standing:
        return _ending(pending, Status.OK, None)
    return _ending(pending, Status.FAILED, Problem(error="Cancelled", cause="The request was cancelled"))


def overdue(pending: Pending, *, unreachable: bool = False) -> AnswerBody:
    """Say that the deadline has passed; for a standing request that is a good end."""
    if pending.is_standing and not unreachable:
        return _ending(pending, Status.OK, None)
    cause, remedy = "The deadline has passed", "Is a worker running (`mdplatform worker`)? Or set a later deadline"
    waits = pending.progress
    if waits is not None and waits.stage in _OF_RUNS:
        cause = f"The deadline has passed while it waited for {f'run {waits.run_id}' if waits.run_id else 'a run'}"
        remedy = "The run goes on: ask again when it is over, or set a later deadline"
        if not waits.run_id:
            remedy = "Does Dagster run (`mdplatform ui`)? Ask again with a later deadline"
    if unreachable:
        cause = "The deadline has passed, and the server that carries requests does not answer"
        remedy = "`mdplatform doctor` says what can be reached"
    return _ending(pending, Status.FAILED, Problem(error="DeadlinePassed", cause=cause, remedy=remedy))


def lost(pending: Pending, cause: str) -> AnswerBody:
    """Say that there is an answer, or was one, which cannot be given."""
    problem = Problem(error="AnswerLost", cause=cause, remedy="Send the request again, with another id")
    return _ending(pending, Status.FAILED, problem)


def _ending(pending: Pending, status: Status, problem: Problem | None) -> AnswerBody:
    return AnswerBody(
        request_id=pending.id,
        strategy_id=pending.strategy_id,
        type=pending.shown.type or RequestType.TECHNICAL_INDICATORS,
        status=status,
        problem=problem,
        worker="strategy",
        answered_at=time.time_ns() // 1000,
    )
