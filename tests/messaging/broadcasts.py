"""The broadcasts that the conformance suite is run on: each gives broadcasters and listeners of one shared state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from mdplatform.messaging.broadcast import Broadcaster, Listener
from mdplatform.messaging.memory.broadcast import MemoryBroadcast
from mdplatform.messaging.rabbitmq.bridge import Bridge
from mdplatform.messaging.registry import broadcaster, listener
from mdplatform.settings import Settings


class Sides:
    """Makes broadcasters and listeners of one broadcast; all are closed when the test ends."""

    def __init__(
        self,
        settings: Settings,
        make_broadcaster: Callable[[], Broadcaster],
        make_listener: Callable[[], Listener],
        stack: AsyncExitStack,
    ) -> None:
        self.settings = settings
        self._make_broadcaster, self._make_listener, self._stack = make_broadcaster, make_listener, stack

    def broadcaster(self) -> Broadcaster:
        made = self._make_broadcaster()
        self._stack.push_async_callback(made.close)
        return made

    def listener(self) -> Listener:
        made = self._make_listener()
        self._stack.push_async_callback(made.close)
        return made


@asynccontextmanager
async def memory(settings: Settings) -> AsyncIterator[Sides]:
    broadcast = MemoryBroadcast(settings)
    async with AsyncExitStack() as stack:
        yield Sides(settings, broadcast.broadcaster, broadcast.listener, stack)


@asynccontextmanager
async def redis(settings: Settings) -> AsyncIterator[Sides]:
    async with AsyncExitStack() as stack:
        yield Sides(settings, lambda: broadcaster(settings), lambda: listener(settings), stack)


@asynccontextmanager
async def rabbitmq(settings: Settings) -> AsyncIterator[Sides]:
    async with Bridge(settings), redis(settings) as sides:
        yield sides


BROADCASTS = {"memory": memory, "redis": redis, "rabbitmq": rabbitmq}
