"""Whatever is killed, and however long it is away, a strategy gets every frame once, with the values of the lake."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mdplatform.lake import Lake
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.messaging.redis.posts import posts_key
from mdplatform.processes import running
from mdplatform.settings import Settings
from mdplatform.strategy import EnhancedMarketDataConsumer
from mdplatform.valkey.connection import connect

from .scribe import ASKED, written
from .scribing import Line, Scribe

KEPT = 100
FEED = "simulated BTCUSDT ETHUSDT --speed 3600 --from 2026-03-02 --timeframes 1m,5m"


@pytest.fixture
def scribe(tmp_path: Path) -> Iterator[Scribe]:
    scribe = Scribe(tmp_path / "frames")
    yield scribe
    scribe.kill()


async def replayed(settings: Settings, first: int, last: int) -> list[Line]:
    """Give the frames of a replay of the lake, from T to T."""
    span = {"start": from_us(first), "end": from_us(last + 1)}
    async with EnhancedMarketDataConsumer(settings) as consumer:
        return [written(each) async for each in consumer.frames(**{**ASKED, **span}, real_time=False)]


def wait_for_bars(lake: Lake, until: int) -> None:
    """Wait until the lake has bars that close then."""
    end = time.monotonic() + 40
    while any(to_us(lake.bars.tail(each, Timeframe.M1, 1)["close_time"][0]) < until for each in ASKED["symbols"]):
        assert time.monotonic() < end
        time.sleep(0.2)


def check_whole_lake(lake: Lake) -> int:
    """Check that the lake has each minute once; give the newest close."""
    for symbol in ASKED["symbols"]:
        bars = lake.bars.read(symbol, Timeframe.M1)
        first, last = to_us(bars["open_time"][0]), to_us(bars["close_time"][-1])
        assert bars["open_time"].dt.epoch("us").to_list() == list(range(first, last, MINUTE_US))
        assert bars["state"].is_in(["observed", "no_trade"]).all()
    assert lake.inbox.symbols() == []
    return last


def check_frames(settings: Settings, lines: list[Line]) -> None:
    """Check that every T came, once, with what a replay of the lake gives."""
    times = [each["time"] for each in lines]
    assert times == list(range(times[0], times[0] + len(times) * MINUTE_US, MINUTE_US))
    again = asyncio.run(replayed(settings, times[0], times[-1]))
    assert [each["time"] for each in again] == times
    for live, batch in zip(lines, again, strict=True):
        assert live["revision"] == 0
        assert live["cells"].keys() == batch["cells"].keys()
        for place, cell in live["cells"].items():
            for ours, theirs in zip(cell, batch["cells"][place], strict=True):
                is_same = ours == theirs or (isinstance(ours, float) and math.isclose(ours, theirs, rel_tol=1e-9))
                assert is_same, f"{place} at {from_us(live['time'])}: {ours} and {theirs}"


def test_a_strategy_redis_and_the_feed_are_killed_and_each_frame_comes_once(
    settings: Settings, processes: Any, scribe: Scribe
) -> None:
    settings = settings.model_copy(update={"seal_seconds": 2.0})
    lake = Lake(settings.lake_dir)
    with running(settings, workers=0, feed=FEED) as pids:
        scribe.start()
        scribe.wait_for(30)
        scribe.kill()
        scribe.start()
        scribe.wait_for(30)
        os.kill(processes.server(), signal.SIGKILL)
        scribe.wait_for(60)
        os.kill(pids["feed"], signal.SIGKILL)
    with running(settings.model_copy(update={"live_kept": KEPT}), workers=0, feed=FEED):
        scribe.wait_for(60)
        scribe.kill()
        gone_at = scribe.look()[-1]["time"]
        wait_for_bars(lake, gone_at + 2 * KEPT * MINUTE_US)
    newest = check_whole_lake(lake)
    with connect(settings) as connection:
        kept = max(connection.xlen(posts_key(each)) for each in ASKED["symbols"])
    assert kept * MINUTE_US < newest - gone_at  # the rest comes from the lake
    scribe.start()
    scribe.wait_until(lambda lines: lines[-1]["time"] == newest)
    check_frames(settings, scribe.lines)
