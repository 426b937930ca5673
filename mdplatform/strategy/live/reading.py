"""Reading what was heard: posts and facts become packets, and the layouts of their cells are known."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import msgspec

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.broadcast import Listener, Post
from mdplatform.streaming.cells import Layout, Packet, decode_layout, decode_packet

CELL_FACT, LAYOUT_FACT = "cell:", "layout:"
_MOST_LOOKED_UP = 10_000

_log = logging.getLogger(__name__)


class Reading:
    """Decodes for one consumer. `layouts` are those known so far, by id; `unreadable` counts what was no packet."""

    def __init__(self, listener: Listener) -> None:
        self.layouts: dict[str, Layout] = {}
        self.unreadable = 0
        self._listener = listener
        self._looked_up: dict[tuple[str, str], float] = {}

    async def packet(self, post: Post) -> Packet | None:
        """Decode a post, and see to it that the layouts of its cells are known; None for what is no packet."""
        try:
            packet = decode_packet(post.body)
        except msgspec.DecodeError as error:
            self._complain(f"A post of {post.topic}", error)
            return None
        for cell in packet.cells:
            if cell.layout and cell.layout not in self.layouts:
                await self._look_up(packet.symbol, cell.layout)
        return packet

    async def facts(self, symbols: Sequence[str]) -> list[Packet]:
        """Read the facts of symbols: remember their layouts, give their newest cells. Raises `TransportUnavailable`."""
        packets = []
        for symbol, facts in (await self._listener.facts(symbols)).items():
            for name, raw in facts.items():
                try:
                    if name.startswith(LAYOUT_FACT):
                        layout = decode_layout(raw)
                        self.layouts[layout.id] = layout
                    elif name.startswith(CELL_FACT):
                        packets.append(decode_packet(raw))
                except msgspec.DecodeError as error:
                    self._complain(f"The fact {name} of {symbol}", error)
        return sorted(packets, key=lambda each: each.at)

    async def _look_up(self, symbol: str, layout: str) -> None:
        """Look up the layouts of a symbol; for one that is not found, at most once a second."""
        now = time.monotonic()
        if now - self._looked_up.get((symbol, layout), -1.0) < 1.0:
            return
        if len(self._looked_up) > _MOST_LOOKED_UP:
            self._looked_up.clear()
        self._looked_up[symbol, layout] = now
        try:
            await self.facts([symbol])
        except TransportUnavailable as away:  # the cell goes on, and its features are known once the layout is
            _log.warning("The layout of features of %s cannot be looked up for now: %s", symbol, away)

    def _complain(self, what: str, error: Exception) -> None:
        self.unreadable += 1
        _log.error("%s cannot be read: %s", what, error)
