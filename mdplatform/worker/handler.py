"""The worker's life: take requests, answer them, and never lose one.

A request's way through a worker:

1. `take` gives a few deliveries of each class, the most urgent first, as far as `Hands` has room. Each is a task of
   its own, so that nobody waits for a slow neighbour; what tasks of one tick of the loop read, the evaluator reads
   together, and what becomes ready together is settled together (`Settler`).
2. What is no request is buried with its reason. What had killed three workers is buried and answered `failed`. What is
   past its deadline is answered so. What `making.check` refuses is answered `rejected`.
3. The evaluator gives an outcome; `verdict` says what becomes of it: a final answer, a numbered answer of a standing
   request, or parking until a run has brought what is missing.
4. After the answer, and off its way, what was computed goes into the outbox of lineage.

Beside that, each at its own pace:

- `keep` tells every third of `request_claim_seconds` that what is in hand is being worked on;
- `reclaim` takes over what dead workers had, one at a time: should a request kill its worker, it takes no other along;
- the sweep answers what is past its deadline, wherever it is;
- `changes` become `release`s, so that parked requests come back when their data has changed;
- the outbox is sent, and the worker says that it lives.

No exception ends a loop. When the transport's server is away everything waits for it, with growing pauses. `stop` takes
no more, finishes what is in hand within `stop_seconds`, and leaves the rest to `reclaim` by others.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from types import TracebackType
from typing import Any, Self

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import Answerer, BadDelivery, Delivery
from mdplatform.settings import Settings
from mdplatform.worker.answering import Answering, now, told_of
from mdplatform.worker.counts import Counts
from mdplatform.worker.evaluator import Evaluator
from mdplatform.worker.events import Events
from mdplatform.worker.hands import Hands
from mdplatform.worker.outbox import encoded
from mdplatform.worker.patience import FIRST_PAUSE, LONGEST_PAUSE, Patience, is_cancelled

_TAKE_SECONDS = 0.25
_FULL_SECONDS = 0.01
_MANY = 8
_PACE_SECONDS = 0.005  # how long what was taken goes before what comes next: it would only wait in the loop
_SUSPECT_SECONDS = 1.0  # what lives so long after a reclaim is taken to be slow, not deadly
_SWEEP_SECONDS = 1.0
_SWEPT_AT_ONCE = 256
_REPORT_SECONDS = 0.25
_REPORTED_AT_ONCE = 500
_BEAT_SECONDS = 1.0
_BEATS_KEPT_SECONDS = 15.0
_LAST_WORDS_SECONDS = 1.0


class StrategyDataRequestHandler:
    """Answers strategies' requests from a transport, inside one event loop.

    `run` works until `stop`; in an `async with` it works beside the block. An evaluator that is given is the caller's
    to close, and so is the answerer.

    >>> async def serve(settings, answerer):
    ...     async with StrategyDataRequestHandler(settings, answerer) as handler:
    ...         await asyncio.sleep(60)
    ...     print(handler.counts.to_dict())
    """

    def __init__(
        self,
        settings: Settings,
        answerer: Answerer,
        evaluator: Evaluator | None = None,
        *,
        worker: str = "worker",
        hands: Hands | None = None,
        stop_seconds: float = 5.0,
    ) -> None:
        self.counts = Counts()
        self.worker = worker
        self.ready = asyncio.Event()
        self._settings = settings
        self._answerer = answerer
        self._own_evaluator = evaluator is None
        self._evaluator = Evaluator(settings, worker=worker) if evaluator is None else evaluator
        self._hands = Hands() if hands is None else hands
        self._stop_seconds = stop_seconds
        self._events = Events(worker)
        self._patience = Patience(self._events, self.counts)
        self._answering = Answering(
            answerer,
            self._evaluator,
            worker=worker,
            counts=self.counts,
            events=self._events,
            patience=self._patience,
        )
        self._stopping = asyncio.Event()
        self._is_over = False
        self._left_out: Collection[DataPriority] = ()
        self._work: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Take no more; `run` ends when what is in hand is done, or after `stop_seconds`."""
        self._stopping.set()
        self._hands.freed.set()

    async def run(self) -> None:
        """Answer requests until `stop`."""
        self._events.note("started", claim_seconds=self._settings.request_claim_seconds)
        taking = [asyncio.create_task(self._repeat(each)) for each in (self._take, self._refill)]
        paces = [self._reclaim, self._keep, self._sweep, self._watch, self._report, self._beat]
        beside = [asyncio.create_task(each) for each in (self._answering.settler.run(), *map(self._repeat, paces))]
        try:
            await asyncio.wait(taking)  # not cancelled by `stop`: what they take must not slip through their fingers
            if self._work:
                await asyncio.wait(self._work, timeout=self._stop_seconds)
            await self._last_words()
        finally:
            self._is_over = True  # whatever a loop waits for may swallow its cancellation
            left = [*taking, *beside, *self._work]
            for each in left:
                each.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            if self._own_evaluator:
                await self._evaluator.close()
            self._events.note("stopped", **self.told())

    def told(self) -> dict[str, int]:
        """Give all counters, with those of the evaluator: `computed`, `from_near`, `from_redis`, …."""
        by_layer = {f"from_{layer}": count for layer, count in self._evaluator.answered_by_layer.items()}
        computed = self._evaluator.computations
        return {**self.counts.to_dict(), "computed": computed, **by_layer, "in_hand": len(self._hands)}

    async def idle(self, seconds: float | None) -> None:
        """Wait until nothing was in hand, and nothing came, for so long; or until `stop`."""
        taken, since = -1, 0.0
        while not self._stopping.is_set():
            if self._work or self.counts.taken != taken or seconds is None:
                taken, since = self.counts.taken, time.monotonic()
            elif time.monotonic() - since >= seconds:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if seconds is None else seconds / 10):
                    await self._stopping.wait()

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.run())
        ready = asyncio.create_task(self.ready.wait())
        await asyncio.wait([self._running, ready], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._running is not None:
            await self._running

    # The paces: each is done again and again. Taking ends with `stop`, the others once nothing is in hand.

    async def _repeat(self, step: Callable[[], Awaitable[None]]) -> None:
        pause = FIRST_PAUSE
        while not self._is_over and not (self._stopping.is_set() and step in (self._take, self._refill)):
            try:
                await step()
            except TransportUnavailable as away:
                self._patience.away(away)
            except (Exception, asyncio.CancelledError) as failure:  # no error ends the worker
                if is_cancelled(failure):
                    raise
                self.counts.failures += 1
                self._events.failed("loop_failed", failure, loop=step.__name__)
            else:
                pause = FIRST_PAUSE
                continue
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _take(self) -> None:
        """Take what there is of classes with room, or wait for it."""
        shares = self._hands.shares()
        self._left_out = [each for each in DataPriority if each not in shares]
        if shares:
            await self._take_shares(shares, _TAKE_SECONDS if self.ready.is_set() else 0.0)
            self._patience.back()
            self.ready.set()
        else:
            await asyncio.sleep(_FULL_SECONDS)

    async def _refill(self) -> None:
        """Take of classes that had no room when `_take` began to wait, as soon as they have some."""
        await self._hands.freed.wait()
        self._hands.freed.clear()
        shares = self._hands.shares(self._left_out)
        if shares and not self._stopping.is_set():
            await self._take_shares(shares, 0.0)

    async def _take_shares(self, shares: Mapping[DataPriority, int], wait_seconds: float) -> None:
        taken = await self._answerer.take(shares, wait_seconds)
        self._hands.took(shares, Counter(each.envelope.priority for each in taken if isinstance(each, Delivery)))
        begun = [task for each in taken if (task := self._begin(each)) is not None]
        if len(begun) >= _MANY:
            await asyncio.wait(begun, timeout=_PACE_SECONDS)

    async def _reclaim(self) -> None:
        claim = self._settings.request_claim_seconds
        claimed = await self._answerer.reclaim(claim, 1)
        for each in claimed:
            task = self._begin(each)
            if task is not None:
                self.counts.reclaimed += 1
                self._events.warn("reclaimed", **told_of(each))
                await asyncio.wait([task], timeout=_SUSPECT_SECONDS)
        if not claimed:
            await asyncio.sleep(claim / 2)

    async def _keep(self) -> None:
        if self._hands.deliveries:
            await self._answerer.keep(self._hands.deliveries)
        await asyncio.sleep(self._settings.request_claim_seconds / 3)

    async def _sweep(self) -> None:
        overdue = await self._answerer.overdue(_SWEPT_AT_ONCE)
        for each in overdue:
            await self._answering.expire(each)
        if len(overdue) < _SWEPT_AT_ONCE:
            await asyncio.sleep(_SWEEP_SECONDS)

    async def _watch(self) -> None:
        changes = await self._answerer.changes(_TAKE_SECONDS)
        if changes:
            self.counts.released += await self._answerer.release(list(changes), runs=changes)

    async def _report(self) -> None:
        await asyncio.sleep(_REPORT_SECONDS)
        entries = self._answering.outbox.drain(_REPORTED_AT_ONCE)
        if not entries:
            return
        try:
            await self._answerer.report(encoded(entries))
        except BaseException:
            self._answering.outbox.put_back(entries)
            raise

    async def _beat(self) -> None:
        await self._answerer.beat(self.told(), _BEATS_KEPT_SECONDS)
        await asyncio.sleep(_BEAT_SECONDS)

    async def _last_words(self) -> None:
        """Send what is in the outbox, if the transport takes it; it is only lineage."""
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._answerer.report(encoded(self._answering.outbox.drain(10**9)))
        except (TransportUnavailable, TimeoutError) as failure:
            self._events.warn("lineage_lost", cause=str(failure))

    # One request.

    def _begin(self, each: Delivery | BadDelivery) -> asyncio.Task[None] | None:
        """Work on a delivery in a task of its own; None if it is in hand already."""
        if isinstance(each, Delivery) and not self._hands.take(each):
            return None
        self.counts.taken += 1
        work = (
            self._answering.bury(each, each.reason)
            if isinstance(each, BadDelivery)
            else self._answering.handle(each, now())
        )
        task = asyncio.create_task(self._safely(work, each))
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    async def _safely(self, work: Coroutine[Any, Any, None], each: Delivery | BadDelivery) -> None:
        try:
            await work
        except (Exception, asyncio.CancelledError) as failure:  # whoever claims it next tries again
            if is_cancelled(failure):
                raise
            self.counts.failures += 1
            self._events.failed("delivery_failed", failure, **told_of(each))
        finally:
            if isinstance(each, Delivery):
                self._hands.drop(each)
