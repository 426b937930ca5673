"""A feed that is killed, and a Redis that is: each bar in the lake once, each cell heard once, none missing."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from typing import Any

import pytest

from mdplatform.lake import Lake
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.messaging import registry
from mdplatform.messaging.broadcast import Listener, Missed
from mdplatform.processes import running
from mdplatform.settings import Settings
from mdplatform.streaming.cells import decode_packet, numbers
from mdplatform.streaming.engine import Engine
from mdplatform.streaming.standing import Standing

from .scripted import START, ScriptedFeed, candles, in_loop

FRAMES = ("1m", "5m", "15m")
Key = tuple[str, str, int, int]


class Ear:
    """Counts the cells that were heard."""

    def __init__(self, listener: Listener) -> None:
        self.cells: Counter[Key] = Counter()
        self.closes: dict[Key, float] = {}
        self.missed: list[Missed] = []
        self._listener = listener

    async def hear(self, wait: float = 0.1) -> None:
        for each in await self._listener.receive(wait):
            if isinstance(each, Missed):
                self.missed.append(each)
                continue
            packet = decode_packet(each.body)
            for cell in packet.cells:
                key = (packet.symbol, cell.timeframe, cell.open_time, cell.revision)
                self.cells[key] += 1
                self.closes[key] = float(numbers(cell.bar)[3])

    def opened(self, symbol: str, timeframe: str) -> list[int]:
        return sorted(key[2] for key in self.cells if key[:2] == (symbol, timeframe))


@pytest.mark.usefixtures("processes")
@in_loop
async def test_a_feed_that_is_killed_again_and_again_loses_no_bar_and_repeats_none(settings: Settings) -> None:
    settings = settings.model_copy(update={"seal_seconds": 0.4})
    symbols, words = (
        ("BTCUSDT", "ETHUSDT"),
        "simulated BTCUSDT ETHUSDT --speed 3600 --from 2026-03-02 --timeframes 1m,5m,15m",
    )
    listener = registry.listener(settings)
    await listener.follow(symbols)
    ear, lake, chance = Ear(listener), Lake(settings.lake_dir), random.Random(7)
    for life in range(3):
        pieces = running(settings, workers=0, feed=words)
        pids = await asyncio.to_thread(pieces.__enter__)
        wanted = len(ear.cells) + 40
        deadline = time.monotonic() + 40
        while len(ear.cells) < wanted:
            assert time.monotonic() < deadline
            await ear.hear()
        if life < 2:
            until = time.monotonic() + chance.uniform(0.0, 0.7)  # anywhere between staging, sending and sealing
            while time.monotonic() < until:
                await ear.hear(0.01)
            os.kill(pids["feed"], signal.SIGKILL)
        await asyncio.to_thread(pieces.__exit__, None, None, None)
        await ear.hear()
    await ear.hear(0.5)
    await listener.close()
    assert ear.missed == []
    assert set(ear.cells.values()) == {1}
    assert lake.inbox.symbols() == []
    for symbol in symbols:
        for timeframe in FRAMES:
            bars = lake.bars.read(symbol, Timeframe(timeframe))
            assert bars["state"].is_in(["observed", "no_trade"]).all()
            assert bars["revision"].max() == 0
            opened = bars["open_time"].dt.epoch("us").to_list()
            assert ear.opened(symbol, timeframe) == opened
            assert [ear.closes[symbol, timeframe, each, 0] for each in opened] == bars["close"].to_list()
    assert to_us(bars["close_time"][-1]) - to_us(bars["open_time"][0]) == bars.height * Timeframe.M15.microseconds


@in_loop
async def test_posts_wait_for_a_redis_that_was_killed_and_none_is_lost_or_sent_twice(
    settings: Settings, processes: Any
) -> None:
    every = candles("BTCUSDT", 60)
    listener, broadcaster = registry.listener(settings), registry.broadcaster(settings)
    await listener.follow(["BTCUSDT"])
    ear, feed = Ear(listener), ScriptedFeed([every[:20]], ends=False)
    engine = Engine(settings, feed, broadcaster, Standing(["BTCUSDT"], [Timeframe.M1, Timeframe.M5], []))
    following = asyncio.create_task(engine.run())

    async def heard(minutes: int) -> None:
        async with asyncio.timeout(30):
            while len(ear.opened("BTCUSDT", "1m")) < minutes:
                await ear.hear()

    try:
        await heard(20)
        os.kill(processes.server(), signal.SIGKILL)
        for minute in every[20:]:
            feed.push(minute)
        await heard(60)
    finally:
        await engine.stop()
        await following
        await broadcaster.close()
        await ear.hear()
        await listener.close()
    assert ear.opened("BTCUSDT", "1m") == [START + n * MINUTE_US for n in range(60)]
    assert set(ear.cells.values()) == {1}
    assert engine.outgoing.let_go == 0
    assert Lake(settings.lake_dir).bars.read("BTCUSDT", Timeframe.M1).height == 60
