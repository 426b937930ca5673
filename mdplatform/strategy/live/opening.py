"""Opening a line: what it is to know before its first frame.

1. Its symbols are followed; what comes is held.
2. It is seeded from the lake and from the facts, so that long timeframes and tensors have their past. A listener of
   its own brings what was sent and is not in the lake yet.
3. With a cursor, all this is as it was there. Then another listener brings what was sent since (`catching_up`); what
   was held behind that is given as patiently.
4. Then it goes on with what comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.broadcast import Listener
from mdplatform.strategy.live.catching_up import MOST_AT_ONCE, catch_up, recall
from mdplatform.strategy.live.filling import Filling
from mdplatform.strategy.live.lake_view import LakeView
from mdplatform.strategy.live.line import Line
from mdplatform.strategy.live.lines import Lines
from mdplatform.strategy.live.reading import Reading
from mdplatform.strategy.live.sentiment import SentimentOfLines
from mdplatform.strategy.live.tasks import Tasks
from mdplatform.streaming.cells import Packet
from mdplatform.streaming.cursor import Cursor
from mdplatform.streaming.shape import Shape

_AWAY_SECONDS = 0.2

_log = logging.getLogger(__name__)


class Opening:
    """Opens lines for an ear."""

    def __init__(
        self,
        open_listener: Callable[[], Listener],
        lake: LakeView,
        reading: Reading,
        lines: Lines,
        filling: Filling,
        sentiment: SentimentOfLines,
        tasks: Tasks,
    ) -> None:
        self._open_listener = open_listener
        self._lake = lake
        self._reading = reading
        self._lines = lines
        self._filling = filling
        self._sentiment = sentiment
        self._tasks = tasks
        self._catching_up = asyncio.Semaphore(MOST_AT_ONCE)

    async def open(self, line: Line) -> None:
        """Open a line that begins now. Raises `TransportUnavailable` and what the features raise."""
        try:
            places, facts = await self._follow(line)
            newest = max((each.at for each in facts), default=None)
            until = await asyncio.to_thread(self._lake.newest, line.shape) if newest is None else newest
            stored = await asyncio.to_thread(self._stored, line.shape, until or 0)
            await self._seed(line, until)
            if newest is not None and line.shape.window > 1:
                await self._recall(line, Cursor(newest, places), stored)
            self._know(line, facts)
            line.assembler.begin(until, places)
            self._filling.release(line)
        except BaseException:
            await self._lines.drop(line)
            raise

    async def resume(self, line: Line, cursor: Cursor) -> dict[str, str]:
        """Open a line that begins at a cursor; give the places up to which it has to catch up. Raises as `open`."""
        self._lines.own.add(line)
        try:
            places, facts = await self._follow(line)
            stored = await asyncio.to_thread(self._stored, line.shape, cursor.time)
            await self._seed(line, cursor.time)
            await self._recall(line, cursor, stored)
            self._know(line, [each for each in facts if each.at <= cursor.time])
            line.assembler.begin(cursor.time, {each: at for each, at in cursor.places.items() if each in places})
            if self._tasks.is_closed:
                raise TransportUnavailable("The consumer was closed", remedy="Make a new one")
        except BaseException:
            await self._lines.drop(line)
            raise
        return places

    async def catch_up(self, line: Line, cursor: Cursor, places: dict[str, str]) -> None:
        """Give a line what was sent since its cursor, up to those places; then let it go on."""
        try:
            async with self._catching_up:
                while line in self._lines.own:
                    listener = self._open_listener()
                    try:
                        await catch_up(line, cursor, places, listener, self._reading.packet, self._filling.refill)
                        break
                    except TransportUnavailable as away:
                        _log.warning("A subscription cannot catch up yet: %s", away)
                        await asyncio.sleep(_AWAY_SECONDS)
                    finally:
                        # nothing cancels this: a listener that is half closed keeps the server running
                        self._tasks.begin(listener.close(), to_end=True)
                await line.drain()
        except Exception:  # noqa: BLE001  frames go on, marked; the log has it
            _log.exception("A subscription cannot catch up; it goes on with what comes now")
        finally:
            if line in self._lines.own:
                self._filling.release(line)
                self._lines.merge()

    async def _follow(self, line: Line) -> tuple[dict[str, str], list[Packet]]:
        """Hear the line's symbols; give the places from which on, and the newest cells."""
        return await self._lines.follow(line), await self._reading.facts(line.shape.symbols)

    async def _seed(self, line: Line, until: int | None) -> None:
        """Let the assembler know the past up to `until`, as the lake has it."""
        if until is not None:
            layout, packets = await asyncio.to_thread(self._lake.seed, line.shape, until)
            self._reading.layouts[layout.id] = layout
            await self._sentiment.read(line, until)
            self._know(line, packets)

    @staticmethod
    def _know(line: Line, packets: Sequence[Packet]) -> None:
        """Let the assembler take packets of the past, of which it gives no frames."""
        for packet in packets:
            line.assembler.take(packet, line.held_since)

    def _stored(self, shape: Shape, at: int) -> int:
        """Give up to where the lake has what a shape shows at an instant (microseconds), if not all of it.

        It is asked before the lake is read, for it may get more meanwhile. What no tensor reaches is not missed.
        """
        heads = self._lake.heads(shape)
        reach = (shape.window - 1) * shape.clock.microseconds + max(each.microseconds for each in shape.timeframes)
        return max(min(heads.get(each, 0) for each in shape.symbols), at - reach)

    async def _recall(self, line: Line, cursor: Cursor, stored: int) -> None:
        """Let the assembler know what was sent before the cursor and is not in the lake."""
        if stored >= cursor.time:
            return
        async with self._catching_up:
            listener = self._open_listener()
            try:
                await recall(line, cursor, stored, listener, self._reading.packet)
            finally:
                self._tasks.begin(listener.close(), to_end=True)
