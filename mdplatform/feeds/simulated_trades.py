"""The trades of a simulated minute: few, seeded, and such that they make exactly that minute's bar."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeAlias

from mdplatform.market.events import Candle, Trade
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.sources.simulation import character_of

TRADES_A_MINUTE = 12
_PART = MINUTE_US // TRADES_A_MINUTE

Row: TypeAlias = tuple[float, float, float, float, float, float, int, float, float]
"""A bar's values, in the order of `market.bars.VALUE_COLUMNS`."""


def trades_of(seed: int, symbol: str, minute: int, row: Row, number: int) -> list[Trade]:
    """Give the trades of the minute that opens at `minute` (µs) and has the bar `row`; the first one has that number.

    Their first, last, highest and lowest price are the bar's. Quantities are whole lots, and add up to its volume.
    """
    chance = random.Random(f"{seed}/{symbol}/{minute}")
    character = character_of(seed, symbol)
    prices = _prices(chance, row, character.price_decimals)
    lot = 10.0**character.volume_decimals
    bought, volume = round(row[7] * lot), round(row[4] * lot)
    buys = min(max(round(TRADES_A_MINUTE * bought / volume), 1), TRADES_A_MINUTE - 1)
    quantities = [(each, False) for each in _split(chance, bought, buys)]
    quantities += [(each, True) for each in _split(chance, volume - bought, TRADES_A_MINUTE - buys)]
    chance.shuffle(quantities)
    return [
        Trade(symbol, number + k, minute + k * _PART + chance.randrange(_PART), price, lots / lot, is_maker)
        for k, (price, (lots, is_maker)) in enumerate(zip(prices, quantities, strict=True))
    ]


def forming(trades: Sequence[Trade], minute: int) -> list[Candle]:
    """Give the candle as it stands after each of a minute's trades; its amounts are those of the trades so far."""
    candles = []
    opened = high = low = trades[0].price
    volume = quote = bought = bought_quote = 0.0
    for count, trade in enumerate(trades, start=1):
        high, low = max(high, trade.price), min(low, trade.price)
        volume, quote = volume + trade.quantity, quote + trade.quantity * trade.price
        if not trade.is_buyer_maker:
            bought, bought_quote = bought + trade.quantity, bought_quote + trade.quantity * trade.price
        amounts = (volume, quote, count, bought, bought_quote)
        values = (opened, high, low, trade.price, *amounts)
        candles.append(Candle(trade.symbol, Timeframe.M1, minute, *values, is_closed=False, time=trade.time))
    return candles


def _prices(chance: random.Random, row: Row, decimals: int) -> list[float]:
    opened, high, low, close = row[:4]
    between = [round(chance.uniform(low, high), decimals) for _ in range(TRADES_A_MINUTE - 4)]
    inner = [high, low, *(min(max(each, low), high) for each in between)]
    chance.shuffle(inner)
    return [opened, *inner, close]


def _split(chance: random.Random, lots: int, parts: int) -> list[float]:
    """Split lots into that many parts of at least one each; of fewer lots than parts the parts are broken ones."""
    if lots < parts:
        return [lots / parts] * parts
    cuts = sorted(chance.randint(0, lots - parts) for _ in range(parts - 1))
    return [float(end - begin + 1) for begin, end in zip([0, *cuts], [*cuts, lots - parts], strict=True)]
