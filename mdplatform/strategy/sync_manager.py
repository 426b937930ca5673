"""The same manager for code without an event loop: scripts, notebooks (whose loop is running already), threads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from mdplatform.strategy.loop_thread import LoopThread
from mdplatform.strategy.manager import StrategyDataManager, Transport
from mdplatform.strategy.pending import OpenRequest

if TYPE_CHECKING:
    from types import TracebackType

    from mdplatform.errors import TransportUnavailable
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
        self._thread = LoopThread("strategy-data-manager", _closed)
        try:
            self._wait(self._manager.__aenter__())
        except BaseException:
            self._thread.stop()
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
        if self._thread.is_stopped:
            return []
        self._refuse_in_callback()
        try:
            return self._wait(self._manager.close())
        finally:
            self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _open_requests(self) -> list[OpenRequest]:
        return self._manager.open_requests

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._thread.is_current:
            work.close()
        self._refuse_in_callback()
        return self._thread.wait(work)

    def _refuse_in_callback(self) -> None:
        if self._thread.is_current:
            from mdplatform.errors import InvalidRequest

            remedy = "Hand the work to another thread, or use StrategyDataManager with a coroutine as callback"
            raise InvalidRequest("A callback cannot wait for its own manager", remedy=remedy)


def _closed() -> TransportUnavailable:
    from mdplatform.strategy.correspondence import closed

    return closed()


async def _next(answers: AsyncGenerator[Answer, None]) -> Answer | None:
    return await anext(answers, None)
