"""The strategy's way to be told: frames in which several symbols and timeframes are in step, live or from history.

async with EnhancedMarketDataConsumer() as market_data_consumer:
    subscription_id = await market_data_consumer.subscribe_to_market_data(
        strategy_id="transformer_strategy", symbols=["BTCUSDT", "ETHUSDT"], data_types=["price", "indicators"],
        timeframes=["5m", "1h"], callback=self.process_market_data, real_time=True)
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

    from mdplatform.messaging.broadcast import Listener
    from mdplatform.settings import Settings
    from mdplatform.strategy.live.ear import Ear
    from mdplatform.strategy.live.lake_view import LakeView
    from mdplatform.strategy.live.line import Line
    from mdplatform.strategy.live.replay import Replay
    from mdplatform.strategy.live.status import SubscriptionStatus
    from mdplatform.strategy.live.subscription import Subscription
    from mdplatform.strategy.live.wanted import Callback, Features, Names, Wanted
    from mdplatform.streaming.frame import Frame

MOST_SUBSCRIPTIONS = 10_000
QUEUE = 64
WINDOW = 64
_log = logging.getLogger(__name__)


class EnhancedMarketDataConsumer:
    """Subscribes to market data, inside one event loop. Use it in an `async with`, or close it.

    Without `settings` they are read from the environment. One connection serves all subscriptions, and those of one
    shape (symbols, timeframes, data types, indicators, …) share their frames. `open_listener` gives another transport
    than the settings say.
    """

    def __init__(
        self, settings: Settings | None = None, *, open_listener: Callable[[], Listener] | None = None
    ) -> None:
        self._given = settings
        self._open_listener = open_listener
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = asyncio.Lock()
        self._settings: Settings | None = None
        self._lake: LakeView | None = None
        self._ear: Ear | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._lines: dict[str, Line] = {}
        self._replays: dict[str, tuple[Replay, asyncio.Task[None]]] = {}
        self._is_closed = False

    async def subscribe_to_market_data(
        self,
        strategy_id: str,
        symbols: Names,
        data_types: Names,
        timeframes: Names,
        callback: Callback,
        real_time: bool = True,
        *,
        indicators: Features | None = None,
        providers: Names | None = None,
        forming: bool = False,
        revisions: bool = False,
        policy: Literal["conflate", "block", "drop_oldest"] = "conflate",
        queue: int = QUEUE,
        window: int = WINDOW,
        grace: float | None = None,
        cursor: str | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        speed: float | None = None,
    ) -> str:
        """Have a callback called with each `Frame`; give the subscription's id once that has begun.

        `data_types` are `price`, `volume`, `indicators` and `sentiment`. The callback is a function, which is called in
        the event loop, or a coroutine function. Further:

        - `indicators`: features in any form that requests take; by default the standing catalogue;
        - `providers`: those of sentiment; by default all that the lake has;
        - `forming`: frames of forming bars too; `revisions`: corrected frames again;
        - `policy`: what becomes of frames once `queue` of them wait for the callback (`Policy`);
        - `window`: how many instants back `frame.to_tensor` can reach;
        - `grace`: seconds that a frame waits for what is due, by default what the settings say;
        - `cursor`: go on behind the frame whose cursor it is;
        - of history (`real_time=False`): `start <= T < end`, by default all there is, and `speed` as a multiple of the
          market's, by default as fast as the callback takes it.

        Raises a `PlatformError` with the `field` that is wrong before anything is sent, and `TransportUnavailable`.
        """
        if callback is None:
            from mdplatform.requests.fields import refuse

            raise refuse("callback", "Not a function", "None", "Give one that takes a Frame, or iterate over frames()")
        subscription = await self._subscribe(
            strategy_id=strategy_id, symbols=symbols, data_types=data_types, timeframes=timeframes, callback=callback,
            real_time=real_time, indicators=indicators, providers=providers, forming=forming, revisions=revisions,
            policy=policy, queue=queue, window=window, grace=grace, cursor=cursor, start=start, end=end, speed=speed,
        )  # fmt: skip
        return subscription.id

    async def frames(
        self,
        symbols: Names,
        timeframes: Names,
        data_types: Names = ("price", "volume", "indicators", "sentiment"),
        real_time: bool = True,
        *,
        strategy_id: str = "frames",
        **options: Any,
    ) -> AsyncGenerator[Frame, None]:
        """Give the frames of a subscription as they come, instead of calling back; `options` are those of the other."""
        defaults: dict[str, Any] = {
            "indicators": None, "providers": None, "forming": False, "revisions": False, "policy": "conflate",
            "queue": QUEUE, "window": WINDOW, "grace": None, "cursor": None, "start": None, "end": None, "speed": None,
        }  # fmt: skip
        from mdplatform.requests.checking import refuse_unknown

        refuse_unknown(options, tuple(defaults))
        subscription = await self._subscribe(
            strategy_id=strategy_id, symbols=symbols, data_types=data_types, timeframes=timeframes, callback=None,
            real_time=real_time, **{**defaults, **options},
        )  # fmt: skip
        try:
            while (frame := await subscription.next()) is not None:
                yield frame
        finally:
            await self.unsubscribe(subscription.id)

    async def unsubscribe(self, subscription_id: str) -> bool:
        """End a subscription; also inside its own callback. False if there is none of that id (any more)."""
        subscription = self._subscriptions.pop(subscription_id, None)
        if subscription is None:
            return False
        subscription.close()
        line = self._lines.pop(subscription_id, None)
        if line is not None and self._ear is not None:
            self._ear.leave(line, subscription_id)
        replay = self._replays.pop(subscription_id, None)
        if replay is not None and replay[1] is not asyncio.current_task():
            replay[1].cancel()
        return True

    async def finished(self, subscription_id: str) -> None:
        """Wait until a replay has given its last frame, and the callback is done with it; or until it is ended."""
        subscription = self._subscriptions.get(subscription_id)
        replay = self._replays.get(subscription_id)
        if subscription is not None and replay is not None:
            await asyncio.wait([replay[1]])
            await subscription.drained()

    def status(self) -> list[SubscriptionStatus]:
        """Tell how each subscription is doing, and why nothing comes where nothing does."""
        from mdplatform.strategy.live.status import status_of

        lost = {id: line.lost for id, line in self._lines.items()}
        return [status_of(each, self._note(each), lost.get(each.id, 0)) for each in self._subscriptions.values()]

    async def close(self) -> None:
        """End all subscriptions and let go of the transport; callbacks that are running are cancelled."""
        self._is_closed = True
        for subscription in list(self._subscriptions.values()):
            await subscription.cancel()
        replays = [task for _, task in self._replays.values() if task is not asyncio.current_task()]
        for task in replays:
            task.cancel()
        await asyncio.gather(*replays, return_exceptions=True)
        self._subscriptions.clear()
        self._lines.clear()
        self._replays.clear()
        if self._ear is not None:
            ear, self._ear = self._ear, None
            await ear.close()

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _subscribe(self, **given: Any) -> Subscription:
        from mdplatform.requests.fields import refuse
        from mdplatform.strategy.live import wanted
        from mdplatform.strategy.live.subscription import Subscription

        self._check_open()
        settings, lake = self._load()
        checked = wanted.check(**given, default_grace=settings.frame_grace_seconds)
        if len(self._subscriptions) >= MOST_SUBSCRIPTIONS:
            raise refuse("", "Too many subscriptions", len(self._subscriptions), f"Allowed: {MOST_SUBSCRIPTIONS:,}")
        if checked.every_provider:
            checked = await asyncio.to_thread(_with_providers, checked, lake)
            self._check_open()
        subscription = Subscription(f"{checked.strategy_id}-{secrets.token_hex(6)}", checked)
        self._subscriptions[subscription.id] = subscription
        try:
            if checked.real_time:
                self._lines[subscription.id] = await (await self._start()).join(subscription)
            else:
                await self._replay(subscription, lake)
            self._check_open()
        except BaseException:
            self._subscriptions.pop(subscription.id, None)
            self._lines.pop(subscription.id, None)
            subscription.close()
            raise
        return subscription

    async def _replay(self, subscription: Subscription, lake: LakeView) -> None:
        from mdplatform.strategy.live.replay import Replay

        replay = Replay(subscription, lake)
        await asyncio.to_thread(replay.open)
        self._check_open()
        self._replays[subscription.id] = (replay, asyncio.create_task(replay.run()))

    async def _start(self) -> Ear:
        async with self._starting:
            self._check_open()
            if self._ear is None:
                from mdplatform.messaging import registry
                from mdplatform.strategy.live.ear import Ear

                settings, lake = self._load()
                self._ear = Ear(settings, self._open_listener or (lambda: registry.listener(settings)), lake)
        return self._ear

    def _load(self) -> tuple[Settings, LakeView]:
        if self._settings is None or self._lake is None:
            from mdplatform.settings import Settings
            from mdplatform.strategy.live.lake_view import LakeView

            self._settings = Settings.load() if self._given is None else self._given
            self._lake = LakeView(self._settings)
        return self._settings, self._lake

    def _note(self, subscription: Subscription) -> str:
        if not subscription.wanted.real_time:
            replay = self._replays.get(subscription.id)
            if replay is None:
                return ""
            return replay[0].note or ("The replay has ended" if replay[1].done() else "")
        line = self._lines.get(subscription.id)
        if line is None or self._ear is None:
            return "Waiting: opening"
        return self._ear.why(subscription.wanted.shape, line)

    def _check_open(self) -> None:
        from mdplatform.errors import InvalidSetting, TransportUnavailable

        if self._is_closed:
            raise TransportUnavailable("The consumer is closed", remedy="Make a new one")
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise InvalidSetting("The consumer is of another event loop", remedy="Make one in each loop")
        self._loop = loop


def _with_providers(checked: Wanted, lake: LakeView) -> Wanted:
    """Let a subscription have the providers that the lake knows."""
    import time
    from dataclasses import replace

    now = time.time_ns() // 1000
    providers = (
        lake.providers(None if checked.real_time else checked.start, checked.end or now) if lake.is_there else ()
    )
    return replace(checked, shape=replace(checked.shape, providers=providers))
