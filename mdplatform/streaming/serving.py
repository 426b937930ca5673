"""Serving: a feed process's main coroutine, from the lease to the last bar in the lake."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mdplatform.errors import InvalidSymbol
from mdplatform.feeds.protocol import Feed
from mdplatform.feeds.registry import FEEDS, feed
from mdplatform.lake import Lake
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.timeframe import Timeframe
from mdplatform.messaging import registry
from mdplatform.serving.publisher import Publisher
from mdplatform.settings import Settings
from mdplatform.sources.registry import ALIASES, SOURCES
from mdplatform.streaming.engine import Engine, now_us
from mdplatform.streaming.lease import leased
from mdplatform.streaming.sealing import SealingProcess
from mdplatform.streaming.standing import Standing
from mdplatform.valkey.connection import connect

_STATUS_SECONDS = 5.0


@dataclass(frozen=True)
class Following:
    """What is to be followed: a feed by its name (`recording:PATH`), symbols (none: those of the universe), and how.

    `start` (µs) is where a feed begins of which nothing is known, `timeframes` those whose cells are sent instead of
    the standing catalogue's.
    """

    source: str
    symbols: tuple[str, ...] = ()
    timeframes: tuple[Timeframe, ...] | None = None
    speed: float | None = None
    start: int | None = None


async def serve(
    settings: Settings,
    following: Following,
    *,
    on_ready: Callable[[Engine], None],
    on_status: Callable[[Engine, Feed], None] = lambda *_: None,
    seconds: float | None = None,
) -> dict[str, int]:
    """Follow a feed until it ends, until SIGTERM or SIGINT, or for so long; give the counters.

    Raises `FeedBusy` where another process follows it, and what the feed refuses.
    """
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # before all else, so that none is lost
        loop.add_signal_handler(number, asked.set)
    lake = Lake(settings.lake_dir)
    source, symbols = _named(following.source, following.symbols)
    kind = source.partition(":")[0]
    if not symbols and kind in FEEDS and kind != "recording":
        symbols = _members(lake, source)
    takes_start = kind == "simulated"
    options: dict[str, object] = {"start": following.start} if takes_start else {}
    if kind != "recording":  # whose messages are what they are
        options["streams"] = ("candles",)  # of which bars are made; trades would be fetched for nothing
    of = feed(source, settings, symbols, speed=following.speed, **options)
    symbols = tuple(getattr(of, "symbols", symbols))
    start = None if takes_start else following.start
    if start is None and following.start is None and kind != "recording" and following.speed in (None, 1.0):
        start = Timeframe.D1.floor(now_us())  # of a symbol that is new the whole day, so that its longer bars are whole
    with leased(settings.home / "feeds", kind), connect(settings) as connection:
        _register(lake, kind, symbols)
        publisher = Publisher(connection, settings)
        broadcaster = registry.broadcaster(settings)
        engine = Engine(
            settings,
            of,
            broadcaster,
            Standing(symbols, following.timeframes),
            announce=publisher.bump_bars,
            start=start,
        )
        sealing = engine.journal.sealer = SealingProcess(settings.lake_dir)
        try:
            await _run(engine, of, asked, on_ready, on_status, seconds)
        finally:
            await asyncio.to_thread(sealing.close)
            await broadcaster.close()
    return told(engine, of)


async def _run(
    engine: Engine,
    of: Feed,
    asked: asyncio.Event,
    on_ready: Callable[[Engine], None],
    on_status: Callable[[Engine, Feed], None],
    seconds: float | None,
) -> None:
    """Run an engine until it ends by itself, or is `asked` to."""
    running = asyncio.create_task(engine.run())
    beside = [asyncio.create_task(engine.ready.wait()), asyncio.create_task(_end_if(asked, engine, running))]
    try:
        await asyncio.wait({running, beside[0]}, return_when=asyncio.FIRST_COMPLETED)
        if engine.ready.is_set():
            on_ready(engine)
            if seconds is not None:
                asyncio.get_running_loop().call_later(seconds, asked.set)
        while not running.done():
            await asyncio.wait({running}, timeout=_STATUS_SECONDS)
            on_status(engine, of)
        await running
    except asyncio.CancelledError:
        if engine.ready.is_set() or not asked.is_set():
            raise
    finally:
        for task in (running, *beside):
            task.cancel()
        await asyncio.gather(running, *beside, return_exceptions=True)


async def _end_if(asked: asyncio.Event, engine: Engine, running: asyncio.Task[None]) -> None:
    """End an engine once that is asked; one that only begins at once, with nothing to bring to an end."""
    await asked.wait()
    await engine.stop()
    if not engine.ready.is_set():
        running.cancel()


def told(engine: Engine, of: Feed) -> dict[str, int]:
    """Give what a feed process did so far."""
    journal, outgoing = engine.journal.counts, engine.outgoing
    own = {
        "bars": engine.closed,
        "sent": outgoing.sent,
        "waiting": outgoing.waiting,
        "let_go": outgoing.let_go,
        "staged": journal.staged,
        "lost": journal.lost,
        "sealed": journal.sealed,
    }
    return {**of.counts, **own}


def _named(source: str, symbols: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Give the feed's name and its symbols; `simulated:BTCUSDT,ETHUSDT` names both."""
    kind, _, behind = source.partition(":")
    if kind == "recording" or kind not in FEEDS:
        return source, tuple(map(parse_symbol, symbols))
    return kind, tuple(dict.fromkeys(parse_symbol(each) for each in (*filter(None, behind.split(",")), *symbols)))


def _members(lake: Lake, source: str) -> tuple[str, ...]:
    symbols = tuple(lake.universe.members())
    if not symbols:
        raise InvalidSymbol(
            "No symbols are named, and the universe has none", remedy=f"Name some: mdplatform feed {source} BTCUSDT"
        )
    return symbols


def _register(lake: Lake, kind: str, symbols: Sequence[str]) -> None:
    """Add symbols that are new to the universe, with the source of which their months can be asked, if there is one."""
    known = lake.universe.members()
    source = ALIASES.get(kind, kind)
    for symbol in symbols:
        if symbol not in known:
            lake.universe.add(symbol, source if source in SOURCES else None, Timeframe.M1)
