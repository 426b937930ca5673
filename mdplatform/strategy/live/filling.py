"""Filling in: what a line missed comes from the lake.

1. The line is held. What the lake has since the line's last frame is given to it, each callback waited for; then what
   was held meanwhile, and it goes on.
2. What the feed has told of but not merged into the lake yet is still missing. It is looked for again every
   `seal_seconds`, `TRIES` times, while frames go on; what is found corrects them. Until then, and if it is never found,
   the line says so (`Line.unfilled`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mdplatform.market.time import from_us, iso
from mdplatform.strategy.live.catching_up import refill
from mdplatform.strategy.live.lake_view import LakeView
from mdplatform.strategy.live.line import Line
from mdplatform.strategy.live.lines import Lines
from mdplatform.strategy.live.reading import Reading
from mdplatform.strategy.live.tasks import Tasks
from mdplatform.streaming.cells import Packet

FILLING_IN = "filling in what was missed"
TRIES = 5
"""How often the lake is looked into for what it did not have at first."""

_log = logging.getLogger(__name__)


@dataclass
class _Lacking:
    """What the lake did not have of `(since, until]` (microseconds); `heads` is how far it has to come by symbol."""

    since: int
    until: int
    heads: dict[str, int]
    tries: int = 0


class Filling:
    """Fills in what lines missed."""

    def __init__(self, lake: LakeView, reading: Reading, lines: Lines, tasks: Tasks, seal_seconds: float) -> None:
        self._lake = lake
        self._reading = reading
        self._lines = lines
        self._tasks = tasks
        self._seal_seconds = seal_seconds
        self._lacking: dict[Line, _Lacking] = {}

    def missed(self, line: Line) -> None:
        """Fill in what a line missed, or, if it is held, do so before it goes on."""
        if line.held_for:
            line.is_refill_wanted = True
        else:
            self._begin(line)

    def release(self, line: Line) -> None:
        """Let a line go on; if something was missed while it was held, when that is filled in."""
        if self._tasks.is_closed or line.is_closed:
            return
        if line.is_refill_wanted:
            self._begin(line)
            return
        line.release()
        self._lines.waiting.add(line)

    async def refill(self, line: Line) -> None:
        """Give a line what the lake has of what it missed. Raises `TransportUnavailable`."""
        facts = await self._reading.facts(line.shape.symbols)
        newest = max((each.at for each in facts), default=None)
        since = line.assembler.over
        try:
            heads = await asyncio.to_thread(self._lake.heads, line.shape)
            until = max(heads.values(), default=None) if newest is None else newest
            await refill(line, self._lake, until, self._reading.layouts)
            if since is not None and until is not None:
                self._note(line, since, until, _told(line, facts), heads)
        except Exception:  # noqa: BLE001  frames go on, marked; the log has it
            _log.exception("What was missed cannot be filled in from the lake")

    def _begin(self, line: Line) -> None:
        line.is_refill_wanted = False
        line.hold(FILLING_IN)
        self._tasks.begin(self._fill_in(line))

    async def _fill_in(self, line: Line) -> None:
        try:
            await self.refill(line)
            await line.drain()
        except Exception:  # noqa: BLE001  frames go on, marked; the log has it
            _log.exception("What was missed cannot be filled in")
        finally:
            self.release(line)

    def _note(self, line: Line, since: int, until: int, told: dict[str, int], heads: dict[str, int]) -> None:
        """Look again later for what was told of and is not in the lake."""
        lacking = {symbol: head for symbol, head in told.items() if head > max(since, heads.get(symbol, 0))}
        if not lacking or not self._lake.is_there:
            return
        known = self._lacking.get(line)
        line.unfilled = f"What was missed until {iso(from_us(until))} is not in the lake yet"
        if known is None:
            self._lacking[line] = _Lacking(since, until, lacking)
            self._tasks.begin(self._fill_in_later(line, self._lacking[line]))
        else:
            known.until, known.heads, known.tries = until, {**known.heads, **lacking}, 0

    async def _fill_in_later(self, line: Line, lacking: _Lacking) -> None:
        try:
            while lacking.tries < TRIES:
                lacking.tries += 1
                await asyncio.sleep(self._seal_seconds)
                to = line.newest
                if to.is_closed:
                    return
                try:
                    heads = await asyncio.to_thread(self._lake.heads, line.shape)
                    await refill(to, self._lake, lacking.until, self._reading.layouts, lacking.since)
                except Exception:  # noqa: BLE001  it is tried again; the log has it
                    _log.exception("What was missed cannot be filled in from the lake")
                    continue
                if all(heads.get(symbol, 0) >= head for symbol, head in lacking.heads.items()):
                    line.unfilled = to.unfilled = ""
                    return
            line.unfilled = line.newest.unfilled = (
                f"Not all that was missed until {iso(from_us(lacking.until))} came into the lake"
            )
            _log.warning("%s: what it would have changed stays as it is", line.unfilled)
        finally:
            self._lacking.pop(line, None)


def _told(line: Line, facts: Sequence[Packet]) -> dict[str, int]:
    """Give the newest close of the clock by symbol (microseconds) that a feed has told of."""
    told: dict[str, int] = {}
    for packet in facts:
        for cell in packet.cells:
            if cell.timeframe == line.shape.clock and cell.is_closed:
                told[packet.symbol] = max(told.get(packet.symbol, 0), cell.close_time)
    return told
