"""The bridge between RabbitMQ, to which strategies speak, and Redis, which workers and sensors know.

1. Requests are taken from the queue of each class on a channel of its own, a few at a time, and admitted on the Redis
   side. Only then they are acknowledged: who is killed before leaves them to another bridge, and the id makes that
   harmless. A request that was refused is acknowledged first and told of afterwards, so that it cannot come back.
2. What is no request is put into the dead-letter queue with its reason, in one transaction with the acknowledgement.
3. Questions (look up, adopt, settle, and those of listeners to broadcasts) are answered from Redis.
4. Replies are read from one stream, by one bridge at a time: the one that holds an exclusive queue, which RabbitMQ lets
   go together with the connection on which the replies would be published. A reply is deleted once it was published.
5. Broadcasts are carried by one bridge at a time (`carrier`).

Any number of bridges may run. Where RabbitMQ or Redis is away, everything waits where it is, and goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import msgspec

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.limits import keeping
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.rabbitmq.carrier import Carrier
from mdplatform.messaging.rabbitmq.link import (
    BRIDGES,
    CALL_SECONDS,
    CONNECT_SECONDS,
    DEAD,
    QUESTIONS,
    QUEUES,
    Channel,
    Connection,
    DeliveryMode,
    IncomingMessage,
    Message,
    backoff_seconds,
    check_url,
    connected,
    declare,
    end,
    shown_url,
    speaking,
    unavailable,
)
from mdplatform.messaging.rabbitmq.reading import asker_of, can_be_told, line_of, request_of
from mdplatform.messaging.rabbitmq.replies import Replies
from mdplatform.messaging.rabbitmq.scripts import HELLO
from mdplatform.messaging.rabbitmq.shelves import answer
from mdplatform.messaging.rabbitmq.wire import Carried, Finding, Question, Told, encode, read_question
from mdplatform.messaging.redis import scripts
from mdplatform.messaging.redis.asker import RedisAsker
from mdplatform.messaging.redis.line import Line
from mdplatform.messaging.redis.shelves import RedisShelves
from mdplatform.messaging.transport import Envelope, Receipt, Reply
from mdplatform.settings import Settings

_PREFETCHED = 64
_QUESTIONS_PREFETCHED = 16
_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class _Admitted:
    """What is to be acknowledged: all up to the last, with those that are buried and those that are told later."""

    last: IncomingMessage
    bad: Sequence[tuple[IncomingMessage, str]]
    refused: dict[str, Told]


class Bridge:
    """Carries requests and replies while it is entered: `async with Bridge(settings): …`; for one event loop.

    Entering raises `InvalidSetting`, and `TransportUnavailable` if RabbitMQ cannot be reached; afterwards the bridge
    comes back by itself.
    """

    def __init__(self, settings: Settings) -> None:
        check_url(settings)
        self._settings = settings
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Bridge:
        async with connected(self._settings, "bridge"):
            pass
        self._front = RedisAsker(self._settings, BRIDGES)
        self._redis = Line(self._settings)
        self._replies = Replies(self._settings, self._redis)
        self._carrier = Carrier(self._settings)
        self._task = asyncio.create_task(self._stay())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        async with AsyncExitStack() as stack:  # whatever ends one of them, or cancels this, the others are closed
            for each in (self._carrier, self._replies, self._redis, self._front):
                stack.push_async_callback(each.close)
            await end(self._task)

    async def run(self) -> None:
        """Wait for as long as the bridge works, which is until it is cancelled."""
        assert self._task is not None
        await asyncio.shield(self._task)

    async def _stay(self) -> None:
        attempts = 0
        while True:
            try:
                async with connected(self._settings, "bridge") as connection:
                    _log.info("The bridge carries requests of %s", shown_url(self._settings))
                    attempts = 0
                    await self._serve(connection)
            except* TransportUnavailable as failures:
                if attempts == 0:
                    _log.warning("The bridge has no connection, and tries again: %s", _first(failures))
            await asyncio.sleep(backoff_seconds(attempts))
            attempts += 1

    async def _serve(self, connection: Connection) -> None:
        cut = asyncio.Event()
        connection.close_callbacks.add(lambda *_: cut.set())
        async with speaking(self._settings, CONNECT_SECONDS):
            talk = await connection.channel(on_return_raises=False)
            talk.close_callbacks.add(lambda *_: cut.set())
            await declare(talk)
        async with asyncio.TaskGroup() as tasks:
            for priority in DataPriority:
                tasks.create_task(self._take_class(connection, talk, priority, cut))
            tasks.create_task(self._take_questions(connection, talk, cut))
            tasks.create_task(self._replies.carry(connection, talk))
            tasks.create_task(self._carrier.carry(connection))
            tasks.create_task(self._watch(cut))

    async def _watch(self, cut: asyncio.Event) -> None:
        await cut.wait()
        raise unavailable(self._settings, ConnectionResetError("the connection was cut"))

    async def _take_class(
        self, connection: Connection, talk: Channel, priority: DataPriority, cut: asyncio.Event
    ) -> None:
        async with speaking(self._settings, CONNECT_SECONDS):
            channel = await connection.channel(publisher_confirms=False)
            channel.close_callbacks.add(lambda *_: cut.set())
            await (await channel.get_underlay_channel()).tx_select()
            waiting = await _consume(channel, QUEUES[priority], _PREFETCHED)
        admitted: asyncio.Queue[_Admitted] = asyncio.Queue()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._admit(talk, waiting, admitted))
            tasks.create_task(self._acknowledge(channel, talk, admitted))

    async def _admit(
        self, talk: Channel, waiting: asyncio.Queue[IncomingMessage], admitted: asyncio.Queue[_Admitted]
    ) -> None:
        while True:
            messages = await _batch(waiting)
            good: list[tuple[IncomingMessage, Envelope]] = []
            bad: list[tuple[IncomingMessage, str]] = []
            for message in messages:
                try:
                    good.append((message, request_of(message)))
                except (msgspec.MsgspecError, ValueError) as reason:
                    bad.append((message, str(reason)))
            receipts = await self._send(good)
            await self._tell(talk, _receipts(good, receipts, admitted=True))
            admitted.put_nowait(_Admitted(messages[-1], bad, _receipts(good, receipts, admitted=False)))

    async def _acknowledge(self, channel: Channel, talk: Channel, admitted: asyncio.Queue[_Admitted]) -> None:
        """Acknowledge and bury in one transaction, beside the admission of the next ones; then tell who was refused."""
        while True:
            batch = await _batch(admitted)
            for message, reason in (each for some in batch for each in some.bad):
                await self._bury(channel, message, reason)
            async with speaking(self._settings, CALL_SECONDS):
                await batch[-1].last.ack(multiple=True)
                await (await channel.get_underlay_channel()).tx_commit()
            for some in batch:
                await self._tell(talk, some.refused)

    async def _send(self, good: Sequence[tuple[IncomingMessage, Envelope]]) -> list[Receipt]:
        """Admit, for as long as Redis is away too: the requests stay unacknowledged meanwhile."""
        while good:
            try:
                await asyncio.gather(*(self._redis.run(HELLO, *line) for line in {line_of(each) for each, _ in good}))
                return await self._front.send(
                    [envelope for _, envelope in good], [message.app_id or "" for message, _ in good]
                )
            except TransportUnavailable as failure:
                _log.warning("Requests wait in RabbitMQ: %s", failure)
                await asyncio.sleep(backoff_seconds(2))
        return []

    async def _bury(self, channel: Channel, message: IncomingMessage, reason: str) -> None:
        """Put a message into the dead letters; it counts once the channel's transaction is committed."""
        _log.warning("A message in %s is no request and was buried: %s", message.routing_key, reason)
        dead = Message(
            message.body,
            headers={"reason": reason[:500], "queue": message.routing_key or ""},
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        async with speaking(self._settings, CALL_SECONDS):
            await channel.default_exchange.publish(dead, DEAD, mandatory=False)

    async def _take_questions(self, connection: Connection, talk: Channel, cut: asyncio.Event) -> None:
        async with speaking(self._settings, CONNECT_SECONDS):
            channel = await connection.channel()
            channel.close_callbacks.add(lambda *_: cut.set())
            waiting = await _consume(channel, QUESTIONS, _QUESTIONS_PREFETCHED)
        while True:
            messages = await _batch(waiting)
            findings = await asyncio.gather(*(self._find(message) for message in messages))
            told: dict[str, Told] = {}
            for message, finding in zip(messages, findings, strict=True):
                if finding is not None and can_be_told(message):
                    asked = told.setdefault(message.reply_to or "", Told(findings={}))
                    asked.findings[message.correlation_id or ""] = finding
            await self._tell(talk, told)
            async with speaking(self._settings, CALL_SECONDS):
                await messages[-1].ack(multiple=True)

    async def _find(self, message: IncomingMessage) -> Finding | None:
        try:
            question = read_question(message.body)
            asker = asker_of(message)
            if question.kind == "settle" and len(question.ids) != 1:
                raise ValueError("one request is settled at a time")
        except (msgspec.MsgspecError, ValueError) as reason:
            _log.warning("A question that cannot be read was dropped: %s", reason)
            return None
        try:
            missed = await self._redis.run(HELLO, *line_of(message)) if question.kind in ("hello", "adopt") else []
            return await self._answer(question, asker, missed)
        except (TransportUnavailable, ValueError) as failure:
            return Finding(problem=str(failure))

    async def _answer(self, question: Question, asker: str, missed: Sequence[bytes]) -> Finding:
        if question.kind == "hello":
            told = zip(missed[::3], missed[1::3], missed[2::3], strict=True)
            return Finding(
                replies=tuple(
                    Carried(place=place.decode(), reply=Reply(id=id.decode(), final=False, body=body))
                    for place, id, body in told
                )
            )
        if question.kind == "look_up":
            return Finding(records=tuple(await self._front.look_up(question.ids)))
        if question.kind == "live":
            return Finding(live=await answer(question.body, RedisShelves(self._redis)))
        if question.kind == "adopt":
            return Finding(records=tuple(await self._front.adopt(question.ids, asker)))
        settling = (question.nonce, question.ids[0], question.body)
        return Finding(settled=bool((await self._redis.run(scripts.SETTLE, *keeping(self._settings), *settling))[0]))

    async def _tell(self, talk: Channel, told: dict[str, Told]) -> None:
        async with speaking(self._settings, CALL_SECONDS):
            await asyncio.gather(
                *(
                    talk.default_exchange.publish(Message(encode(each)), address, mandatory=False)
                    for address, each in told.items()
                )
            )


async def _consume(channel: Channel, queue: str, prefetched: int) -> asyncio.Queue[IncomingMessage]:
    waiting: asyncio.Queue[IncomingMessage] = asyncio.Queue()
    await channel.set_qos(prefetch_count=prefetched)
    await (await channel.get_queue(queue, ensure=False)).consume(waiting.put)
    return waiting


async def _batch(waiting: asyncio.Queue[T]) -> list[T]:
    batch = [await waiting.get()]
    while not waiting.empty():
        batch.append(waiting.get_nowait())
    return batch


def _receipts(
    good: Sequence[tuple[IncomingMessage, Envelope]], receipts: Sequence[Receipt], *, admitted: bool
) -> dict[str, Told]:
    """Give by address what is to be told of those that were admitted, or of the others."""
    found: dict[str, dict[str, Receipt]] = defaultdict(dict)
    for (message, _), receipt in zip(good, receipts, strict=True):
        if receipt.admitted == admitted:
            found[message.reply_to or ""][message.correlation_id or ""] = receipt
    return {address: Told(receipts=each) for address, each in found.items()}


def _first(failures: BaseExceptionGroup[TransportUnavailable]) -> BaseException:
    first: BaseException = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
