"""The connection on which Redis pushes what is published, read without a task or a timeout for each message.

What comes is kept as it is until `take` parses it; of what nobody takes only so much is read: the rest is the server's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

import hiredis

from mdplatform.messaging.redis.line import gone
from mdplatform.messaging.redis.posts import posts_key
from mdplatform.messaging.redis.socket import RedisSocket
from mdplatform.settings import Settings
from mdplatform.valkey.connection import REDIS_FAILURES

_MOST_WAITING = 4_000_000
_QUIET_SECONDS = 5.0
_NOTHING = object()
_BEFORE_TOPIC = len(posts_key(""))
_SUBSCRIBED = (b"subscribe", b"psubscribe")


class RedisPushes:
    """Subscriptions on one connection, for one event loop: to topics, or with `everything` to all there are."""

    def __init__(self, settings: Settings, *, everything: bool = False) -> None:
        self._settings = settings
        self._everything = everything
        self._socket = RedisSocket(settings, self._come, self._lost)
        self._reader: Any = None
        self._has_some = False
        self._waiter: asyncio.Future[None] | None = None
        self._waiting = 0
        self._is_paused = False
        self._heard_at = self._asked_at = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether something may come."""
        return self._socket.is_connected

    async def connect(self, topics: Sequence[str]) -> None:
        """Connect anew and subscribe to topics. Raises `TransportUnavailable`."""
        self.cut()
        try:
            await self._socket.connect()
        except REDIS_FAILURES as failure:
            raise gone(self._settings, failure) from None
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiting, self._is_paused = 0, False
        self._heard_at, self._asked_at = time.monotonic(), 0.0
        if self._everything:
            self._socket.write(("PSUBSCRIBE", posts_key("*")))
        await self.follow(topics)

    async def follow(self, topics: Sequence[str]) -> None:
        """Subscribe to these too, if there is a connection."""
        if topics:
            self._socket.write(("SUBSCRIBE", *map(posts_key, topics)))

    async def leave(self, topics: Sequence[str]) -> None:
        """Take subscriptions back."""
        self._socket.write(("UNSUBSCRIBE", *map(posts_key, topics)))

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
                self._socket.write(("PING",))
                self._asked_at = now
            elif now - self._asked_at > _QUIET_SECONDS:
                self.cut()
        if self._has_some:
            return
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        end = loop.call_later(min(seconds, _QUIET_SECONDS), _wake, waiter)
        try:
            await waiter
        finally:
            end.cancel()

    def cut(self) -> None:
        """Give the connection up."""
        self._socket.cut()

    async def close(self) -> None:
        """Let go of the connection."""
        await self._socket.close()

    def _come(self, data: bytes) -> None:
        """Keep what has come."""
        self._reader.feed(data)
        self._heard_at = time.monotonic()
        self._waiting += len(data)
        if self._waiting > _MOST_WAITING and not self._is_paused:
            self._socket.pause()
            self._is_paused = True
        self._wake()

    def _lost(self) -> None:
        self._reader = None
        self._wake()

    def _wake(self) -> None:
        self._has_some = True
        if self._waiter is not None:
            _wake(self._waiter)
            self._waiter = None

    def _emptied(self) -> None:
        self._waiting = 0
        self._has_some = False
        if self._is_paused:
            self._socket.resume()
            self._is_paused = False


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
