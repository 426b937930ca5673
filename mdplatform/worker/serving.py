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

_IDLE_SECONDS = 0.5
"""For how long nothing must have come, for `once`."""


def warm() -> None:
    """Import what the first request would wait for."""
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
    stop_seconds: float = 5.0,
) -> dict[str, int]:
    """Answer requests until SIGTERM or SIGINT, or for so long; give the counters."""
    async with AsyncExitStack() as stack:
        answerer = registry.answerer(settings, worker)
        stack.push_async_callback(answerer.close)
        evaluator = await stack.enter_async_context(Evaluator(settings, worker=worker))
        handler = StrategyDataRequestHandler(settings, answerer, evaluator, worker=worker, stop_seconds=stop_seconds)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, handler.stop)
        if seconds is not None:
            loop.call_later(seconds, handler.stop)
        running = asyncio.create_task(handler.run())
        ready = asyncio.create_task(handler.ready.wait())
        await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if handler.ready.is_set():
            on_ready()
        if once:
            await handler.idle(_IDLE_SECONDS)
            handler.stop()
        await running
        return handler.told()
