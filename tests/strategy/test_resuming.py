"""A subscription that goes on from a cursor shows what it would have shown, had it never gone."""

from __future__ import annotations

from ..streaming.packets import NOON, packet
from .test_consumer import SMALL, STEP, SYMBOLS, Feed, run, steps, until

ASKED = {**SMALL, "symbols": SYMBOLS[:2], "timeframes": ["5m", "15m"], "window": 4}


async def say(feed: Feed, first: int, last: int) -> None:
    """Let the bars of 5m close at these steps after noon, and those of 15m at each third."""
    for step in range(first, last + 1):
        timeframes = ("5m", "15m") if step % 3 == 0 else ("5m",)
        await feed.say(*(packet(each, NOON + step * STEP, timeframes, 100.0 + step) for each in ASKED["symbols"]))


def test_longer_bars_that_closed_before_the_cursor_and_are_not_in_the_lake_are_shown(settings):
    async def work() -> None:
        feed, frames, again = Feed(settings), [], []
        async with feed.consumer(settings) as consumer:
            await consumer.subscribe_to_market_data(**ASKED, callback=frames.append)
            await say(feed, 0, 4)
            await until(lambda: len(frames) == 5)
        await say(feed, 5, 10)
        async with feed.consumer(settings) as consumer:
            await consumer.subscribe_to_market_data(**ASKED, callback=again.append, cursor=frames[-1].cursor)
            await say(feed, 11, 11)
            await until(lambda: len(again) == 7)
        assert steps(again) == list(range(5, 12))
        assert [each["ETHUSDT", "15m"].close for each in again] == [103.0, 106.0, 106.0, 106.0, 109.0, 109.0, 109.0]
        assert all(each.is_complete for each in again)
        tensor = again[0].to_tensor(4)
        closes = [each.startswith("close") for each in tensor.features]
        assert tensor.values[0][:, closes].tolist() == [[102.0, 100.0], [103.0, 103.0], [104.0, 103.0], [105.0, 103.0]]

    run(work())


def test_a_tensor_of_a_subscription_that_begins_now_has_what_was_sent_and_is_not_in_the_lake(settings):
    async def work() -> None:
        feed, frames = Feed(settings), []
        await say(feed, 0, 5)
        async with feed.consumer(settings) as consumer:
            await consumer.subscribe_to_market_data(**ASKED, callback=frames.append)
            await say(feed, 6, 6)
            await until(lambda: frames)
        assert steps(frames) == [6]
        tensor = frames[0].to_tensor(4)
        closes = [each.startswith("close") for each in tensor.features]
        assert tensor.values[1][:, closes].tolist() == [[103.0, 103.0], [104.0, 103.0], [105.0, 103.0], [106.0, 106.0]]

    run(work())
