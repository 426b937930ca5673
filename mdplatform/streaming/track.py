"""A track: one symbol's closed bars, made into the packets that consumers hear, in order.

It has a lane for every timeframe, so that each is ready when somebody wishes for it; cells are sent of some. Bars of
one close travel in one packet, the shortest timeframe first. While features have to be opened anew because a bar was
corrected, the symbol's bars are held, so that no packet says more than its cells can show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from mdplatform.features.live import LiveValues
from mdplatform.market.timeframe import Timeframe
from mdplatform.messaging.broadcast import Post
from mdplatform.streaming.bars import KEPT_US
from mdplatform.streaming.cells import Cell, Packet, encode, encode_corrections, forming_topic
from mdplatform.streaming.lane import MOST_TOLD_AGAIN, Lane, Opened
from mdplatform.streaming.live_bar import LiveBar

CELL, LAYOUT, CORRECTED = "cell:", "layout:", "corrected:"
"""How the names begin of the facts of a symbol: the newest closed cell of a timeframe, a layout, and the revisions of a
timeframe's bars that consumers were told as corrected lately."""
_MOST_BYTES = 100_000
"""Bytes of cells in one post, above which others go in the next."""
_LAYOUT_AGAIN_US = 60_000_000
_LAYOUT_KEPT_US = 3_600_000_000
"""How long a layout stays among the facts after it was last sent, when no lane uses it any more."""


class Track:
    """The lanes of one symbol by timeframe; cells are sent of the timeframes in `sent`.

    `at` is the instant (µs) up to which the symbol's bars are closed, `held` the bars that wait for features, and
    `opening` is held by whoever opens features of the symbol.
    """

    def __init__(self, symbol: str, feed: str, lanes: Iterable[Lane], at: int = 0) -> None:
        self.symbol = symbol
        self.at = at
        self.held: list[LiveBar] | None = None
        self.opening = asyncio.Lock()
        self.lanes: dict[str, Lane] = {lane.timeframe: lane for lane in lanes}
        self._sent: tuple[Timeframe, ...] = ()
        self._feed = feed
        self._number = 0
        self._forming_number = 0
        self._layouts: dict[str, int] = {}
        self._kept_layouts: dict[str, int] = {}

    @property
    def sent(self) -> tuple[Timeframe, ...]:
        """The timeframes whose cells are sent, shortest first."""
        return self._sent

    @sent.setter
    def sent(self, timeframes: Iterable[Timeframe]) -> None:
        wanted = set(timeframes)
        self._sent = tuple(each for each in Timeframe if each in wanted)

    def mark_sealed(self, until: int) -> None:
        """Note that the lake has the symbol's bars that closed by then."""
        for lane in self.lanes.values():
            lane.sealed = until

    def take_recent(
        self,
        recent: Mapping[Timeframe, Sequence[LiveBar]],
        since: int,
        corrected: Mapping[Timeframe, Mapping[int, int]],
    ) -> list[Cell]:
        """Take the newest bars of history in; give the last cell of each timeframe, if it is news.

        Where consumers have been told any, those that closed behind `since` (µs) and were corrected come before it, and
        all behind them, unless their revision is among those of which consumers were told that they are `corrected`:
        the correction may have been lost on the way to them.
        """
        found: list[Cell] = []
        for timeframe in self._sent:
            lane, bars = self.lanes[timeframe], recent.get(timeframe, ())
            was_told, known = lane.told[0], corrected.get(timeframe, {})
            lost = {
                bar.open_time
                for bar in bars
                if bar.revision > known.get(bar.open_time, 0) and bar.close_time > since and bar.open_time <= was_told
            }
            lane.edition += bool(lost)
            cells = [cell for bar in bars if (cell := lane.take(bar)) is not None]
            again = [cell for cell in cells if lost and cell.open_time >= min(lost)]
            newest = {cell.open_time for cell in again[-MOST_TOLD_AGAIN:]}
            found += [cell for cell in again[:-1] if cell.open_time in newest | lost]
            if cells and (lane.is_news(cells[-1]) or again):
                found.append(cells[-1])
        return found

    def take(self, bars: Sequence[LiveBar], place: int = 0) -> tuple[list[tuple[int, list[Cell]]], int]:
        """Take closed bars in, from `place` on up to the first that follows none; give the place of that one too.

        For each close that came there are the cells that are news, if any is due then.
        """
        found: list[tuple[int, list[Cell]]] = []
        cells: list[Cell] = []
        lanes, sent, close = self.lanes, self._sent, -1
        for bar in bars if place == 0 else islice(bars, place, None):
            lane = lanes[bar.timeframe]
            if bar.open_time < lane.end:
                break
            cell = lane.take(bar, bar.timeframe in sent)
            if lane.end != close:
                self._close(close, cells, found)
                cells, close = [], lane.end
            if cell is not None and lane.is_news(cell):
                cells.append(cell)
            place += 1
        self._close(close, cells, found)
        return found, place

    def _close(self, close: int, cells: list[Cell], found: list[tuple[int, list[Cell]]]) -> None:
        """Note that bars closed, and add their cells to what was found."""
        goes_on = close > self.at
        if goes_on:
            self.at = close
        if cells or (goes_on and self._sent and self._sent[0].is_aligned(close)):
            found.append((close, cells))

    def is_next(self, bar: LiveBar) -> bool:
        """Tell whether a bar follows those that were taken; else it corrects one of them, or comes late."""
        return bar.open_time >= self.lanes[bar.timeframe].end

    def correct(self, bars: Iterable[LiveBar]) -> bool:
        """Note corrected bars; tell whether features have to be opened anew for cells of them."""
        noted = [bar.timeframe for bar in bars if self.lanes[bar.timeframe].correct(bar)]
        return any(timeframe in self._sent for timeframe in noted)

    def touched(self, corrected: Iterable[LiveBar]) -> dict[Timeframe, int]:
        """Give the open time from which on features have to be opened anew, by timeframe."""
        first: dict[Timeframe, int] = {}
        for bar in corrected:
            if bar.timeframe in self._sent and self.lanes[bar.timeframe].has(bar.open_time):
                first[bar.timeframe] = min(bar.open_time, first.get(bar.timeframe, bar.open_time))
        return first

    def adopt(self, opened: Mapping[Timeframe, Opened], corrected: Sequence[LiveBar]) -> list[Cell]:
        """Take over features that were opened behind a correction; give the cells of the bars that were corrected.

        Behind these come those of the bars that follow: their features are others now.
        """
        values = {timeframe: self.lanes[timeframe].adopt(each) for timeframe, each in opened.items()}
        return self._again({timeframe: each.end for timeframe, each in opened.items()}, values, corrected)

    def give_up(self, corrected: Sequence[LiveBar]) -> list[Cell]:
        """Do without the features that corrected bars had a part in; give the cells of those and of all behind them."""
        first = self.touched(corrected)
        for timeframe, since in first.items():
            self.lanes[timeframe].give_up(since)
        return self._again(first, {}, corrected)

    def _again(
        self,
        first: Mapping[Timeframe, int],
        values: Mapping[Timeframe, Mapping[int, LiveValues | None]],
        corrected: Iterable[LiveBar],
    ) -> list[Cell]:
        opened = {(bar.timeframe, bar.open_time) for bar in corrected}
        cells = []
        for timeframe in sorted(first, key=lambda each: each.microseconds):
            own = {open_time for of, open_time in opened if of is timeframe}
            cells += self.lanes[timeframe].tell_again(values.get(timeframe, {}), first[timeframe], own)
        return cells

    def post(self, at: int, cells: Sequence[Cell], received_at: int, now: int, is_again: bool = False) -> Post:
        """Make the post of closed cells, with the facts that change by them.

        With the newest cell of a timeframe goes, behind a gap or as cells are told again, the fact of which bars
        consumers were told as corrected, and which they lack.
        """
        self._number += 1
        packet = Packet(self.symbol, at, tuple(cells), received_at, now, self._feed, self._number)
        body = encode(packet)
        facts = self._layouts_of(cells, now)
        for cell in cells:
            lane = self.lanes[cell.timeframe]
            if (cell.open_time, cell.revision, cell.edition) == lane.told:
                alone = Packet(self.symbol, at, (cell,), received_at, now, self._feed, self._number)
                facts[CELL + cell.timeframe] = body if len(cells) == 1 else encode(alone)
                if is_again or lane.lacks:
                    facts[CORRECTED + cell.timeframe] = encode_corrections(lane.corrections(self.at - KEPT_US))
        return Post(self.symbol, body, facts)

    def posts_again(self, cells: Iterable[Cell], received_at: int, now: int) -> Iterator[Post]:
        """Make the posts of cells that are told again, several if they are many."""
        for some in _by_size(cells):
            yield self.post(self.at, some, received_at, now, is_again=True)

    def posts_of_forming(self, cells: Sequence[Cell], received_at: int, now: int) -> list[Post]:
        """Make the post of forming cells; before it comes one with their layouts, if these are not known yet."""
        posts = []
        if facts := self._layouts_of(cells, now):
            self._number += 1
            known = Packet(self.symbol, self.at, (), received_at, now, self._feed, self._number)
            posts.append(Post(self.symbol, encode(known), facts))
        self._forming_number += 1
        packet = Packet(self.symbol, self.at, tuple(cells), received_at, now, self._feed, self._forming_number)
        return [*posts, Post(forming_topic(self.symbol), encode(packet))]

    def _layouts_of(self, cells: Iterable[Cell], now: int) -> dict[str, bytes]:
        """Give the facts of layouts that were not sent for a while."""
        facts: dict[str, bytes] = {}
        for cell in cells:
            if cell.layout and now - self._layouts.get(cell.layout, 0) > _LAYOUT_AGAIN_US:
                self._layouts[cell.layout] = self._kept_layouts[cell.layout] = now
                facts.update((LAYOUT + each, b"") for each in self._outworn(now))
                facts[LAYOUT + cell.layout] = encode(self.lanes[cell.timeframe].opened.layout)
        return facts

    def note_layouts(self, facts: Iterable[str], now: int) -> None:
        """Note the layouts that are among the facts of the symbol, by the names of these."""
        self._kept_layouts.update((name.removeprefix(LAYOUT), now) for name in facts if name.startswith(LAYOUT))

    def _outworn(self, now: int) -> list[str]:
        """Give the layouts that no lane has used for long, and forget them."""
        used = {lane.opened.layout.id for lane in self.lanes.values()}
        kept = self._kept_layouts
        outworn = [each for each, sent in kept.items() if each not in used and now - sent > _LAYOUT_KEPT_US]
        for each in outworn:
            del kept[each]
            self._layouts.pop(each, None)
        return outworn

    def forget_layouts(self) -> None:
        """Have each layout sent again with the next cell that uses it: Redis may have lost it."""
        self._layouts.clear()


def _by_size(cells: Iterable[Cell]) -> Iterator[list[Cell]]:
    """Cut cells into parts that each fit in a post."""
    some: list[Cell] = []
    size = 0
    for cell in cells:
        if size > _MOST_BYTES:
            yield some
            some, size = [], 0
        some.append(cell)
        size += len(cell.bar) + len(cell.numbers) + len(cell.statuses)
    if some:
        yield some
