"""A track: one symbol's closed bars, made into the packets that consumers hear, in order.

It has a lane for every timeframe, so that each is ready when somebody wishes for it; cells are sent of some. Bars of
one close travel in one packet, the shortest timeframe first. While features have to be opened anew because a bar was
corrected, the symbol's bars are held, so that no packet says more than its cells can show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from mdplatform.market.timeframe import Timeframe
from mdplatform.messaging.broadcast import Post
from mdplatform.streaming.cells import Cell, Packet, encode, forming_topic
from mdplatform.streaming.lane import Lane, Opened
from mdplatform.streaming.live_bar import LiveBar

CELL, LAYOUT = "cell:", "layout:"
"""How the names begin of the facts of a symbol: the newest closed cell of a timeframe, and a layout."""
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
        self.lanes = {lane.timeframe: lane for lane in lanes}
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

    def take_recent(self, recent: Mapping[Timeframe, Sequence[LiveBar]], since: int) -> list[Cell]:
        """Take the newest bars of history in; give the last cell of each timeframe, if it is news.

        Before it come those that closed behind `since` (µs) and were corrected, where consumers have been told any:
        the correction may have been lost on the way to them.
        """
        found: list[Cell] = []
        for timeframe in self._sent:
            lane = self.lanes[timeframe]
            was_told = lane.told
            for bar in recent.get(timeframe, ()):
                cell = lane.take(bar)
                if cell is None:
                    continue
                is_last = bar is recent[timeframe][-1]
                may_be_lost = bar.revision > 0 and bar.close_time > since and bar.open_time <= was_told[0]
                if (is_last and lane.is_news(cell)) or may_be_lost:
                    found.append(cell)
        return found

    def take(self, bars: Sequence[LiveBar]) -> Iterator[tuple[int, list[Cell]]]:
        """Take closed bars in; give for each close that came the cells that are news, if any is due then."""
        for close, of_close in groupby(bars, key=lambda bar: bar.close_time):
            cells: list[Cell] = []
            for bar in of_close:
                lane = self.lanes[bar.timeframe]
                cell = lane.take(bar, bar.timeframe in self._sent)
                if cell is not None and lane.is_news(cell):
                    cells.append(cell)
            goes_on = close > self.at
            self.at = max(self.at, close)
            if cells or (goes_on and self._sent and self._sent[0].is_aligned(close)):
                yield close, cells

    def is_next(self, bar: LiveBar) -> bool:
        """Tell whether a bar follows those that were taken; else it corrects one of them, or comes late."""
        return bar.open_time >= self.lanes[bar.timeframe].end

    def correct(self, bars: Iterable[LiveBar]) -> bool:
        """Note corrected bars; tell whether features have to be opened anew for cells of them."""
        noted = [bar.timeframe for bar in bars if self.lanes[bar.timeframe].correct(bar)]
        return any(timeframe in self._sent for timeframe in noted)

    def adopt(self, opened: Mapping[Timeframe, Opened], corrected: Iterable[LiveBar]) -> list[Cell]:
        """Take over features that were opened behind a correction; give the cells of the bars that were corrected.

        Behind these comes the newest cell of each timeframe: its features are others now, and it is among the facts.
        """
        values = {timeframe: self.lanes[timeframe].adopt(each) for timeframe, each in opened.items()}
        cells = []
        for bar in corrected:
            lane = self.lanes[bar.timeframe]
            if bar.open_time in values.get(bar.timeframe, {}):
                lane.is_news(bar)
                cells.append(lane.cell(bar, values[bar.timeframe][bar.open_time]))
        told = {(cell.timeframe, cell.open_time) for cell in cells}
        for timeframe in opened:
            newest = self.lanes[timeframe].newest
            if newest is not None and (timeframe.value, newest.open_time) not in told:
                self.lanes[timeframe].is_news(newest)
                cells.append(self.lanes[timeframe].cell(newest, values[timeframe][newest.open_time]))
        return sorted(cells, key=lambda cell: Timeframe.parse(cell.timeframe).microseconds)

    def give_up(self, corrected: Iterable[LiveBar]) -> list[Cell]:
        """Do without the features that corrected bars had a part in; give the cells of those bars."""
        cells = []
        for bar in corrected:
            lane = self.lanes[bar.timeframe]
            if bar.timeframe in self._sent and lane.has(bar.open_time):
                lane.give_up()
                lane.is_news(bar)
                cells.append(lane.cell(bar, None))
        return sorted(cells, key=lambda cell: Timeframe.parse(cell.timeframe).microseconds)

    def post(self, at: int, cells: Sequence[Cell], received_at: int, now: int) -> Post:
        """Make the post of closed cells, with the facts that change by them."""
        self._number += 1
        packet = Packet(self.symbol, at, tuple(cells), received_at, now, self._feed, self._number)
        facts = self._layouts_of(cells, now)
        for cell in cells:
            if (cell.open_time, cell.revision) == self.lanes[Timeframe.parse(cell.timeframe)].told:
                facts[CELL + cell.timeframe] = encode(
                    Packet(self.symbol, at, (cell,), received_at, now, self._feed, self._number)
                )
        return Post(self.symbol, encode(packet), facts)

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
                facts[LAYOUT + cell.layout] = encode(self.lanes[Timeframe.parse(cell.timeframe)].opened.layout)
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
