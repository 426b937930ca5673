"""The connection on which Redis pushes what is published, read without a task or a timeout for each message.

redis-py connects (addresses, TLS, passwords, the embedded server); then the socket is this protocol's own. What comes
is kept as it is until `take` parses some of it; of what nobody takes only so much is read: the rest is the server's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import hiredis
import redis

from mdplatform.messaging.redis_line import SLOWEST
from mdplatform.settings import Settings
from mdplatform.valkey.connection import async_connect

_MOST_WAITING = 4_000_000
_QUIET_SECONDS = 5.0
_NOTHING = object()


class Pushes(asyncio.Protocol):
    """Subscriptions on one connection, for one event loop."""

    def __init__(self, settings: Settings) -> None:
        seconds = max(SLOWEST, settings.redis_timeout_seconds)
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
        """Whether messages may come."""
        return self._transport is not None

    async def connect(self) -> None:
        """Connect anew. Raises `REDIS_FAILURES`."""
        if self._connection is None:
            self._connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        await self._connection.disconnect(nowait=True)
        await self._connection.connect()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiting, self._is_paused = 0, False
        self._heard_at, self._asked_at = time.monotonic(), 0.0
        self._transport = self._connection._writer.transport
        self._former = self._transport.get_protocol()
        self._transport.set_protocol(self)

    def write(self, *command: str | bytes) -> None:
        """Send a command, if there is a connection; its answer comes among the messages."""
        if self._transport is not None:
            self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]

    def take(self) -> Iterator[list[Any]]:
        """Give the messages that have come. Nothing else may be done with this meanwhile."""
        while self._reader is not None:
            try:
                message = self._reader.gets()
            except (hiredis.ProtocolError, redis.RedisError):
                self.cut()
                return
            if message is _NOTHING:
                self._waiting = 0
                self._some.clear()
                if self._is_paused and self._transport is not None:
                    self._transport.resume_reading()
                    self._is_paused = False
                return
            if isinstance(message, list):
                yield message

    async def wait(self, seconds: float) -> bool:
        """Wait until something has come or the connection is lost, at most so long; whether that is so.

        A connection on which nothing comes is asked for a sign of life, and given up if there is none.
        """
        now = time.monotonic()
        if now - self._heard_at > _QUIET_SECONDS:
            if self._asked_at <= self._heard_at:
                self.write("PING")
                self._asked_at = now
            elif now - self._asked_at > _QUIET_SECONDS:
                self.cut()
        try:
            async with asyncio.timeout(min(seconds, _QUIET_SECONDS)):
                await self._some.wait()
        except TimeoutError:
            return False
        return True

    def cut(self) -> None:
        """Give the connection up."""
        if self._transport is not None:
            self._transport.abort()
        self._transport = self._reader = None
        self._some.set()

    async def close(self) -> None:
        """Let go of the connection."""
        self.cut()
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)
            await self._client.connection_pool.release(self._connection)
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
        """Say so to whoever waits; redis-py waits for that too."""
        former, self._former = self._former, None
        if former is not None:
            former.connection_lost(failure)
        self._transport = self._reader = None
        self._some.set()
