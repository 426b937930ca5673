"""RabbitMQ carries subscriptions: from a feed through the bridge to frames, also while its node starts again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from pydantic import SecretStr

from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.messaging import registry
from mdplatform.messaging.rabbitmq.bridge import Bridge
from mdplatform.settings import Settings
from mdplatform.strategy import EnhancedMarketDataConsumer, Frame
from mdplatform.streaming.engine import Engine
from mdplatform.streaming.standing import Standing
from tests.messaging.rabbitmq_node import Node
from tests.streaming.scripted import START, ScriptedFeed, candles, in_step

SYMBOLS = ("BTCUSDT", "ETHUSDT")


async def until(condition: Callable[[], object], seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.005)


@pytest.mark.usefixtures("processes")
def test_frames_come_over_rabbitmq_whole_and_in_order_though_its_node_is_killed(
    rabbitmq_alone: Node, settings: Settings
) -> None:
    over = settings.model_copy(
        update={
            "transport": "rabbitmq",
            "rabbitmq_url": SecretStr(rabbitmq_alone.url),
            "frame_grace_seconds": 30.0,  # a busy machine is no reason for a frame that is marked
        }
    )
    every = {symbol: candles(symbol, 30) for symbol in SYMBOLS}
    minutes = in_step(*every.values())

    async def test() -> None:
        feed, frames = ScriptedFeed(minutes[:5], ends=False), list[Frame]()
        broadcaster = registry.broadcaster(over)
        engine = Engine(over, feed, broadcaster, Standing(SYMBOLS, (Timeframe.M1, Timeframe.M5)))
        running = asyncio.create_task(engine.run())

        def play(first: int, last: int) -> None:
            for batch in minutes[first:last]:
                feed.push(*batch)

        try:
            await until(lambda: engine.outgoing.sent >= 5 * len(SYMBOLS) and not engine.outgoing.waiting)
            async with Bridge(over), EnhancedMarketDataConsumer(over) as consumer:
                await consumer.subscribe_to_market_data(
                    strategy_id="s", symbols=list(SYMBOLS), data_types=["price", "indicators"],
                    timeframes=["1m", "5m"], callback=frames.append)  # fmt: skip
                play(5, 15)
                await until(lambda: len(frames) == 10)
                await asyncio.to_thread(rabbitmq_alone.kill)
                play(15, 25)
                await until(lambda: len(frames) == 20)
                play(25, 30)
                await until(lambda: len(frames) == 25)
        finally:
            await engine.stop()
            await running
            await broadcaster.close()
        assert [(each.time_us - START) // MINUTE_US for each in frames] == list(range(6, 31))
        assert all(each.is_complete and each.revision == 0 for each in frames)
        for symbol, of_symbol in every.items():
            assert [each[symbol, "1m"].close for each in frames] == [each.close for each in of_symbol[5:]]
            assert [each[symbol, "5m"].close for each in frames[4::5]] == [each.close for each in of_symbol[9::5]]
        assert frames[-1]["ETHUSDT", "1m"]["RSI"] is not None

    asyncio.run(asyncio.wait_for(test(), 90))
