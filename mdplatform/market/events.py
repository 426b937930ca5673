"""Events: what a venue says while the market is open, one object each, before anything is made of it.

All times are microseconds since the epoch, UTC. `time` is the venue's own clock, `received_at` this machine's; bars are
closed by the former alone.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from mdplatform.market.timeframe import Timeframe


class Trade(msgspec.Struct, frozen=True, gc=False):
    """What a taker bought or sold: one trade, or an aggregate of fills at one price, as the venue numbers them.

    `trade_id` ascends by one from trade to trade of a symbol; `is_buyer_maker` says that the taker sold. `fills` is how
    many of the venue's trades an aggregate stands for.
    """

    symbol: str
    trade_id: int
    time: int
    price: float
    quantity: float
    is_buyer_maker: bool
    received_at: int = 0
    fills: int = 1


class Candle(msgspec.Struct, frozen=True, gc=False):
    """A bar as the venue gives it: forming ones come again and again until `is_closed`. `time` is when it was said."""

    symbol: str
    timeframe: Timeframe
    open_time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float | None = None
    trade_count: int | None = None
    taker_buy_volume: float | None = None
    taker_buy_quote_volume: float | None = None
    is_closed: bool = True
    time: int = 0
    received_at: int = 0


class BookChange(msgspec.Struct, frozen=True):
    """New amounts at prices of the order book, 0 where a price has none left; `is_snapshot` replaces all that was.

    `first_id` and `last_id` are the venue's numbers of the changes that it sums up; `previous_id` is the `last_id` of
    the message before it, where the venue says that (futures).
    """

    symbol: str
    time: int
    first_id: int
    last_id: int
    bids: tuple[tuple[float, float], ...]
    asks: tuple[tuple[float, float], ...]
    previous_id: int | None = None
    is_snapshot: bool = False
    received_at: int = 0


class Lost(msgspec.Struct, frozen=True, gc=False):
    """Messages of a symbol between two instants are missing, and were not to be had afterwards either."""

    symbol: str
    kind: Literal["trades", "candles", "book"]
    since: int
    until: int
    reason: str


class Clock(msgspec.Struct, frozen=True, gc=False):
    """The venue's clock has come this far for all symbols: by it idle symbols close their bars."""

    time: int


Event: TypeAlias = Trade | Candle | BookChange | Lost | Clock
