"""A bar while the market is open: closed, corrected, or still forming."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mdplatform.market.timeframe import Timeframe

GAP_VALUES: tuple[float, ...] = (float("nan"),) * 9
"""The values of a gap."""
GAP_REVISION = -1
"""The revision of a gap that is told first: the bar that fills it is delivered for the first time, and yet newer."""


class LiveBar(msgspec.Struct, frozen=True, gc=False):
    """One bar; the meanings of `market.bars`, times in microseconds.

    A `gap` has NaN prices and amounts; an amount that the venue does not tell is NaN. `revision` counts corrections
    from 0, as the lake does. A gap, which the lake does not hold, has `GAP_REVISION`; one that withdraws a bar has the
    revision after that bar's. A forming bar (`is_closed` is
    false) has `available_at` at the newest event in it. `source` is the feed's name, or `resampled:<timeframe>`.
    """

    symbol: str
    timeframe: Timeframe
    open_time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float
    trade_count: float
    taker_buy_volume: float
    taker_buy_quote_volume: float
    state: str = "observed"
    is_closed: bool = True
    revision: int = 0
    available_at: int = 0
    source: str = ""

    @classmethod
    def of(
        cls,
        symbol: str,
        timeframe: Timeframe,
        open_time: int,
        values: Sequence[float],
        *,
        state: str,
        is_closed: bool,
        revision: int,
        available_at: int,
        source: str,
    ) -> LiveBar:
        """Make a bar of its nine `values`."""
        opened, high, low, close, volume, quote, count, buy, buy_quote = values
        told = state, is_closed, revision, available_at, source
        return cls(symbol, timeframe, open_time, opened, high, low, close, volume, quote, count, buy, buy_quote, *told)

    @property
    def close_time(self) -> int:
        """The exclusive end, microseconds."""
        return self.open_time + self.timeframe.microseconds

    @property
    def values(self) -> tuple[float, ...]:
        """The nine values, in the order of `market.bars.VALUE_COLUMNS`."""
        return (
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            self.quote_volume,
            self.trade_count,
            self.taker_buy_volume,
            self.taker_buy_quote_volume,
        )
