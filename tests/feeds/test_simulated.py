"""The simulated feed: a market that is the simulated source's, minute by minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from mdplatform.errors import InvalidSymbol, ParameterOutOfRange, UnknownParameter, UnknownSource
from mdplatform.feeds.registry import FEEDS, feed
from mdplatform.feeds.simulated import TRADES_BACK, SimulatedFeed
from mdplatform.feeds.simulated_trades import TRADES_A_MINUTE
from mdplatform.market.bars import VALUE_COLUMNS
from mdplatform.market.events import Candle, Clock, Event, Lost, Trade
from mdplatform.market.time import month_range
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe
from mdplatform.settings import Settings
from mdplatform.sources.simulated import SimulatedMarket
from tests.feeds.following import following

START = month_range("2025-01")[0] + 5 * DAY_US
SYMBOLS = ["BTCUSDT", "ADAUSDT", "XYZUSDT"]


def events_of(since: Mapping[str, int] | None = None, **options: Any) -> list[Event]:
    async def main() -> list[Event]:
        feed = SimulatedFeed(SYMBOLS, **{"speed": 0.0, "start": START, **options})
        told: list[Event] = []
        async for batch in feed.events(since or {}):
            told += batch
        return told

    return asyncio.run(main())


def without_receipt(events: list[Event]) -> list[tuple[Any, ...]]:
    names = ("time", "symbol", "trade_id", "price", "quantity", "open_time", "close", "volume", "is_closed", "until")
    return [(type(each).__name__, *(getattr(each, name, None) for name in names)) for each in events]


def test_closed_candles_are_the_bars_of_the_simulated_source() -> None:
    until = START + 3 * 60 * MINUTE_US
    told = events_of(until=until)
    for symbol in SYMBOLS:
        bars = next(SimulatedMarket().bars(symbol, Timeframe.M1, START, until)).rows
        candles = [each for each in told if isinstance(each, Candle) and each.symbol == symbol and each.is_closed]
        assert [each.open_time for each in candles] == bars["open_time"].dt.epoch("us").to_list()
        values = [
            (
                each.open, each.high, each.low, each.close, each.volume, each.quote_volume, each.trade_count,
                each.taker_buy_volume, each.taker_buy_quote_volume,
            )
            for each in candles
        ]  # fmt: skip
        assert values == bars.select(VALUE_COLUMNS).rows()


def test_the_trades_of_a_minute_make_its_bar() -> None:
    told = events_of(until=START + 60 * MINUTE_US)
    for symbol in SYMBOLS:
        trades = [each for each in told if isinstance(each, Trade) and each.symbol == symbol]
        ids = [each.trade_id for each in trades]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        for candle in told:
            if not isinstance(candle, Candle) or candle.symbol != symbol or not candle.is_closed:
                continue
            mine = [each for each in trades if Timeframe.M1.floor(each.time) == candle.open_time]
            assert len(mine) == (TRADES_A_MINUTE if candle.volume else 0)
            prices = [each.price for each in mine]
            assert (prices[0], max(prices), min(prices), prices[-1]) == (
                candle.open, candle.high, candle.low, candle.close,
            )  # fmt: skip
            assert sum(each.quantity for each in mine) == pytest.approx(candle.volume, rel=1e-12)
            bought = sum(each.quantity for each in mine if not each.is_buyer_maker)
            assert bought == pytest.approx(candle.taker_buy_volume, rel=1e-12)
            assert all(each.quantity > 0 for each in mine)


def test_an_outage_is_said_as_lost_and_a_minute_without_trades_has_its_candle() -> None:
    truth = SimulatedMarket().truth("BTCUSDT", "2025-01")
    start = truth.missing[0] - 2 * MINUTE_US
    told = events_of(start=start, until=truth.missing[-1] + 3 * MINUTE_US)
    lost = [
        each.since for each in told if isinstance(each, Lost) and each.symbol == "BTCUSDT" and each.kind == "candles"
    ]
    assert lost == list(truth.missing)
    ids = [each.trade_id for each in told if isinstance(each, Trade) and each.symbol == "BTCUSDT"]
    assert all(after == before + 1 for before, after in pairwise(ids))
    quiet = truth.no_trade[0]
    told = events_of(start=quiet - MINUTE_US, until=quiet + 2 * MINUTE_US)
    [candle] = [
        each for each in told
        if isinstance(each, Candle) and each.symbol == "BTCUSDT" and each.open_time == quiet
    ]  # fmt: skip
    assert candle.volume == 0.0
    ids = [each.trade_id for each in told if isinstance(each, Trade) and each.symbol == "BTCUSDT"]
    assert all(after == before + 1 for before, after in pairwise(ids))


def test_whenever_it_is_started_it_tells_the_same() -> None:
    until = START + 30 * MINUTE_US
    whole = events_of(until=until)
    later = events_of(since=dict.fromkeys(SYMBOLS, START + 10 * MINUTE_US), start=START + 20 * MINUTE_US, until=until)
    behind = [each for each in whole if getattr(each, "time", 0) > START + 11 * MINUTE_US]
    begun = [each for each in later if getattr(each, "time", 0) > START + 11 * MINUTE_US]
    assert without_receipt(begun) == without_receipt(behind)
    assert without_receipt(events_of(until=until, seed=8)) != without_receipt(whole)


def test_events_are_in_the_order_of_time_with_a_clock_each_second() -> None:
    told = events_of(until=START + 5 * MINUTE_US)
    times = [each.time for each in told if isinstance(each, Trade | Candle | Clock)]
    assert times == sorted(times)
    clocks = [each.time for each in told if isinstance(each, Clock)]
    assert [after - before for before, after in pairwise(clocks)] == [1_000_000] * 299


def test_far_behind_it_gives_candles_and_says_which_trades_it_does_not() -> None:
    since = START - 6 * 60 * MINUTE_US
    told = events_of(since={"BTCUSDT": since}, until=START + MINUTE_US)
    mine = [each for each in told if getattr(each, "symbol", "") == "BTCUSDT"]
    assert min(each.open_time for each in mine if isinstance(each, Candle)) == since
    assert min(each.time for each in mine if isinstance(each, Trade)) >= START - TRADES_BACK
    assert [(each.kind, each.since, each.until) for each in mine if isinstance(each, Lost)] == [
        ("trades", since, START - TRADES_BACK)
    ]
    other = [each for each in told if getattr(each, "symbol", "") == "ADAUSDT"]
    assert min(each.time for each in other if isinstance(each, Trade)) >= START


def test_it_is_never_ahead_of_this_machines_clock() -> None:
    async def main() -> None:
        begin = time.time_ns() // 1000
        async with following(SimulatedFeed(SYMBOLS, speed=1000.0, start=begin - 2_000_000), {}) as followed:
            await followed.until(lambda: len(followed.clocks) >= 2)
        times = [each.time for each in followed.events if isinstance(each, Trade | Candle | Clock)]
        assert max(times) <= time.time_ns() // 1000 + 50_000

    asyncio.run(main())


@pytest.mark.parametrize(
    ("symbols", "options", "error"),
    [
        (["a b"], {}, InvalidSymbol),
        ([], {}, ParameterOutOfRange),
        (SYMBOLS, {"speed": -1.0}, ParameterOutOfRange),
        (SYMBOLS, {"speed": float("inf")}, ParameterOutOfRange),
        (SYMBOLS, {"start": 5}, ParameterOutOfRange),
        (SYMBOLS, {"start": 1 << 60}, ParameterOutOfRange),
        (SYMBOLS, {"streams": ["book"]}, ParameterOutOfRange),
        (SYMBOLS, {"sped": 60}, UnknownParameter),
        (SYMBOLS, {"path": "x"}, UnknownParameter),
    ],
)
def test_what_cannot_be_told_is_refused(
    settings: Settings, symbols: list[str], options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        feed("simulated", settings, symbols, **options)


def test_feeds_are_found_by_name(settings: Settings) -> None:
    assert {"binance", "recording", "simulated"} <= set(FEEDS)
    assert feed("binance", settings, ["btcusdt"]).name == "binance"
    assert feed("simulated", settings, SYMBOLS, speed=None).bars_from == "candles"
    with pytest.raises(UnknownSource, match="binance"):
        feed("binanse", settings, SYMBOLS)
