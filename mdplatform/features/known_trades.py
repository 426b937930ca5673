"""The trades that each row of a grid may use, and which rows cannot be told for want of trades.

1. A trade counts in the row in which it became known: executed before the row's close, and available by then. One that
   arrives more than `LATEST` after it was executed counts nowhere.
2. No trade means none only where trades are known to cover the time (`trade_coverage`). A row that they do not cover,
   or whose window they do not, has a `gap`; it is `not_available_yet` where its day has no trades at all, or where the
   first one after a day without any is still to come and no bars tell more. A window that begins before there were
   trades has `insufficient_history`.
3. A window with a trade whose taker's side is not known is `missing_volume`, except where sides don't matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.features.data import Data, Grid
from mdplatform.features.guard import (
    GAP,
    INSUFFICIENT_HISTORY,
    MISSING_VOLUME,
    NOT_AVAILABLE_YET,
    SETTLED,
    UNSETTLED,
)
from mdplatform.features.trade_arrays import TradeArrays, as_known, known_at
from mdplatform.features.trade_coverage import LATEST, TradeCoverage
from mdplatform.market.timeframe import DAY_US

_MOST_HELD = 3  # stretches of trades, such as a day, that several features ask for one after the other


@dataclass
class KnownTrades:
    """The trades of a grid's symbol; it remembers of what it has read when trades came whose side is not known."""

    grid: Grid
    data: Data
    _unsided: list[NDArray[np.int64]] = field(default_factory=list)
    _held: dict[tuple[int, int], TradeArrays] = field(default_factory=dict)

    def between(self, start: int, end: int) -> TradeArrays:
        """Give the trades that became known in `[start, end)` (microseconds), in that order."""
        if (start, end) not in self._held:
            while len(self._held) >= _MOST_HELD:
                del self._held[next(iter(self._held))]
            self._held[start, end] = self._read(start, end)
        return self._held[start, end]

    def statuses(
        self,
        windows: NDArray[np.int64],
        sided: NDArray[np.int64] | None = None,
        *,
        until: NDArray[np.int64] | None = None,
        is_running: bool = False,
    ) -> NDArray[np.int8]:
        """Give the status of each row, whose value is made of the trades from `windows` (microseconds) to its close.

        To be asked once all trades have been read. `sided` is from when on sides matter, None if they don't. With
        `until`, it is made of the trades from `windows` to then and of the row's own. A value that `is_running` since
        its window began is there, but unsettled, where history begins later.
        """
        grid, days = self.grid, self._days
        if not len(days):
            return np.full(len(grid), NOT_AVAILABLE_YET, np.int8)
        opens, closes = grid.open_time, grid.close_time
        own, last = opens // DAY_US, (closes - 1) // DAY_US
        cover = self._coverage.since(int(min(windows[0], opens[0])))
        ends = closes if until is None else until
        begun = np.maximum(windows, cover.history)
        early = windows < cover.history
        statuses = np.where(early, np.int8(UNSETTLED if is_running else INSUFFICIENT_HISTORY), np.int8(SETTLED))
        told = np.where(closes > cover.history, np.maximum(opens, cover.history), opens)
        unlike, silent = (each.touched(told, closes, closes) for each in (cover.unlike, cover.silent))
        missing = cover.unlike.touched(begun, ends, closes) | cover.silent.touched(begun, ends, closes)
        statuses[missing | unlike | silent] = GAP
        if sided is not None and self._unsided:
            instants = np.unique(np.concatenate(self._unsided))
            unsided = np.searchsorted(instants, closes) > np.searchsorted(instants, sided)
            statuses[unsided & (statuses <= UNSETTLED)] = MISSING_VOLUME
        unseen = np.searchsorted(cover.known, closes) == np.searchsorted(cover.known, last * DAY_US)
        # whether a day has trades is not known before its first one: until then the days before tell
        statuses[unseen & ~np.isin(last - 1, days)] = NOT_AVAILABLE_YET
        held = np.searchsorted(days, last) - np.searchsorted(days, own) == last - own
        statuses[~held] = NOT_AVAILABLE_YET
        return statuses

    def _read(self, start: int, end: int) -> TradeArrays:
        rows = self.data.trades(self.grid.symbol, start - LATEST, end)
        delay = (pl.col("available_at") - pl.col("time")).dt.total_microseconds()
        rows = rows.filter(delay.fill_null(0) <= LATEST)
        if rows["is_buyer_maker"].null_count():
            unsided = rows.filter(pl.col("is_buyer_maker").is_null())
            self._unsided.append(known_at(unsided).to_physical().to_numpy())
        return as_known(rows.with_columns(pl.col("is_buyer_maker").fill_null(True))).between(start, end)

    @cached_property
    def _coverage(self) -> TradeCoverage:
        return TradeCoverage(self.grid, self.data, self._days)

    @cached_property
    def _days(self) -> NDArray[np.int64]:
        return np.array(self.data.trade_days(self.grid.symbol), "datetime64[D]").astype(np.int64)


def by_day(times: NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
    """Give each UTC day that ascending `times` lie in (its start, microseconds), with the rows that do."""
    days = times // DAY_US
    for begin, end in pairwise([0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]):
        yield int(days[begin]) * DAY_US, slice(begin, end)
