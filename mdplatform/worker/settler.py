"""Sending final answers: what is ready goes in one round trip, the most urgent first.

While one batch is on its way the next one gathers; so nothing waits for a slow neighbour, and a thousand answers cost a
few dozen round trips. Settling is idempotent, hence what the transport did not confirm is sent again.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field

from mdplatform.messaging.transport import Answerer, Delivery
from mdplatform.worker.events import Events
from mdplatform.worker.patience import Patience

AT_ONCE = 32
BYTES_AT_ONCE = 16_000_000


@dataclass(order=True)
class _Answer:
    rank: int
    order: int
    id: str = field(compare=False)
    body: bytes = field(compare=False)
    delivery: Delivery | None = field(compare=False)
    done: asyncio.Future[bool] = field(compare=False)


class Settler:
    """Settles requests in batches; `run` is its loop."""

    def __init__(self, answerer: Answerer, patience: Patience, events: Events) -> None:
        self._answerer = answerer
        self._patience = patience
        self._events = events
        self._waiting: list[_Answer] = []
        self._order = itertools.count()
        self._filled = asyncio.Event()

    async def settle(self, rank: int, id: str, body: bytes, delivery: Delivery | None = None) -> bool:
        """Record and send a final answer; False if there was one already. It may raise what the transport raises."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, _Answer(rank, next(self._order), id, body, delivery, done))
        self._filled.set()
        return await done

    async def run(self) -> None:
        """Send what comes, until cancelled."""
        while True:
            await self._filled.wait()
            batch: list[_Answer] = []
            size = 0
            while self._waiting and len(batch) < AT_ONCE and size < BYTES_AT_ONCE:
                batch.append(heapq.heappop(self._waiting))
                size += len(batch[-1].body)
            if not self._waiting:
                self._filled.clear()
            await self._send(batch)

    async def _send(self, batch: list[_Answer]) -> None:
        answers = [(each.id, each.body, each.delivery) for each in batch]
        try:
            first = await self._patience.insist(lambda: self._answerer.settle_many(answers))
        except Exception as failure:  # noqa: BLE001  one of them is refused: find out which
            self._events.failed("settling_failed", failure, answers=len(batch))
            for each in batch:
                await self._send_one(each)
            return
        for each, was_first in zip(batch, first, strict=True):
            _resolve(each.done, was_first)

    async def _send_one(self, each: _Answer) -> None:
        try:
            was_first = await self._patience.insist(lambda: self._answerer.settle(each.id, each.body, each.delivery))
        except Exception as failure:  # noqa: BLE001  it is raised where the answer was made
            if not each.done.done():
                each.done.set_exception(failure)
        else:
            _resolve(each.done, was_first)


def _resolve(done: asyncio.Future[bool], was_first: bool) -> None:
    if not done.done():  # its task may have been cancelled meanwhile
        done.set_result(was_first)
