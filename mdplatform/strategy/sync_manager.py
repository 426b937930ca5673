"""The same manager for code without an event loop: scripts, notebooks (whose loop is running already), threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from mdplatform.strategy.manager import StrategyDataManager, Transport
from mdplatform.strategy.pending import OpenRequest

if TYPE_CHECKING:
    from types import TracebackType

    from mdplatform.requests.answer import Answer, Progress
    from mdplatform.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[StrategyDataManager, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncStrategyDataManager, P], T]:
    """Give the method that waits until the manager's own thread has done the other."""

    def wait(self: SyncStrategyDataManager, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._wait(method(self._manager, *args, **kwargs))

    update_wrapper(wait, method)
    return wait


class SyncStrategyDataManager:
    """A `StrategyDataManager` in a thread of its own, with the same methods, which block; thread-safe.

    Callbacks are called in that thread: what they share with others wants a lock. In a callback, `result` and the
    other methods cannot be used, since they would wait for themselves.

        with SyncStrategyDataManager() as manager:
            request_id = manager.request_technical_indicators(
                strategy_id="notebook", symbols=["BTCUSDT"], indicators=["RSI"], timeframes=["15m"], latest=100
            )
            manager.result(request_id).to_pandas()
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        transport: Transport | None = None,
        address: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._manager = StrategyDataManager(settings, transport=transport, address=address, on_progress=on_progress)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="strategy-data-manager", daemon=True)
        self._thread.start()
        try:
            self._wait(self._manager.__aenter__())
        except BaseException:
            self._stop()
            raise

    request_technical_indicators = _blocking(StrategyDataManager.request_technical_indicators)
    request_custom_composite_indicator = _blocking(StrategyDataManager.request_custom_composite_indicator)
    request_volume_profile = _blocking(StrategyDataManager.request_volume_profile)
    request_sentiment_data = _blocking(StrategyDataManager.request_sentiment_data)
    request_macro_indicators = _blocking(StrategyDataManager.request_macro_indicators)
    request_correlation_matrix = _blocking(StrategyDataManager.request_correlation_matrix)
    request = _blocking(StrategyDataManager.request)
    request_many = _blocking(StrategyDataManager.request_many)
    result = _blocking(StrategyDataManager.result)
    adopt = _blocking(StrategyDataManager.adopt)
    cancel = _blocking(StrategyDataManager.cancel)

    def answers(self, request_id: str) -> Iterator[Answer]:
        """Give the answers of a standing request as they come, until it ends."""
        answers = self._manager.answers(request_id)
        try:
            while (answer := self._wait(_next(answers))) is not None:
                yield answer
        finally:
            self._wait(answers.aclose())

    @property
    def open_requests(self) -> list[OpenRequest]:
        """The requests that have no final answer yet, oldest first."""
        return self._wait(self._open_requests())

    def close(self) -> list[OpenRequest]:
        """Let go of the transport and end the thread, without waiting for answers; give the requests that are open."""
        if self._loop.is_closed():
            return []
        try:
            return self._wait(self._manager.close())
        finally:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _open_requests(self) -> list[OpenRequest]:
        return self._manager.open_requests

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed() or threading.current_thread() is self._thread:
            work.close()
            from mdplatform.errors import InvalidRequest
            from mdplatform.strategy.correspondence import closed

            if self._loop.is_closed():
                raise closed()
            remedy = "Hand the work to another thread, or use StrategyDataManager with a coroutine as callback"
            raise InvalidRequest("A callback cannot wait for its own manager", remedy=remedy)
        waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waiting.result()
        except BaseException:  # Ctrl-C among them: nobody wants it any more
            waiting.cancel()
            raise

    def _run(self) -> None:
        """Run the loop until it is stopped; what still runs in it then, such as a callback, is cancelled."""
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_cancel(asyncio.all_tasks(self._loop)))
        finally:
            self._loop.close()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def _next(answers: AsyncGenerator[Answer, None]) -> Answer | None:
    return await anext(answers, None)


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
