"""Answering one request: from a delivery in hand to its end, which is settled, parked or buried.

1. What had killed three workers is buried and answered `failed`; what is past its deadline is answered so.
2. What is no request is buried, and answered `rejected`, as is what `making.check` refuses.
3. The evaluator gives an outcome until the deadline; `verdict` says what becomes of it.
4. What was computed goes into the outbox of lineage, after the answer.

Whatever goes wrong, the asker is told: also if its answer is too large, or the transport refuses it. Nothing is raised
but a refusal of that, too.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import msgspec

from mdplatform.errors import InvalidRequest, PlatformError, TransportRefused
from mdplatform.messaging.transport import Answerer, BadDelivery, Delivery, Envelope, Record, Wanted
from mdplatform.requests import making, wanted, wire
from mdplatform.requests.answer import AnswerBody, Progress
from mdplatform.requests.request import DataRequest, Refresh
from mdplatform.worker import endings
from mdplatform.worker.counts import Counts
from mdplatform.worker.evaluator import Evaluator, Outcome
from mdplatform.worker.events import Events
from mdplatform.worker.outbox import Outbox
from mdplatform.worker.patience import Patience, is_cancelled
from mdplatform.worker.settler import Settler
from mdplatform.worker.verdict import Verdict, judge, rows_since

MOST_ATTEMPTS = 3
LARGEST_ANSWER_BYTES = 64_000_000
"""What one answer may have, encoded; a larger one is replaced by one that says so."""


class _TooLate(Exception):
    """The deadline passed while a request was evaluated."""


class _Unsendable(Exception):
    """An answer that cannot be sent, and the one to be sent instead."""

    def __init__(self, instead: AnswerBody) -> None:
        self.instead = instead


class Answering:
    """Brings deliveries to their end, each in the task that calls it."""

    def __init__(
        self,
        answerer: Answerer,
        evaluator: Evaluator,
        *,
        worker: str,
        counts: Counts,
        events: Events,
        patience: Patience,
    ) -> None:
        self.outbox = Outbox()
        self.settler = Settler(answerer, patience, events)
        self._answerer = answerer
        self._evaluator = evaluator
        self._worker = worker
        self._counts = counts
        self._events = events
        self._patience = patience

    async def handle(self, delivery: Delivery, taken_at: int) -> None:
        """Bring a delivery to an end: settled, parked or buried."""
        envelope, request = delivery.envelope, None
        if delivery.attempt > MOST_ATTEMPTS:
            reason = f"{MOST_ATTEMPTS} workers ended while they had it"
            await self.bury(delivery, reason, endings.deadly(envelope, MOST_ATTEMPTS))
            return
        if envelope.deadline <= taken_at:
            self._counts.expired += await self._settle(delivery, endings.expired(envelope), taken_at)
            return
        try:
            request = wire.decode_request(envelope.body)
        except InvalidRequest as refused:
            await self.bury(delivery, str(refused), endings.refused(envelope, refused))
            return
        try:
            checked = _checked(request, envelope)
            outcome = await self._evaluate(delivery, checked)
            verdict = judge(delivery, checked, outcome, has_runs=self._answerer.has_runs)
            verdict = await self._with_all_since(delivery, checked, outcome, verdict)
        except PlatformError as refused:
            await self._settle(delivery, endings.refused(envelope, refused, request), taken_at)
        except _TooLate:
            self._counts.expired += await self._settle(delivery, endings.expired(envelope), taken_at)
        except (Exception, asyncio.CancelledError) as failure:  # whatever it was, its asker is told
            if is_cancelled(failure):
                raise
            self._counts.failures += 1
            self._events.failed("request_failed", failure, **told_of(delivery))
            await self._settle(delivery, endings.crashed(envelope, failure, request), taken_at)
        else:
            try:
                await self._act(delivery, checked, verdict, outcome, taken_at)
            except _Unsendable as refused:
                await self._settle(delivery, refused.instead, taken_at, checked)
            self.outbox.add(outcome.made)

    async def _evaluate(self, delivery: Delivery, request: DataRequest) -> Outcome:
        """Give the outcome; raises `_TooLate` at the deadline."""
        runs_over = (request.request_id,) if delivery.note else ()
        timer = asyncio.timeout((delivery.envelope.deadline - now()) / 1e6)
        try:
            async with timer:
                return (await self._evaluator.evaluate([request], runs_over, {request.request_id: delivery.runs}))[0]
        except TimeoutError:
            if timer.expired():
                raise _TooLate from None
            raise

    async def _with_all_since(
        self, delivery: Delivery, request: DataRequest, outcome: Outcome, verdict: Verdict
    ) -> Verdict:
        """Give an update the rows of all bars since the last one, so that none is missed when they come quickly.

        Its mark stays that of the rows asked for, by which the next one is compared.
        """
        rows = None if verdict.update is None else rows_since(delivery, request, outcome)
        if verdict.update is None or rows is None:
            return verdict
        longer = (await self._evaluate(delivery, msgspec.structs.replace(request, latest=rows))).body
        if not longer.parts:
            return verdict
        update = msgspec.structs.replace(
            verdict.update, status=longer.status, parts=longer.parts, missing=longer.missing
        )
        return replace(verdict, update=update)

    async def _act(
        self, delivery: Delivery, request: DataRequest, verdict: Verdict, outcome: Outcome, taken_at: int
    ) -> None:
        id = delivery.envelope.id
        if verdict.final is not None:
            await self._settle(delivery, verdict.final, taken_at, request)
            return
        if verdict.update is not None:
            update = self._finished(delivery, verdict.update, taken_at)
            body = _encoded(delivery.envelope, update, request)
            try:
                self._counts.told += await self._patience.insist(
                    lambda: self._answerer.tell(id, body, number=update.number, mark=verdict.mark)
                )
            except TransportRefused as refused:
                raise _Unsendable(endings.unsendable(delivery.envelope, len(body), refused, request)) from None
        wants = None
        if verdict.wanted is not None:
            wants = Wanted(body=wanted.encode(verdict.wanted), needs=wanted.needs(verdict.wanted))
            waiting = wire.encode_reply(Progress(request_id=id, stage="waiting_for_run", at=now()))
            try:
                await self._patience.insist(lambda: self._answerer.tell(id, waiting))
            except TransportRefused as refused:  # it was only news
                self._events.warn("progress_lost", cause=str(refused), **told_of(delivery))
        await self._patience.insist(lambda: self._answerer.park(delivery, outcome.needs, wants))
        self._counts.parked += 1

    async def expire(self, record: Record) -> None:
        """Answer what is past its deadline, wherever it is."""
        body = endings.expired(record)
        if await self.settler.settle(record.priority.rank, record.id, wire.encode_reply(self._signed(body))):
            self._counts.expired += 1
            self._counts.answered[body.status] += 1

    async def _settle(
        self, delivery: Delivery, body: AnswerBody, taken_at: int, request: DataRequest | None = None
    ) -> bool:
        """Give the final answer, or say why it cannot be sent. False if there was one already."""
        envelope = delivery.envelope
        try:
            body = self._finished(delivery, body, taken_at)
            raw = _encoded(envelope, body, request)
            try:
                was_first = await self.settler.settle(envelope.priority.rank, envelope.id, raw, delivery)
            except TransportRefused as refused:
                self._events.failed("answer_refused", refused, **told_of(delivery))
                raise _Unsendable(endings.unsendable(envelope, len(raw), refused, request)) from None
        except _Unsendable as unsendable:
            body = self._finished(delivery, unsendable.instead, taken_at)
            raw = wire.encode_reply(body)
            was_first = await self.settler.settle(envelope.priority.rank, envelope.id, raw, delivery)
        if was_first:
            self._counts.answered[body.status] += 1
        else:
            self._counts.superseded += 1
        return was_first

    async def bury(self, each: Delivery | BadDelivery, reason: str, body: AnswerBody | None = None) -> None:
        """Put a delivery into the dead letters, and answer it if there is something to say."""
        self._events.warn("buried", reason=reason, **told_of(each))
        raw = None if body is None else wire.encode_reply(body)
        await self._patience.insist(lambda: self._answerer.bury(each, reason, raw))
        self._counts.buried += 1
        if body is not None:
            self._counts.answered[body.status] += 1

    def _finished(self, delivery: Delivery, body: AnswerBody, taken_at: int) -> AnswerBody:
        """Add who answered, when, and how long the request had waited before it was taken."""
        waited = "run" if delivery.returned else "queue"
        before = max(0, taken_at - delivery.envelope.sent_at) / 1000  # clocks of two machines differ
        return self._signed(msgspec.structs.replace(body, timings_ms={waited: before, **body.timings_ms}))

    def _signed(self, body: AnswerBody) -> AnswerBody:
        return msgspec.structs.replace(body, worker=self._worker, answered_at=now())


def _encoded(envelope: Envelope, body: AnswerBody, request: DataRequest | None) -> bytes:
    """Give an answer's bytes; raises `_Unsendable` if they are too many."""
    raw = wire.encode_reply(body)
    if len(raw) > LARGEST_ANSWER_BYTES:
        raise _Unsendable(endings.oversized(envelope, len(raw), LARGEST_ANSWER_BYTES, request))
    return raw


def _checked(request: DataRequest, envelope: Envelope) -> DataRequest:
    """Check a request as the SDK does before it sends one. Raises a `PlatformError` with its field."""
    if request.request_id != envelope.id:
        refused = InvalidRequest(
            "The request has another id than its envelope", value=request.request_id, remedy=f"Write {envelope.id!r}"
        )
        refused.field = "request_id"
        raise refused
    own = {"priority": request.priority, "refresh": request.refresh is Refresh.ON_CLOSE, "deadline": request.deadline}
    outer = {"priority": envelope.priority, "refresh": envelope.standing, "deadline": envelope.deadline}
    wrong = [field for field in ("priority", "refresh") if own[field] != outer[field]]
    wrong += ["deadline"] if envelope.deadline > request.deadline else []
    for field in wrong:
        refused = InvalidRequest(
            f"The request has another {field} than its envelope", value=own[field], remedy=f"Write {outer[field]!r}"
        )
        refused.field = field
        raise refused
    return making.check(request)


def told_of(each: Delivery | BadDelivery) -> dict[str, object]:
    """Give what the log says of a delivery."""
    if isinstance(each, BadDelivery):
        return {"token": each.token, "bytes": len(each.raw)}
    envelope = each.envelope
    return {
        "request_id": envelope.id, "strategy": envelope.strategy, "label": envelope.label,
        "priority": envelope.priority.value, "attempt": each.attempt,
    }  # fmt: skip


def now() -> int:
    """Give the time, microseconds since the epoch."""
    return time.time_ns() // 1000
