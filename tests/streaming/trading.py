"""Events as a feed gives them, made by hand, and what bars they should make, by plain arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import polars as pl

from mdplatform.market.bars import BAR_SCHEMA, RAW_SCHEMA, VALUE_COLUMNS
from mdplatform.market.events import Candle, Event, Trade
from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming.bars import LiveBars
from mdplatform.streaming.live_bar import LiveBar

NOON = 1_741_608_000_000_000  # 2025-03-10T12:00Z, a Monday
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
M1, M3, M5, M15, H1, D1, W1 = map(Timeframe, ("1m", "3m", "5m", "15m", "1h", "1d", "1w"))


def trade(trade_id: int, seconds: float, price: float = 100.0, quantity: float = 1.0, **more: Any) -> Trade:
    """Give a trade so many seconds after noon, of a taker who bought."""
    given = {"symbol": "AUSDT", "is_buyer_maker": False} | more
    return Trade(trade_id=trade_id, time=NOON + round(seconds * SECOND), price=price, quantity=quantity, **given)


def candle(minute: int, close: float = 100.0, **more: Any) -> Candle:
    """Give the candle of a minute after noon, closed unless `more` says otherwise."""
    opened = NOON + minute * MINUTE
    given: dict[str, Any] = {
        "symbol": "AUSDT", "timeframe": M1, "open_time": opened, "open": 100.0, "high": max(101.0, close),
        "low": min(99.0, close), "close": close, "volume": 5.0, "quote_volume": 500.0, "trade_count": 7,
        "taker_buy_volume": 2.0, "taker_buy_quote_volume": 200.0, "time": opened + MINUTE,
    }  # fmt: skip
    return Candle(**(given | more))


def bars_of(*timeframes: Timeframe, **more: Any) -> LiveBars:
    """Make bars of one symbol, in 1m or the timeframes given."""
    return LiveBars(["AUSDT"], timeframes or (M1,), source="test", **more)


def taken(bars: LiveBars, *events: Event) -> list[tuple[str, int, str, int, float]]:
    """Take events in; give of each bar timeframe, minute after noon, state, revision and close (0 for a gap)."""
    return [
        (bar.timeframe.value, (bar.open_time - NOON) // MINUTE, bar.state, bar.revision)
        + ((0.0,) if bar.state == "gap" else (bar.close,))
        for bar in bars.take(events)
    ]


def newest(bars: Iterable[LiveBar]) -> dict[tuple[Timeframe, int], LiveBar]:
    """Give the last bar of each timeframe and open time."""
    return {(bar.timeframe, bar.open_time): bar for bar in bars}


def values_by_hand(trades: Sequence[Trade]) -> tuple[float, ...]:
    """Give the nine values of the bar that trades make, sums as exact decimals."""
    ordered = sorted(trades, key=lambda each: each.trade_id)
    prices = [each.price for each in ordered]

    def total(chosen: Iterable[Trade], quote: bool) -> float:
        parts = (Decimal(repr(each.quantity)) * (Decimal(repr(each.price)) if quote else 1) for each in chosen)
        return float(sum(parts, Decimal(0)))

    bought = [each for each in ordered if not each.is_buyer_maker]
    return (
        prices[0], max(prices), min(prices), prices[-1],
        total(ordered, False), total(ordered, True), float(sum(each.fills for each in ordered)),
        total(bought, False), total(bought, True),
    )  # fmt: skip


def raw(bars: Iterable[LiveBar]) -> pl.DataFrame:
    """Give bars as a source delivers them."""
    rows = [(bar.open_time, bar.close_time, *bar.values) for bar in bars]
    names = ["open_time", "close_time", *VALUE_COLUMNS]
    return (
        pl.DataFrame(rows, schema=names, orient="row").with_columns(pl.col(pl.Float64).fill_nan(None)).cast(RAW_SCHEMA)
    )


def table(bars: Iterable[LiveBar]) -> pl.DataFrame:
    """Give bars as a table of `BAR_SCHEMA`, all taken in at the epoch."""
    rows = [
        (
            *(bar.symbol, bar.timeframe.value, bar.open_time, bar.close_time, *bar.values),
            *(bar.is_closed, bar.state, bar.source, bar.revision, bar.available_at, 0),
        )
        for bar in bars
    ]
    made = pl.DataFrame(rows, schema=BAR_SCHEMA.names(), orient="row")
    return made.with_columns(pl.col(pl.Float64).fill_nan(None)).cast(dict(BAR_SCHEMA))
