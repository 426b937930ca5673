"""The strategy's way to ask: requests of every type, answered through a callback or awaited.

async with StrategyDataManager() as strategy_data_manager:
    request_id = await strategy_data_manager.request_technical_indicators(
        strategy_id="momentum", symbols=["BTCUSDT"], indicators=["RSI(14)"], timeframes=["15m"]
    )
    answer = await strategy_data_manager.result(request_id)
    print(answer.status, answer.to_pandas())
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, Self

from mdplatform.strategy.pending import Callback, OpenRequest
from mdplatform.strategy.questions import Questions

if TYPE_CHECKING:
    from types import TracebackType

    from mdplatform.messaging.transport import Asker
    from mdplatform.requests.answer import Answer, Progress
    from mdplatform.requests.request import DataRequest, RequestType
    from mdplatform.settings import Settings
    from mdplatform.strategy.correspondence import Correspondence

Transport = Literal["redis", "rabbitmq", "memory"]
_log = logging.getLogger(__name__)


class StrategyDataManager(Questions):
    """Asks the platform for data, inside one event loop. Use it in an `async with`, or close it.

    Without `settings` they are read from the environment. `transport` is `redis` or `rabbitmq` (by default what the
    settings say), or `memory`: then a worker runs inside this process, as notebooks and tests want it. `address` names
    where replies come: a strategy that starts again under its old address within a minute receives what came
    meanwhile; later, answers are found by id.

    Each `request_…` checks what it is given, raises a `PlatformError` with the `field` that is wrong, and else gives
    the request's id at once: sending goes on by itself. They all take, beside what they ask for:

    - `strategy_name`: for people;
    - `priority`: a `DataPriority` or its name, by default `NORMAL`;
    - `deadline`: seconds from now, a timedelta or a time, at most a day; by default what the settings say;
    - `latest` (the newest rows, by default 1), or `start` and `end`; `as_of`: all as it was known then;
    - `refresh="on_close"`: answered again at each new bar, until it is cancelled or its deadline (by default a day);
    - `request_id`: the caller's own, for who must be able to ask twice without being answered twice;
    - `callback`: called with each `Answer`, exactly once. A function is called in the event loop, so keep it short; a
      coroutine function runs as a task, at most 256 at a time. One that raises is logged.

    Each request gets exactly one final answer: if no worker gives one by the deadline, the manager does (`failed`).
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        transport: Transport | None = None,
        address: str | None = None,
        asker: Asker | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        if transport not in (None, "redis", "rabbitmq", "memory"):
            from mdplatform.errors import InvalidSetting

            raise InvalidSetting("Unknown transport", value=transport, remedy="Allowed: redis, rabbitmq, memory")
        self._given = settings
        self._transport = transport
        self._address = address
        self._asker = asker
        self._on_progress = on_progress
        self._settings: Settings | None = None
        self._letters: Correspondence | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._is_closed = False

    async def request(self, /, type: RequestType | str, callback: Callback | None = None, **fields: Any) -> str:
        """Send a request of that type with the arguments of its method; give its id."""
        letters = await self._start()
        request = self._make(type, callback, fields)
        self._put(letters, request, callback)
        return request.request_id

    async def request_many(
        self, requests: Iterable[Mapping[str, Any] | DataRequest], callback: Callback | None = None
    ) -> list[str]:
        """Send many, the most urgent first; give their ids, in order. If one is refused, none is sent.

        Each is a mapping of `type` and the arguments of its method (`callback` among them, if it has one of its own),
        or a request that `requests.making` made.
        """
        import msgspec

        from mdplatform.requests import fields, making
        from mdplatform.requests.request import DataRequest

        letters = await self._start()
        if isinstance(requests, str | bytes | Mapping) or not isinstance(requests, Iterable):
            raise fields.refuse("", "Not a list of requests", requests, "Give mappings with their type and arguments")
        made: list[tuple[DataRequest, Callback | None]] = []
        for index, each in enumerate(requests):
            with fields.at(f"[{index}]"):
                if isinstance(each, DataRequest):
                    made.append((msgspec.structs.replace(making.check(each), sent_at=fields.now_us()), callback))
                    continue
                if not isinstance(each, Mapping):
                    raise fields.refuse("", "Not a request", each, "Give a mapping with its type and arguments")
                given = dict(each)
                own = given.pop("callback", callback)
                made.append((self._make(given.pop("type", None), own, given), own))
        for request, own in made:
            self._put(letters, request, own)
        return [request.request_id for request, _ in made]

    async def result(self, request_id: str, timeout: float | None = None) -> Answer:
        """Wait for the final answer of a request, of this manager or another; for a standing one that is its end.

        An answer is kept until it is awaited, the newest 1,000 of them. Raises `UnknownRequest`, and `TimeoutError`
        after `timeout` seconds: the request goes on then.
        """
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, Real)):
            from mdplatform.requests import fields

            raise fields.refuse("timeout", "Not a number of seconds", timeout, "Give seconds, or None to wait on")
        letters = await self._start()
        async with asyncio.timeout(None if timeout is None else float(timeout)):
            return await letters.result(request_id)

    async def answers(self, request_id: str) -> AsyncGenerator[Answer, None]:
        """Give the answers of a standing request as they come, until it ends.

        A final answer that only says that it is over is not given; one that says what went wrong is.
        """
        letters = await self._start()
        queue = await letters.subscribe(request_id)
        try:
            while (answer := await queue.get()) is not None:
                if len(answer) or not answer.final or not answer.is_ok:
                    yield answer
                if answer.final:
                    return
        finally:
            letters.unsubscribe(request_id, queue)

    async def adopt(self, request_id: str, callback: Callback | None = None) -> None:
        """Take up a request of another manager or process: its answers come here as well. Raises `UnknownRequest`."""
        letters = await self._start()
        await letters.adopt(request_id, callback)

    async def cancel(self, request_id: str) -> bool:
        """End a request, of this manager or another: its final answer says so. False if it had ended already.

        Raises `UnknownRequest`, and `TransportUnavailable`.
        """
        letters = await self._start()
        return await letters.cancel(request_id)

    @property
    def open_requests(self) -> list[OpenRequest]:
        """The requests that have no final answer yet, oldest first."""
        return [] if self._letters is None else [each.shown for each in self._letters.open]

    async def close(self) -> list[OpenRequest]:
        """Let go of the transport, without waiting for answers; give the requests that are open.

        They go on: the answers can be had by `result` of another manager. Who waits here gets `TransportUnavailable`.
        """
        self._is_closed = True
        left = [] if self._letters is None else [each.shown for each in await self._letters.close()]
        await self._stack.aclose()
        if left:
            _log.info(
                "Closed while %d requests are open: %s", len(left), ", ".join(each.request_id for each in left[:5])
            )
        return left

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _make(self, type: Any, callback: object, given: dict[str, Any]) -> DataRequest:
        from mdplatform.requests import fields, making

        if callback is not None and not callable(callback):
            raise fields.refuse("callback", "Not a function", callback, "Give one that takes an Answer, or none")
        assert self._settings is not None
        refresh = given.get("refresh")
        if given.get("deadline") is None and (refresh is None or (isinstance(refresh, str) and refresh == "once")):
            given = {**given, "deadline": self._settings.request_deadline_seconds}
        return making.make(type, **given)

    def _put(self, letters: Correspondence, request: DataRequest, callback: Callback | None) -> None:
        if letters.is_taken(request):
            from mdplatform.requests import fields

            remedy = "Give each request an id of its own, or none"
            raise fields.refuse("request_id", "The id of another request", request.request_id, remedy)
        letters.put(request, callback)

    async def _start(self) -> Correspondence:
        """Open the transport, the first time."""
        if self._letters is not None and self._loop is asyncio.get_running_loop() and not self._is_closed:
            return self._letters
        from mdplatform.errors import InvalidSetting
        from mdplatform.strategy.correspondence import Correspondence, closed

        if self._is_closed:
            raise closed()
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            remedy = "Make one in each loop; notebooks and threads are served by SyncStrategyDataManager"
            raise InvalidSetting("The manager is of another event loop", remedy=remedy)
        self._loop = asyncio.get_running_loop()
        async with self._starting:
            if self._letters is None:
                self._settings = self._load()
                asker = self._asker or await self._open()
                self._letters = Correspondence(asker, self._on_progress)
        return self._letters

    def _load(self) -> Settings:
        from mdplatform.settings import Settings

        settings = Settings.load() if self._given is None else self._given
        own = self._transport in ("redis", "rabbitmq")
        return settings.model_copy(update={"transport": self._transport}) if own else settings

    async def _open(self) -> Asker:
        from mdplatform.strategy.opening import open_asker

        assert self._settings is not None
        try:
            return await open_asker(self._settings, self._transport, self._address, self._stack)
        except BaseException:
            await self._stack.aclose()
            raise
