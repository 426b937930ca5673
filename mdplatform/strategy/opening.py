"""Opening a transport for a manager; `memory` brings a worker of its own, inside this process."""

from __future__ import annotations

from contextlib import AsyncExitStack

from mdplatform.messaging.transport import Asker
from mdplatform.settings import Settings


async def open_asker(settings: Settings, transport: str | None, address: str | None, stack: AsyncExitStack) -> Asker:
    """Give the strategy's side of a transport; what else was started for it ends with the `stack`."""
    if transport == "memory":
        from mdplatform.messaging.memory.transport import MemoryTransport
        from mdplatform.worker.handler import StrategyDataRequestHandler

        memory = MemoryTransport(settings)
        handler = StrategyDataRequestHandler(settings, memory.answerer("memory"), worker="memory", stop_seconds=0.0)
        await stack.enter_async_context(handler)
        return memory.asker(address)
    from mdplatform.messaging import registry

    return registry.asker(settings, address)
