"""The transports that the conformance suite is run on: each gives askers and answerers of one shared state."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from mdplatform.messaging.memory.transport import MemoryTransport
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.rabbitmq.asker import RabbitAsker
from mdplatform.messaging.rabbitmq.bridge import Bridge
from mdplatform.messaging.redis.answerer import RedisAnswerer
from mdplatform.messaging.redis.asker import RedisAsker
from mdplatform.messaging.transport import Answerer, Asker, Envelope
from mdplatform.settings import Settings

EVERY = dict.fromkeys(DataPriority, 100)
"""Shares that take all there is."""

_numbers = itertools.count()


class Parts:
    """Makes askers and answerers of one transport; all are closed when the test ends."""

    def __init__(
        self, make_asker: Callable[[str | None], Asker], make_answerer: Callable[[], Answerer], stack: AsyncExitStack
    ) -> None:
        self._make_asker, self._make_answerer, self._stack = make_asker, make_answerer, stack

    def asker(self, address: str | None = None) -> Asker:
        made = self._make_asker(address)
        self._stack.push_async_callback(made.close)
        return made

    def answerer(self) -> Answerer:
        made = self._make_answerer()
        self._stack.push_async_callback(made.close)
        return made


@asynccontextmanager
async def memory(settings: Settings) -> AsyncIterator[Parts]:
    transport = MemoryTransport(settings)
    async with AsyncExitStack() as stack:
        yield Parts(transport.asker, transport.answerer, stack)


@asynccontextmanager
async def redis(settings: Settings) -> AsyncIterator[Parts]:
    async with AsyncExitStack() as stack:
        yield Parts(lambda address: RedisAsker(settings, address), lambda: RedisAnswerer(settings), stack)


@asynccontextmanager
async def rabbitmq(settings: Settings) -> AsyncIterator[Parts]:
    async with Bridge(settings), AsyncExitStack() as stack:
        yield Parts(lambda address: RabbitAsker(settings, address), lambda: RedisAnswerer(settings), stack)


TRANSPORTS = {"memory": memory, "redis": redis, "rabbitmq": rabbitmq}


def envelope(priority: DataPriority = DataPriority.NORMAL, *, id: str = "", **given: Any) -> Envelope:
    """A request with a deadline in ten seconds."""
    now = time.time_ns() // 1000
    whole: dict[str, Any] = {"deadline": now + 10_000_000, "sent_at": now, "body": b"what"} | given
    return Envelope(id=id or f"request-{next(_numbers)}", priority=priority, **whole)
