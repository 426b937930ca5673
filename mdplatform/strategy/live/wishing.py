"""Wishing: what the lines of a consumer want is said again and again, so that feeds compute it."""

from __future__ import annotations

import asyncio
import logging
import secrets

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.broadcast import Listener
from mdplatform.strategy.live.lines import Lines
from mdplatform.streaming.wishes import Wish, encode_wishes

_WISH_SECONDS, _WISH_LIFE = 2.0, 10.0

_log = logging.getLogger(__name__)


class Wishing:
    """The wishes of one consumer, under a name of its own."""

    def __init__(self, listener: Listener, lines: Lines) -> None:
        self._listener = listener
        self._lines = lines
        self._name = f"consumer-{secrets.token_hex(6)}"

    async def run(self) -> None:
        """Wish for ever: whenever the lines change, and every two seconds."""
        is_told = False
        while True:
            self._lines.changed.clear()
            self._lines.sweep()
            shapes = dict.fromkeys(each.shape for each in self._lines)
            wishes = [
                Wish(each.symbols, tuple(one.value for one in each.timeframes), each.features, each.forming)
                for each in shapes
            ]
            try:
                await self._listener.wish(self._name, encode_wishes(wishes), _WISH_LIFE)
                is_told = False
            except TransportUnavailable as away:
                if not is_told:
                    _log.warning("Wishes cannot be told for now: %s", away)
                is_told = True
            try:
                async with asyncio.timeout(_WISH_SECONDS):
                    await self._lines.changed.wait()
            except TimeoutError:
                continue

    async def take_back(self) -> None:
        """Wish for nothing any more, if that can be said at once."""
        try:
            async with asyncio.timeout(1.0):
                await self._listener.wish(self._name, b"", 1.0)
        except (TransportUnavailable, TimeoutError):
            _log.debug("The wishes of %s end by themselves", self._name)
