"""A feed's engine and a strategy in one process: clocks set back, and sentiment that becomes known meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from mdplatform.lake import Lake
from mdplatform.market.time import from_us
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.messaging.memory.broadcast import MemoryBroadcast
from mdplatform.settings import Settings
from mdplatform.strategy import EnhancedMarketDataConsumer, Frame
from mdplatform.streaming.engine import Engine
from mdplatform.streaming.standing import Standing

from ..streaming.scripted import START, ScriptedFeed, candles, in_loop

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
EVERY = {symbol: candles(symbol, 60) for symbol in SYMBOLS}


class Live:
    """A feed that a test moves on, and the frames that come of it."""

    def __init__(self, feed: ScriptedFeed, frames: list[Frame]) -> None:
        self.frames = frames
        self._feed = feed

    def push(self, first: int, last: int) -> None:
        """Let the candles of these minutes close."""
        for minute in range(first, last):
            self._feed.push(*(EVERY[symbol][minute] for symbol in SYMBOLS))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def live(settings: Settings, data_types: list[str], **asked: object) -> AsyncIterator[Live]:
    """An engine and a subscription to what it sends; afterwards all of it is in the lake."""
    broadcast, feed = MemoryBroadcast(settings), ScriptedFeed(ends=False)
    frames: list[Frame] = []
    timeframes = [Timeframe.M1, Timeframe.M5]
    engine = Engine(settings, feed, broadcast.broadcaster(), Standing(SYMBOLS, timeframes), start=START)
    async with EnhancedMarketDataConsumer(settings, open_listener=broadcast.listener) as consumer:
        await consumer.subscribe_to_market_data(
            "s", SYMBOLS, data_types, [each.value for each in timeframes], frames.append, **asked
        )
        running = asyncio.create_task(engine.run())
        try:
            yield Live(feed, frames)
        finally:
            await engine.stop()
            await running


@in_loop
async def test_frames_and_the_lake_go_on_when_this_machines_clock_is_set_back_an_hour(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live(settings, ["price", "indicators"]) as market:
        market.push(0, 20)
        await market.until(lambda: len(market.frames) == 20)
        now, now_ns = time.time, time.time_ns
        monkeypatch.setattr(time, "time", lambda: now() - 3600)
        monkeypatch.setattr(time, "time_ns", lambda: now_ns() - 3600 * 10**9)
        market.push(20, 40)
        await market.until(lambda: len(market.frames) == 40)
        monkeypatch.undo()
        market.push(40, 60)
        await market.until(lambda: len(market.frames) == 60)
    assert [each.time_us for each in market.frames] == [START + (n + 1) * MINUTE_US for n in range(60)]
    assert all(not each.revision for each in market.frames)
    assert all(each.is_complete for each in market.frames[4:])  # from when the first bar of 5m has closed
    for symbol in SYMBOLS:
        bars = Lake(settings.lake_dir).bars.read(symbol, Timeframe.M1)
        assert bars["close"].to_list() == [each[symbol, "1m"].close for each in market.frames]
        assert set(bars["revision"]) == {0}


@in_loop
async def test_sentiment_that_becomes_known_while_live_is_in_the_next_frames_with_its_age(settings: Settings) -> None:
    came = from_us(START + 20 * MINUTE_US + 30_000_000)
    store = Lake(settings.lake_dir).table("sentiment")
    document = pl.DataFrame(
        {"provider": ["fear_greed"], "doc_id": ["a"], "symbols": [""], "score": [0.25], "label": ["x"],
         "published_at": [came], "seen_at": [came], "available_at": [came]}
    )  # fmt: skip
    schema = store.dataset.delivered
    rows = document.with_columns(pl.lit(None).alias(name) for name in schema if name not in document.columns)
    async with live(settings, ["price", "sentiment"], providers="fear_greed") as market:
        market.push(0, 20)
        await market.until(lambda: len(market.frames) == 20)
        for key in store.stage(
            rows.select(schema.names()).cast(dict(schema)), "test", datetime(2026, 1, 1, tzinfo=UTC)
        ):
            store.merge(key)
        minute = 20

        async def is_known() -> bool:
            """A minute more; sentiment is looked for about once a second."""
            nonlocal minute
            market.push(minute, minute + 1)
            minute += 1
            await market.until(lambda: len(market.frames) == minute)
            return market.frames[-1].sentiment("ETHUSDT")["fear_greed"].score is not None

        while not await is_known():
            assert minute < 50
            await asyncio.sleep(0.1)
        market.push(minute, 60)
        await market.until(lambda: len(market.frames) == 60)
    told = [each.sentiment("ETHUSDT")["fear_greed"] for each in market.frames]
    assert [each.score for each in told] == [None] * (minute - 1) + [0.25] * (61 - minute)
    assert [each.age for each in told[minute - 1 :]] == [
        timedelta(minutes=n + 1 - 20, seconds=-30) for n in range(minute - 1, 60)
    ]
    assert told[19].status == "not_available_yet"
