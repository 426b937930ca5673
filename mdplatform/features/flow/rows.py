"""What takers did in each row of a grid of time: the sums that order flow is computed from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.talib_functions import Floats
from mdplatform.features.trade_arrays import TradeArrays


@dataclass(frozen=True)
class FlowRows:
    """Of each row: what takers bought and sold (base asset), the turnover (quote asset), trades, first and last price.

    The prices are NaN in a row without trades.
    """

    buy: Floats
    sell: Floats
    quote: Floats
    count: NDArray[np.int64]
    first: Floats
    last: Floats

    @property
    def volume(self) -> Floats:
        """What was traded, in the base asset."""
        return self.buy + self.sell

    @property
    def delta(self) -> Floats:
        """What takers bought less what they sold, in the base asset."""
        return self.buy - self.sell

    @property
    def taker_ratio(self) -> Floats:
        """The share of the volume that takers bought; NaN where there is none."""
        return np.asarray(np.divide(self.buy, self.volume, out=np.full(len(self.buy), np.nan), where=self.volume > 0))

    @property
    def change(self) -> Floats:
        """The last price less the first one, in the quote asset; 0 in a row without trades."""
        return np.where(self.count > 0, self.last - self.first, 0.0)


def sum_rows(trades: TradeArrays, edges: NDArray[np.int64]) -> FlowRows:
    """Sum trades by row: row i has those with `edges[i] <= time < edges[i + 1]` (microseconds, ascending)."""
    from mdplatform.features.flow.kernels import sum_sides

    counts = np.searchsorted(trades.time, edges)
    bought, sold, quote = sum_sides(counts, trades.price, trades.quantity, trades.is_buy)
    count = np.diff(counts)
    traded = count > 0
    first, last = np.full(len(count), np.nan), np.full(len(count), np.nan)
    first[traded] = trades.price[counts[:-1][traded]]
    last[traded] = trades.price[counts[1:][traded] - 1]
    return FlowRows(bought, sold, quote, count, first, last)


def join_rows(parts: Iterable[FlowRows]) -> FlowRows:
    """Put rows that follow one another together."""
    given = list(parts)
    return FlowRows(*(np.concatenate([getattr(part, field.name) for part in given]) for field in fields(FlowRows)))


def cumulated(amounts: Floats, starts: NDArray[np.int64]) -> Floats:
    """Give running sums that begin anew wherever `starts` changes: at no point is one sum taken from another."""
    sums = np.empty(len(amounts))
    changes = np.flatnonzero(starts[1:] != starts[:-1]) + 1
    for begin, end in pairwise([0, *changes.tolist(), len(amounts)]):
        np.cumsum(amounts[begin:end], out=sums[begin:end])
    return sums


def rolling_sum(amounts: Floats, rows: int) -> Floats:
    """Give the sum of the last `rows` amounts, each window's by itself (NaN in the first `rows − 1`)."""
    sums = np.full(len(amounts), np.nan)
    if rows <= len(amounts):
        total = np.zeros(len(amounts) - rows + 1)
        for back in range(rows):
            total += amounts[back : back + len(total)]
        sums[rows - 1 :] = total
    return sums
