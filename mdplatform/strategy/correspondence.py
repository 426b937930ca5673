"""The correspondence of one manager with the transport: send, receive, and bring each request to its one final answer.

1. `put` takes a request and returns at once; what was put in one tick of the loop is sent in one round trip. While the
   transport is away it is sent again: an id is admitted once, however often it is sent.
2. Replies come in one loop. The final answer of an id is given once, a numbered one if its number is higher than the
   last; whatever else comes is a repetition, and dropped.
3. Where no answer comes, the server is asked after a while what became of the request. What it has forgotten (a server
   that lost its memory) is sent again; what was answered meanwhile is given.
4. A quarter of a second after the deadline the request is settled from here, as failed: the server decides whether
   that came first. If the server cannot be reached either, the answer is given all the same.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from mdplatform.errors import InvalidRequest, TransportUnavailable, UnknownRequest
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import Asker, Envelope, Receipt, Record, Reply
from mdplatform.requests import wire
from mdplatform.requests.answer import Answer, AnswerBody, Progress
from mdplatform.requests.request import DataRequest, Refresh
from mdplatform.strategy import endings
from mdplatform.strategy.callbacks import Callbacks
from mdplatform.strategy.pending import MOST_WAITING, Callback, Pending

GRACE_SECONDS = 0.25
SETTLE_SECONDS = 1.0
"""How long the server is waited for when a request is settled from here."""
MOST_OPEN = 100_000
MOST_KEPT = 1_000
MOST_KEPT_BYTES = 64_000_000
_SENT_AT_ONCE = 1_000
_RECEIVE_SECONDS = 1.0
_LAST_WORDS_SECONDS = 1.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_LONGEST_LOOK = 30.0
_LONGEST_LABEL = 120

_log = logging.getLogger(__name__)


class Correspondence:
    """Everything between a manager and an `Asker`, inside one event loop."""

    def __init__(self, asker: Asker, on_progress: Callable[[Progress], None] | None = None) -> None:
        self._asker = asker
        self._on_progress = on_progress
        self._open: dict[str, Pending] = {}
        self._unsent: list[Pending] = []
        self._kept: OrderedDict[str, Answer] = OrderedDict()
        self._kept_bytes = 0
        self._callbacks = Callbacks()
        self._sender: asyncio.Task[None] | None = None
        self._ends: set[asyncio.Task[None]] = set()
        self._loops = [asyncio.create_task(each) for each in (self._receive(), self._look())]
        self.is_closed = False

    @property
    def open(self) -> list[Pending]:
        """Requests without a final answer, oldest first."""
        return list(self._open.values())

    def held(self, id: str) -> DataRequest | None:
        """Give the open request of that id, if it was made here."""
        pending = self._open.get(id)
        return None if pending is None else pending.request

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
        self._unsent.append(pending)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        return pending

    async def _send(self) -> None:
        pause = _SHORTEST_PAUSE
        while self._unsent:
            batch, self._unsent = self._unsent[:_SENT_AT_ONCE], self._unsent[_SENT_AT_ONCE:]
            batch = [each for each in batch if each.id in self._open]
            if not batch:
                continue
            try:
                receipts = await self._asker.send([each.envelope for each in batch if each.envelope is not None])
            except TransportUnavailable as away:
                _log.warning("%d requests are not sent yet: %s", len(batch), away)
                self._unsent[:0] = batch
                pause = await _rest(pause)
                continue
            except Exception as failure:  # noqa: BLE001  nothing ends the loop; the log has it
                _log.exception("%d requests cannot be sent", len(batch))
                for each in batch:
                    self._give(each, endings.lost(each, f"The request could not be sent ({type(failure).__name__})"))
                continue
            pause = _SHORTEST_PAUSE
            self._admitted(batch, receipts)

    def _admitted(self, batch: Sequence[Pending], receipts: Sequence[Receipt]) -> None:
        known: list[str] = []
        for pending, receipt in zip(batch, receipts, strict=True):
            if not receipt.admitted:
                self._give(pending, endings.refused(pending, receipt.open, receipt.retry_after_seconds))
                continue
            pending.is_sent = True
            if receipt.known:
                known.append(pending.id)
        if known:  # its replies go to whoever sent it first: to here as well, from now on
            self._background(self._adopt(known))

    # In.

    async def _receive(self) -> None:
        pause = _SHORTEST_PAUSE
        while True:
            try:
                replies = await self._asker.receive(_RECEIVE_SECONDS)
                pause = _SHORTEST_PAUSE
                for reply in replies:
                    self._take(reply)
            except TransportUnavailable as away:
                _log.warning("No replies can be received: %s", away)
                pause = await _rest(pause)
            except Exception:  # noqa: BLE001  nothing ends the loop; the log has it
                _log.exception("Receiving replies failed; it goes on")
                pause = await _rest(pause)

    def _take(self, reply: Reply) -> None:
        pending = self._open.get(reply.id)
        if pending is None:
            return
        body = self._read(pending, reply.body)
        if reply.final or isinstance(body, Progress) or body.number:
            self._give(pending, body, final=reply.final)

    def _read(self, pending: Pending, raw: bytes) -> AnswerBody | Progress:
        try:
            return wire.decode_reply(raw)
        except InvalidRequest as unreadable:
            _log.error("The answer of request %s cannot be read: %s", pending.id, unreadable)
            return endings.lost(pending, "The answer cannot be read")

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
            self._keep(pending.id, answer)

    def _keep(self, id: str, answer: Answer) -> None:
        """Keep an answer for who asks later; the oldest go."""
        self._kept[id] = answer
        self._kept_bytes += _size(answer)
        while len(self._kept) > MOST_KEPT or (self._kept_bytes > MOST_KEPT_BYTES and len(self._kept) > 1):
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= _size(dropped)

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
            self._keep(id, found)
            self._callbacks.put(stand_in, found)
        elif found.callback is None:
            found.callback = callback

    async def cancel(self, id: str) -> bool:
        """End a request; False if it has ended already. Raises `UnknownRequest` and `TransportUnavailable`."""
        pending = self._open.get(id)
        if pending is not None:
            return await self._end(pending, endings.cancelled(pending))
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
        if id in self._kept:
            answer = self._kept.pop(id)
            self._kept_bytes -= _size(answer)
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
            body = self._read(pending, record.answer)
            assert isinstance(body, AnswerBody)
            return Answer(body)
        self._register(pending)
        return pending

    # Ends.

    def _register(self, pending: Pending) -> None:
        self._open[pending.id] = pending
        loop = asyncio.get_running_loop()
        left = pending.deadline / 1e6 - time.time() + GRACE_SECONDS
        pending.timer = loop.call_later(max(0.0, left), self._overdue, pending)
        pending.look_again_at = loop.time() + pending.look_after

    def _overdue(self, pending: Pending) -> None:
        self._background(self._expire(pending))

    async def _expire(self, pending: Pending) -> None:
        try:
            await self._end(pending, endings.overdue(pending))
        except TransportUnavailable:
            self._give_once(pending, endings.overdue(pending, unreachable=True))
        except Exception:  # noqa: BLE001  nothing ends the loop; the log has it
            _log.exception("Request %s could not be settled", pending.id)
            self._give_once(pending, endings.overdue(pending, unreachable=True))

    async def _end(self, pending: Pending, body: AnswerBody) -> bool:
        """Settle a request from here; give whether that came first. Whoever came first, its answer is given."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                is_first = await self._asker.settle(pending.id, wire.encode_reply(body))
                record = None if is_first else (await self._asker.look_up([pending.id]))[0]
        except TimeoutError:
            raise TransportUnavailable("The server that carries requests does not answer") from None
        if is_first or record is None:
            self._give_once(pending, body)
            return True
        self._give_record(pending, record)
        return False

    def _give_record(self, pending: Pending, record: Record) -> None:
        if record.stage != "settled" or pending.id not in self._open:
            return
        if record.answer is None:
            self._give_once(pending, endings.lost(pending, "The answer was let go, to bound memory"))
        else:
            self._give_once(pending, self._read(pending, record.answer))

    def _give_once(self, pending: Pending, body: AnswerBody | Progress) -> None:
        if pending.id in self._open:
            self._give(pending, body)

    # Looking after what takes long.

    async def _look(self) -> None:
        """Ask the server what became of requests of which nothing was heard for long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0.5)
            late = [each for each in self._open.values() if each.is_sent and each.look_again_at <= loop.time()]
            for each in late:
                each.look_after = min(2 * each.look_after, _LONGEST_LOOK)
                each.look_again_at = loop.time() + each.look_after
            for start in range(0, len(late), _SENT_AT_ONCE):
                await self._adopt([each.id for each in late[start : start + _SENT_AT_ONCE]])

    async def _adopt(self, ids: Sequence[str]) -> None:
        try:
            records = await self._asker.adopt(ids)
        except TransportUnavailable as away:
            _log.warning("What became of %d requests is not known: %s", len(ids), away)
            return
        except Exception:  # noqa: BLE001  nothing ends the loop; the log has it
            _log.exception("What became of %d requests is not known", len(ids))
            return
        for id, record in zip(ids, records, strict=True):
            pending = self._open.get(id)
            if pending is None:
                continue
            if record is not None:
                self._give_record(pending, record)
            elif pending.envelope is not None and pending not in self._unsent:
                _log.warning("The server has forgotten request %s; it is sent again", id)
                pending.is_sent = False
                self._unsent.append(pending)
        if self._unsent and (self._sender is None or self._sender.done()):
            self._sender = asyncio.create_task(self._send())

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    # Closing.

    async def close(self) -> list[Pending]:
        """Let go of the transport; give what is open. What was not sent yet is, if the server answers at once."""
        if self.is_closed:
            return []
        self.is_closed = True
        if self._sender is not None and not self._sender.done():
            await asyncio.wait([self._sender], timeout=_LAST_WORDS_SECONDS)
        tasks = [each for each in (*self._loops, *self._ends, self._sender) if each is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left = self.open
        for pending in left:
            if pending.timer is not None:
                pending.timer.cancel()
            for waiter in pending.waiters:
                if not waiter.done():
                    waiter.set_exception(closed())
            for reader in pending.readers:
                reader.put_nowait(None)
        await self._asker.close()
        return left

    def _check_open(self) -> None:
        if self.is_closed:
            raise closed()


def envelope(request: DataRequest) -> Envelope:
    """Give the envelope of a request."""
    return Envelope(
        id=request.request_id,
        priority=request.priority,
        deadline=request.deadline,
        sent_at=request.sent_at,
        body=wire.encode_request(request),
        strategy=request.strategy_id,
        label=_label(request),
        standing=request.refresh is Refresh.ON_CLOSE,
    )


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
        is_sent=True,
    )


def _label(request: DataRequest) -> str:
    """Say for people what is asked for."""
    asked = request.features or tuple(map(str, request.options.get("series", ()))) or (request.type.value,)
    told = [f"{each[0]}{f' +{len(each) - 1}' if len(each) > 1 else ''}" for each in (request.symbols, asked) if each]
    return " ".join((*told, *request.timeframes[:1]))[:_LONGEST_LABEL]


def _size(answer: Answer) -> int:
    return sum(len(part.data) for part in answer.body.parts)


async def _rest(pause: float) -> float:
    """Sleep about so long; give how long to sleep the next time."""
    await asyncio.sleep(pause * random.uniform(0.5, 1.0))
    return min(2 * pause, _LONGEST_PAUSE)
