"""The journal: how the closed bars of a stream get into the lake, in small steps.

1. `add` notes a closed bar of 1m; corrections are noted after what they correct.
2. `stage`, about once a second, writes what was noted into the lake's inbox, one batch a symbol, each file whole and
   fsynced. What could not be written is kept, in order, and comes with the next step.
3. `seal`, now and then, merges what waits in the inbox into the months of the lake, as the `bars` asset does, and tells
   readers of it. It may run beside that asset: each batch is merged once, by whoever comes first.

`stage` and `seal` are for threads, `add` is for the event loop. Batches are staged at an
instant that never goes back and is not before the close of what they hold, whatever this machine's clock says: the
order in which they wait is that of the stream.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from mdplatform.lake import Lake
from mdplatform.lake.bars import MergeReport
from mdplatform.lake.inbox import PASSING
from mdplatform.market.bars import INSTANT, RAW_SCHEMA, VALUE_COLUMNS
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming.live_bar import LiveBar

MOST_WAITING = 200_000
"""Bars that wait for a lake that cannot be written, above which the newest are left out: 2 days of 50 symbols."""


@dataclass
class JournalCounts:
    """What a journal did: bars `staged` and `lost` (there were too many), months `sealed`."""

    staged: int = 0
    lost: int = 0
    sealed: int = 0


class Journal:
    """Notes the closed bars of `symbols`; `source` is written beside each bar, and `clock` gives microseconds."""

    def __init__(
        self,
        lake: Lake,
        symbols: Sequence[str],
        source: str,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self.counts = JournalCounts()
        self._lake = lake
        self._symbols = tuple(symbols)
        self._source = source
        self._clock = clock
        self._most_waiting = most_waiting
        self._noted: list[LiveBar] = []
        self._staging, self._sealing = threading.Lock(), threading.Lock()
        self._staged_at: dict[str, int] = {}
        self._safe: dict[str, int] = {}
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
            return
        self._noted.append(bar)

    def is_safe(self, symbol: str, until: int) -> bool:
        """Tell whether all bars of the symbol that closed by then are in the inbox or the lake."""
        return self._safe.get(symbol, 0) >= until

    def sealed(self, symbol: str) -> int:
        """Give the instant (µs) up to which the lake has all bars of the symbol that were noted."""
        return self._sealed.get(symbol, 0)

    def mark_safe(self, symbol: str, until: int) -> None:
        """Note that the lake has the symbol's bars that closed by then."""
        self._safe[symbol] = max(until, self._safe.get(symbol, 0))

    def stage(self) -> int:
        """Write what was noted into the inbox; give how many bars. Raises `OSError`; nothing noted is lost by that."""
        with self._staging:
            noted = self._noted[:]  # what is noted meanwhile comes behind it
            by_symbol: dict[str, list[LiveBar]] = {}
            for bar in noted:
                by_symbol.setdefault(bar.symbol, []).append(bar)
            written: set[str] = set()
            try:
                for symbol, bars in by_symbol.items():
                    self._stage(symbol, bars)
                    written.add(symbol)
            finally:
                left = [bar for bar in noted if bar.symbol not in written]
                self._noted[: len(noted)] = left  # in one step, for the loop may add at any time
                self.counts.staged += len(noted) - len(left)
            return len(noted) - len(left)

    def _stage(self, symbol: str, bars: Sequence[LiveBar]) -> None:
        until = max(bar.close_time for bar in bars)
        at = max(self._clock(), until, self._staged_before(symbol) + 1)
        key = f"{PASSING}{secrets.token_hex(8)}"
        self._lake.inbox.stage(symbol, Timeframe.M1, self._source, key, raw_bars(bars), from_us(at))
        self._staged_at[symbol] = at
        self.mark_safe(symbol, until)

    def _staged_before(self, symbol: str) -> int:
        """Give when the last batch was staged that may still wait, this process's or an earlier one's."""
        if symbol not in self._staged_at:
            inbox = self._lake.inbox
            waits = (batch.staged_at for month in inbox.months(symbol) for batch in inbox.pending(symbol, month))
            self._staged_at[symbol] = max(map(to_us, waits), default=0)
        return self._staged_at[symbol]

    def seal(self, announce: Callable[[str], None]) -> int:
        """Merge what waits for the journal's symbols; give how many months changed.

        `announce` is called with a symbol once the lake has its new bars. Raises what the lake raises, when all symbols
        have been tried.
        """
        with self._sealing:
            return self._seal(announce)

    def _seal(self, announce: Callable[[str], None]) -> int:
        changed = 0
        problem: Exception | None = None
        for symbol in self._symbols:
            until = self._safe.get(symbol, 0)  # what is staged meanwhile may come too late for this
            try:
                reports = [merge_waiting(self._lake, symbol, month) for month in self._lake.inbox.months(symbol)]
            except Exception as failed:  # noqa: BLE001  # raised below; the other symbols' bars are no worse for it
                problem = failed
                continue
            self._sealed[symbol] = max(until, self._sealed.get(symbol, 0))
            if reports:  # also where nothing has changed: whoever merged it may have died before it was told
                announce(symbol)
            changed += sum(report.changed for report in reports)
        self.counts.sealed += changed
        if problem is not None:
            raise problem
        return changed


def merge_waiting(lake: Lake, symbol: str, month: str) -> MergeReport:
    """Merge what waits for one month, and clear it away once it is in the lake, as the `bars` asset does."""
    waiting = lake.inbox.pending(symbol, month)
    report = lake.bars.merge(symbol, month, waiting)
    for batch in waiting:
        lake.inbox.clear(batch)
    return report


def raw_bars(bars: Sequence[LiveBar]) -> pl.DataFrame:
    """Give bars as a source delivers them (`RAW_SCHEMA`), in their order; what is not known is null."""
    values = [bar.values for bar in bars]
    columns = {name: [row[place] for row in values] for place, name in enumerate(VALUE_COLUMNS)}
    columns["trade_count"] = [None if math.isnan(each) else round(each) for each in columns["trade_count"]]  # type: ignore[misc]
    times = {"open_time": [bar.open_time for bar in bars], "close_time": [bar.close_time for bar in bars]}
    numbers = {name: RAW_SCHEMA[name] for name in VALUE_COLUMNS}
    frame = pl.DataFrame({**times, **columns}, schema={**dict.fromkeys(times, pl.Int64), **numbers})
    return frame.with_columns(pl.col(list(times)).cast(INSTANT), pl.col(pl.Float64).fill_nan(None))
