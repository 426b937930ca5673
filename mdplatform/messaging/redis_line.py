"""Lines to Redis: one connection each, on which commands of many tasks travel together, and come through again.

`Line.run` puts a command with those that wait; one task sends all that have gathered in one round trip and reads the
answers, while the next ones gather. So a thousand tasks need one connection, and load makes batches by itself.

Where Redis does not answer, the batch is sent again after a pause that grows and varies, until `PATIENCE` is over:
every command here may therefore come twice, and all scripts are made for that. `BlockingLine` waits for one command
that blocks; it gives None while Redis is away, after a pause, so that a loop of reads just goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Sequence
from typing import Any

import redis
from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ClusterDownError, MasterDownError, NoScriptError, TryAgainError

from mdplatform.errors import TransportRefused, TransportUnavailable
from mdplatform.messaging.redis_keys import PREFIX
from mdplatform.messaging.scripts import Script
from mdplatform.settings import Settings
from mdplatform.valkey.connection import REDIS_FAILURES, async_connect, describe, shown_url

Command = Sequence[str | bytes | int | float]
Entries = list[tuple[str, bytes, dict[bytes, bytes]]]

PATIENCE = 5.0
"""For how long a call tries to reach Redis before it gives up, in seconds."""
SLOWEST = 2.0
"""How long one answer is waited for at least, whatever readers of features are content with, in seconds."""
AT_ONCE = 512
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_NOT_NOW = (redis.BusyLoadingError, redis.ReadOnlyError, TryAgainError, MasterDownError, ClusterDownError)
_FOR_NOW = ("BUSY", "MISCONF", "NOREPLICAS")

_log = logging.getLogger(__name__)


def script_command(script: Script, *arguments: str | bytes | int | float) -> Command:
    """Give the command that runs a script by its hash."""
    return ("EVALSHA", script.sha, 1, PREFIX, *arguments)


def pause(failures: int) -> float:
    """Give how long to wait after so many failures in a row, in seconds: doubling, bounded, with jitter."""
    return min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0)


def gone(settings: Settings, failure: BaseException) -> TransportUnavailable:
    """Say in the platform's words that the requests' server failed: it is away, or it refused this very step."""
    is_refusal = isinstance(failure, redis.ResponseError) and not isinstance(failure, _NOT_NOW)
    refused = is_refusal and not str(failure).startswith(_FOR_NOW)
    return (TransportRefused if refused else TransportUnavailable)(
        f"Redis does not take requests ({describe(failure, settings)})",
        value=shown_url(settings),
        remedy="Check that the server runs and has memory left; `mdplatform doctor` shows it",
    )


def _closed() -> TransportUnavailable:
    return TransportUnavailable("This end of the transport was closed", remedy="Make a new one")


class _Wire:
    """One connection, made when it is first needed."""

    def __init__(self, settings: Settings, seconds: float) -> None:
        self._seconds = seconds
        self._client = async_connect(settings.model_copy(update={"redis_timeout_seconds": seconds}))
        self._connection: AbstractConnection | None = None
        self._closed = False

    async def exchange(self, commands: Sequence[Command], wait_seconds: float = 0.0) -> list[Any]:
        """Send commands in one go and give an answer or a `ResponseError` for each. Raises `REDIS_FAILURES`.

        `wait_seconds` is how long the server itself may wait before it answers.
        """
        if self._closed:
            raise _closed()
        if self._connection is None:
            self._connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        connection = self._connection
        if not connection.is_connected:
            connection.socket_timeout = self._seconds
            await connection.connect()
        connection.socket_timeout = None  # one timeout for all instead of a task for each
        packed = b"".join(pack_command(tuple(each)) for each in commands)  # type: ignore[arg-type]
        try:
            answers = []
            async with asyncio.timeout(self._seconds + wait_seconds):
                await connection.send_packed_command(packed, check_health=False)
                for _ in commands:
                    try:
                        answers.append(await connection.read_response())
                    except redis.ConnectionError:
                        raise
                    except redis.ResponseError as refused:
                        answers.append(refused)
            return answers
        except BaseException:  # whatever comes on it from now on belongs to nobody
            await connection.disconnect(nowait=True)
            raise

    async def close(self) -> None:
        self._closed = True
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.disconnect(nowait=True)
            await self._client.connection_pool.release(connection)
        await self._client.aclose()


class Line:
    """A connection for commands that are answered at once; for one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wire = _Wire(settings, max(SLOWEST, settings.redis_timeout_seconds))
        self._waiting: list[tuple[Command, Script | None, asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None
        self._closed = False

    async def run(self, script: Script, *arguments: str | bytes | int | float) -> Any:
        """Run a script. Raises `TransportUnavailable` if Redis does not answer or refuses."""
        return await self._put(script_command(script, *arguments), script)

    async def command(self, *parts: str | bytes | int | float) -> Any:
        """Run a command that may come twice. Raises `TransportUnavailable` if Redis does not answer or refuses."""
        return await self._put(parts, None)

    async def close(self) -> None:
        """Send what waits, and let go of the connection."""
        self._closed = True
        if self._sender is not None:
            await asyncio.wait([self._sender])
        await self._wire.close()

    def _put(self, command: Command, script: Script | None) -> asyncio.Future[Any]:
        if self._closed:
            raise _closed()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, script, answer))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        return answer

    async def _send(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
            try:
                answers = await self._exchange([command for command, _, _ in batch])
                unknown = [
                    at
                    for at, answer in enumerate(answers)
                    if isinstance(answer, NoScriptError) and batch[at][1] is not None
                ]
                if unknown:
                    texts: list[Command] = []
                    for at in unknown:
                        command, script, _ = batch[at]
                        assert script is not None
                        texts.append(("EVAL", script.text, *command[2:]))
                    for at, answer in zip(unknown, await self._exchange(texts), strict=True):
                        answers[at] = answer
            except TransportUnavailable as failure:
                for _, _, waiting in batch:
                    if not waiting.done():
                        waiting.set_exception(failure)
                continue
            except BaseException as ended:  # the loop ends: nobody may wait for ever
                for _, _, waiting in [*batch, *self._waiting]:
                    waiting.cancel(str(ended))
                raise
            for (_, _, waiting), answer in zip(batch, answers, strict=True):
                if waiting.done():
                    continue
                if isinstance(answer, BaseException):
                    waiting.set_exception(gone(self._settings, answer))
                else:
                    waiting.set_result(answer)

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        end = time.monotonic() + PATIENCE
        failures = 0
        while True:
            try:
                answers = await self._wire.exchange(commands)
                refused = next((each for each in answers if isinstance(each, _NOT_NOW)), None)
                if refused is None:
                    return answers
                raise refused
            except REDIS_FAILURES as failure:
                wait = pause(failures)
                failures += 1
                if time.monotonic() + wait > end:
                    raise gone(self._settings, failure) from None
                await asyncio.sleep(wait)


class BlockingLine:
    """A connection for commands that wait for something to come; for one reader at a time."""

    LONGEST = 2.0
    """The longest that one command waits, in seconds; a longer wait is several."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wire = _Wire(settings, max(SLOWEST, settings.redis_timeout_seconds))
        self._failures = 0

    async def read(self, wait_seconds: float, *commands: Command) -> list[Any] | None:
        """Run commands of which the last may block for `wait_seconds`; None, after a pause, if Redis is away.

        Where an answer is an error it is in its place.
        """
        try:
            answers = await self._wire.exchange(commands, wait_seconds)
            refused = next((each for each in answers if isinstance(each, _NOT_NOW)), None)
            if refused is not None:
                raise refused
        except REDIS_FAILURES as failure:
            if self._failures == 0:
                _log.warning("Redis does not answer (%s); trying again", describe(failure, self._settings))
            await asyncio.sleep(pause(self._failures))
            self._failures += 1
            return None
        self._failures = 0
        return answers

    async def close(self) -> None:
        """Let go of the connection."""
        with contextlib.suppress(*REDIS_FAILURES):
            await self._wire.close()


def entries_of(answer: Any) -> Entries:
    """Give stream, place and fields of what a reading command gave, in either version of the protocol."""
    streams = answer.items() if isinstance(answer, dict) else answer or ()
    return [
        (stream.decode(), place, dict(zip(fields[::2], fields[1::2], strict=True)))
        for stream, entries in streams
        for place, fields in entries
        if fields is not None
    ]
