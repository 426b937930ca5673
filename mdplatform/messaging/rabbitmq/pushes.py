"""What a carrier publishes to RabbitMQ, as a listener gets it: in a queue of its own, gone with its connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.rabbitmq.link import (
    CALL_SECONDS,
    CONNECT_SECONDS,
    LIVE,
    Channel,
    IncomingMessage,
    connected,
    declare_live,
    speaking,
)
from mdplatform.settings import Settings

_PREFETCHED = 500
_UNBOUND_AT_MOST = 50
_MOST_WAITING = 20_000
_MOST_BYTES_WAITING = 64_000_000
_payloads = msgspec.msgpack.Decoder(list[bytes])


class RabbitPushes:
    """Subscriptions on one connection, for one event loop.

    A queue that is full drops its oldest messages: a listener then finds on the shelves what it has not heard.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = contextlib.AsyncExitStack()
        self._channel: Channel | None = None
        self._queue: Any = None
        self._come: deque[tuple[str, bytes | None]] = deque()
        self._last: IncomingMessage | None = None
        self._some = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether something may come."""
        return self._channel is not None

    async def connect(self, topics: Sequence[str]) -> None:
        """Connect anew and subscribe to topics. Raises `TransportUnavailable`."""
        await self._stack.aclose()
        self._come.clear()
        self._last = None
        try:
            connection = await self._stack.enter_async_context(connected(self._settings, "listener"))
            async with speaking(self._settings, CONNECT_SECONDS):
                channel = await connection.channel(publisher_confirms=False)
                exchange = await declare_live(channel)
                limits: dict[str, Any] = {"x-max-length": _MOST_WAITING, "x-max-length-bytes": _MOST_BYTES_WAITING}
                self._queue = await channel.declare_queue(exclusive=True, arguments=limits)
                await self._queue.bind(exchange, "")
                await channel.set_qos(prefetch_count=_PREFETCHED)
                await self._queue.consume(self._put)
            channel.close_callbacks.add(self._lost)
            connection.close_callbacks.add(self._lost)
            self._channel = channel
            await self._bind(topics)
        except BaseException:
            await self._cut()
            raise

    async def follow(self, topics: Sequence[str]) -> None:
        """Subscribe to these too, if there is a connection; one that fails meanwhile is given up."""
        if self._channel is None:
            return
        try:
            await self._bind(topics)
        except TransportUnavailable:
            await self._cut()
        except BaseException:
            self._lost()  # some may not be bound: all are, once the connection was made anew
            raise
        self._come.extend((topic, None) for topic in topics)
        self._some.set()

    async def leave(self, topics: Sequence[str]) -> None:
        """Take subscriptions back; the connection is made anew without them where they are many."""
        if self._channel is None:
            return
        if len(topics) > _UNBOUND_AT_MOST:  # each takes a round trip
            await self._cut()
            return
        try:
            async with speaking(self._settings, CALL_SECONDS):
                for topic in topics:
                    await self._queue.unbind(LIVE, topic)
        except TransportUnavailable:
            await self._cut()

    def take(self) -> Iterator[tuple[str, bytes | None]]:
        """Give topic and payload of what has come; None where a subscription begins, of all topics without a name."""
        while self._come:
            yield self._come.popleft()
        self._some.clear()

    async def wait(self, seconds: float) -> None:
        """Wait until something has come or the connection is lost, at most so long."""
        last, self._last = self._last, None
        if last is not None:
            try:
                async with speaking(self._settings, CALL_SECONDS):
                    await last.ack(multiple=True)
            except TransportUnavailable:
                await self._cut()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._some.wait()

    async def close(self) -> None:
        """Let go of the connection."""
        await self._cut()

    async def _bind(self, topics: Sequence[str]) -> None:
        if self._channel is None or not topics:
            return
        async with speaking(self._settings, CALL_SECONDS):
            wire = await self._channel.get_underlay_channel()
            for topic in topics[:-1]:
                await wire.queue_bind(self._queue.name, LIVE, topic, nowait=True)
            await wire.queue_bind(self._queue.name, LIVE, topics[-1])  # its answer says that all are bound

    async def _put(self, message: IncomingMessage) -> None:
        topic = message.routing_key or ""
        try:
            payloads = _payloads.decode(message.body)
        except msgspec.MsgspecError:
            payloads = []
        self._come.extend((topic, payload) for payload in payloads)
        if not payloads:
            self._come.append((topic, None))
        self._last = message
        self._some.set()

    def _lost(self, *_: object) -> None:
        self._channel = None
        self._some.set()

    async def _cut(self) -> None:
        self._lost()
        await self._stack.aclose()
