"""Silence: how long a connection may say nothing before it is taken for dead or stalled.

1. After half of `least` seconds without a message a ping is sent. Where nothing has come within `least`, neither a
   message nor the ping's answer, the connection is dead.
2. One that answers to pings and says nothing is stalled, or its market is quiet. Which of the two shows in how it was
   lately (`Cadence`): candles of a traded symbol come each 2 s, and `least` is long enough; where minutes have passed
   between messages, twice the longest of these silences is waited for.
3. It is never waited for longer than `most`: where candles are followed, each minute's close is told of every symbol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

_LATELY = 600.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Cadence:
    """The longest silence of a line in the last ten to twenty minutes, over all of its connections, in seconds.

    >>> cadence = Cadence(least=10.0, most=70.0)
    >>> cadence.note(2.0, now=100.0), cadence.allowed
    (None, 10.0)
    >>> cadence.note(25.0, now=130.0), cadence.allowed
    (None, 50.0)
    >>> cadence.note(60.0, now=190.0), cadence.allowed
    (None, 70.0)
    """

    least: float
    most: float
    _longest: float = 0.0
    _before: float = 0.0
    _since: float = field(default=float("-inf"))

    def note(self, silent: float, now: float) -> None:
        """Note that for so long nothing was said, until `now`."""
        if now > self._since + _LATELY:
            self._before, self._longest, self._since = self._longest, 0.0, now
        if silent > self._longest:
            self._longest = silent

    @property
    def allowed(self) -> float:
        """How long a connection that answers to pings may be silent."""
        return max(self.least, min(2.0 * max(self._longest, self._before), self.most))


class Silence:
    """Cuts a connection that is silent for too long; `is_well` is called when the answer to a ping comes."""

    def __init__(self, connection: ClientConnection, cadence: Cadence, is_well: Callable[[], None]) -> None:
        self._connection, self._cadence, self._is_well = connection, cadence, is_well
        self._clock = asyncio.get_running_loop().time
        self._is_paused = False
        self._heard_at = self._alive_at = self._clock()
        self._watching = asyncio.create_task(self._watch())

    def hear(self) -> None:
        """Note that a message came."""
        now = self._clock()
        self._cadence.note(now - self._heard_at, now)
        self._heard_at = self._alive_at = now

    def pause(self) -> None:
        """Look away: for a while nothing is read."""
        self._is_paused = True

    def resume(self) -> None:
        """Look again, from now on."""
        self._heard_at = self._alive_at = self._clock()
        self._is_paused = False

    def end(self) -> None:
        """Look no more."""
        self._watching.cancel()

    async def _watch(self) -> None:
        seconds = self._cadence.least
        with contextlib.suppress(ConnectionClosed):
            while True:
                left = self._alive_at + seconds / 2 - self._clock()
                if self._is_paused or left > 0:
                    await asyncio.sleep(left if left > 0 else seconds / 4)
                    continue
                since = self._alive_at
                answer = asyncio.ensure_future(await self._connection.ping())
                await asyncio.wait({answer}, timeout=seconds / 2)
                if answer.done():
                    answer.result()
                    self._alive_at = self._clock()
                    self._is_well()
                now = self._clock()
                silent = now - self._heard_at
                if not self._is_paused and (self._alive_at == since or silent >= self._cadence.allowed):
                    self._cadence.note(silent, now)
                    _log.warning("nothing was heard for %.1f s: connecting anew", silent)
                    self._connection.transport.abort()
                    return
