"""The journal: how the closed bars of a stream get into the lake, in small steps.

1. `add` notes a closed bar of 1m; corrections are noted after what they correct.
2. `stage`, about once a second, appends what was noted to the feed's log in the lake's inbox, one write and one fsync
   for all symbols. What could not be written is kept, in order, and comes with the next step.
3. `seal`, now and then, lets go of the log's segment, has what waits in the inbox merged into the months of the lake
   (`sealing`), as the `bars` asset does, and tells readers of it. That is all that waits for its symbols, and what
   other feeds have let go of: one that died strands nothing. It may run beside that asset: each batch is merged once,
   by whoever comes first.

`stage` and `seal` are for threads, `add` is for the event loop. Bars are staged at an instant that goes on with each
step of their symbol and is not before their close, whatever this machine's clock says: the order in which they wait is
that of the stream.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import polars as pl

from mdplatform.errors import CorruptPartition, PlatformError
from mdplatform.lake import Lake
from mdplatform.lake.segment import Logged, Row, Step, raw_frame
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming import sealing
from mdplatform.streaming.live_bar import LiveBar
from mdplatform.streaming.sealing import Sealed

MOST_WAITING = 200_000
"""Bars that wait for a lake that cannot be written, above which the newest are left out: 2 days of 50 symbols."""
_MOST_AT_ONCE = 5_000
"""Bars that are logged together: what waits is tried again and again, which is to cost the stream little."""


@dataclass
class JournalCounts:
    """What a journal did: bars `staged` and `lost` (there were too many), months `sealed`."""

    staged: int = 0
    lost: int = 0
    sealed: int = 0


class Journal:
    """Notes the closed bars of `symbols`; `source` is written beside each bar, and `clock` gives microseconds.

    `sealer` merges what waits for symbols; it is this process where nobody sets another.
    """

    def __init__(
        self,
        lake: Lake,
        symbols: Sequence[str],
        source: str,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self.counts = JournalCounts()
        self.sealer: Callable[[Sequence[str]], Iterable[Sealed]] = partial(sealing.seal, lake)
        self._lake = lake
        self._symbols = tuple(symbols)
        self._source = source
        self._clock = clock
        self._most_waiting = most_waiting
        self._log = lake.inbox.open_log()
        self._noted: list[LiveBar] = []
        self._staging, self._sealing = threading.Lock(), threading.Lock()
        self._staged_at: dict[str, int] = {}
        self._safe: dict[str, int] = {}
        self._lost_from: dict[str, int] = {}
        self._sealed: dict[str, int] = {}

    @property
    def waiting(self) -> int:
        """How many bars were noted and are not staged."""
        return len(self._noted)

    def add(self, bar: LiveBar) -> None:
        """Note a closed bar of 1m; a gap says nothing, and is left out."""
        if bar.state == "gap":
            return
        if len(self._noted) >= self._most_waiting:
            self.counts.lost += 1
            self._lost_from[bar.symbol] = min(bar.close_time, self._lost_from.get(bar.symbol, bar.close_time))
            return
        self._noted.append(bar)

    def is_safe(self, symbol: str, until: int) -> bool:
        """Tell whether all bars of the symbol that closed by then are in the log or the lake."""
        return until <= self._kept(symbol, self._safe.get(symbol, 0))

    def sealed(self, symbol: str) -> int:
        """Give the instant (µs) up to which the lake has all bars of the symbol that were noted."""
        return self._kept(symbol, self._sealed.get(symbol, 0))

    def _kept(self, symbol: str, until: int) -> int:
        """Give an instant up to which no bar was left out."""
        return min(until, self._lost_from.get(symbol, until + 1) - 1)

    def mark_safe(self, symbol: str, until: int) -> None:
        """Note that the lake has the symbol's bars that closed by then."""
        self._safe[symbol] = max(until, self._safe.get(symbol, 0))

    def stage(self) -> int:
        """Log what was noted; give how many bars. Raises `OSError`; nothing noted is lost by that."""
        with self._staging:
            left = staged = len(self._noted)  # what is noted meanwhile is for the next time
            while left:
                left -= self._stage(self._noted[: min(left, _MOST_AT_ONCE)])
            return staged

    def _stage(self, noted: Sequence[LiveBar]) -> int:
        by_symbol: dict[str, list[LiveBar]] = {}
        for bar in noted:
            by_symbol.setdefault(bar.symbol, []).append(bar)
        now = self._clock()
        until = {symbol: max(bar.close_time for bar in bars) for symbol, bars in by_symbol.items()}
        staged_at = {symbol: max(now, until[symbol], self._staged_before(symbol)) for symbol in by_symbol}
        logged = [Logged(symbol, staged_at[symbol], [_row(bar) for bar in bars]) for symbol, bars in by_symbol.items()]
        self._log.append(Step(self._source, logged))
        self._staged_at.update((symbol, at + 1) for symbol, at in staged_at.items())
        for symbol, at in until.items():
            self.mark_safe(symbol, at)
        del self._noted[: len(noted)]  # in one step, for the loop may add at any time
        self.counts.staged += len(noted)
        return len(noted)

    def _staged_before(self, symbol: str) -> int:
        """Give the instant before which nothing is to be staged: behind what waits or is in the lake from before."""
        if symbol not in self._staged_at:
            inbox = self._lake.inbox
            waits = (to_us(batch.staged_at) for month in inbox.months(symbol) for batch in inbox.pending(symbol, month))
            self._staged_at[symbol] = max(*waits, _taken_in(self._lake, symbol), 0) + 1
        return self._staged_at[symbol]

    def seal(self, announce: Callable[[str], None]) -> int:
        """Merge what waits for the journal's symbols; give how many months changed.

        `announce` is called with a symbol once the lake has its new bars. Raises `PlatformError` for what the lake
        raised, when all symbols have been tried.
        """
        with self._sealing:
            return self._seal(announce)

    def _seal(self, announce: Callable[[str], None]) -> int:
        changed = 0
        problem = ""
        with self._staging:
            safe = dict(self._safe)  # what is staged from now on comes too late for this
            is_new = self._log.rotate()
        is_waiting = is_new or self._lake.inbox.symbols()
        for sealed in self.sealer(self._symbols) if is_waiting else map(Sealed, self._symbols):
            if sealed.problem:
                problem = sealed.problem
                continue
            symbol = sealed.symbol
            self._sealed[symbol] = max(safe.get(symbol, 0), self._sealed.get(symbol, 0))
            if sealed.waited:  # also where nothing has changed: whoever merged it may have died before it was told
                announce(symbol)
            changed += sealed.changed
        self.counts.sealed += changed
        if problem:
            raise PlatformError(problem)
        return changed


def raw_bars(bars: Sequence[LiveBar]) -> pl.DataFrame:
    """Give bars as a source delivers them (`RAW_SCHEMA`), in their order; what is not known is null."""
    return raw_frame([_row(bar) for bar in bars])


def _row(bar: LiveBar) -> Row:
    return (
        bar.open_time, bar.close_time, bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote_volume,
        bar.trade_count, bar.taker_buy_volume, bar.taker_buy_quote_volume,
    )  # fmt: skip


def _taken_in(lake: Lake, symbol: str) -> int:
    """Give when bars of the symbol's newest month were last taken in (µs), 0 if there are none that can be read."""
    months = lake.bars.months(symbol)
    try:
        partition = lake.bars.partition(symbol, months[-1]) if months else None
        if partition is None or Timeframe.M1 not in partition.header.groups:
            return 0
        newest = partition.read(Timeframe.M1, ["ingested_at"])["ingested_at"].max()
    except CorruptPartition:
        return 0  # which the seal says, and is no reason to keep bars from the log
    return to_us(newest) if isinstance(newest, datetime) else 0
