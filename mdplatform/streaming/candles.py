"""Candles: what a venue's own bar of 1m says, held to the rules of `market.rules`."""

from __future__ import annotations

from mdplatform.market.events import Candle
from mdplatform.market.timeframe import MINUTE_US

_SLACK = 1 + 1e-9  # as in market.rules
_INFINITE = float("inf")
_NAN = float("nan")


def values_of(candle: Candle) -> tuple[float, ...] | None:
    """Give the nine values of a candle, NaN for what it does not tell; None if it breaks a rule of `market.rules`."""
    opened, high, low, close = candle.open, candle.high, candle.low, candle.close
    if not (0.0 < low <= opened <= high < _INFINITE and low <= close <= high) or candle.open_time % MINUTE_US:
        return None
    volume, quote, buy = candle.volume, candle.quote_volume, candle.taker_buy_volume
    count, buy_quote = candle.trade_count, candle.taker_buy_quote_volume
    if (
        quote is not None
        and count is not None
        and buy is not None
        and buy_quote is not None
        and 0.0 <= buy <= volume < _INFINITE
        and 0.0 <= buy_quote <= quote < _INFINITE
        and count >= 0
    ):
        return (opened, high, low, close, volume, quote, float(count), buy, buy_quote)
    amounts = (
        volume,
        _NAN if quote is None else quote,
        _NAN if count is None else float(count),
        _NAN if buy is None else buy,
        _NAN if buy_quote is None else buy_quote,
    )
    for amount in amounts:
        if amount < 0.0 or amount == _INFINITE:
            return None
    if amounts[3] > volume * _SLACK or amounts[4] > amounts[1] * _SLACK:
        return None
    return (opened, high, low, close, *amounts)
