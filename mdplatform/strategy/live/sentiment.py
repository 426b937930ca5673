"""Sentiment for lines: read from the lake when one is opened, and again whenever some was taken in."""

from __future__ import annotations

import asyncio
import logging
import time

from mdplatform.market.timeframe import DAY_US
from mdplatform.strategy.live.lake_view import LakeView
from mdplatform.strategy.live.line import Line
from mdplatform.strategy.live.lines import Lines

_SECONDS = 1.0
_BACK = 400 * DAY_US

_log = logging.getLogger(__name__)


class SentimentOfLines:
    """Keeps what the assemblers know of sentiment up to date."""

    def __init__(self, lake: LakeView, lines: Lines) -> None:
        self._lake = lake
        self._lines = lines
        self._read = -1

    async def read(self, line: Line) -> None:
        """Let a line know the sentiment that there is."""
        now = time.time_ns() // 1000
        line.assembler.sentiment = await asyncio.to_thread(self._lake.sentiment, line.shape, now - _BACK, now + _BACK)

    async def run(self) -> None:
        """Read again, for ever, whenever some was taken in."""
        while True:
            lines = [each for each in self._lines if each.shape.providers]
            changed = self._lake.sentiment_changed
            if lines and changed != self._read:
                try:
                    for line in lines:
                        await self.read(line)
                    self._read = changed
                except Exception:  # noqa: BLE001  the older one stays; the log has it
                    _log.exception("Sentiment cannot be read")
            await asyncio.sleep(_SECONDS)
