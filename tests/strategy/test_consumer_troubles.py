"""What one subscription does wrong, or its cursor, or the server, hurts no other, and nothing of it stays behind."""

from __future__ import annotations

import asyncio

from mdplatform.strategy import Frame

from .test_consumer import SMALL, Feed, run, until


def test_a_function_that_raises_a_cancellation_ends_nothing(settings):
    async def work() -> None:
        feed, others = Feed(settings), []

        def wrong(_: Frame) -> None:
            raise asyncio.CancelledError

        async with feed.consumer(settings) as consumer:
            await consumer.subscribe_to_market_data(**SMALL, callback=wrong)
            await consumer.subscribe_to_market_data(**{**SMALL, "symbols": ["ETHUSDT"]}, callback=others.append)
            await feed.close(["BTCUSDT"], 0, 1)
            await feed.close(["ETHUSDT"], 0, 1)
            await until(lambda: len(others) == 2)
            await until(lambda: consumer.status()[0].failed == 2)

    run(work())
