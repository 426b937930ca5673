"""Sentiment for lines: read from the lake when one is opened, and again whenever some was taken in."""

from __future__ import annotations

import asyncio
import logging
import time
from weakref import WeakKeyDictionary

from mdplatform.market.timeframe import DAY_US
from mdplatform.strategy.live.lake_view import LakeView
from mdplatform.strategy.live.line import Line
from mdplatform.strategy.live.lines import Lines

_SECONDS = 1.0
_BACK = 400 * DAY_US
_STRIDE = 100 * DAY_US

_log = logging.getLogger(__name__)


class SentimentOfLines:
    """Keeps what the assemblers know of sentiment up to date: that of the market's time, whatever the year is here."""

    def __init__(self, lake: LakeView, lines: Lines) -> None:
        self._lake = lake
        self._lines = lines
        self._known: WeakKeyDictionary[Line, tuple[int, int]] = WeakKeyDictionary()

    async def read(self, line: Line, at: int | None = None) -> None:
        """Let a line that is `at` an instant (microseconds) know the sentiment that there is."""
        wanted = _, around = self._wanted(line, at)
        reading = asyncio.to_thread(self._lake.sentiment, line.shape, around - _BACK, around + _BACK)
        line.assembler.sentiment = await reading
        self._known[line] = wanted

    async def run(self) -> None:
        """Read again, for ever, whenever some was taken in or a market has come far."""
        while True:
            for line in [each for each in self._lines if each.shape.providers]:
                if self._known.get(line) != self._wanted(line):
                    try:
                        await self.read(line)
                    except Exception:  # noqa: BLE001  the older one stays; the log has it
                        _log.exception("Sentiment cannot be read")
            await asyncio.sleep(_SECONDS)

    def _wanted(self, line: Line, at: int | None = None) -> tuple[int, int]:
        """Give which state of the lake is wanted, and the time around which it is."""
        at = line.assembler.over if at is None else at
        now = time.time_ns() // 1000 if at is None else at
        return self._lake.sentiment_changed, now - now % _STRIDE
