"""The past as packets: what a feed would have sent of the bars that are in the lake, in order of when it was known.

1. Bars of each place are read on a complete grid, those that came too late as gaps (`features.arrival`), and their
   features are computed by the function that everybody uses.
2. The cells of a symbol that close together are one packet, which is known when the last of them is available.
3. Packets are ordered by that instant; of one instant by close, then as the symbols were named.

It goes in pieces, so that years of it take no more memory than weeks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.features import Data, evaluate_on, parse_feature
from mdplatform.features.arrival import OnTime
from mdplatform.features.data import grid_of
from mdplatform.features.sentiment import COPY_WINDOW
from mdplatform.market.bars import VALUE_COLUMNS
from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming.cells import Cell, Layout, Packet
from mdplatform.streaming.known_sentiment import MAX_STALENESS_US, NOTHING_KNOWN, KnownSentiment
from mdplatform.streaming.live_bar import GAP_REVISION
from mdplatform.streaming.shape import Shape

PIECE = 2_000
"""Bars of the clock that are read at a time."""


class Past:
    """What `data` knows of the places of a shape."""

    def __init__(self, data: Data, shape: Shape) -> None:
        self._data = OnTime.of(data)
        self._shape = shape
        self._specs = tuple(parse_feature(each) for each in shape.features)

    @cached_property
    def layout(self) -> Layout:
        """The layout of the cells."""
        columns = [tuple(f"{each}{spec.place}" for each in spec.columns) for spec in self._specs]
        flat = tuple(name for names in columns for name in names)
        return Layout.of(self._shape.features, flat, tuple(len(names) for names in columns))

    def packets(self, start: int, end: int) -> Iterator[list[Packet]]:
        """Give the packets of what closes in `[start, end]` (microseconds), a piece at a time, with what was newest of
        each place before; `Packet.received_at` is when it was known.

        Raises what the features raise.
        """
        step = PIECE * self._shape.clock.microseconds
        late: list[Packet] = []
        for first in range(start, end + 1, step):
            last = min(first + step - 1, end)
            packets = late + self._piece(first, last, with_newest=first == start)
            packets.sort(key=self._order)
            known = len(packets) if last == end else bisect_right(packets, last, key=lambda each: each.received_at)
            late = packets[known:]
            yield packets[:known]

    def sentiment(self, start: int, end: int) -> KnownSentiment:
        """Give the sentiment that was known from `start` to `end`."""
        if not self._shape.providers:
            return NOTHING_KNOWN
        rows = self._data.sentiment(start - MAX_STALENESS_US - COPY_WINDOW, end + 1)
        return KnownSentiment(rows, self._shape.symbols, self._shape.providers)

    def _piece(self, first: int, last: int, with_newest: bool) -> list[Packet]:
        packets: list[Packet] = []
        for symbol in self._shape.symbols:
            together: dict[int, list[Cell]] = defaultdict(list)
            for timeframe in self._shape.timeframes:
                step = timeframe.microseconds
                opens_from = timeframe.floor(first) - step if with_newest else timeframe.ceil(first) - step
                for cell in self._cells(symbol, timeframe, opens_from, last - step + 1):
                    together[cell.close_time].append(cell)
            for close_time, cells in together.items():
                known = max(each.available_at for each in cells)
                packets.append(Packet(symbol, close_time, tuple(cells), received_at=known))
        return packets

    def _order(self, packet: Packet) -> tuple[int, int, int]:
        return packet.received_at, packet.at, self._shape.symbols.index(packet.symbol)

    def _cells(self, symbol: str, timeframe: Timeframe, start: int, end: int) -> list[Cell]:
        """Give the cells that open in `[start, end)`."""
        bars = self._data.bars(symbol, timeframe, start, end)
        if bars.is_empty():
            return []
        values = evaluate_on(grid_of(bars), self._specs, self._data) if self._specs else {}
        outputs = [output for spec in self._specs for output in values[spec].outputs]
        numbers = np.column_stack(outputs) if outputs else np.empty((bars.height, 0))
        statuses = _statuses([values[spec].statuses for spec in self._specs], bars.height)
        known_at = bars["available_at"].fill_null(bars["close_time"]).to_physical().to_list()
        told = bars.select(pl.col(VALUE_COLUMNS).cast(pl.Float64).fill_null(float("nan"))).to_numpy()
        told = np.ascontiguousarray(told)
        opens, closes = (bars[name].to_physical().to_list() for name in ("open_time", "close_time"))
        revision = pl.when(pl.col("state") == "gap").then(GAP_REVISION).otherwise(pl.col("revision").fill_null(0))
        rows = zip(opens, closes, known_at, bars["state"], bars.select(revision).to_series(), strict=True)
        return [
            Cell(
                timeframe.value, opened, closed, max(known, closed), state, True, revision, told[row].tobytes(),
                self.layout.id, numbers[row].tobytes(), statuses[row].tobytes(),
            )
            for row, (opened, closed, known, state, revision) in enumerate(rows)
        ]  # fmt: skip


def providers_of(data: Data, start: int, end: int) -> tuple[str, ...]:
    """Give the providers of which a document became available in `[start, end)`."""
    return tuple(data.sentiment(start, end)["provider"].unique().sort().to_list())


def _statuses(of_specs: Sequence[NDArray[np.int8]], rows: int) -> NDArray[np.int8]:
    return np.column_stack(of_specs).astype(np.int8) if of_specs else np.empty((rows, 0), np.int8)
