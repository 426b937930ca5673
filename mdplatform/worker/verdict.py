"""The verdict on an outcome: answer now, wait for a run, or, for a standing request, tell and wait for the next bar.

1. What misses partitions that a run could fetch waits for the run, unless its runs are said to be over (the note of the
   delivery) or there are no runs at all: then it is answered with what there is.
2. A standing request with values is told them, and waits for its needs. It asks for runs once: what they cannot
   bring is not asked for again at each bar. Without values it waits for a run like any other, or ends.
3. Everything else is a final answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mdplatform.messaging.transport import Delivery
from mdplatform.requests.answer import AnswerBody, Missing, Status
from mdplatform.requests.request import DataRequest, Refresh
from mdplatform.requests.wanted import RunWanted
from mdplatform.worker.evaluator import Outcome


@dataclass(frozen=True)
class Verdict:
    """What to do: settle with `final`; else tell the `update` if there is one, and park, wanting a run or not."""

    final: AnswerBody | None = None
    update: AnswerBody | None = None
    wanted: RunWanted | None = None


def judge(delivery: Delivery, request: DataRequest, outcome: Outcome, *, has_runs: bool) -> Verdict:
    """Say what becomes of a request with that outcome."""
    body = outcome.body
    wanted = outcome.wanted if has_runs and not delivery.note else None
    if request.refresh is Refresh.ON_CLOSE and body.status in (Status.OK, Status.PARTIAL) and outcome.needs:
        number = numbered(outcome)
        if number == 0:
            return Verdict(wanted=wanted)
        update = msgspec.structs.replace(body, final=False, number=number)
        return Verdict(update=update, wanted=None if delivery.returned else wanted)
    if wanted is not None:
        return Verdict(wanted=wanted)
    return Verdict(final=_explained(body, delivery.note))


def numbered(outcome: Outcome) -> int:
    """Give the number of a standing request's answer: it grows with each new bar of each of its parts.

    It is the newest `available_at`, and one more for each part that has come so far: a second symbol whose bar of the
    same instant arrives later is a new answer too. 0 if there are no rows.
    """
    if outcome.watermark == 0:
        return 0
    return outcome.watermark + sum(part.available_at == outcome.watermark for part in outcome.body.parts)


def _explained(body: AnswerBody, note: str) -> AnswerBody:
    """Add to an answer that lacks something how the runs ended that were to fetch it."""
    if not note or body.status is Status.OK:
        return body
    if body.problem is not None:
        return msgspec.structs.replace(
            body, problem=msgspec.structs.replace(body.problem, cause=f"{body.problem.cause} ({note})")
        )
    return msgspec.structs.replace(body, missing=(*body.missing, Missing(cause=note)))
