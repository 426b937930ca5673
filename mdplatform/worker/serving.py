"""Serving: a worker process's main coroutine, from the connection to the last word."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

from mdplatform.messaging import registry
from mdplatform.settings import Settings
from mdplatform.worker.evaluator import Evaluator
from mdplatform.worker.handler import StrategyDataRequestHandler
from mdplatform.worker.warming import warm_in_background

_IDLE_SECONDS = 0.5
"""For how long nothing must have come, for `once`."""


def warm() -> None:
    """Import what the first request would wait for."""
    import numba  # noqa: F401
    import polars  # noqa: F401
    import talib  # noqa: F401

    import mdplatform.features  # noqa: F401


async def serve(
    settings: Settings,
    worker: str,
    *,
    on_ready: Callable[[], None],
    seconds: float | None = None,
    once: bool = False,
) -> dict[str, int]:
    """Answer requests until SIGTERM or SIGINT, for so long, or, `once`, until nothing comes; give the counters."""
    async with AsyncExitStack() as stack:
        answerer = registry.answerer(settings, worker)
        stack.push_async_callback(answerer.close)
        evaluator = await stack.enter_async_context(Evaluator(settings, worker=worker))
        handler = StrategyDataRequestHandler(settings, answerer, evaluator, worker=worker)
        carrying = await _carrying(settings, stack)
        if carrying is not None:
            carrying.add_done_callback(lambda _: handler.stop())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, handler.stop)
        if seconds is not None:
            loop.call_later(seconds, handler.stop)
        async with handler:
            if handler.ready.is_set():
                on_ready()
                if not once:
                    warm_in_background()
            await handler.idle(_IDLE_SECONDS if once else None)
        if carrying is not None and carrying.done():
            carrying.result()  # a bridge that ended by itself: whoever started the worker starts it again
        return handler.told()


async def _carrying(settings: Settings, stack: AsyncExitStack) -> asyncio.Task[None] | None:
    """Have the bridge to RabbitMQ work beside the worker, where strategies ask over RabbitMQ."""
    if settings.transport != "rabbitmq":
        return None
    from mdplatform.messaging.rabbitmq.bridge import Bridge

    bridge = await stack.enter_async_context(Bridge(settings))
    carrying = asyncio.create_task(bridge.run())
    stack.callback(carrying.cancel)
    return carrying
