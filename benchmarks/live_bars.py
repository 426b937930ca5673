"""Live bars: trades and candles of 20 symbols into bars of all timeframes, a hundred events at a time.

Bare is the least that any feed handler does: a loop that keeps open, high, low, close and a sum of floats for each
symbol and minute, without ids, late trades, corrections, idle minutes, exact amounts or longer bars.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from benchmarks.measure import Comparison, WrongResult, compare, in_turns
from mdplatform.market.events import Candle, Trade
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe
from mdplatform.streaming.bars import LiveBars

SYMBOLS = [f"S{n:02d}USDT" for n in range(20)]
BATCH = 100
_START = 20_000 * DAY_US


def run(short: bool) -> Iterator[Comparison]:
    """Compare trades, then candles of which each minute has twenty, then trades with the forming bars."""
    turns, count = (3, 40_000) if short else (15, 200_000)
    trades, candles = _trades(count), _candles(count)
    for what, events, forming in (
        ("trades into bars of 1m to 1w", trades, False),
        ("candles into bars of 1m to 1w", candles, False),
        ("trades into bars of 1m to 1h, and forming ones", trades, True),
    ):
        timeframes = list(Timeframe)[:6] if forming else list(Timeframe)
        yield compare(
            "live_bars",
            f"{what}, {count:,} of {len(SYMBOLS)} symbols",
            "a loop with a dict of floats",
            in_turns(
                turns,
                ours=lambda events=events, forming=forming, timeframes=timeframes: _ours(events, timeframes, forming),  # type: ignore[misc]
                bare=lambda events=events: _bare(events),  # type: ignore[misc]
                check=_check,
            ),
            amount=count,
            amount_unit="events",
        )


def _ours(events: Sequence[Trade | Candle], timeframes: Sequence[Timeframe], forming: bool) -> dict[str, int]:
    bars = LiveBars(SYMBOLS, timeframes, source="benchmark", forming=forming)
    for at in range(0, len(events), BATCH):
        bars.take(events[at : at + BATCH])
    return dict(bars.counts)


def _check(counts: dict[str, int]) -> None:
    refused = {name: n for name, n in counts.items() if n and name not in ("trades", "candles", "closed")}
    if refused or not counts["closed"]:
        raise WrongResult(f"Not every event went into a bar: {counts}")


def _bare(events: Sequence[Trade | Candle]) -> dict[tuple[str, int], list[float]]:
    bars: dict[tuple[str, int], list[float]] = {}
    for event in events:
        if isinstance(event, Candle):
            key = event.symbol, event.open_time
            bars[key] = [event.open, event.high, event.low, event.close, event.volume]
            continue
        key = event.symbol, event.time - event.time % MINUTE_US
        price, bar = event.price, bars.get(key)
        if bar is None:
            bars[key] = [price, price, price, price, event.quantity]
        else:
            bar[1], bar[2], bar[3] = max(bar[1], price), min(bar[2], price), price
            bar[4] += event.quantity
    return bars


def _trades(count: int) -> list[Trade]:
    """Give trades three milliseconds apart; prices move by a cent, amounts have five decimals."""
    chance = random.Random(7)
    ids, prices = dict.fromkeys(SYMBOLS, 0), dict.fromkeys(SYMBOLS, 50_000.0)
    made = []
    for n in range(count):
        symbol, at = chance.choice(SYMBOLS), _START + n * 3000
        ids[symbol] += 1
        prices[symbol] = round(prices[symbol] + chance.choice((-0.01, 0.0, 0.01)), 2)
        amount = round(chance.uniform(0.00001, 2), 5)
        made.append(Trade(symbol, ids[symbol], at, prices[symbol], amount, chance.random() < 0.5, received_at=at))
    return made


def _candles(count: int) -> list[Candle]:
    """Give candles every three seconds, the twentieth of each minute closed."""
    made = []
    for n in range(count):
        step, minute = n // len(SYMBOLS) % 20, n // len(SYMBOLS) // 20
        opened, told = _START + minute * MINUTE_US, _START + minute * MINUTE_US + (step + 1) * 3_000_000
        volume, quote = 1.0 + step, 100.25 + step
        made.append(
            Candle(
                symbol=SYMBOLS[n % len(SYMBOLS)],
                timeframe=Timeframe.M1,
                open_time=opened,
                open=100.0,
                high=101.0,
                low=99.0,
                close=100.5,
                volume=volume,
                quote_volume=quote,
                trade_count=step + 1,
                taker_buy_volume=volume / 2,
                taker_buy_quote_volume=quote / 2,
                is_closed=step == 19,
                time=told,
                received_at=told,
            )
        )
    return made
