"""Hearing: one task receives for ever, and gives what it heard to the lines of its topic.

Posts are decoded once. A symbol's packets are numbered by their feed: where a number is left out, as where the
transport says so, something was missed, and the lines are told (`on_missed`). Of forming bars nothing is ever missed:
the next ones say as much.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.broadcast import Listener, Missed, Post
from mdplatform.strategy.live.line import Line
from mdplatform.strategy.live.lines import Lines
from mdplatform.strategy.live.reading import Reading
from mdplatform.strategy.live.tasks import is_being_cancelled
from mdplatform.streaming.cells import Packet

_RECEIVE_SECONDS = 0.5
_TURN_SECONDS = 0.002
_AWAY_SECONDS = 0.2

_log = logging.getLogger(__name__)


class Hearing:
    """Hears for all lines. `away` says why the server does not answer, empty while it does."""

    def __init__(self, listener: Listener, reading: Reading, lines: Lines, on_missed: Callable[[Line], None]) -> None:
        self._listener = listener
        self._reading = reading
        self._lines = lines
        self._on_missed = on_missed
        self._numbers: dict[str, tuple[str, int]] = {}
        self.away = ""

    async def run(self) -> None:
        """Receive for ever; whatever goes wrong is told and tried again."""
        patience = _RECEIVE_SECONDS
        while True:
            try:
                heard = await self._listener.receive(patience)
                self.away = ""
            except TransportUnavailable as away:
                if not self.away:
                    _log.warning("Nothing can be heard for now: %s", away)
                self.away = str(away)
                await asyncio.sleep(_AWAY_SECONDS)
                heard = []
            try:
                await self.take(heard)
                patience = self._tick()
            except (Exception, asyncio.CancelledError):  # nothing ends the hearing but who cancels it; the log has it
                if is_being_cancelled():
                    raise
                _log.exception("What was heard cannot be given on; hearing goes on")

    async def take(self, heard: Iterable[Post | Missed]) -> None:
        """Give what was heard to the lines; others have their turn now and then."""
        now = turn = time.monotonic()
        closed, forming = self._lines.closed, self._lines.forming
        for each in heard:
            topic = each.topic
            if topic in forming:
                if isinstance(each, Post) and (packet := await self._reading.packet(each)) is not None:
                    for line in tuple(forming.get(topic, ())):
                        line.hear_forming(packet)
            elif isinstance(each, Missed):
                self.miss(topic)
            else:
                packet = await self._reading.packet(each)
                if topic in closed:
                    self._lines.heard_at[topic] = now
                    if packet is not None:
                        self._give(topic, packet, each.place, now)
            now = time.monotonic()
            if now - turn > _TURN_SECONDS:
                await asyncio.sleep(0)
                now = turn = time.monotonic()

    def miss(self, topic: str) -> None:
        """Note that posts were let go: by the transport before they were heard, or by the feed while it was away."""
        _log.warning("Posts of %s were let go before they were heard", topic)
        for line in tuple(self._lines.closed.get(topic, ())):
            self._on_missed(line)

    def _give(self, topic: str, packet: Packet, place: str, now: float) -> None:
        feed, number = self._numbers.get(topic, ("", 0))
        if packet.feed == feed and packet.number > number + 1:
            self.miss(topic)
        self._numbers[topic] = packet.feed, packet.number
        waiting = self._lines.waiting
        for line in tuple(self._lines.closed[topic]):
            line.hear(packet, place, now)
            if line.assembler.is_waiting or line.is_blocked:
                waiting.add(line)

    def _tick(self) -> float:
        """Make the frames that have waited for so long as they may; give how long nothing more is due (seconds)."""
        now, patience, waiting = time.monotonic(), _RECEIVE_SECONDS, self._lines.waiting
        for line in tuple(waiting):
            due = line.due
            if due is not None and due <= now:
                line.tick(now)
                due = line.due
            if not (line.assembler.is_waiting or line.is_blocked):
                waiting.discard(line)
            elif due is not None:
                patience = min(patience, max(0.0, due - now))
        if self._lines.own:
            self._lines.merge()
        if len(self._numbers) > len(self._lines.closed):
            self._numbers = {each: told for each, told in self._numbers.items() if each in self._lines.closed}
        return patience
