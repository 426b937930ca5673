"""A minute: what one bar of 1m is made of, and which bar that makes.

In this order: the venue's own candle; nothing (`gap`), where trades are missing; its trades; nothing, where candles are
missing; the close before it (`no_trade`). After a gap, and before the first price, an idle minute is not known either.
Trades are summed beside candles, in case these get lost, but never added to them.
"""

from __future__ import annotations

from typing import TypeAlias

from mdplatform.market.time import from_us
from mdplatform.market.timeframe import DAY_US, MINUTE_US
from mdplatform.streaming.live_bar import GAP_VALUES, LiveBar
from mdplatform.streaming.losses import Losses
from mdplatform.streaming.trade_bars import TradeBar

Settled: TypeAlias = tuple[tuple[float, ...], str]
"""The nine values and the state of a bar."""

GAP: Settled = (GAP_VALUES, "gap")


class Minute:
    """What a minute is made of: `given` are the values of a candle `told` at some time, or of a seeded bar.

    `bar` is what was published of it last.
    """

    __slots__ = ("bar", "given", "is_final", "state", "told", "trades")

    def __init__(self) -> None:
        self.bar: LiveBar | None = None
        self.given: tuple[float, ...] | None = None
        self.state = ""
        self.told = 0
        self.is_final = False
        self.trades: TradeBar | None = None


def settle(minute: Minute | None, opened: int, before: LiveBar | None, losses: Losses) -> Settled | None:
    """Give what the minute that opens at `opened` (µs) is after the bar `before`; None if it is not known."""
    ends = opened + MINUTE_US
    if minute is not None and minute.given is not None:
        return minute.given, minute.state or _state(opened, minute.given, before)
    if losses and losses.touch("trades", opened, ends):
        return GAP
    if minute is not None and minute.trades is not None:
        return minute.trades.values, "observed"
    if losses and losses.touch("candles", opened, ends):
        return GAP
    if before is None:
        return None
    if before.state == "gap":
        return GAP
    price = before.close
    return (price, price, price, price, 0.0, 0.0, 0.0, 0.0, 0.0), "no_trade"


def _state(opened: int, values: tuple[float, ...], before: LiveBar | None) -> str:
    """Give the state of a candle as `market.revisions.with_states` has it, which sees a month at a time."""
    if values[4] != 0 or values[6] > 0 or values[1] != values[2]:
        return "observed"
    if before is None or before.state == "gap" or values[0] == before.close:
        return "no_trade"
    return "no_trade" if opened % DAY_US == 0 and from_us(opened).day == 1 else "observed"
