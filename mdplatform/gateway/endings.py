"""The final answers that the gateway gives by itself."""

from __future__ import annotations

import time

from mdplatform.messaging.transport import Record
from mdplatform.requests.answer import AnswerBody, Problem, Status
from mdplatform.requests.request import RequestType
from mdplatform.requests.wire import type_of


def cancelled(record: Record) -> AnswerBody:
    """Give the final answer of a request that its sender cancelled; for a standing request that is a good end."""
    problem = None if record.standing else Problem(error="Cancelled", cause="The request was cancelled")
    return AnswerBody(
        request_id=record.id,
        strategy_id=record.strategy,
        type=type_of(record.body),
        status=Status.FAILED if problem else Status.OK,
        problem=problem,
        worker="gateway",
        answered_at=time.time_ns() // 1000,
    )


def lost(id: str, strategy: str, type: RequestType) -> AnswerBody:
    """Give what is told in the place of a final answer that cannot be had any more."""
    return AnswerBody(
        request_id=id,
        strategy_id=strategy,
        type=type,
        status=Status.FAILED,
        problem=Problem(
            error="AnswerLost", cause="The answer is no longer kept", remedy="Send the request again, with another id"
        ),
        worker="gateway",
        answered_at=time.time_ns() // 1000,
    )
