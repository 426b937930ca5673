"""A feed that tells what a test gives it, and what it was asked."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal

from mdplatform.market.bars import AMOUNT_COLUMNS, PRICE_COLUMNS
from mdplatform.market.events import Candle, Clock, Event, Lost, Trade
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.sources.simulated import SimulatedMarket

START = 1_738_368_000_000_000  # 2025-02-01


class ScriptedFeed:
    """Gives batches of events in their order, then those that are pushed, until it is closed."""

    name = "scripted"

    def __init__(
        self,
        batches: Iterable[Sequence[Event]] = (),
        *,
        ends: bool = True,
        bars_from: Literal["candles", "trades"] = "candles",
    ) -> None:
        self.bars_from = bars_from
        self.since: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self._batches: asyncio.Queue[Sequence[Event] | None] = asyncio.Queue()
        for batch in batches:
            self._batches.put_nowait(batch)
        if ends:
            self._batches.put_nowait(None)

    def push(self, *events: Event) -> None:
        self._batches.put_nowait(events)

    async def events(self, since: Mapping[str, int]) -> AsyncIterator[Sequence[Event]]:
        self.since = dict(since)
        while (batch := await self._batches.get()) is not None:
            yield [each for each in batch if isinstance(each, Clock) or time_of(each) >= since.get(each.symbol, 0)]

    async def close(self) -> None:
        self._batches.put_nowait(None)


def time_of(event: Event) -> int:
    if isinstance(event, Candle):
        return event.open_time
    if isinstance(event, Lost):
        return event.since
    assert isinstance(event, Trade)
    return event.time


def candles(symbol: str, minutes: int, start: int = START) -> list[Candle]:
    """Closed candles of the simulated market."""
    rows = next(iter(SimulatedMarket().bars(symbol, Timeframe.M1, start, start + minutes * MINUTE_US))).rows
    values = (*PRICE_COLUMNS, *AMOUNT_COLUMNS)
    return [
        Candle(
            symbol,
            Timeframe.M1,
            start + place * MINUTE_US,
            *(row[name] for name in values),
            time=start + (place + 1) * MINUTE_US,
        )
        for place, row in enumerate(rows.iter_rows(named=True))
    ]


def in_step(*of_symbols: Sequence[Candle]) -> list[list[Event]]:
    """Lay the candles of several symbols side by side, a minute a batch."""
    return [list(each) for each in zip(*of_symbols, strict=True)]


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run(*given: Any, **named: Any) -> None:
        asyncio.run(test(*given, **named))

    return run
