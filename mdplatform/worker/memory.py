"""The memory window: the newest bars of the symbols and timeframes that were asked for lately, held in memory.

A `HeldLake` is the lake, whose bars are read from memory where they are there: so whatever computes from the lake
computes from memory, and a new indicator on a symbol that is hot reads no file.

1. `read` and `tail` look whether bars of that symbol and timeframe are held, from the first row that is wanted to the
   newest one, and whether they are fresh: the folder has the time that it had, and nobody has told of a change since
   (`saw`, with the symbol's sequence).
2. If so, a slice is given, without a copy. Else as many rows as are wanted, and some more, are read and held.
3. What is longest unused goes when there are too many bytes. Ranges that are long, or as of an instant, are read from
   the lake, and not held.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from mdplatform.features.data import within
from mdplatform.features.kinds import Need
from mdplatform.lake import Lake
from mdplatform.lake.bars import BarStore
from mdplatform.lake.tables import TableStore
from mdplatform.market.timeframe import Timeframe
from mdplatform.serving.freshness import folders_of, stamp
from mdplatform.worker.near import RACY_NS

MEMORY_BYTES = 128_000_000
LEAST_ROWS = 1_500
MOST_ROWS = 50_000


@dataclass(frozen=True)
class _Window:
    bars: pl.DataFrame
    first: int
    whole: bool
    stamp: int
    sequence: int
    read_at: int
    size: int


class Reads(threading.local):
    """Counts how often the present thread had to read the lake."""

    count = 0


class HeldBars(BarStore):
    """The bars of a lake, of which the newest are held in memory; thread-safe."""

    def __init__(self, lake: HeldLake, reads: Reads, most_bytes: int) -> None:
        folder = lake.folder
        super().__init__(folder / "bars", folder / "quarantine", folder / "locks")
        self._lake = lake
        self._reads = reads
        self._most_bytes = most_bytes
        self._windows: OrderedDict[tuple[str, Timeframe], _Window] = OrderedDict()
        self._sequences: dict[str, int] = {}
        self._size = 0
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """How many bytes are held."""
        return self._size

    def saw(self, symbol: str, sequence: int) -> None:
        """Take note of the sequence of a symbol's bars: what was read before it was told is old."""
        if sequence > self._sequences.get(symbol, 0):
            self._sequences[symbol] = sequence

    def read(
        self,
        symbol: str,
        timeframe: Timeframe,
        start: int | None = None,
        end: int | None = None,
        as_of: datetime | None = None,
    ) -> pl.DataFrame:
        """Give the bars with `start <= open_time < end`, as the lake has them, from memory where they are held."""
        if as_of is None:
            window = self._fresh(symbol, timeframe)
            if window is None or not (window.whole or (start is not None and start >= window.first)):
                window = None if start is None else self._load(symbol, timeframe, start)
            if window is not None:
                return within(window.bars, "open_time", start, end)
        self._reads.count += 1
        return super().read(symbol, timeframe, start, end, as_of)

    def tail(self, symbol: str, timeframe: Timeframe, rows: int) -> pl.DataFrame:
        """Give the newest `rows` bars, as the lake has them, from memory where they are held."""
        window = self._fresh(symbol, timeframe)
        if window is not None and (window.whole or window.bars.height >= rows):
            return window.bars.tail(rows)
        self._reads.count += 1
        extent = self._extent(symbol, self.months(symbol), timeframe)
        if extent is None:
            return super().tail(symbol, timeframe, rows)
        return self.read(symbol, timeframe, extent[1] - rows * timeframe.microseconds).tail(rows)

    def _fresh(self, symbol: str, timeframe: Timeframe) -> _Window | None:
        window = self._windows.get((symbol, timeframe))
        if window is None:
            return None
        if window.sequence < self._sequences.get(symbol, 0) or window.stamp != self._lake.stamp(Need("bars", symbol)):
            return None
        if abs(window.read_at - window.stamp) < RACY_NS < time.time_ns() - window.read_at:
            return None
        with self._lock:
            if (symbol, timeframe) in self._windows:
                self._windows.move_to_end((symbol, timeframe))
        return window

    def _load(self, symbol: str, timeframe: Timeframe, start: int) -> _Window | None:
        """Read from `start` to the newest bar and hold it; None if that is too much, or nothing."""
        sequence, read_at = self._sequences.get(symbol, 0), time.time_ns()
        changed = self._lake.stamp(Need("bars", symbol))
        extent = self._extent(symbol, self.months(symbol), timeframe)
        step = timeframe.microseconds
        if extent is None or extent[1] - start > MOST_ROWS * step:
            return None
        before = self._windows.get((symbol, timeframe))
        rows = max(LEAST_ROWS, 0 if before is None else before.bars.height)
        first = min(timeframe.floor(start), extent[1] - rows * step)
        self._reads.count += 1
        bars = super().read(symbol, timeframe, first, extent[1])
        size = int(bars.estimated_size())
        window = _Window(bars, first, first <= extent[0], changed, sequence, read_at, size)
        self._hold((symbol, timeframe), window)
        return window

    def _hold(self, key: tuple[str, Timeframe], window: _Window) -> None:
        with self._lock:
            self._drop(key)
            self._windows[key] = window
            self._size += window.size
            while self._size > self._most_bytes:
                self._drop(next(iter(self._windows)))

    def _drop(self, key: tuple[str, Timeframe]) -> None:
        window = self._windows.pop(key, None)
        if window is not None:
            self._size -= window.size


class HeldLake(Lake):
    """A lake whose newest bars are held in memory. `reads` counts what had to be read from files all the same."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        super().__init__(folder)
        self.reads = Reads()
        self.held = HeldBars(self, self.reads, most_bytes)
        self.bars = self.held
        self._folder_of = folders_of(self)

    def stamp(self, need: Need) -> int:
        """Give the time of the folder of what is needed: another one is a change."""
        return stamp(self._folder_of(need))

    def table(self, name: str) -> TableStore:
        """Give the store of a dataset, which is read from files."""
        self.reads.count += 1
        return super().table(name)
