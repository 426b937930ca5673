"""Follows a feed in the background, and tells what it gave beside what the venue did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mdplatform.feeds.binance import BinanceFeed
from mdplatform.feeds.protocol import Feed
from mdplatform.market.events import BookChange, Candle, Clock, Event, Lost, Trade
from tests.feeds.exchange import Exchange
from tests.feeds.venue import Venue


@dataclass
class Followed:
    """What a feed gave so far."""

    feed: Feed
    events: list[Event] = field(default_factory=list)
    grew: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def trades(self, symbol: str) -> list[Trade]:
        return [each for each in self.events if isinstance(each, Trade) and each.symbol == symbol]

    def candles(self, symbol: str) -> list[Candle]:
        """The closed ones."""
        return [each for each in self.events if isinstance(each, Candle) and each.symbol == symbol and each.is_closed]

    def book(self, symbol: str) -> list[BookChange]:
        return [each for each in self.events if isinstance(each, BookChange) and each.symbol == symbol]

    @property
    def lost(self) -> list[Lost]:
        return [each for each in self.events if isinstance(each, Lost)]

    @property
    def clocks(self) -> list[int]:
        return [each.time for each in self.events if isinstance(each, Clock)]

    async def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                self.grew.clear()
                await self.grew.wait()

    async def all_of(self, venue: Venue) -> None:
        """Wait for the venue's last trades and candles."""
        await self.until(lambda: all(self._has_last(venue, symbol) for symbol in venue.symbols))

    def _has_last(self, venue: Venue, symbol: str) -> bool:
        trades, candles = self.trades(symbol), self.candles(symbol)
        closed = [bar for bar in venue.bars[symbol] if bar is not venue.bars[symbol][-1]]
        has_trades = not venue.trades[symbol] or (bool(trades) and trades[-1].trade_id == venue.trades[symbol][-1]["a"])
        return has_trades and (not closed or (bool(candles) and candles[-1].open_time == closed[-1].open_ms * 1000))


def told_trades(venue: Venue, symbol: str) -> list[tuple[Any, ...]]:
    """The venue's trades, as `of_trades` gives them."""
    return [
        (each["a"], each["T"] * 1000, float(each["p"]), float(each["q"]), each["m"]) for each in venue.trades[symbol]
    ]


def of_trades(trades: list[Trade]) -> list[tuple[Any, ...]]:
    return [(each.trade_id, each.time, each.price, each.quantity, each.is_buyer_maker) for each in trades]


def told_candles(venue: Venue, symbol: str) -> list[tuple[Any, ...]]:
    """The venue's closed candles, as `of_candles` gives them."""
    rows = [bar.row() for bar in venue.bars[symbol][:-1]]
    return [
        (row[0] * 1000, *map(float, row[1:6]), float(row[7]), row[8], float(row[9]), float(row[10])) for row in rows
    ]


def of_candles(candles: list[Candle]) -> list[tuple[Any, ...]]:
    return [
        (
            each.open_time, each.open, each.high, each.low, each.close, each.volume, each.quote_volume,
            each.trade_count, each.taker_buy_volume, each.taker_buy_quote_volume,
        )
        for each in candles
    ]  # fmt: skip


def quick(exchange: Exchange, **options: Any) -> BinanceFeed:
    """The feed of an exchange, with short waits."""
    given = {"silence_seconds": 5.0, "overlap_seconds": 0.05, "wait_seconds": 0.05, "fill_seconds": 10.0} | options
    return BinanceFeed(exchange.symbols, stream_url=exchange.stream_url, api_url=exchange.api_url, **given)


@asynccontextmanager
async def following(feed: Feed, since: Mapping[str, int]) -> AsyncIterator[Followed]:
    """Take what a feed gives, until the block ends."""
    followed = Followed(feed)
    followed.may_go_on.set()

    async def follow() -> None:
        try:
            async for batch in feed.events(since):
                followed.events += batch
                followed.grew.set()
                await followed.may_go_on.wait()
        finally:
            followed.ended.set()
            followed.grew.set()

    task = asyncio.create_task(follow())
    try:
        yield followed
    finally:
        await feed.close()
        followed.may_go_on.set()
        async with asyncio.timeout(10):
            await task
