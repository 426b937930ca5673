"""A manager over the in-process transport, with the worker's side in the test's own hands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mdplatform.messaging.memory.transport import MemoryTransport
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import Asker, Delivery
from mdplatform.requests import wire
from mdplatform.requests.answer import AnswerBody, Part, Progress, Status
from mdplatform.settings import Settings
from mdplatform.strategy import StrategyDataManager

RSI = {"strategy_id": "momentum", "symbols": ["BTCUSDT"], "indicators": ["RSI"], "timeframes": ["15m"]}
PART = Part(symbol="BTCUSDT", timeframe="15m", feature="RSI", source="cache", layer="near", version="v",
            available_at=1_735_689_600_000_000, rows=1)  # fmt: skip
SHARES = dict.fromkeys(DataPriority, 1_000)


def body(
    id: str, number: int = 0, *, final: bool = True, status: Status = Status.OK, parts: Sequence[Part] = (PART,)
) -> bytes:
    now = time.time_ns() // 1000
    return wire.encode_reply(
        AnswerBody(
            request_id=id, status=status, final=final, number=number, parts=tuple(parts), answered_at=now, worker="test"
        )
    )


@dataclass
class Bench:
    """A manager and the other side of its transport."""

    manager: StrategyDataManager
    transport: MemoryTransport
    asker: Any

    def __post_init__(self) -> None:
        self.worker = self.transport.answerer()

    async def taken(self, count: int = 1) -> list[Delivery]:
        found: list[Delivery] = []
        async with asyncio.timeout(5):
            while len(found) < count:
                found += [each for each in await self.worker.take(SHARES, 0.5) if isinstance(each, Delivery)]
        return found

    async def answer(self, id: str, **words: Any) -> bool:
        return await self.worker.settle(id, body(id, **words))

    async def tell(self, id: str, number: int) -> bool:
        return await self.worker.tell(id, body(id, number, final=False), number=number)

    async def progress(self, id: str, stage: str) -> None:
        await self.worker.tell(id, wire.encode_reply(Progress(request_id=id, stage=stage)))


@asynccontextmanager
async def bench(settings: Settings, wrap: Any = None, **options: Any) -> AsyncIterator[Bench]:
    transport = MemoryTransport(settings)
    asker: Asker = transport.asker()
    asker = asker if wrap is None else wrap(asker)
    async with StrategyDataManager(settings, asker=asker, **options) as manager:
        yield Bench(manager, transport, asker)


async def until(condition: Any, seconds: float = 5.0) -> None:
    """Wait until a condition holds; it is looked at every few milliseconds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
