"""Lines: a websocket connection of Binance that is kept up, for some of the symbols.

1. Connect, within the pace that the venue allows; wait longer and longer after failures. The first streams stand in the
   URL, the others are subscribed to by messages, a few a second.
2. Read until the connection ends, is silent for too long (`silence`), or is old. `heard` is called for each message.
3. Before the venue cuts an old one, or where it says that it will end one, a new one is made; both are read for a
   while, so that nothing falls between them. Only where there was a time without one is `cut` called, once the new one
   is live.

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
from mdplatform.feeds.binance_messages import Farewell, Reply
from mdplatform.feeds.silence import Cadence, Silence
from mdplatform.sources.download import why

MOST_STREAMS = 1024
_IN_URL, _IN_MESSAGE = 100, 200
_OPEN_SECONDS = 10.0
_QUEUE = 256
_LARGEST = 1 << 23

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a line behaves, in seconds.

    It connects anew after `silence`, or as much later as it was quiet lately, at most after `most_silent` (see
    `silence.py`). `renew` comes before the venue's cut, with `overlap` of two connections. `wait` is the longest time
    before a try, `subscribe` that until the venue has taken all subscriptions.
    """

    silence: float = 10.0
    most_silent: float = 70.0
    renew: float = 23 * 3600.0
    overlap: float = 2.0
    wait: float = 30.0
    subscribe: float = 15.0


class Line:
    """One connection after another to `url` with the same `streams`.

    `heard` takes a message and gives back what is said to the line itself, `room` waits until there is room, `cut` is
    told that something may have been missed, once the line is live again (and when it is live first).
    """

    def __init__(
        self,
        url: str,
        streams: Sequence[str],
        manner: Manner,
        connects: Pace,
        counts: Counter[str],
        *,
        heard: Callable[[bytes], Reply | Farewell | None],
        room: Callable[[], Awaitable[None] | None],
        cut: Callable[[], None],
    ) -> None:
        self._url, self._streams, self._manner = url.rstrip("/"), list(streams), manner
        self._connects, self._counts = connects, counts
        self._heard, self._room, self._cut = heard, room, cut
        self._backoff = Backoff(cap=manner.wait)
        self._cadence = Cadence(manner.silence, max(manner.silence, manner.most_silent))
        self._readings: set[asyncio.Task[None]] = set()

    async def keep(self) -> None:
        """Keep the line up until this is cancelled."""
        before: asyncio.Task[None] | None = None
        try:
            while True:
                reading, leave = await self._live()
                if before is None or before.done():
                    self._cut()
                else:
                    self._later_end(before)
                before = reading
                await self._until_old(reading, leave)
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

    async def _until_old(self, reading: asyncio.Task[None], leave: asyncio.Future[None]) -> None:
        """Wait until a connection ends, or its time has come: it is old, or the venue says that it will end it."""
        clock = asyncio.get_running_loop().time
        began = clock()
        renew = self._manner.renew * random.uniform(0.9, 1.0)
        await asyncio.wait({reading, leave}, timeout=renew, return_when=asyncio.FIRST_COMPLETED)
        if leave.done():  # where all servers of the venue go down they are left one after the other
            await asyncio.wait({reading}, timeout=max(began + self._manner.overlap - clock(), 0.0))

    async def _live(self) -> tuple[asyncio.Task[None], asyncio.Future[None]]:
        """Connect until it succeeds; give the task that reads, and what is done when the venue says its farewell."""
        loop = asyncio.get_running_loop()
        while True:
            await self._connects.wait()
            live, leave = loop.create_future(), loop.create_future()
            reading = asyncio.create_task(self._read(live, leave))
            self._readings.add(reading)
            reading.add_done_callback(self._readings.discard)
            await asyncio.wait({reading, live}, return_when=asyncio.FIRST_COMPLETED)
            if live.done():
                return reading, leave
            reading.result()
            self._counts["refused"] += 1
            await asyncio.sleep(self._backoff.next())

    def _later_end(self, reading: asyncio.Task[None]) -> None:
        asyncio.get_running_loop().call_later(self._manner.overlap, reading.cancel)

    async def _read(self, live: asyncio.Future[None], leave: asyncio.Future[None]) -> None:
        """Connect, subscribe, and read until the connection ends or is silent."""
        first, rest = self._streams[:_IN_URL], self._streams[_IN_URL:]
        try:
            async with connect(
                f"{self._url}/stream?streams={'/'.join(first)}&timeUnit=MICROSECOND", compression=None,
                ping_interval=None, open_timeout=_OPEN_SECONDS, close_timeout=1.0, max_size=_LARGEST, max_queue=_QUEUE,
            ) as connection:  # fmt: skip
                self._counts["connects"] += 1
                await self._hear(connection, rest, live, leave)
        except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError) as failed:
            _log.warning("a connection to %s ended: %s", self._url, why(failed))

    async def _hear(
        self,
        connection: ClientConnection,
        rest: Sequence[str],
        live: asyncio.Future[None],
        leave: asyncio.Future[None],
    ) -> None:
        clock = asyncio.get_running_loop().time
        asked = set(range(1, -(-len(rest) // _IN_MESSAGE) + 1))
        asking = asyncio.create_task(_subscribe(connection, rest))

        def is_well() -> None:
            if live.done():  # before, what it says shows only that it takes connections, maybe to end them at once
                self._backoff.reset()

        silence = Silence(connection, self._cadence, is_well)
        try:
            async with asyncio.timeout(None) as until_live:
                if not asked:
                    live.set_result(None)
                else:
                    until_live.reschedule(clock() + self._manner.subscribe)
                while True:
                    raw = await connection.recv(decode=False)
                    silence.hear()
                    told = self._heard(raw)
                    if told is not None and not self._goes_on(told, asked, leave):
                        return
                    if not asked and not live.done():
                        live.set_result(None)
                        until_live.reschedule(None)
                    is_well()
                    if (room := self._room()) is not None:
                        silence.pause()
                        until_live.reschedule(None)
                        await room
                        silence.resume()
                        until_live.reschedule(None if live.done() else clock() + self._manner.subscribe)
        except TimeoutError:
            _log.warning("the venue did not answer a subscription for %.1f s: connecting anew", self._manner.subscribe)
        finally:
            silence.end()
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await asking

    def _goes_on(self, told: Reply | Farewell, asked: set[int], leave: asyncio.Future[None]) -> bool:
        """Take in what is said to the line itself; tell whether the connection is read on."""
        if isinstance(told, Farewell):
            _log.info("the venue is about to end a connection to %s: making another", self._url)
            if not leave.done():
                leave.set_result(None)
        elif told.error:
            _log.warning("the venue refused a subscription: %s", told.error)
            return False
        else:
            asked.discard(told.id or 0)
        return True


async def _subscribe(connection: ClientConnection, streams: Sequence[str]) -> None:
    pace = Pace(2, 1.0)  # the venue allows 5 messages a second, pings and their answers among them
    for number, begin in enumerate(range(0, len(streams), _IN_MESSAGE), start=1):
        await pace.wait()
        asked = {"method": "SUBSCRIBE", "params": list(streams[begin : begin + _IN_MESSAGE]), "id": number}
        await connection.send(json.dumps(asked))
