"""The bar of one minute from its trades: the same numbers in whatever order they come.

Amounts are added as the decimal numbers that the venue wrote, without rounding, and become floats at the end; open and
close are the prices of the lowest and the highest trade id.
"""

from __future__ import annotations

from decimal import Context, Decimal
from functools import lru_cache

from mdplatform.market.events import Trade

_DIGITS = Context(prec=100)  # sums of products of two floats of sane size are exact in these
_ZERO = Decimal(0)


@lru_cache(maxsize=1 << 15)
def _decimal(number: float) -> Decimal:
    return Decimal(repr(float(number)))


class TradeBar:
    """What the trades of a minute add up to so far. `time` is the newest trade's, microseconds."""

    __slots__ = (
        "_buy_quote",
        "_buy_volume",
        "_close",
        "_count",
        "_first_id",
        "_high",
        "_last_id",
        "_low",
        "_open",
        "_quote",
        "_volume",
        "time",
    )

    def __init__(self) -> None:
        self.time = 0
        self._first_id = 1 << 200
        self._last_id = -1
        self._open = self._close = 0.0
        self._high, self._low = 0.0, float("inf")
        self._count = 0
        self._volume = self._quote = self._buy_volume = self._buy_quote = _ZERO

    def add(self, trade: Trade) -> None:
        """Add one trade, which must not be among them yet."""
        price, trade_id = trade.price, trade.trade_id
        if trade_id > self._last_id:
            self._last_id, self._close = trade_id, price
        if trade_id < self._first_id:
            self._first_id, self._open = trade_id, price
        if price > self._high:
            self._high = price
        if price < self._low:
            self._low = price
        if trade.time > self.time:
            self.time = trade.time
        self._count += trade.fills
        exact, quantity = _decimal(price), _decimal(trade.quantity)
        self._volume = _DIGITS.add(self._volume, quantity)
        self._quote = _DIGITS.fma(exact, quantity, self._quote)
        if not trade.is_buyer_maker:
            self._buy_volume = _DIGITS.add(self._buy_volume, quantity)
            self._buy_quote = _DIGITS.fma(exact, quantity, self._buy_quote)

    @property
    def values(self) -> tuple[float, ...]:
        """The nine values, in the order of `market.bars.VALUE_COLUMNS`."""
        return (
            self._open,
            self._high,
            self._low,
            self._close,
            float(self._volume),
            float(self._quote),
            float(self._count),
            float(self._buy_volume),
            float(self._buy_quote),
        )
