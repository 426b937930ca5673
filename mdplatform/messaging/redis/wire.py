"""A connection on which commands go out together, and their answers come back together.

Commands are written in the turn of the event loop in which they are given, and what waits for the answers is called in
the turn in which the last of them comes: in a process that is busy each turn costs milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import redis

from mdplatform.messaging.redis.socket import Command, RedisSocket
from mdplatform.settings import Settings

Done = Callable[[list[Any] | BaseException], None]
_NOTHING = object()


class RedisWire:
    """One connection, made when it is first needed; one exchange at a time."""

    def __init__(self, settings: Settings) -> None:
        self._socket = RedisSocket(settings, self._come, self._lost)
        self._reader: Any = None
        self._done: Done | None = None
        self._answers: list[Any] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_connected(self) -> bool:
        """Whether an exchange can be started."""
        return self._socket.is_connected

    async def connect(self) -> None:
        """Connect if there is no connection. Raises `REDIS_FAILURES`."""
        if not self._socket.is_connected:
            parse_error = await self._socket.connect()
            self._reader = hiredis.Reader(replyError=parse_error, notEnoughData=_NOTHING)

    def start(self, commands: Sequence[Command], done: Done, wait_seconds: float = 0.0) -> None:
        """Send commands in one go; `done` is called with an answer or a `ResponseError` for each, or with a failure.

        `wait_seconds` is how long the server itself may wait before it answers.
        """
        self._done, self._answers, self._count = done, [], len(commands)
        seconds = self._socket.seconds + wait_seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._fail, TimeoutError("no answer in time"))
        self._socket.write(*commands)

    async def exchange(self, commands: Sequence[Command], wait_seconds: float = 0.0) -> list[Any]:
        """The same, for who waits. Raises `REDIS_FAILURES`."""
        await self.connect()
        came: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

        def done(told: list[Any] | BaseException) -> None:
            if isinstance(told, BaseException):
                if not came.done():
                    came.set_exception(told)
            elif not came.done():
                came.set_result(told)

        self.start(commands, done, wait_seconds)
        try:
            return await came
        except asyncio.CancelledError:  # whatever comes on it from now on belongs to nobody
            self._socket.cut()
            raise

    async def close(self) -> None:
        """Let go of the connection."""
        await self._socket.close()

    def _come(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not _NOTHING:
                if isinstance(answer, hiredis.PushNotification):
                    continue
                if isinstance(answer, redis.ConnectionError):  # it takes nothing from anybody for now
                    self._fail(answer)
                    return
                self._answers.append(answer)
        except hiredis.ProtocolError as unreadable:
            self._fail(redis.ConnectionError(f"The answer cannot be read: {unreadable}"))
            return
        if self._done is not None and len(self._answers) == self._count:
            self._end(self._answers)

    def _fail(self, failure: BaseException) -> None:
        done, self._done = self._done, None
        self._socket.cut()
        self._done = done
        self._end(failure)

    def _lost(self) -> None:
        self._end(redis.ConnectionError("Connection closed by server."))

    def _end(self, told: list[Any] | BaseException) -> None:
        done, self._done = self._done, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if done is not None:
            done(told)
