"""Lines: a websocket connection of Binance that is kept up, for some of the symbols.

1. Connect, within the pace that the venue allows; wait longer and longer after failures. The first streams stand in the
   URL, the others are subscribed to by messages, a few a second.
2. Read until the connection ends, is silent for too long, or is old. `heard` is called for each message. A market may
   be quiet: where nothing is said a ping is sent, and its answer is a sign of life too, though not for ever.
3. Before the venue cuts an old one a new one is made; both are read for a while, so that nothing falls between them.
   Only where there was a time without one is `cut` called, once the new one is live.

While there is no room for events, nothing is read: the venue waits, or cuts in the end, and what was missed is fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from mdplatform.feeds.backoff import Backoff, Pace
from mdplatform.feeds.binance_messages import Reply
from mdplatform.sources.download import why

MOST_STREAMS = 1024
_IN_URL, _IN_MESSAGE = 100, 200
_OPEN_SECONDS = 10.0
_QUEUE = 256
_MOST_SILENT = 4  # times `silence`: so long a connection is kept on which nothing comes but the answers to pings
_LARGEST = 1 << 23

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a line behaves, in seconds: `silence` before it connects anew, `renew` before the venue's cut, `overlap` of
    two connections, the longest `wait` before a try, and `subscribe` until the venue has taken all subscriptions."""

    silence: float = 10.0
    renew: float = 23 * 3600.0
    overlap: float = 2.0
    wait: float = 30.0
    subscribe: float = 15.0


class Line:
    """One connection after another to `url` with the same `streams`.

    `heard` takes a message and gives a reply back, `room` waits until there is room, `cut` is told that something may
    have been missed, once the line is live again (and when it is live first).
    """

    def __init__(
        self,
        url: str,
        streams: Sequence[str],
        manner: Manner,
        connects: Pace,
        counts: Counter[str],
        *,
        heard: Callable[[bytes], Reply | None],
        room: Callable[[], Awaitable[None] | None],
        cut: Callable[[], None],
    ) -> None:
        self._url, self._streams, self._manner = url.rstrip("/"), list(streams), manner
        self._connects, self._counts = connects, counts
        self._heard, self._room, self._cut = heard, room, cut
        self._backoff = Backoff(cap=manner.wait)
        self._readings: set[asyncio.Task[None]] = set()

    async def keep(self) -> None:
        """Keep the line up until this is cancelled."""
        before: asyncio.Task[None] | None = None
        try:
            while True:
                reading = await self._live()
                if before is None or before.done():
                    self._cut()
                else:
                    self._later_end(before)
                before = reading
                renew = self._manner.renew * random.uniform(0.9, 1.0)
                await asyncio.wait({reading}, timeout=renew)
                if reading.done():
                    reading.result()
                    self._counts["reconnects"] += 1
                    await asyncio.sleep(self._backoff.next())
                else:
                    self._counts["renewals"] += 1
        finally:
            for each in self._readings:
                each.cancel()
            await asyncio.gather(*self._readings, return_exceptions=True)

    async def _live(self) -> asyncio.Task[None]:
        """Connect until it succeeds; give the task that reads."""
        while True:
            await self._connects.wait()
            live: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            reading = asyncio.create_task(self._read(live))
            self._readings.add(reading)
            reading.add_done_callback(self._readings.discard)
            await asyncio.wait({reading, live}, return_when=asyncio.FIRST_COMPLETED)
            if live.done():
                return reading
            reading.result()
            self._counts["refused"] += 1
            await asyncio.sleep(self._backoff.next())

    def _later_end(self, reading: asyncio.Task[None]) -> None:
        asyncio.get_running_loop().call_later(self._manner.overlap, reading.cancel)

    async def _read(self, live: asyncio.Future[None]) -> None:
        """Connect, subscribe, and read until the connection ends or is silent."""
        first, rest = self._streams[:_IN_URL], self._streams[_IN_URL:]
        try:
            async with connect(
                f"{self._url}/stream?streams={'/'.join(first)}", compression=None, ping_interval=None,
                open_timeout=_OPEN_SECONDS, close_timeout=1.0, max_size=_LARGEST, max_queue=_QUEUE,
            ) as connection:  # fmt: skip
                self._counts["connects"] += 1
                await self._hear(connection, rest, live)
        except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError) as failed:
            _log.warning("a connection to %s ended: %s", self._url, why(failed))

    async def _hear(self, connection: ClientConnection, rest: Sequence[str], live: asyncio.Future[None]) -> None:
        clock = asyncio.get_running_loop().time
        asked = set(range(1, -(-len(rest) // _IN_MESSAGE) + 1))
        asking = asyncio.create_task(_subscribe(connection, rest))

        def is_well() -> None:
            if live.done():  # before, what it says shows only that it takes connections, maybe to end them at once
                self._backoff.reset()

        silence = _Silence(connection, self._manner.silence, is_well)
        try:
            async with asyncio.timeout(None) as until_live:
                if not asked:
                    live.set_result(None)
                else:
                    until_live.reschedule(clock() + self._manner.subscribe)
                while True:
                    raw = await connection.recv(decode=False)
                    silence.hear()
                    reply = self._heard(raw)
                    if reply is not None and reply.error:
                        _log.warning("the venue refused a subscription: %s", reply.error)
                        return
                    if reply is not None:
                        asked.discard(reply.id or 0)
                    if not asked and not live.done():
                        live.set_result(None)
                        until_live.reschedule(None)
                    is_well()
                    if (room := self._room()) is not None:
                        silence.is_paused = True
                        until_live.reschedule(None)
                        await room
                        silence.is_paused = False
                        silence.hear()
                        until_live.reschedule(None if live.done() else clock() + self._manner.subscribe)
        except TimeoutError:
            _log.warning("the venue did not answer a subscription for %.1f s: connecting anew", self._manner.subscribe)
        finally:
            silence.end()
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await asking


async def _subscribe(connection: ClientConnection, streams: Sequence[str]) -> None:
    pace = Pace(3, 1.0)  # the venue allows 5 messages a second, its pings' answers among them
    for number, begin in enumerate(range(0, len(streams), _IN_MESSAGE), start=1):
        await pace.wait()
        asked = {"method": "SUBSCRIBE", "params": list(streams[begin : begin + _IN_MESSAGE]), "id": number}
        await connection.send(json.dumps(asked))


class _Silence:
    """Cuts a connection that gives no sign of life for so many seconds, or only answers to pings for `_MOST_SILENT`
    times as long. A ping is sent after half of the time; `is_well` is called when its answer comes."""

    def __init__(self, connection: ClientConnection, seconds: float, is_well: Callable[[], None]) -> None:
        self._connection, self._seconds, self._is_well = connection, seconds, is_well
        self._clock = asyncio.get_running_loop().time
        self.is_paused = False
        self.hear()
        self._watching = asyncio.create_task(self._watch())

    def hear(self) -> None:
        """Note that a message came."""
        self._heard_at = self._alive_at = self._clock()

    async def _watch(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                left = self._alive_at + self._seconds / 2 - self._clock()
                if self.is_paused or left > 0:
                    await asyncio.sleep(left if left > 0 else self._seconds / 4)
                    continue
                since = self._alive_at
                answer = asyncio.ensure_future(await self._connection.ping())
                await asyncio.wait({answer}, timeout=self._seconds / 2)
                if answer.done():
                    answer.result()
                    self._alive_at = self._clock()
                    self._is_well()
                now = self._clock()
                is_dead = self._alive_at == since or now >= self._heard_at + self._seconds * _MOST_SILENT
                if is_dead and not self.is_paused:
                    _log.warning("nothing was heard for %.1f s: connecting anew", now - self._heard_at)
                    self._connection.transport.abort()
                    return

    def end(self) -> None:
        """Look no more."""
        self._watching.cancel()
