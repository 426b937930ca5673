"""Serving: a feed ends whenever it is asked to, however far it has come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

import pytest

from mdplatform.messaging.memory.broadcast import MemoryBroadcast
from mdplatform.settings import Settings
from mdplatform.streaming import serving
from mdplatform.streaming.engine import Engine
from mdplatform.streaming.serving import Following, serve

from .scripted import ScriptedFeed, candles, in_loop
from .test_engine import standing


def engine_of(settings: Settings, feed: ScriptedFeed) -> Engine:
    return Engine(settings, feed, MemoryBroadcast(settings).broadcaster(), standing())


async def run(engine: Engine, feed: ScriptedFeed, asked: asyncio.Event, readied: list[Engine]) -> None:
    async with asyncio.timeout(20):
        await serving._run(engine, feed, asked, readied.append, lambda *_: None, None)


@in_loop
async def test_an_engine_that_is_asked_to_end_while_it_begins_ends_even_where_its_cancellation_is_lost(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, asked, readied = ScriptedFeed([candles("BTCUSDT", 3)], ends=False), asyncio.Event(), list[Engine]()
    engine = engine_of(settings, feed)

    async def facts(symbols: Sequence[str]) -> dict[str, dict[str, bytes]]:
        asked.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return {symbol: {} for symbol in symbols}

    monkeypatch.setattr(engine._broadcaster, "facts", facts)
    await run(engine, feed, asked, readied)
    assert (readied, engine.closed) == ([], 0)


@in_loop
async def test_an_engine_that_is_asked_to_end_before_it_begins_or_as_it_is_ready_ends(settings: Settings) -> None:
    for is_early in (True, False):
        feed, asked, readied = ScriptedFeed(ends=False), asyncio.Event(), list[Engine]()
        engine = engine_of(settings, feed)
        if is_early:
            asked.set()
        else:
            asyncio.create_task(engine.ready.wait()).add_done_callback(lambda _, asked=asked: asked.set())
        await run(engine, feed, asked, readied)
        assert engine.ready.is_set() is not is_early


@pytest.mark.usefixtures("processes")
@in_loop
async def test_a_signal_that_comes_before_the_engine_is_made_ends_the_feed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = serving.feed

    def interrupted(*given: object, **options: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return of(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(serving, "feed", interrupted)
    async with asyncio.timeout(20):
        counts = await serve(settings, Following("simulated", ("BTCUSDT",)), on_ready=lambda _: pytest.fail("followed"))
    assert counts["bars"] == 0
