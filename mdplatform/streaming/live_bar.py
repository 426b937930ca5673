"""A bar while the market is open: closed, corrected, or still forming."""

from __future__ import annotations

import msgspec

from mdplatform.market.timeframe import Timeframe


class LiveBar(msgspec.Struct, frozen=True, gc=False):
    """One bar; the meanings of `market.bars`, times in microseconds.

    A `gap` has NaN prices and amounts; an amount that the venue does not tell is NaN. `revision` counts corrections
    from 0. A forming bar (`is_closed` is false) has `available_at` at the newest event in it. `source` is the feed's
    name, or `resampled:<timeframe>`.
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
