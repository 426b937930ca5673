"""The bridge between RabbitMQ, to which strategies speak, and Redis, which workers and sensors know.

1. Requests are taken from the queue of each class on a channel of its own, a few at a time, and admitted on the Redis
   side. Only then they are acknowledged: who is killed before leaves them to another bridge, and the id makes that
   harmless. A request that was refused is acknowledged first and told of afterwards, so that it cannot come back.
2. What is no request is put into the dead-letter queue with its reason, in one transaction with the acknowledgement.
3. Questions (look up, adopt, settle) are answered from Redis.
4. Replies are read from one stream, by one bridge at a time: the one that holds an exclusive queue, which RabbitMQ lets
   go together with the connection on which the replies would be published. A reply is deleted once it was published.

Any number of bridges may run. Where RabbitMQ or Redis is away, everything waits where it is, and goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from types import TracebackType

import msgspec

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging import scripts
from mdplatform.messaging.limits import keeping
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.rabbitmq_link import (
    ASKER,
    BRIDGES,
    CALL_SECONDS,
    CONNECT_SECONDS,
    DEAD,
    DIRECT_REPLY,
    KEPT_REPLIES,
    LINE,
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
    shown_url,
    speaking,
    unavailable,
)
from mdplatform.messaging.rabbitmq_replies import Replies
from mdplatform.messaging.rabbitmq_scripts import HELLO
from mdplatform.messaging.rabbitmq_wire import Carried, Finding, Question, Told, encode, read_envelope, read_question
from mdplatform.messaging.redis_asker import RedisAsker
from mdplatform.messaging.redis_line import Line
from mdplatform.messaging.transport import Envelope, Receipt, Reply
from mdplatform.settings import Settings

_PREFETCHED = 64
_QUESTIONS_PREFETCHED = 16
_LARGEST = 4_000_000
_LONGEST_ID = 256
_YEAR_2100 = 4_102_444_800_000_000
_log = logging.getLogger(__name__)


class Bridge:
    """Carries requests and replies while it is entered: `async with Bridge(settings): …`; for one event loop.

    Entering raises `InvalidSetting`, and `TransportUnavailable` if RabbitMQ cannot be reached; afterwards the bridge
    comes back by itself.
    """

    def __init__(self, settings: Settings) -> None:
        check_url(settings)
        self._settings = settings
        self._started = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Bridge:
        async with connected(self._settings, "bridge"):
            pass
        self._front = RedisAsker(self._settings, BRIDGES)
        self._redis = Line(self._settings)
        self._task = asyncio.create_task(self._stay())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._front.close()
        await self._redis.close()

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
            tasks.create_task(Replies(self._settings, self._redis).carry(connection, talk))
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
        while True:
            await self._admit(channel, talk, await _batch(waiting))

    async def _admit(self, channel: Channel, talk: Channel, messages: Sequence[IncomingMessage]) -> None:
        good: list[tuple[IncomingMessage, Envelope]] = []
        for message in messages:
            try:
                good.append((message, _request(message)))
            except (msgspec.MsgspecError, ValueError) as reason:
                await self._bury(channel, message, str(reason))
        receipts = await self._send(good)
        admitted, refused = _receipts(good, receipts, admitted=True), _receipts(good, receipts, admitted=False)
        await self._tell(talk, admitted)
        async with speaking(self._settings, CALL_SECONDS):
            await messages[-1].ack(multiple=True)
            await (await channel.get_underlay_channel()).tx_commit()
        await self._tell(talk, refused)

    async def _send(self, good: Sequence[tuple[IncomingMessage, Envelope]]) -> list[Receipt]:
        """Admit, for as long as Redis is away too: the requests stay unacknowledged meanwhile."""
        while good:
            try:
                await asyncio.gather(*(self._redis.run(HELLO, *line) for line in {_line(each) for each, _ in good}))
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
                if finding is not None and _can_be_told(message):
                    asked = told.setdefault(message.reply_to or "", Told(findings={}))
                    asked.findings[message.correlation_id or ""] = finding
            await self._tell(talk, told)
            async with speaking(self._settings, CALL_SECONDS):
                await messages[-1].ack(multiple=True)

    async def _find(self, message: IncomingMessage) -> Finding | None:
        try:
            question = read_question(message.body)
            asker = _asker(message)
            if question.kind == "settle" and len(question.ids) != 1:
                raise ValueError("one request is settled at a time")
        except (msgspec.MsgspecError, ValueError) as reason:
            _log.warning("A question that cannot be read was dropped: %s", reason)
            return None
        try:
            missed = await self._redis.run(HELLO, *_line(message)) if question.kind in ("hello", "adopt") else []
            return await self._answer(question, asker, missed)
        except TransportUnavailable as failure:
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


async def _batch(waiting: asyncio.Queue[IncomingMessage]) -> list[IncomingMessage]:
    batch = [await waiting.get()]
    while not waiting.empty():
        batch.append(waiting.get_nowait())
    return batch


def _request(message: IncomingMessage) -> Envelope:
    """Give the envelope of a message that the Redis side can take; `ValueError` or `MsgspecError` say why it cannot."""
    if len(message.body) > _LARGEST:
        raise ValueError(f"it has {len(message.body)} bytes, more than {_LARGEST}")
    _asker(message)
    envelope = read_envelope(message.body)
    if not 1 <= len(envelope.id) <= _LONGEST_ID:
        raise ValueError(f"its id has {len(envelope.id)} characters, not 1 to {_LONGEST_ID}")
    if not (0 < envelope.deadline < _YEAR_2100 and 0 < envelope.sent_at < _YEAR_2100):
        raise ValueError("its times are not microseconds since 1970")
    return envelope


def _asker(message: IncomingMessage) -> str:
    asker = message.app_id or ""
    if not ASKER.fullmatch(asker):
        raise ValueError("it does not name its asker (in `app_id`)")
    if not isinstance(message.headers.get(LINE), int):
        raise ValueError(f"it does not number its connection (in the header `{LINE}`)")
    if not _can_be_told(message):
        raise ValueError("it has no address for replies (`reply_to`) or no `correlation_id`")
    return asker


def _line(message: IncomingMessage) -> tuple[str, str, str]:
    return message.app_id or "", message.reply_to or "", str(message.headers.get(LINE))


def _can_be_told(message: IncomingMessage) -> bool:
    return (message.reply_to or "").startswith((f"{DIRECT_REPLY}.", KEPT_REPLIES)) and bool(message.correlation_id)


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
