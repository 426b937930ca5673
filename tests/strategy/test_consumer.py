"""Strategies subscribe: frames in step, in order, each once, whatever callbacks, servers and clocks do."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

import pytest

from mdplatform.errors import PlatformError
from mdplatform.messaging.broadcast import Post
from mdplatform.messaging.memory.broadcast import MemoryBroadcast
from mdplatform.strategy import EnhancedMarketDataConsumer, Frame
from mdplatform.strategy.live import line
from mdplatform.streaming.assembler import Assembler
from mdplatform.streaming.cells import Packet, encode
from mdplatform.streaming.wishes import Wish, decode_wishes

from ..streaming.packets import LAYOUT, MINUTE, NOON, cell, packet

SYMBOLS = ["BTCUSDT", "ETHUSDT", "ADAUSDT"]
STEP = 5 * MINUTE
SMALL = {"strategy_id": "s", "symbols": ["BTCUSDT"], "data_types": ["price"], "timeframes": ["5m"]}


class Feed:
    """Says what a feed says, over a broadcast inside the process."""

    def __init__(self, settings) -> None:
        self.broadcast = MemoryBroadcast(settings)
        self._out = self.broadcast.broadcaster()

    def consumer(self, settings) -> EnhancedMarketDataConsumer:
        return EnhancedMarketDataConsumer(settings, open_listener=self.broadcast.listener)

    async def say(self, *packets: Packet) -> None:
        facts = {f"layout:{LAYOUT.id}": encode(LAYOUT)}
        posts = [
            Post(each.symbol, encode(each), {**facts, **{f"cell:{c.timeframe}": encode(each) for c in each.cells}})
            for each in packets
        ]
        await self._out.send(posts)

    async def close(self, symbols: Sequence[str], first: int, last: int, timeframes=("5m", "15m")) -> None:
        """Let all symbols close the bars of these steps after noon."""
        for step in range(first, last + 1):
            await self.say(*(packet(each, NOON + step * STEP, timeframes, 100.0 + step) for each in symbols))


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.002)


def run(work: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))  # type: ignore[arg-type]


def steps(frames: Sequence[Frame]) -> list[float]:
    return [(each.time_us - NOON) / STEP for each in frames]


def test_the_call_of_a_strategy_gets_frames_in_step(settings):
    class Strategy:
        def __init__(self) -> None:
            self.frames: list[Frame] = []

        async def process_market_data(self, frame: Frame) -> None:
            self.frames.append(frame)

        async def begin(self, market_data_consumer: EnhancedMarketDataConsumer) -> str:
            return await market_data_consumer.subscribe_to_market_data(
                strategy_id="transformer_strategy", symbols=["BTCUSDT", "ETHUSDT", "ADAUSDT"],
                data_types=["price", "volume", "indicators", "sentiment"],
                timeframes=["5m", "15m", "1h", "4h"], callback=self.process_market_data, real_time=True)  # fmt: skip

    async def work() -> None:
        strategy, feed = Strategy(), Feed(settings)
        async with feed.consumer(settings) as consumer:
            subscription_id = await strategy.begin(consumer)
            await feed.close(SYMBOLS, 0, 3, ("5m", "15m", "1h", "4h"))
            await until(lambda: len(strategy.frames) == 4)
            frame = strategy.frames[-1]
            assert steps(strategy.frames) == [0, 1, 2, 3]
            assert all(each.is_complete for each in strategy.frames)
            assert frame["ETHUSDT", "5m"].close == 103.0
            assert frame["ETHUSDT", "15m"]["RSI"] == 51.5
            assert frame["ETHUSDT", "4h"].close == 100.0
            assert frame["BTCUSDT", "1h"].reason("EMA(20)") == "not_available_yet"
            [status] = consumer.status()
            assert (status.subscription_id, status.frames, status.note) == (subscription_id, 4, "")
            assert frame.to_tensor(window=3).values.shape == (3, 3, len(frame.shape.numbers))

    run(work())


def test_a_consumer_that_comes_back_goes_on_from_its_cursor_without_loss_or_repeat(settings):
    async def work() -> None:
        feed, frames = Feed(settings), []
        async with feed.consumer(settings) as consumer:
            await consumer.subscribe_to_market_data(**{**SMALL, "symbols": SYMBOLS}, callback=frames.append)
            await feed.close(SYMBOLS, 0, 4)
            await feed.say(packet(SYMBOLS[0], NOON + 5 * STEP))  # one symbol is ahead when the consumer goes
            await until(lambda: len(frames) == 5)
        await feed.say(*(packet(each, NOON + 5 * STEP) for each in SYMBOLS[1:]))
        await feed.close(SYMBOLS, 6, 30)
        cursor = frames[-1].cursor
        async with feed.consumer(settings) as consumer:
            again, other = [], []

            async def slow(frame: Frame) -> None:
                await asyncio.sleep(0)
                again.append(frame)

            await consumer.subscribe_to_market_data(
                **{**SMALL, "symbols": SYMBOLS}, callback=slow, cursor=cursor, queue=2
            )
            await feed.close(SYMBOLS, 31, 33)
            await until(lambda: len(again) == 29)
            await consumer.subscribe_to_market_data(**{**SMALL, "symbols": SYMBOLS}, callback=other.append)
            await feed.close(SYMBOLS, 34, 36)
            await until(lambda: len(again) == 32 and len(other) == 3)
            assert steps(again) == list(range(5, 37))
            assert all(each.is_complete for each in again)
            assert [each.dropped for each in consumer.status()] == [0, 0]
            assert again[-1] is other[-1]  # they share their frames once it has caught up

    run(work())


@pytest.mark.parametrize(
    ("policy", "given", "dropped"),
    [("conflate", [0, 3, 6, 9], 6), ("drop_oldest", [0, 7, 8, 9], 6), ("block", list(range(10)), 0)],
)
def test_what_a_slow_callback_misses_is_declared_by_its_policy_and_hurts_nobody_else(settings, policy, given, dropped):
    async def work() -> None:
        feed, frames, others, gate = Feed(settings), [], [], asyncio.Event()

        async def slow(frame: Frame) -> None:
            frames.append(frame)
            await gate.wait()

        async with feed.consumer(settings) as consumer:
            await consumer.subscribe_to_market_data(**SMALL, callback=slow, policy=policy, queue=3)
            await consumer.subscribe_to_market_data(**{**SMALL, "data_types": ["volume"]}, callback=others.append)
            await feed.close(["BTCUSDT"], 0, 9)
            await until(lambda: len(others) == 10)
            if policy == "block":
                assert consumer.status()[0].waiting == 3
                assert "block" in consumer.status()[0].note
            gate.set()
            await until(lambda: len(frames) + consumer.status()[0].dropped == 10)
            told = consumer.status()[0]
            assert (told.frames, told.dropped) == (len(frames), dropped)
            assert steps(frames)[-1] == 9
            assert steps(frames) == sorted(set(steps(frames)))
            if policy != "conflate":
                assert steps(frames) == given

    run(work())


def test_who_blocks_for_too_long_is_not_waited_for_any_more(settings, monkeypatch):
    monkeypatch.setattr(line, "BLOCK_SECONDS", 0.05)

    async def work() -> None:
        feed, others, gate = Feed(settings), [], asyncio.Event()

        async def stuck(_: Frame) -> None:
            await gate.wait()

        async with feed.consumer(settings) as consumer:
            await consumer.subscribe_to_market_data(**SMALL, callback=stuck, policy="block", queue=1)
            await consumer.subscribe_to_market_data(**SMALL, callback=others.append)
            await feed.close(["BTCUSDT"], 0, 9)
            await until(lambda: len(others) == 10)
            assert consumer.status()[0].dropped == 8

    run(work())


def test_callbacks_that_raise_are_told_and_unsubscribing_inside_one_is_safe(settings, caplog):
    async def work() -> None:
        feed, frames, ids = Feed(settings), [], []

        def wrong(_: Frame) -> None:
            raise ValueError("the strategy's own")

        async def wrong_too(_: Frame) -> None:
            raise asyncio.CancelledError

        async def once(_: Frame) -> None:
            assert await consumer.unsubscribe(ids[2])
            assert not await consumer.unsubscribe(ids[2])

        def other_too(_: Frame) -> None:
            ended.append(asyncio.ensure_future(consumer.unsubscribe(ids[4])))

        ended: list[asyncio.Future[bool]] = []
        async with feed.consumer(settings) as consumer:
            for callback in (wrong, wrong_too, once, other_too, frames.append, frames.append):
                ids.append(await consumer.subscribe_to_market_data(**SMALL, callback=callback))
            await feed.close(["BTCUSDT"], 0, 0)
            await until(lambda: len(ended) == 1 and ended[0].done() and len(consumer.status()) == 4)
            await feed.close(["BTCUSDT"], 1, 3)
            await until(lambda: len(frames) == 5)
            await until(lambda: consumer.status()[1].frames == 4)
            assert [each.frames for each in consumer.status()] == [4] * 4
            assert consumer.status()[0].failed == 4
            assert consumer.status()[0].error == "ValueError: the strategy's own"

    run(work())
    assert "failed" in caplog.text


def test_what_a_callback_returned_is_closed_where_it_has_not_begun_when_the_subscription_ends(settings):
    async def work() -> None:
        returned = []

        async def callback(_: Frame) -> None:
            pytest.fail("it was begun")

        async with Feed(settings).consumer(settings) as consumer:
            asked = {**SMALL, "callback": lambda frame: returned.append(callback(frame)) or returned[0]}
            subscription = consumer._subscriptions[await consumer.subscribe_to_market_data(**asked)]
            [frame] = Assembler(subscription.wanted.shape).take(packet("BTCUSDT", NOON, ("5m",)))
            subscription.offer(frame)
            await subscription.cancel()
        assert inspect.getcoroutinestate(returned[0]) == inspect.CORO_CLOSED

    run(work())


def test_a_thousand_subscriptions_of_a_shape_share_each_frame(settings):
    async def work() -> None:
        feed, frames = Feed(settings), []
        async with feed.consumer(settings) as consumer:
            for index in range(1000):
                await consumer.subscribe_to_market_data(**{**SMALL, "strategy_id": f"s{index}"}, callback=frames.append)
            await feed.close(["BTCUSDT"], 0, 2)
            await until(lambda: len(frames) == 3000)
            assert len({id(each) for each in frames}) == 3
            assert {each.frames for each in consumer.status()} == {3}

    run(work())


def test_nothing_is_told_why_where_no_feed_runs_and_wishes_say_what_is_wanted(settings):
    async def work() -> None:
        feed = Feed(settings)
        async with feed.consumer(settings) as consumer:
            await consumer.subscribe_to_market_data(
                **{**SMALL, "data_types": ["indicators"]}, indicators=["rsi(7)"], callback=print
            )
            assert "start a feed with `mdplatform feed`" in consumer.status()[0].note
            out = feed.broadcast.broadcaster()
            await until(lambda: True)
            wishes = [wish for raw in (await out.wishes()).values() for wish in decode_wishes(raw)]
            assert wishes == [Wish(("BTCUSDT",), ("5m",), ("RSI(timeperiod=7)",))]

    run(work())


def test_frames_can_be_iterated_over(settings):
    async def work() -> None:
        feed, found = Feed(settings), []
        async with feed.consumer(settings) as consumer:

            async def read() -> None:
                async with aclosing(consumer.frames("BTCUSDT", ["5m"], revisions=True)) as frames:
                    async for frame in frames:
                        found.append(frame)
                        if frame.revision:
                            return

            reading = asyncio.create_task(read())
            await until(consumer.status)
            await until(lambda: "start a feed" in consumer.status()[0].note)
            await feed.close(["BTCUSDT"], 0, 1)
            await feed.say(Packet("BTCUSDT", NOON + STEP, (cell("5m", NOON, 7.0, revision=1),)))
            await reading
            assert [(each.time_us - NOON, each.revision) for each in found] == [(0, 0), (STEP, 0), (0, 1), (STEP, 1)][
                :3
            ]
            assert consumer.status() == []

    run(work())


BAD = [
    ("strategy_id", ""), ("strategy_id", None), ("symbols", []), ("symbols[1]", ["BTCUSDT", "a b"]), ("symbols", 7),
    ("data_types[0]", ["prices"]), ("data_types", None), ("timeframes[0]", ["5M"]), ("timeframes", []),
    ("callback", None), ("callback", "f"), ("callback", lambda: None), ("real_time", 1), ("indicators[0]", ["RSJ"]),
    ("indicators[0].parameters.timeperiod", [{"name": "RSI", "parameters": {"timeperiod": 0}}]), ("indicators", 5),
    ("forming", "yes"), ("revisions", None), ("policy", "drop"), ("policy", None), ("queue", 0), ("queue", 1.5),
    ("grace", -1), ("grace", float("nan")), ("grace", "2"), ("window", 0), ("window", 10_000), ("cursor", "abc"),
    ("cursor", 5), ("start", "2025-01-01"), ("end", "2025-01-01"), ("speed", 2.0), ("providers", ["fear_greed"]),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), BAD)
def test_bad_input_is_refused_at_the_call_with_its_field(settings, field, value):
    async def work() -> None:
        given = {**SMALL, "data_types": ["indicators"], "callback": print, field.partition("[")[0]: value}
        async with Feed(settings).consumer(settings) as consumer:
            with pytest.raises(PlatformError) as refused:
                await consumer.subscribe_to_market_data(**given)
            assert refused.value.field == field
            assert consumer.status() == []

    run(work())


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("symbols[0]", {}), ("speed", {"speed": 0}), ("speed", {"speed": "fast"}), ("forming", {"forming": True}),
        ("end", {"start": "2025-01-02", "end": "2025-01-01"}), ("start", {"start": "1999-01-01"}),
    ],
)  # fmt: skip
def test_bad_input_of_a_replay_is_refused_at_the_call_with_its_field(settings, field, given):
    async def work() -> None:
        async with Feed(settings).consumer(settings) as consumer:
            with pytest.raises(PlatformError) as refused:
                await consumer.subscribe_to_market_data(**SMALL, callback=print, real_time=False, **given)
            assert refused.value.field == field

    run(work())


def test_a_consumer_that_is_closed_or_of_another_loop_says_so(settings):
    async def work() -> None:
        consumer = Feed(settings).consumer(settings)
        await consumer.close()
        with pytest.raises(PlatformError, match="closed"):
            await consumer.subscribe_to_market_data(**SMALL, callback=print)

    run(work())
