"""The final answers that a worker gives without any values: refused, failed, expired."""

from __future__ import annotations

import re
import time

import msgspec

from mdplatform.errors import PlatformError
from mdplatform.messaging.transport import Envelope, Record
from mdplatform.requests.answer import AnswerBody, Problem, Status
from mdplatform.requests.request import DataRequest
from mdplatform.requests.wire import type_of
from mdplatform.worker.telling import problem_of

_LONGEST_VALUE = 200
_PLACE = re.compile(r"at `\$\.([^`]+)`")


def refused(envelope: Envelope, error: PlatformError, request: DataRequest | None = None) -> AnswerBody:
    """Say which field of a request was refused, what it was and what is allowed."""
    problem = problem_of(error)
    place = _PLACE.search(error.cause)
    if place is not None and not problem.field:  # of what was no request at all
        problem = msgspec.structs.replace(problem, field=place[1])
    if len(problem.value) > _LONGEST_VALUE:
        problem = msgspec.structs.replace(problem, value=f"{problem.value[:_LONGEST_VALUE]}…")
    return _ending(envelope, Status.REJECTED, problem, request)


def crashed(envelope: Envelope, failure: BaseException, request: DataRequest | None = None) -> AnswerBody:
    """Say that answering failed in a way that nobody foresaw."""
    told = " ".join(f"{type(failure).__name__}: {failure}".split())[:_LONGEST_VALUE]
    problem = Problem(
        error="WorkerFailure",
        cause=f"The worker failed at this request ({told})",
        remedy="Its log has the details under the request's id; other requests are not affected",
    )
    return _ending(envelope, Status.FAILED, problem, request)


def deadly(envelope: Envelope, attempts: int) -> AnswerBody:
    """Say that nobody survived a request."""
    problem = Problem(
        error="WorkerFailure",
        cause=f"{attempts} workers ended while they had this request",
        remedy="It is in the dead letters; ask for less at once, and look into the workers' logs",
    )
    return _ending(envelope, Status.FAILED, problem)


def oversized(envelope: Envelope, size: int, limit: int, request: DataRequest | None = None) -> AnswerBody:
    """Say that an answer is too large to be sent."""
    problem = Problem(
        error="AnswerTooLarge",
        cause=f"The answer has {size / 1e6:.0f} MB, and at most {limit / 1e6:.0f} MB are sent",
        remedy="Ask for fewer rows, symbols or features at once; the reader's `frame` gives long histories",
    )
    return _ending(envelope, Status.FAILED, problem, request)


def unsendable(envelope: Envelope, size: int, failure: BaseException, request: DataRequest | None = None) -> AnswerBody:
    """Say that the transport does not take an answer."""
    told = " ".join(f"{type(failure).__name__}: {failure}".split())[:_LONGEST_VALUE]
    problem = Problem(
        error="AnswerRefused",
        cause=f"The server that carries requests refused the answer of {size:,} bytes ({told})",
        remedy="Ask for fewer rows, symbols or features at once; `mdplatform doctor` shows the server's memory",
    )
    return _ending(envelope, Status.FAILED, problem, request)


def expired(about: Envelope | Record) -> AnswerBody:
    """Say that the deadline has passed; for a standing request that is a good end."""
    if about.standing:
        return _ending(about, Status.OK, None)
    cause = "The deadline has passed"
    remedy = "Send it again with a later deadline; `mdplatform requests` shows what is waiting, and where"
    if isinstance(about, Record) and about.stage == "parked":
        cause = f"The deadline has passed while it waited for a run to bring {about.holder}"
        remedy = "The run goes on, if Dagster runs (`mdplatform ui` shows it): ask again when it is over"
    problem = Problem(error="DeadlinePassed", cause=cause, remedy=remedy)
    return _ending(about, Status.FAILED, problem)


def _ending(
    about: Envelope | Record, status: Status, problem: Problem | None, request: DataRequest | None = None
) -> AnswerBody:
    type = type_of(about.body) if request is None else request.type
    return AnswerBody(
        request_id=about.id,
        strategy_id=about.strategy,
        type=type,
        status=status,
        problem=problem,
        answered_at=time.time_ns() // 1000,
    )
