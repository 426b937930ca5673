"""The same consumer for code without an event loop: scripts, notebooks (whose loop is running already), threads."""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from mdplatform.strategy.callback_thread import CallbackThread
from mdplatform.strategy.consumer import EnhancedMarketDataConsumer
from mdplatform.strategy.loop_thread import LoopThread

if TYPE_CHECKING:
    from types import TracebackType

    from mdplatform.errors import TransportUnavailable
    from mdplatform.messaging.broadcast import Listener
    from mdplatform.settings import Settings
    from mdplatform.strategy.live.status import SubscriptionStatus
    from mdplatform.streaming.frame import Frame

P = ParamSpec("P")
T = TypeVar("T")

CALLBACK_SECONDS = 10.0
"""How long a callback that is running is waited for when the consumer is closed."""


def _calling_back(
    method: Callable[Concatenate[EnhancedMarketDataConsumer, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncMarketDataConsumer, P], T]:
    """Give the method that waits for the other, with its `callback` called in the thread of callbacks."""
    signature = inspect.signature(method)

    def wait(self: SyncMarketDataConsumer, /, *args: P.args, **kwargs: P.kwargs) -> T:
        given = signature.bind(self._consumer, *args, **kwargs)
        given.arguments["callback"] = self._in_thread(given.arguments["callback"])
        return self._wait(method(*given.args, **given.kwargs))

    update_wrapper(wait, method)
    return wait


class SyncMarketDataConsumer:
    """An `EnhancedMarketDataConsumer` whose methods block; thread-safe. Use it in a `with`, or close it.

    It has an event loop in a thread of its own, and calls all callbacks in one other thread, `market-data-callbacks`,
    one after the other: what they share with the rest of the program wants a lock, what they share among them does
    not. A callback is a function; one that is slow holds up the other callbacks, and nothing else: what becomes of
    frames meanwhile is what `policy` says. A callback may subscribe, unsubscribe and ask for the status; `finished`,
    `frames` and `close` are refused there, since they would wait for the callback itself.

        with SyncMarketDataConsumer() as consumer:
            for frame in consumer.frames(["BTCUSDT", "ETHUSDT"], ["5m", "1h"]):
                print(frame.time, frame["BTCUSDT", "5m"]["RSI"])
    """

    def __init__(
        self, settings: Settings | None = None, *, open_listener: Callable[[], Listener] | None = None
    ) -> None:
        self._loop = LoopThread("market-data-consumer", _closed)
        self._callbacks = CallbackThread("market-data-callbacks")
        self._closing = threading.Lock()
        self._consumer = self._loop.wait(_made(settings, open_listener))

    subscribe_to_market_data = _calling_back(EnhancedMarketDataConsumer.subscribe_to_market_data)

    def frames(self, *args: Any, **options: Any) -> Iterator[Frame]:
        """Give the frames of a subscription as they come; takes what `EnhancedMarketDataConsumer.frames` does.

        The subscription ends with the loop over them, and the loop with the consumer. Raises a `PlatformError` at the
        call of the first one.
        """
        self._refuse_in_callback("frames")
        frames = self._consumer.frames(*args, **options)
        try:
            frame = self._wait(_next(frames))
            while frame is not None:
                yield frame
                frame = self._loop.ended(_next(frames))
        finally:
            self._loop.ended(frames.aclose())

    def unsubscribe(self, subscription_id: str) -> bool:
        """End a subscription; also inside its own callback. False if there is none of that id (any more)."""
        return self._wait(self._consumer.unsubscribe(subscription_id))

    def finished(self, subscription_id: str) -> None:
        """Wait until a replay has given its last frame, and the callback is done with it; or until it is ended."""
        self._refuse_in_callback("finished")
        self._wait(self._consumer.finished(subscription_id))

    def status(self) -> list[SubscriptionStatus]:
        """Tell how each subscription is doing, and why nothing comes where nothing does."""
        return self._wait(_status(self._consumer))

    def close(self) -> None:
        """End all subscriptions and the threads; a callback that is running is waited for, ten seconds at most."""
        if self._loop.is_stopped:
            return
        self._refuse_in_callback("close")
        with self._closing:  # whoever comes second waits for the first
            if self._loop.is_stopped:
                return
            try:
                self._wait(self._consumer.close())
            finally:
                self._loop.stop()
                self._callbacks.stop(CALLBACK_SECONDS)

    def __enter__(self) -> Self:
        if self._loop.is_stopped:
            raise _closed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _in_thread(self, callback: Any) -> Any:
        """Give what calls a callback in the thread of callbacks; what is none is refused."""
        if not callable(callback) or inspect.isclass(callback):
            return callback
        if inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(type(callback).__call__):
            from mdplatform.requests.fields import refuse

            remedy = "Give a plain function, or use EnhancedMarketDataConsumer"
            raise refuse("callback", "A coroutine function, which needs an event loop", callback, remedy)
        return self._callbacks.calling(callback)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.wait(work)

    def _refuse_in_callback(self, name: str) -> None:
        if self._callbacks.is_current:
            from mdplatform.errors import InvalidRequest

            remedy = "Unsubscribe there, or tell another thread, such as by a threading.Event"
            raise InvalidRequest(f"A callback cannot wait for its own consumer in {name}()", remedy=remedy)


async def _made(settings: Settings | None, open_listener: Callable[[], Listener] | None) -> EnhancedMarketDataConsumer:
    return EnhancedMarketDataConsumer(settings, open_listener=open_listener)


async def _next(frames: AsyncGenerator[Frame, None]) -> Frame | None:
    return await anext(frames, None)


async def _status(consumer: EnhancedMarketDataConsumer) -> list[SubscriptionStatus]:
    return consumer.status()


def _closed() -> TransportUnavailable:
    from mdplatform.errors import TransportUnavailable

    return TransportUnavailable("The consumer is closed", remedy="Make a new one")
