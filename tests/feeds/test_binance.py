"""The Binance feed, against an exchange on a real socket: whatever happens, its events are the venue's, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from mdplatform.errors import InvalidSetting, InvalidSymbol, ParameterOutOfRange
from mdplatform.feeds import binance_messages, binance_rest
from mdplatform.feeds.binance import BinanceFeed
from mdplatform.feeds.binance_rest import BinanceRest, NotToBeHad
from mdplatform.market.events import Candle
from mdplatform.market.timeframe import MINUTE_US
from tests.feeds.exchange import Exchange, walk
from tests.feeds.following import (
    Followed,
    following,
    of_candles,
    of_trades,
    quick,
    told_candles,
    told_trades,
)
from tests.feeds.venue import MINUTE_MS, START_MS, Message

SYMBOLS = ("BTCUSDT", "ETHUSDT")
SINCE = dict.fromkeys(SYMBOLS, START_MS * 1000)


def trade_each_second(exchange: Exchange, count: int) -> None:
    for _ in range(count):
        exchange.venue.trade("BTCUSDT", "100", "1", exchange.venue.now + 1_000)


Script = Callable[[Exchange, "Steps", Followed], Awaitable[None]]


class Steps:
    """Trades of a walk, some at a time, so slowly that the messages arrive one by one."""

    def __init__(self, steps: Iterator[Message]) -> None:
        self._steps = steps

    async def go(self, count: int) -> None:
        for _ in range(count):
            next(self._steps)
            await asyncio.sleep(0)


def assert_complete(exchange: Exchange, followed: Followed) -> None:
    for symbol in exchange.symbols:
        assert of_trades(followed.trades(symbol)) == told_trades(exchange.venue, symbol)
        assert of_candles(followed.candles(symbol)) == told_candles(exchange.venue, symbol)
    assert followed.lost == []
    assert followed.clocks == sorted(set(followed.clocks))
    assert followed.clocks[-1] <= exchange.venue.now * 1000 + 5_000  # candles are said 5 ms after their close
    assert_clock_waits(followed)


def assert_clock_waits(followed: Followed) -> None:
    """What comes behind a `Clock` is never older than it."""
    now = 0
    for event in reversed(followed.events):
        if isinstance(event, Candle) and event.is_closed:
            now = min(now or 1 << 62, event.open_time + MINUTE_US)
        elif hasattr(event, "time") and not hasattr(event, "symbol"):
            assert not now or event.time < now


async def run(script: Script, *, lifetime: float | None = None, **options: Any) -> Followed:
    """Follow an exchange through a script, and compare what came with what there was."""
    async with Exchange(SYMBOLS, lifetime=lifetime) as exchange:
        steps = Steps(walk(exchange.venue, 7, 400.0))
        await steps.go(300)
        async with following(quick(exchange, **options), SINCE) as followed:
            await exchange.connected(streams=4)
            await steps.go(100)
            await followed.all_of(exchange.venue)
            await script(exchange, steps, followed)
            exchange.calm()
            await exchange.connected(streams=4)
            await steps.go(50)
            exchange.venue.advance(exchange.venue.now + MINUTE_MS)
            await followed.all_of(exchange.venue)
            assert_complete(exchange, followed)
        return followed


async def drop(exchange: Exchange, steps: Steps, followed: Followed) -> None:
    exchange.drop()
    await steps.go(200)
    await exchange.connected(streams=4, connects=2)
    exchange.close()
    await steps.go(50)


async def refuse(exchange: Exchange, steps: Steps, followed: Followed) -> None:
    exchange.refuse(3)
    exchange.drop()
    await steps.go(200)
    await exchange.connected(streams=4, connects=2)


async def stall(exchange: Exchange, steps: Steps, followed: Followed) -> None:
    exchange.stall()
    await steps.go(200)
    await exchange.connected(connects=2)
    await steps.go(50)


async def stall_and_resume(exchange: Exchange, steps: Steps, followed: Followed) -> None:
    exchange.stall()
    await steps.go(200)
    exchange.resume()


async def repeat(exchange: Exchange, steps: Steps, followed: Followed) -> None:
    for count in (1, 7, 60):
        await steps.go(20)
        exchange.repeat(count)


async def reorder(exchange: Exchange, steps: Steps, followed: Followed) -> None:
    for count in (2, 3, 40):
        exchange.reorder(count)
        await steps.go(60)


async def skip(exchange: Exchange, steps: Steps, followed: Followed) -> None:
    for count in (1, 5, 300):
        exchange.skip(count)
        await steps.go(count + 10)


async def garbage(exchange: Exchange, steps: Steps, followed: Followed) -> None:
    kline = '{"stream":"btcusdt@kline_1m","data":{"e":"kline","E":1,"s":"BTCUSDT","k":null}}'
    nan = '{"data":{"e":"aggTrade","E":1,"s":"BTCUSDT","a":1,"p":"nan","q":"1","T":1,"m":true}}'
    for text in ("", "{", "[]", "null", kline, nan, "\N{BLACK HEART SUIT}" * 5000):
        exchange.garbage(text)
        await steps.go(5)


async def too_many(exchange: Exchange, steps: Steps, followed: Followed) -> None:
    exchange.answer(429, 1, retry_after="0.3")
    exchange.answer(418, 1, retry_after="0")
    exchange.answer(503, 2)
    exchange.drop()
    await steps.go(100)


async def ping(exchange: Exchange, steps: Steps, followed: Followed) -> None:
    assert await exchange.ping() == 1


async def shut_down(exchange: Exchange, steps: Steps, followed: Followed) -> None:
    exchange.shut_down()
    await exchange.connected(streams=8, connects=2)
    await steps.go(50)
    exchange.drop()
    await steps.go(20)


async def trades_stall(exchange: Exchange, steps: Steps, followed: Followed) -> None:
    exchange.mute("aggTrade")
    await steps.go(300)
    exchange.venue.advance(exchange.venue.now + 2 * MINUTE_MS)
    await followed.all_of(exchange.venue)


async def slow_consumer(exchange: Exchange, steps: Steps, followed: Followed) -> None:
    followed.may_go_on.clear()
    await steps.go(3_000)
    exchange.drop()
    await steps.go(200)
    followed.may_go_on.set()


@pytest.mark.parametrize(
    ("script", "options", "counted"),
    [
        (drop, {}, "reconnects"),
        (refuse, {}, "refused"),
        (stall, {"silence_seconds": 0.3}, "reconnects"),
        (stall_and_resume, {}, "filled"),
        (repeat, {}, "repeated"),
        (reorder, {}, "skipped"),
        (skip, {}, "skipped"),
        (garbage, {}, "unreadable"),
        (too_many, {}, "reconnects"),
        (ping, {}, "messages"),
        (shut_down, {"overlap_seconds": 1.0}, "renewals"),
        (trades_stall, {}, "filled"),
        (slow_consumer, {"most_waiting": 100}, "filled"),
    ],
    ids=lambda given: given.__name__ if callable(given) else "",
)
def test_events_are_the_venues_whatever_happens(script: Script, options: dict[str, Any], counted: str) -> None:
    followed = asyncio.run(run(script, **options))
    assert followed.feed.counts[counted] > 0


def test_a_connection_is_renewed_before_the_venue_cuts_it_and_nothing_falls_between() -> None:
    async def renew(exchange: Exchange, steps: Steps, followed: Followed) -> None:
        while exchange.connects < 4:
            await steps.go(5)
            await asyncio.sleep(0.005)

    followed = asyncio.run(run(renew, renew_seconds=0.4, overlap_seconds=0.2))
    assert followed.feed.counts["renewals"] >= 3
    assert followed.feed.counts["repeated"] > 0  # both connections were read
    assert followed.feed.counts.get("reconnects", 0) == 0


def test_a_connection_that_the_venue_cuts_is_made_anew() -> None:
    async def wait(exchange: Exchange, steps: Steps, followed: Followed) -> None:
        while exchange.connects < 3:
            await steps.go(5)
            await asyncio.sleep(0.005)

    followed = asyncio.run(run(wait, lifetime=0.3))
    assert followed.feed.counts["reconnects"] >= 2


@pytest.mark.parametrize("knows", [True, False])
def test_instants_are_asked_for_in_microseconds_and_understood_in_milliseconds(
    monkeypatch: pytest.MonkeyPatch, *, knows: bool
) -> None:
    told: list[int] = []

    def instant(at: int) -> int:
        told.append(at)
        return read(at)

    async def main() -> None:
        async with Exchange(["BTCUSDT"], knows_microseconds=knows) as exchange:
            trade_each_second(exchange, 70)
            async with following(quick(exchange), SINCE) as followed:
                await exchange.connected(streams=2)
                await followed.all_of(exchange.venue)
                trade_each_second(exchange, 70)
                await followed.all_of(exchange.venue)
                assert_complete(exchange, followed)

    read = binance_messages.instant
    for module in (binance_messages, binance_rest):
        monkeypatch.setattr(module, "instant", instant)
    asyncio.run(main())
    assert len(told) > 140
    assert {at > 10**14 for at in told} == {knows}


def test_a_feed_that_is_closed_waits_for_no_answer_of_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Exchange(["BTCUSDT"]) as exchange:
            is_asked, may_answer = asyncio.Event(), asyncio.Event()
            answer = exchange._request

            async def late(connection: ServerConnection, request: Request) -> Response | None:
                is_asked.set()
                await may_answer.wait()
                return await answer(connection, request)

            monkeypatch.setattr(exchange, "_request", late)
            await exchange.__aexit__()
            await exchange.__aenter__()  # to serve by it
            async with following(quick(exchange), {}) as followed:
                await is_asked.wait()
                await followed.feed.close()
                async with asyncio.timeout(5):  # a question is given up after ten
                    await followed.ended.wait()
                may_answer.set()

    asyncio.run(main())


def test_a_feed_that_is_closed_lets_go_of_the_venue_though_nobody_takes_its_events() -> None:
    async def main() -> None:
        async with Exchange(["BTCUSDT"]) as exchange, following(quick(exchange), {}) as followed:
            await exchange.connected(streams=2)
            followed.may_go_on.clear()
            exchange.venue.trade("BTCUSDT", "100", "1")
            await followed.until(lambda: bool(followed.events))
            await followed.feed.close()
            async with asyncio.timeout(10):
                while exchange.streams:
                    await asyncio.sleep(0.005)

    asyncio.run(main())


def test_a_venue_whose_firewall_refuses_is_left_alone() -> None:
    async def main() -> None:
        async with Exchange(["BTCUSDT"]) as exchange:
            exchange.answer(403)
            rest = BinanceRest(exchange.api_url)
            try:
                with pytest.raises(NotToBeHad, match="HTTP 403"):
                    await rest.time()
                with pytest.raises(NotToBeHad, match="asks for quiet"):
                    await rest.time()
                assert len(exchange.requests) == 1
                assert rest.quiet > 30
            finally:
                await rest.close()

    asyncio.run(main())


DISTURBANCES = st.one_of(
    st.just(("drop", {})),
    st.just(("close", {})),
    st.builds(lambda count: ("skip", {"count": count}), st.integers(1, 60)),
    st.builds(lambda count: ("repeat", {"count": count}), st.integers(1, 60)),
    st.builds(lambda count: ("reorder", {"count": count}), st.integers(2, 30)),
    st.builds(lambda lose: ("stall", {"lose": lose}), st.booleans()),
    st.just(("resume", {})),
    st.just(("garbage", {})),
    st.just(("shut_down", {})),
    st.builds(lambda status: ("answer", {"status": status, "retry_after": "0"}), st.sampled_from([429, 418, 500])),
    st.just(("refuse", {})),
)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 60), DISTURBANCES), min_size=3, max_size=10))
def test_events_are_the_venues_after_any_disturbances(plan: list[tuple[int, tuple[str, dict[str, Any]]]]) -> None:
    async def script(exchange: Exchange, steps: Steps, followed: Followed) -> None:
        for count, (command, arguments) in plan:
            getattr(exchange, command)(**arguments)
            await steps.go(count)

    asyncio.run(run(script, silence_seconds=0.3))


def test_what_the_venue_does_not_have_any_more_is_said_as_lost() -> None:
    async def main() -> None:
        async with Exchange(SYMBOLS) as exchange, following(quick(exchange), SINCE) as followed:
            await exchange.connected(streams=4)
            trade_each_second(exchange, 10)
            await followed.until(lambda: len(followed.trades("BTCUSDT")) == 10)
            exchange.skip(5)
            trade_each_second(exchange, 5)
            exchange.forget(before=16)
            trade_each_second(exchange, 5)
            await followed.until(lambda: len(followed.trades("BTCUSDT")) == 15)
            trades = followed.trades("BTCUSDT")
            assert [each.trade_id for each in trades] == [*range(1, 11), *range(16, 21)]
            assert [(each.symbol, each.kind, each.since, each.until) for each in followed.lost] == [
                ("BTCUSDT", "trades", trades[9].time, trades[10].time)
            ]

    asyncio.run(main())


def test_what_the_api_does_not_tell_in_time_is_said_as_lost_and_the_stream_goes_on() -> None:
    async def main() -> None:
        async with (
            Exchange(["BTCUSDT"]) as exchange,
            following(quick(exchange, fill_seconds=0.5, streams=["trades"]), SINCE) as followed,
        ):
            await exchange.connected(streams=1)
            trade_each_second(exchange, 10)
            await followed.until(lambda: len(followed.trades("BTCUSDT")) == 10)
            exchange.answer(429, 1, retry_after="3600")
            exchange.skip(1)
            trade_each_second(exchange, 5)
            await followed.until(lambda: len(followed.trades("BTCUSDT")) == 14)
            assert ["HTTP 429" in each.reason for each in followed.lost] == [True]

    asyncio.run(main())


def test_while_the_api_answers_nobody_many_symbols_are_given_up_at_once() -> None:
    symbols = [f"S{number}USDT" for number in range(40)]

    async def main() -> float:
        async with Exchange(symbols) as exchange:
            feed = quick(exchange, fill_seconds=0.5, streams=["trades"])

            def trade_each() -> None:
                for symbol in symbols:
                    exchange.venue.trade(symbol, "100", "1", exchange.venue.now + 1)

            async with following(feed, {}) as followed:
                await exchange.connected(len(symbols))
                trade_each()
                await followed.until(lambda: all(followed.trades(each) for each in symbols))
                exchange.answer(500, 100_000)
                exchange.skip(len(symbols))
                trade_each()
                clock = asyncio.get_running_loop().time
                began = clock()
                trade_each()
                await followed.until(lambda: all(len(followed.trades(each)) == 2 for each in symbols))
                assert len(followed.lost) == len(symbols)
                assert all("HTTP 500" in each.reason for each in followed.lost)
                await followed.until(lambda: followed.clocks[-1] >= exchange.venue.now * 1000)
                return clock() - began

    assert asyncio.run(main()) < 2.5  # in turns of four it would be five seconds


def test_many_symbols_wait_for_their_turn_as_long_as_the_api_answers() -> None:
    symbols = [f"S{number}USDT" for number in range(40)]

    async def main() -> None:
        async with Exchange(symbols) as exchange:
            for symbol in symbols:
                exchange.venue.trade(symbol, "100", "1")
            feed = quick(exchange, fill_seconds=0.2, streams=["trades"])
            async with following(feed, dict.fromkeys(symbols, START_MS * 1000)) as followed:
                await followed.until(lambda: all(followed.trades(each) for each in symbols))
                assert followed.lost == []

    asyncio.run(main())


def test_a_feed_begins_with_now_where_nothing_is_known_and_far_behind_where_it_is() -> None:
    async def main() -> None:
        async with Exchange(SYMBOLS) as exchange:
            steps = Steps(walk(exchange.venue, 7, 2_000.0))
            await steps.go(3_000)
            now = exchange.venue.now
            since = {"BTCUSDT": (now - 30 * MINUTE_MS) * 1000}
            feed = quick(exchange, trades_back_seconds=600, candles_back_days=1)
            async with following(feed, since) as followed:
                await followed.until(lambda: bool(followed.trades("BTCUSDT")))
                await steps.go(200)
                await followed.all_of(exchange.venue)
                behind, known = followed.trades("ETHUSDT"), followed.trades("BTCUSDT")
                assert of_trades(known) == [
                    each for each in told_trades(exchange.venue, "BTCUSDT") if each[1] >= (now - 600_000) * 1000
                ]
                assert of_trades(behind) == told_trades(exchange.venue, "ETHUSDT")[-len(behind) :]
                assert behind[0].time >= now * 1000
                assert followed.candles("BTCUSDT")[0].open_time == since["BTCUSDT"] // MINUTE_US * MINUTE_US
                assert (
                    of_candles(followed.candles("BTCUSDT"))
                    == told_candles(exchange.venue, "BTCUSDT")[-len(followed.candles("BTCUSDT")) :]
                )
                assert [(each.kind, each.since, each.until) for each in followed.lost] == [
                    ("trades", since["BTCUSDT"], (now - 600_000) * 1000)
                ]

    asyncio.run(main())


def test_what_is_known_of_a_time_still_to_come_stops_nothing() -> None:
    async def main() -> None:
        async with Exchange(["BTCUSDT"]) as exchange:
            trade_each_second(exchange, 70)
            since = {"BTCUSDT": (exchange.venue.now + 60 * MINUTE_MS) * 1000}
            async with following(quick(exchange), since) as followed:
                await exchange.connected(streams=2)
                async with asyncio.timeout(20):
                    while not followed.candles("BTCUSDT"):
                        trade_each_second(exchange, 30)
                        await asyncio.sleep(0.02)
                await followed.all_of(exchange.venue)
                candles = of_candles(followed.candles("BTCUSDT"))
                assert candles == told_candles(exchange.venue, "BTCUSDT")[-len(candles) :]
                assert followed.lost == []

    asyncio.run(main())


def test_a_symbol_without_any_trade_yet_begins_with_its_first() -> None:
    async def main() -> None:
        async with Exchange(["BTCUSDT"]) as exchange, following(quick(exchange), SINCE) as followed:
            await exchange.connected(streams=2)
            exchange.reorder(2)
            trade_each_second(exchange, 5)
            await followed.until(lambda: len(followed.trades("BTCUSDT")) == 5)
            assert of_trades(followed.trades("BTCUSDT")) == told_trades(exchange.venue, "BTCUSDT")
            assert followed.lost == []

    asyncio.run(main())


def test_without_the_api_the_stream_is_followed_and_what_was_before_is_said_as_lost() -> None:
    async def main() -> None:
        async with Exchange(["BTCUSDT"]) as exchange:
            trade_each_second(exchange, 10)
            feed = quick(exchange, fill_seconds=0.3)
            exchange.answer(503, 10_000)
            async with following(feed, SINCE) as followed:
                await exchange.connected(streams=2)
                trade_each_second(exchange, 10)
                await followed.until(lambda: len(followed.trades("BTCUSDT")) == 10)
                assert [each.kind for each in followed.lost] == ["trades"]
                assert followed.lost[0].since == SINCE["BTCUSDT"]

    asyncio.run(main())


def test_the_clock_waits_for_a_candle_that_is_due_and_goes_on_without_trades() -> None:
    async def main() -> None:
        async with Exchange(SYMBOLS) as exchange:
            exchange.venue.trade("BTCUSDT", "100", "1")
            exchange.venue.trade("ETHUSDT", "10", "1")
            async with following(quick(exchange), SINCE) as followed:
                await exchange.connected(streams=4)
                exchange.skip(1)  # the close of BTCUSDT's first minute
                exchange.venue.advance(START_MS + MINUTE_MS + 500)
                exchange.venue.forming()
                end = (START_MS + MINUTE_MS) * 1000
                await followed.until(lambda: bool(followed.candles("ETHUSDT")))
                assert max(followed.clocks, default=0) < end
                exchange.venue.advance(START_MS + MINUTE_MS + 2_500)
                exchange.venue.forming()
                await followed.until(lambda: max(followed.clocks, default=0) > end + 2_000_000)
                assert of_candles(followed.candles("BTCUSDT")) == told_candles(exchange.venue, "BTCUSDT")
                assert_clock_waits(followed)

    asyncio.run(main())


def test_of_the_minute_just_over_the_streams_final_candle_is_given_not_an_earlier_one_of_the_api(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with Exchange(["BTCUSDT"]) as exchange:
            venue, rest = exchange.venue, exchange._rest

            def late(what: str, query: dict[str, str]) -> tuple[object, int]:
                """Answer without the last trade of the newest closed minute."""
                told, status = rest(what, query)
                if what == "klines" and isinstance(told, list) and len(told) > 1:
                    told[-2][5] = "1"
                return told, status

            monkeypatch.setattr(exchange, "_rest", late)
            async with following(quick(exchange, streams=["candles"]), {}) as followed:
                await exchange.connected(1)
                venue.trade("BTCUSDT", "100", "1")
                venue.advance(START_MS + MINUTE_MS)
                await followed.until(lambda: len(followed.candles("BTCUSDT")) == 1)
                venue.trade("BTCUSDT", "100", "5")
                exchange.drop()
                await exchange.connected(1, 2)
                exchange.stall()  # what the stream tells comes after the API's answer
                venue.advance(START_MS + 2 * MINUTE_MS + 5)
                end = (START_MS + 2 * MINUTE_MS) * 1000
                await followed.until(lambda: followed.clocks[-1] >= end - 1)
                exchange.resume()
                await followed.until(lambda: len(followed.candles("BTCUSDT")) == 2)
                assert of_candles(followed.candles("BTCUSDT")) == told_candles(venue, "BTCUSDT")

    asyncio.run(main())


def test_the_book_is_a_snapshot_and_the_changes_behind_it_without_a_hole() -> None:
    async def main() -> None:
        async with Exchange(["BTCUSDT"]) as exchange:
            change = exchange.venue.change_book
            change("BTCUSDT", [("99", "1"), ("98", "2")], [("101", "1")])
            async with following(quick(exchange, streams=["book"]), {}) as followed:
                await exchange.connected(streams=1)
                for count in range(100):
                    exchange.venue.advance(exchange.venue.now + 100)
                    change("BTCUSDT", [("99", str(count + 1))], [("101", "0" if count % 2 else "3")])
                    if count == 50:
                        await followed.until(lambda: bool(followed.book("BTCUSDT")))
                        exchange.skip(3)
                    if count in (20, 70):
                        exchange.repeat(5)
                        exchange.reorder(2)
                    await asyncio.sleep(0)
                last = exchange.venue.books["BTCUSDT"].last
                await followed.until(lambda: followed.book("BTCUSDT")[-1].last_id == last)
                assert book_of(followed) == exchange.venue.books["BTCUSDT"].bids
                assert all(each.kind == "book" for each in followed.lost)
                assert len(followed.lost) <= 1

    asyncio.run(main())


def book_of(followed: Followed) -> dict[str, str]:
    """Replay the changes by the rule of the exchange; give the bids, as it writes them."""
    bids: dict[float, float] = {}
    last = None
    for change in followed.book("BTCUSDT"):
        if change.is_snapshot:
            bids = {}
        else:
            assert last is not None
            assert change.first_id <= last + 1 <= change.last_id
        last = change.last_id
        bids.update(change.bids)
    return {f"{price:g}": f"{amount:g}" for price, amount in bids.items() if amount}


def test_many_symbols_are_spread_over_connections_and_subscribed_within_the_limits() -> None:
    async def main() -> None:
        symbols = [f"S{number}USDT" for number in range(600)]
        async with Exchange(symbols) as exchange, following(quick(exchange), {}) as followed:
            await exchange.connected(streams=1200, connects=2)
            assert sorted(map(len, exchange.streams)) == [176, 1024]
            exchange.venue.trade("S0USDT", "1", "1")
            exchange.venue.trade("S599USDT", "1", "1")
            await followed.until(lambda: bool(followed.trades("S0USDT") and followed.trades("S599USDT")))
            assert followed.feed.counts["connects"] == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("symbols", "options", "error", "told"),
    [
        (["../x"], {}, InvalidSymbol, "Not a symbol"),
        (["BTCUSDT/ethusdt@trade"], {}, InvalidSymbol, "Not a symbol"),
        ([], {}, ParameterOutOfRange, "needs symbols"),
        ("BTCUSDT", {}, ParameterOutOfRange, "as a list"),
        (["BTCUSDT"], {"streams": ["prices"]}, ParameterOutOfRange, "prices"),
        (["BTCUSDT"], {"streams": []}, ParameterOutOfRange, "follow something"),
        (["BTCUSDT"], {"stream_url": "http://x"}, InvalidSetting, "MDPLATFORM_BINANCE_STREAM_URL"),
        (["BTCUSDT"], {"stream_url": "ws://"}, InvalidSetting, "MDPLATFORM_BINANCE_STREAM_URL"),
        (["BTCUSDT"], {"stream_url": "wss://[::1"}, InvalidSetting, "MDPLATFORM_BINANCE_STREAM_URL"),
        (["BTCUSDT"], {"stream_url": "wss://x:99999"}, InvalidSetting, "MDPLATFORM_BINANCE_STREAM_URL"),
        (["BTCUSDT"], {"api_url": "x"}, InvalidSetting, "MDPLATFORM_BINANCE_API_URL"),
        (["BTCUSDT"], {"silence_seconds": 0}, ParameterOutOfRange, "above 0"),
        (["BTCUSDT"], {"renew_seconds": float("nan")}, ParameterOutOfRange, "above 0"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_anything_is_sent(
    symbols: Any, options: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        BinanceFeed(symbols, **{"stream_url": "ws://127.0.0.1:1", "api_url": "http://127.0.0.1:1", **options})


def test_a_symbol_that_the_venue_does_not_have_is_named() -> None:
    async def main() -> None:
        async with Exchange(SYMBOLS) as exchange:
            symbols = [*SYMBOLS, "NOSUCHUSDT"]
            feed = BinanceFeed(symbols, stream_url=exchange.stream_url, api_url=exchange.api_url)
            with pytest.raises(InvalidSymbol, match="NOSUCHUSDT"):
                async for _ in feed.events({}):
                    pass
            assert exchange.connects == 0

    asyncio.run(main())
