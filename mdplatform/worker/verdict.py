"""The verdict on an outcome: answer now, wait for a run, or, for a standing request, tell and wait for the next bar.

1. What misses partitions that a run could fetch waits for the run, unless its runs are said to be over (the note of the
   delivery) or there are no runs at all: then it is answered with what there is.
2. A standing request with values is told them, and waits for its needs. It asks for runs once: what they cannot
   bring is not asked for again at each bar. Without values it waits for a run like any other, or ends. What was told
   last is not told again; a correction of it is, under a higher number, though no bar has come. Where more bars have
   come since than it asks for, the update is to have all of their rows (`rows_since`).
3. Everything else is a final answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from mdplatform.market.timeframe import Timeframe
from mdplatform.messaging.transport import Delivery
from mdplatform.requests.answer import AnswerBody, Missing, Status
from mdplatform.requests.request import DataRequest, Refresh
from mdplatform.requests.wanted import RunWanted
from mdplatform.worker.evaluator import Outcome

MOST_SINCE = 500
"""Rows of an update that comes after many bars, if no more are asked for."""


@dataclass(frozen=True)
class Verdict:
    """What to do: settle with `final`; else tell the `update` if there is one, and park, wanting a run or not.

    `mark` tells the update's content from that of others.
    """

    final: AnswerBody | None = None
    update: AnswerBody | None = None
    mark: str = ""
    wanted: RunWanted | None = None


def judge(delivery: Delivery, request: DataRequest, outcome: Outcome, *, has_runs: bool) -> Verdict:
    """Say what becomes of a request with that outcome."""
    body = outcome.body
    wanted = outcome.wanted if has_runs and not delivery.note else None
    if request.refresh is Refresh.ON_CLOSE and body.status in (Status.OK, Status.PARTIAL) and outcome.needs:
        if outcome.watermark == 0:
            return Verdict(wanted=wanted)
        wanted = None if delivery.returned else wanted
        mark = marked(outcome)
        if mark == delivery.mark or is_older(outcome, delivery.mark):
            return Verdict(wanted=wanted)
        update = msgspec.structs.replace(body, final=False, number=max(outcome.watermark, delivery.told + 1))
        return Verdict(update=update, mark=mark, wanted=wanted)
    if wanted is not None:
        return Verdict(wanted=wanted)
    return Verdict(final=_explained(body, delivery.note))


def rows_since(delivery: Delivery, request: DataRequest, outcome: Outcome) -> int | None:
    """Give how many rows an update needs to have all that came since the last one; None if those asked for will do.

    It counts bars of the shortest timeframe, and at most `MOST_SINCE`.
    """
    told = delivery.mark.partition(":")[0]
    if not told or request.latest is None or not request.timeframes:
        return None
    step = min(Timeframe(each).microseconds for each in request.timeframes)
    rows = min(MOST_SINCE, -(-(outcome.watermark - int(told)) // step))
    return rows if rows > request.latest else None


def marked(outcome: Outcome) -> str:
    """Give the mark of an outcome: its watermark, and a digest of the values in it and of what is missing."""
    digest = blake2b(digest_size=16)
    for part in outcome.body.parts:
        digest.update(repr((part.symbol, part.timeframe, part.feature, part.method, len(part.data))).encode())
        digest.update(part.data)
    for each in outcome.body.missing:
        digest.update(repr((each.symbol, each.timeframe, each.feature)).encode())
    return f"{outcome.watermark}:{digest.hexdigest()}"


def is_older(outcome: Outcome, mark: str) -> bool:
    """Tell whether the outcome lacks a row that the one of that mark had: whoever made it looked too early."""
    watermark = mark.partition(":")[0]
    return bool(watermark) and outcome.watermark < int(watermark)


def _explained(body: AnswerBody, note: str) -> AnswerBody:
    """Add to an answer that lacks something how the runs ended that were to fetch it."""
    if not note or body.status is Status.OK:
        return body
    if body.problem is not None:
        return msgspec.structs.replace(
            body, problem=msgspec.structs.replace(body.problem, cause=f"{body.problem.cause} ({note})")
        )
    return msgspec.structs.replace(body, missing=(*body.missing, Missing(cause=note)))
