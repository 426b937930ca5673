"""Replaying history: what the lake has, through the same assembler and the same callback as what comes live.

Packets come in order of when they were known, and the assembler's clock runs by that: so a frame waits for its grace
in the time of the market, however fast it is replayed, and nothing is in it that was not known then. The callback is
waited for; nothing is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from mdplatform.errors import NoData
from mdplatform.strategy.live.lake_view import LakeView
from mdplatform.strategy.live.subscription import Subscription
from mdplatform.streaming.assembler import Assembler
from mdplatform.streaming.cells import Layout, Packet
from mdplatform.streaming.frame import Frame

_log = logging.getLogger(__name__)


class Replay:
    """The frames with `start <= T < end` of one subscription; open it first, then run it."""

    def __init__(self, subscription: Subscription, lake: LakeView) -> None:
        self._subscription = subscription
        self._lake = lake
        self._layouts: dict[str, Layout] = {}
        self._assembler = Assembler(subscription.wanted.shape, self._layouts)
        self._pieces: Iterator[list[Packet]] = iter(())
        self._first: list[Packet] | None = None
        self._start = self._last = 0
        self.note = ""

    def open(self) -> None:
        """Read the first piece. Raises `NoData`, `UnknownSymbol` and what the features raise, with their field."""
        wanted, shape = self._subscription.wanted, self._subscription.wanted.shape
        self._lake.refuse_unknown(shape)
        start = wanted.start if wanted.cursor is None else wanted.cursor.time + 1
        start = self._lake.oldest(shape) if start is None else start
        newest = self._lake.newest(shape)
        last = newest if wanted.end is None else wanted.end - 1
        if start is None or last is None or newest is None:
            raise NoData(
                "No bars to replay", value=", ".join(shape.symbols), remedy="Take them in with `mdplatform ingest`"
            )
        self._start, self._last = start, min(last, newest)
        past = self._lake.past(shape)
        self._layouts[past.layout.id] = past.layout
        self._assembler.sentiment = past.sentiment(start, self._last)
        self._pieces = past.packets(start - (shape.window - 1) * shape.clock.microseconds, self._last)
        self._first = next(self._pieces, None)

    async def run(self) -> None:
        """Give the frames; then say that it is over."""
        try:
            piece = self._first
            while piece is not None:
                await self._give(piece)
                piece = await asyncio.to_thread(next, self._pieces, None)
            await self._offer(self._assembler.flush(self._last))
        except Exception as failure:  # noqa: BLE001  status and log have it
            self.note = f"The replay failed: {failure}"
            _log.exception("The replay of subscription %s failed", self._subscription.id)
        finally:
            self._subscription.end()

    async def _give(self, packets: list[Packet]) -> None:
        speed = self._subscription.wanted.speed
        loop = asyncio.get_running_loop()
        began: tuple[float, int] | None = None
        for count, packet in enumerate(packets):
            if not self._subscription.is_open:
                return
            frames = self._assembler.take(packet, packet.received_at / 1e6)
            if speed is not None and packet.at >= self._start:
                began = began or (loop.time(), packet.received_at)
                await asyncio.sleep(began[0] + (packet.received_at - began[1]) / 1e6 / speed - loop.time())
            await self._offer(frames)
            if count % 64 == 0:
                await asyncio.sleep(0)

    async def _offer(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.time_us >= self._start:
                await self._subscription.room()
                self._subscription.offer(frame)
