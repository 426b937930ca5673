"""The connection on which Redis pushes what is published, read without a task or a timeout for each message.

redis-py connects (addresses, TLS, passwords, the embedded server); then the socket is this protocol's own. What comes
is kept as it is until `take` parses it; of what nobody takes only so much is read: the rest is the server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import hiredis

from mdplatform.messaging.redis_line import SLOWEST, gone
from mdplatform.messaging.redis_posts import posts_key
from mdplatform.settings import Settings
from mdplatform.valkey.connection import REDIS_FAILURES, async_connect

_MOST_WAITING = 4_000_000
_QUIET_SECONDS = 5.0
_NOTHING = object()
_BEFORE_TOPIC = len(posts_key(""))
_SUBSCRIBED = (b"subscribe", b"psubscribe")


class RedisPushes(asyncio.Protocol):
    """Subscriptions on one connection, for one event loop: to topics, or with `everything` to all there are."""

    def __init__(self, settings: Settings, *, everything: bool = False) -> None:
        seconds = max(SLOWEST, settings.redis_timeout_seconds)
        self._settings = settings
        self._everything = everything
        self._client = async_connect(settings.model_copy(update={"redis_timeout_seconds": seconds}))
        self._connection: Any = None
        self._transport: Any = None
        self._former: Any = None
        self._reader: Any = None
        self._some = asyncio.Event()
        self._waiting = 0
        self._is_paused = False
        self._heard_at = self._asked_at = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether something may come."""
        return self._transport is not None

    async def connect(self, topics: Sequence[str]) -> None:
        """Connect anew and subscribe to topics. Raises `TransportUnavailable`."""
        self.cut()
        try:
            if self._connection is None:
                self._connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
            else:
                await self._connection.disconnect(nowait=True)
            await self._connection.connect()
        except REDIS_FAILURES as failure:
            raise gone(self._settings, failure) from None
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiting, self._is_paused = 0, False
        self._heard_at, self._asked_at = time.monotonic(), 0.0
        self._transport = self._connection._writer.transport
        self._former = self._transport.get_protocol()
        self._transport.set_protocol(self)
        if self._everything:
            self._write("PSUBSCRIBE", posts_key("*"))
        await self.follow(topics)

    async def follow(self, topics: Sequence[str]) -> None:
        """Subscribe to these too, if there is a connection."""
        if topics:
            self._write("SUBSCRIBE", *map(posts_key, topics))

    async def leave(self, topics: Sequence[str]) -> None:
        """Take subscriptions back."""
        self._write("UNSUBSCRIBE", *map(posts_key, topics))

    def take(self) -> Iterator[tuple[str, bytes | None]]:
        """Give topic and payload of what has come; None where a subscription begins, of all topics without a name."""
        while self._reader is not None:
            try:
                message = self._reader.gets()
            except hiredis.ProtocolError:
                self.cut()
                return
            if message is _NOTHING:
                self._emptied()
                return
            if not isinstance(message, list):
                continue  # a sign of life
            if message[0] == b"message":
                yield message[1][_BEFORE_TOPIC:].decode(), message[2]
            elif message[0] == b"pmessage":
                yield message[2][_BEFORE_TOPIC:].decode(), message[3]
            elif message[0] in _SUBSCRIBED:
                yield "" if self._everything else message[1][_BEFORE_TOPIC:].decode(), None

    async def wait(self, seconds: float) -> None:
        """Wait until something has come or the connection is lost, at most so long.

        A connection on which nothing comes is asked for a sign of life, and given up if there is none.
        """
        now = time.monotonic()
        if now - self._heard_at > _QUIET_SECONDS:
            if self._asked_at <= self._heard_at:
                self._write("PING")
                self._asked_at = now
            elif now - self._asked_at > _QUIET_SECONDS:
                self.cut()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, _QUIET_SECONDS)):
                await self._some.wait()

    def cut(self) -> None:
        """Give the connection up."""
        if self._transport is not None:
            self._transport.abort()
        self._lost()

    async def close(self) -> None:
        """Let go of the connection."""
        self.cut()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.disconnect(nowait=True)
            await self._client.connection_pool.release(connection)
        await self._client.aclose()

    def data_received(self, data: bytes) -> None:
        """Keep what has come."""
        if self._reader is None:
            return
        self._reader.feed(data)
        self._heard_at = time.monotonic()
        self._waiting += len(data)
        if self._waiting > _MOST_WAITING and not self._is_paused:
            self._transport.pause_reading()
            self._is_paused = True
        self._some.set()

    def connection_lost(self, failure: Exception | None) -> None:
        """Say so to whoever waits; redis-py's own protocol wants to know too."""
        former, self._former = self._former, None
        if former is not None:
            former.connection_lost(failure)
        self._lost()

    def _lost(self) -> None:
        self._transport = self._reader = None
        self._some.set()

    def _emptied(self) -> None:
        self._waiting = 0
        self._some.clear()
        if self._is_paused and self._transport is not None:
            self._transport.resume_reading()
            self._is_paused = False

    def _write(self, *command: str | bytes) -> None:
        if self._transport is not None:
            self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]
