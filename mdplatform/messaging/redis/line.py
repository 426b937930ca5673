"""Lines to Redis: one connection each, on which commands of many tasks travel together, and come through again.

`Line.run` sends a command at once, or puts it with those that wait: all that gather during one round trip go together
in the next one. So a thousand tasks need one connection, and load makes batches by itself.

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
from functools import partial
from typing import Any

import redis
from redis.exceptions import ClusterDownError, MasterDownError, NoScriptError, TryAgainError

from mdplatform.errors import TransportRefused, TransportUnavailable
from mdplatform.messaging.redis.keys import PREFIX
from mdplatform.messaging.redis.scripts import Script
from mdplatform.messaging.redis.socket import Command, closed
from mdplatform.messaging.redis.wire import RedisWire
from mdplatform.settings import Settings
from mdplatform.valkey.connection import REDIS_FAILURES, describe, shown_url

_Waiting = tuple[Command, Script | None, asyncio.Future[Any]]
Entries = list[tuple[str, bytes, dict[bytes, bytes]]]

PATIENCE = 5.0
"""For how long a call tries to reach Redis before it gives up, in seconds."""
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


class Line:
    """A connection for commands that are answered at once; for one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wire = RedisWire(settings)
        self._waiting: list[_Waiting] = []
        self._is_busy = False
        self._trying: asyncio.Task[None] | None = None
        self._closing: asyncio.Future[None] | None = None

    async def run(self, script: Script, *arguments: str | bytes | int | float) -> Any:
        """Run a script. Raises `TransportUnavailable` if Redis does not answer or refuses."""
        return await self._put(script_command(script, *arguments), script)

    async def command(self, *parts: str | bytes | int | float) -> Any:
        """Run a command that may come twice. Raises `TransportUnavailable` if Redis does not answer or refuses."""
        return await self._put(parts, None)

    async def close(self) -> None:
        """Send what waits, and let go of the connection."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_future()
            if not self._is_busy:
                self._closing.set_result(None)
        await asyncio.wait([self._closing])
        await self._wire.close()

    def _put(self, command: Command, script: Script | None) -> asyncio.Future[Any]:
        if self._closing is not None:
            raise closed()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, script, answer))
        if not self._is_busy:
            self._next()
        return answer

    def _next(self) -> None:
        """Send what has gathered, if anything has: at once, or in a task that connects first."""
        batch, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
        self._is_busy = bool(batch)
        if not batch:
            if self._closing is not None and not self._closing.done():
                self._closing.set_result(None)
        elif self._wire.is_connected:
            self._wire.start([command for command, _, _ in batch], partial(self._came, batch))
        else:
            self._trying = asyncio.create_task(self._try(batch))

    def _came(self, batch: list[_Waiting], answers: list[Any] | BaseException) -> None:
        if isinstance(answers, BaseException) or any(
            isinstance(each, (*_NOT_NOW, NoScriptError)) for each in answers if isinstance(each, BaseException)
        ):
            self._trying = asyncio.create_task(self._try(batch))
            return
        self._settle(batch, answers)
        self._next()

    async def _try(self, batch: list[_Waiting]) -> None:
        """Bring a batch through, again and again for as long as there is patience."""
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
            self._settle(batch, [failure] * len(batch))
        except BaseException as ended:  # the loop ends: nobody may wait for ever
            for _, _, waiting in [*batch, *self._waiting]:
                waiting.cancel(str(ended))
            self._waiting = []
            self._next()
            raise
        else:
            self._settle(batch, answers)
        self._next()

    def _settle(self, batch: list[_Waiting], answers: Sequence[Any]) -> None:
        for (_, _, waiting), answer in zip(batch, answers, strict=True):
            if waiting.done():
                continue
            if isinstance(answer, TransportUnavailable):
                waiting.set_exception(answer)
            elif isinstance(answer, BaseException):
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
        self._wire = RedisWire(settings)
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
