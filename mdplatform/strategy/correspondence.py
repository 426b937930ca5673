"""The correspondence of one manager with the transport: send, receive, and bring each request to its one final answer.

1. `put` takes a request and returns at once; a `Sender` sends it.
2. Replies come in one loop. The final answer of an id is given once, a numbered one if its number is higher than the
   last; whatever else comes is a repetition, and dropped.
3. A `Watch` looks after what gets no answer: every request has one soon after its deadline, whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from mdplatform.errors import TransportUnavailable, UnknownRequest
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import Asker, Receipt, Record, Reply
from mdplatform.requests import wire
from mdplatform.requests.answer import Answer, AnswerBody, Progress
from mdplatform.requests.request import DataRequest, Refresh
from mdplatform.strategy import endings
from mdplatform.strategy.callbacks import Callbacks
from mdplatform.strategy.kept import Kept
from mdplatform.strategy.pending import MOST_WAITING, Callback, Pending
from mdplatform.strategy.sending import SHORTEST_PAUSE, Sender, envelope, rest
from mdplatform.strategy.watch import Watch, read

MOST_OPEN = 100_000
_RECEIVE_SECONDS = 1.0
_LAST_WORDS_SECONDS = 0.5

_log = logging.getLogger(__name__)


class Correspondence:
    """Everything between a manager and an `Asker`, inside one event loop."""

    def __init__(self, asker: Asker, on_progress: Callable[[Progress], None] | None = None) -> None:
        self._asker = asker
        self._on_progress = on_progress
        self._open: dict[str, Pending] = {}
        self._kept = Kept()
        self._sender = Sender(asker, self._is_open, self._admitted, self._fail)
        self._callbacks = Callbacks()
        self._watch = Watch(asker, self._open, self._give_once, self._sender.put)
        self._receiver = asyncio.create_task(self._receive())
        self.is_closed = False

    @property
    def open(self) -> list[Pending]:
        """Requests without a final answer, oldest first."""
        return list(self._open.values())

    def is_taken(self, request: DataRequest) -> bool:
        """Tell whether its id is that of another request that is open or answered here."""
        pending = self._open.get(request.request_id)
        before = self._kept.content_of(request.request_id) if pending is None else pending.content
        return bool(before) and before != wire.content_of(request)

    # Out.

    def put(self, request: DataRequest, callback: Callback | None) -> Pending | None:
        """Have a request sent; None if its id is open or answered here already."""
        if request.request_id in self._open or request.request_id in self._kept:
            return None
        pending = Pending(
            id=request.request_id,
            strategy_id=request.strategy_id,
            priority=request.priority,
            deadline=request.deadline,
            began=time.perf_counter(),
            is_standing=request.refresh is Refresh.ON_CLOSE,
            request=request,
            envelope=envelope(request),
            callback=callback,
        )
        if len(self._open) >= MOST_OPEN:
            self._give(pending, endings.refused(pending, len(self._open), 1.0))
            return pending
        self._register(pending)
        self._sender.put(pending)
        return pending

    def _is_open(self, pending: Pending) -> bool:
        return pending.id in self._open

    def _fail(self, pending: Pending, cause: str) -> None:
        self._give_once(pending, endings.lost(pending, cause))

    def _admitted(self, batch: Sequence[Pending], receipts: Sequence[Receipt]) -> None:
        known: list[str] = []
        for pending, receipt in zip(batch, receipts, strict=True):
            if receipt.taken:
                self._give_once(pending, endings.taken(pending))
                continue
            if not receipt.admitted:
                self._give_once(pending, endings.refused(pending, receipt.open, receipt.retry_after_seconds))
                continue
            pending.is_sent = True
            if receipt.known:
                known.append(pending.id)
        if known:  # its replies go to whoever sent it first: to here as well, from now on
            self._watch.ask_soon(known)

    # In.

    async def _receive(self) -> None:
        pause = SHORTEST_PAUSE
        while True:
            try:
                replies = await self._asker.receive(_RECEIVE_SECONDS)
                pause = SHORTEST_PAUSE
                await self._take_all(replies)
            except TransportUnavailable as away:
                _log.warning("No replies can be received: %s", away)
                pause = await rest(pause)
            except Exception:  # noqa: BLE001  nothing ends the loop; the log has it
                _log.exception("Receiving replies failed; it goes on")
                pause = await rest(pause)

    async def _take_all(self, replies: Sequence[Reply]) -> None:
        """Take what came, the most urgent first; callbacks of one class are called before the next one is read."""
        ranked: dict[int, list[Reply]] = {}
        for reply in replies:
            pending = self._open.get(reply.id)
            if pending is not None:
                ranked.setdefault(pending.priority.rank, []).append(reply)
        for rank in sorted(ranked):
            for reply in ranked[rank]:
                self._take(reply)
            await asyncio.sleep(0)

    def _take(self, reply: Reply) -> None:
        pending = self._open.get(reply.id)
        if pending is None:
            return
        if reply.final and not reply.body:
            self._give(pending, endings.lost(pending, "The answer was let go, to bound memory"))
            return
        body = read(pending, reply.body)
        if reply.final or isinstance(body, Progress) or body.number:
            self._give(pending, body, final=reply.final)

    def _give_once(self, pending: Pending, body: AnswerBody | Progress) -> None:
        if pending.id in self._open:
            self._give(pending, body)

    def _give(self, pending: Pending, body: AnswerBody | Progress, *, final: bool = True) -> None:
        """Give an answer to whoever waits for it, unless it was given before."""
        if isinstance(body, Progress):
            pending.progress = body
            if self._on_progress is not None:
                self._tell(self._on_progress, body)
            return
        if not final and body.number <= pending.number:
            return
        latency = (time.perf_counter() - pending.began) * 1000
        if body.number and not final:  # of a standing request: since the worker gave it
            latency = max(0.0, time.time_ns() / 1e6 - body.answered_at / 1e3)
        answer = Answer(body, latency_ms=latency)
        pending.number = max(pending.number, body.number)
        pending.answers += 1
        if final:
            self._close_request(pending, answer)
        else:
            pending.recent.append(answer)
        for reader in pending.readers:
            if reader.qsize() >= MOST_WAITING:
                _log.warning("Who reads the answers of request %s is too slow: its oldest is left out", pending.id)
                reader.get_nowait()
            reader.put_nowait(answer)
        self._callbacks.put(pending, answer)

    def _close_request(self, pending: Pending, answer: Answer) -> None:
        self._open.pop(pending.id, None)
        if pending.timer is not None:
            pending.timer.cancel()
        waiting = [each for each in pending.waiters if not each.done()]
        for each in waiting:
            each.set_result(answer)
        if not waiting:
            self._kept.put(answer, pending.content)

    def _tell(self, listener: Callable[[Progress], None], progress: Progress) -> None:
        try:
            listener(progress)
        except Exception:  # noqa: BLE001  nothing ends the loop; the log has it
            _log.exception("The listener for progress failed")

    # Asked for by id.

    async def result(self, id: str) -> Answer:
        """Wait for the final answer. Raises `UnknownRequest`, and `TransportUnavailable` if the manager is closed."""
        pending = await self._found(id)
        if isinstance(pending, Answer):
            return pending
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        pending.waiters.append(waiter)
        try:
            return await waiter
        finally:
            pending.waiters.remove(waiter)

    async def subscribe(self, id: str) -> asyncio.Queue[Answer | None]:
        """Give a queue of the answers from now on and the newest ones before; None ends it."""
        pending = await self._found(id)
        queue: asyncio.Queue[Answer | None] = asyncio.Queue()
        if isinstance(pending, Answer):
            queue.put_nowait(pending)
            return queue
        for each in pending.recent:
            queue.put_nowait(each)
        pending.readers.append(queue)
        return queue

    def unsubscribe(self, id: str, queue: asyncio.Queue[Answer | None]) -> None:
        """Let go of a queue."""
        pending = self._open.get(id)
        if pending is not None and queue in pending.readers:
            pending.readers.remove(queue)

    async def adopt(self, id: str, callback: Callback | None) -> None:
        """Have the answers to a request of another process given here as well. Raises `UnknownRequest`."""
        found = await self._found(id)
        if isinstance(found, Answer):
            stand_in = Pending(
                id, found.body.strategy_id, DataPriority.NORMAL, 0, time.perf_counter(), callback=callback
            )
            self._kept.put(found)
            self._callbacks.put(stand_in, found)
        elif found.callback is None:
            found.callback = callback

    async def cancel(self, id: str) -> bool:
        """End a request; False if it has ended already. Raises `UnknownRequest` and `TransportUnavailable`."""
        pending = self._open.get(id)
        if pending is not None:
            return await self._watch.end(pending, endings.cancelled(pending))
        if id in self._kept:
            return False
        (record,) = await self._asker.look_up([id])
        if record is None:
            raise unknown(id)
        body = endings.cancelled(_of_record(record))
        return record.stage != "settled" and await self._asker.settle(id, wire.encode_reply(body))

    async def _found(self, id: str) -> Pending | Answer:
        """Give the answer that is there, or the open request, of whoever sent it."""
        self._check_open()
        answer = self._kept.take(id)
        if answer is not None:
            return answer
        if id in self._open:
            return self._open[id]
        (record,) = await self._asker.adopt([id])
        if id in self._open:
            return self._open[id]
        if record is None:
            raise unknown(id)
        pending = _of_record(record)
        if record.stage == "settled":
            if record.answer is None:
                raise unknown(id, "Its answer was let go, to bound memory")
            body = read(pending, record.answer)
            assert isinstance(body, AnswerBody)
            return Answer(body)
        self._register(pending)
        return pending

    def _register(self, pending: Pending) -> None:
        self._open[pending.id] = pending
        self._watch.begin(pending)

    # Closing.

    async def close(self) -> list[Pending]:
        """Let go of the transport; give what is open. What was not sent yet is, if the server answers at once."""
        if self.is_closed:
            return []
        self.is_closed = True
        await self._sender.close(_LAST_WORDS_SECONDS)
        self._receiver.cancel()
        await asyncio.gather(self._receiver, self._watch.close(), return_exceptions=True)
        left = self.open
        for pending in left:
            if pending.timer is not None:
                pending.timer.cancel()
            for waiter in pending.waiters:
                if not waiter.done():
                    waiter.set_exception(closed())
            for reader in pending.readers:
                reader.put_nowait(None)
        with contextlib.suppress(TimeoutError):  # a server that is away is no reason to wait
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._asker.close()
        return left

    def _check_open(self) -> None:
        if self.is_closed:
            raise closed()


def unknown(id: str, cause: str = "Nothing is known of this request (any more)") -> UnknownRequest:
    """Give the error of an id that cannot be answered."""
    remedy = "Answers are kept for MDPLATFORM_ANSWERS_KEPT_SECONDS; a manager gives each once by `result`"
    return UnknownRequest(cause, value=id, remedy=remedy)


def closed() -> TransportUnavailable:
    """Give the error of whoever asks, or waits, when the manager is closed."""
    remedy = "The request goes on: `result(request_id)` of another manager gives its answer"
    return TransportUnavailable("The manager was closed", remedy=remedy)


def _of_record(record: Record) -> Pending:
    age = time.time() - record.sent_at / 1e6
    return Pending(
        id=record.id,
        strategy_id=record.strategy,
        priority=record.priority,
        deadline=record.deadline,
        began=time.perf_counter() - max(0.0, age),
        is_standing=record.standing,
        type=wire.type_of(record.body) if record.body else None,
        is_sent=True,
    )
