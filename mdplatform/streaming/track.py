"""A track: one symbol's closed bars, made into the packets that consumers hear, in order.

Bars of one close travel in one packet, the shortest timeframe first. While features have to be opened anew because a
bar was corrected, the symbol's bars are held, so that no packet says more than its cells can show.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from mdplatform.market.timeframe import Timeframe
from mdplatform.messaging.broadcast import Post
from mdplatform.streaming.cells import Cell, Packet, encode
from mdplatform.streaming.lane import Lane, Opened
from mdplatform.streaming.live_bar import LiveBar

CELL, LAYOUT = "cell:", "layout:"
"""How the names begin of the facts of a symbol: the newest closed cell of a timeframe, and a layout."""
_LAYOUT_AGAIN_US = 60_000_000


class Track:
    """The lanes of one symbol by timeframe; a lane is there for each timeframe whose cells are sent.

    `at` is the instant (µs) up to which the symbol's bars are closed; `held` the bars that wait for features.
    """

    def __init__(self, symbol: str, feed: str, lanes: Mapping[Timeframe, Lane], at: int = 0) -> None:
        self.symbol = symbol
        self.at = at
        self.held: list[LiveBar] | None = None
        self._feed = feed
        self._lanes = dict(lanes)
        self._number = 0
        self._layouts: dict[str, int] = {}

    @property
    def lanes(self) -> Mapping[Timeframe, Lane]:
        """The lanes, shortest timeframe first."""
        return self._lanes

    def set_lane(self, lane: Lane) -> None:
        """Have cells of one more timeframe."""
        self._lanes[lane.timeframe] = lane
        self._lanes = {each: self._lanes[each] for each in Timeframe if each in self._lanes}

    def drop_lane(self, timeframe: Timeframe) -> None:
        """Have no more cells of a timeframe."""
        self._lanes.pop(timeframe, None)

    def take(self, bars: Sequence[LiveBar]) -> Iterator[tuple[int, list[Cell]]]:
        """Take closed bars in; give for each close that came the cells that are news, if any is due then."""
        for close, of_close in groupby(bars, key=lambda bar: bar.close_time):
            cells: list[Cell] = []
            for bar in of_close:
                lane = self._lanes.get(bar.timeframe)
                cell = lane.take(bar) if lane is not None else None
                if lane is not None and cell is not None and lane.is_news(cell):
                    cells.append(cell)
            if close <= self.at and not cells:
                continue
            self.at = max(self.at, close)
            if cells or self._is_due(close):
                yield close, cells

    def _is_due(self, close: int) -> bool:
        shortest = next(iter(self._lanes), None)
        return shortest is not None and shortest.is_aligned(close)

    def corrected(self, bars: Iterable[LiveBar]) -> dict[Timeframe, int]:
        """Note corrected bars; give the open time of the first one in each timeframe whose cells are sent."""
        first: dict[Timeframe, int] = {}
        for bar in bars:
            lane = self._lanes.get(bar.timeframe)
            if lane is not None and lane.correct(bar):
                first[bar.timeframe] = min(bar.open_time, first.get(bar.timeframe, bar.open_time))
        return first

    def adopt(self, opened: Mapping[Timeframe, Opened], corrected: Iterable[LiveBar]) -> list[Cell]:
        """Take over features that were opened behind a correction; give the cells of the bars that were corrected."""
        values = {timeframe: self._lanes[timeframe].adopt(each) for timeframe, each in opened.items()}
        cells = []
        for bar in corrected:
            lane = self._lanes.get(bar.timeframe)
            if lane is not None and bar.open_time in values.get(bar.timeframe, {}) and lane.is_news(bar):
                cells.append(lane.cell(bar, values[bar.timeframe][bar.open_time]))
        return sorted(cells, key=lambda cell: Timeframe.parse(cell.timeframe).microseconds)

    def post(self, cells: Sequence[Cell], received_at: int, now: int, at: int | None = None) -> Post:
        """Make the post of cells, with the facts that change by them."""
        self._number += 1
        packet = Packet(self.symbol, self.at if at is None else at, tuple(cells), received_at, now, self._feed,
                        self._number)  # fmt: skip
        facts: dict[str, bytes] = {}
        for cell in cells:
            lane = self._lanes[Timeframe.parse(cell.timeframe)]
            if cell.layout and now - self._layouts.get(cell.layout, 0) > _LAYOUT_AGAIN_US:
                self._layouts[cell.layout] = now
                facts[LAYOUT + cell.layout] = encode(lane.opened.layout)
            if cell.is_closed and (cell.open_time, cell.revision) == lane.told:
                alone = packet if len(cells) == 1 else Packet(self.symbol, packet.at, (cell,), received_at, now,
                                                              self._feed, self._number)  # fmt: skip
                facts[CELL + cell.timeframe] = encode(alone)
        return Post(self.symbol, encode(packet), facts)

    def forget_layouts(self) -> None:
        """Have each layout sent again with the next cell that uses it: Redis may have lost it."""
        self._layouts.clear()
