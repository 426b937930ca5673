"""Over Redis: what is sent is heard once and in order, also by who comes back after the server was killed."""

from __future__ import annotations

import os
import signal

from mdplatform.messaging import registry
from mdplatform.messaging.broadcast import Post
from mdplatform.strategy import EnhancedMarketDataConsumer, Frame
from mdplatform.streaming.cells import Packet, encode

from ..streaming.packets import LAYOUT, NOON, packet
from .test_consumer import SMALL, STEP, run, steps, until

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
ASKED = {**SMALL, "symbols": SYMBOLS, "data_types": ["price", "indicators"], "indicators": ["RSI"]}


def post(told: Packet) -> Post:
    facts = {f"cell:{each.timeframe}": encode(told) for each in told.cells}
    return Post(told.symbol, encode(told), {f"layout:{LAYOUT.id}": encode(LAYOUT), **facts})


def test_frames_go_on_where_they_were_when_the_server_is_killed_and_the_consumer_comes_back(settings, processes):
    async def work() -> None:
        out = registry.broadcaster(settings)

        async def close(first: int, last: int) -> None:
            for step in range(first, last + 1):
                await out.send([post(packet(each, NOON + step * STEP, ("5m",), 100.0 + step)) for each in SYMBOLS])

        frames: list[Frame] = []
        async with EnhancedMarketDataConsumer(settings) as consumer:
            await consumer.subscribe_to_market_data(**ASKED, callback=frames.append)
            await close(0, 3)
            await until(lambda: len(frames) == 4)
            os.kill(processes.server(), signal.SIGKILL)
            await close(4, 9)
            await until(lambda: len(frames) == 10)
            assert frames[-1]["ETHUSDT", "5m"]["RSI"] == 54.5
        await close(10, 29)
        again: list[Frame] = []
        async with EnhancedMarketDataConsumer(settings) as consumer:
            await consumer.subscribe_to_market_data(**ASKED, callback=again.append, cursor=frames[-1].cursor)
            await close(30, 31)
            await until(lambda: len(again) == 22)
        await out.close()
        assert steps(frames) + steps(again) == list(range(32))
        assert all(each.is_complete for each in frames + again)

    run(work())
