"""Strategies subscribe: frames in step, in order, each once, whatever callbacks, servers and clocks do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from mdplatform.messaging.broadcast import Post
from mdplatform.messaging.memory_broadcast import MemoryBroadcast
from mdplatform.strategy import EnhancedMarketDataConsumer, Frame
from mdplatform.streaming.cells import Packet, encode

from ..streaming.packets import LAYOUT, MINUTE, NOON, packet

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
