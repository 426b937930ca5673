"""The trades that each row of a grid may use, and which rows cannot be told for want of trades.

1. A trade counts in the row in which it became known: executed before the row's close, and available by then. One that
   arrives more than `LATEST` after it was executed counts nowhere.
2. Days without trades at all are not known. A row of such a day is `not_available_yet`; one whose window touches such a
   day has a `gap`, or `insufficient_history` if there are none of before it. On other days, no trade means none.
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
from mdplatform.market.timeframe import DAY_US

LATEST = 3_600_000_000
"""How long after its execution (microseconds) a trade may become known and still count: one hour."""

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
        self, windows: NDArray[np.int64], sided: NDArray[np.int64] | None = None, *, is_running: bool = False
    ) -> NDArray[np.int8]:
        """Give the status of each row, whose value is made of the trades from `windows` (microseconds) to its close.

        To be asked once all trades have been read. `sided` is from when on sides matter, None if they don't. A value
        that `is_running` since its window began is there, but unsettled, where history begins later.
        """
        grid, days = self.grid, self._days
        own, last, first = grid.open_time // DAY_US, (grid.close_time - 1) // DAY_US, windows // DAY_US

        def held(begin: NDArray[np.int64]) -> NDArray[np.bool_]:
            return np.asarray(np.searchsorted(days, last, "right") - np.searchsorted(days, begin) == last - begin + 1)

        oldest = int(days[0]) if len(days) else int(last[-1]) + 1
        statuses = np.full(len(grid), GAP, np.int8)
        statuses[held(np.maximum(first, oldest))] = UNSETTLED if is_running else INSUFFICIENT_HISTORY
        statuses[held(first)] = SETTLED
        if sided is not None and self._unsided:
            instants = np.unique(np.concatenate(self._unsided))
            unsided = np.searchsorted(instants, grid.close_time) > np.searchsorted(instants, sided)
            statuses[unsided & (statuses <= UNSETTLED)] = MISSING_VOLUME
        statuses[~held(own)] = NOT_AVAILABLE_YET
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
    def _days(self) -> NDArray[np.int64]:
        return np.array(self.data.trade_days(self.grid.symbol), "datetime64[D]").astype(np.int64)


def by_day(times: NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
    """Give each UTC day that ascending `times` lie in (its start, microseconds), with the rows that do."""
    days = times // DAY_US
    for begin, end in pairwise([0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]):
        yield int(days[begin]) * DAY_US, slice(begin, end)
