"""Lines: what keeps a connection, what ends it, and how long is waited before the next."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from mdplatform.feeds.backoff import Backoff, Pace
from mdplatform.feeds.binance_lines import Line, Manner
from mdplatform.feeds.binance_messages import Farewell, Reply, decode
from tests.feeds.exchange import Exchange

MANY = [f"S{number}USDT" for number in range(150)]
"""So many that not all streams stand in the URL."""


@dataclass
class Kept:
    """What a line did: how often it was live, and after how many failures in a row it waited."""

    tries: list[int] = field(default_factory=list)
    lives: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def live(self) -> None:
        self.lives += 1
        self.changed.set()

    async def until_live(self, times: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.lives < times:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def kept(exchange: Exchange, manner: Manner, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kept]:
    """Keep a line up until the block ends, with short waits."""
    told = Kept()

    def waited(backoff: Backoff) -> float:
        told.tries.append(backoff._tries)
        backoff._tries += 1
        return 0.01

    def heard(raw: bytes) -> Reply | Farewell | None:
        said = decode(raw, 1)
        return said if isinstance(said, Reply | Farewell) else None

    monkeypatch.setattr(Backoff, "next", waited)
    streams = [f"{symbol.lower()}@aggTrade" for symbol in exchange.symbols]
    line = Line(
        exchange.stream_url, streams, manner, Pace(100, 1.0), Counter(), heard=heard, room=lambda: None, cut=told.live
    )
    keeping = asyncio.create_task(line.keep())
    try:
        yield told
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


def test_a_quiet_connection_that_answers_to_pings_is_made_anew_without_delay_after_longer_and_longer_silences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> tuple[float, list[int]]:
        clock = asyncio.get_running_loop().time
        manner = Manner(silence=0.05, most_silent=0.15)
        async with Exchange() as exchange, kept(exchange, manner, monkeypatch) as line:
            await exchange.connected()
            began = clock()
            await exchange.connected(connects=5)
            return clock() - began, line.tries

    seconds, tries = asyncio.run(main())
    assert seconds > 0.05 + 0.1 + 0.15 + 0.15 - 0.05  # a connection's silence begins a little before it is counted
    assert tries == [0, 0, 0, 0]


def test_where_the_venue_is_about_to_end_a_connection_the_next_is_made_before_and_nothing_is_taken_for_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with Exchange() as exchange, kept(exchange, Manner(overlap=0.2), monkeypatch) as line:
            await line.until_live()
            for connects in (2, 3):
                exchange.shut_down()
                await exchange.connected(streams=2, connects=connects)  # the old one is still read
                async with asyncio.timeout(10):
                    while len(exchange.streams) > 1:
                        await asyncio.sleep(0.01)
            assert line.lives == 1
            assert line.tries == []

    asyncio.run(main())


def test_a_connection_that_does_not_answer_to_pings_is_made_anew_after_its_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> float:
        clock = asyncio.get_running_loop().time
        async with Exchange() as exchange, kept(exchange, Manner(silence=0.5), monkeypatch):
            await exchange.connected()
            exchange.deafen()
            began = clock()
            await exchange.connected(connects=2)
            return clock() - began

    assert 0.4 < asyncio.run(main()) < 1.5


def test_a_connection_whose_subscriptions_are_not_answered_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[int]:
        async with Exchange(MANY) as exchange:
            exchange.subscribing("ignored")
            async with kept(exchange, Manner(subscribe=0.2), monkeypatch) as line:
                await exchange.connected(connects=3)
                assert line.lives == 0
                exchange.subscribing()
                await exchange.connected(len(MANY))
                await line.until_live()
                return line.tries

    tries = asyncio.run(main())
    assert tries == list(range(len(tries)))


def test_refused_subscriptions_are_tried_again_more_and_more_slowly_whatever_is_heard_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> list[int]:
        async with Exchange(MANY) as exchange:
            exchange.subscribing("refused")
            async with kept(exchange, Manner(), monkeypatch) as line, asyncio.timeout(10):
                while len(line.tries) < 4:
                    exchange.venue.trade(MANY[0], "100", "1", exchange.venue.now + 1)
                    await asyncio.sleep(0)
                exchange.subscribing()
                await line.until_live()
                return line.tries

    tries = asyncio.run(main())
    assert tries == list(range(len(tries)))
