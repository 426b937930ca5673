"""A real gateway on a real port, in a thread of its own, with a small market and a worker behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mdplatform.gateway.app import create_app
from mdplatform.gateway.keys import KeyStore
from mdplatform.gateway.server import GatewayServer, listen
from mdplatform.messaging.memory.transport import MemoryTransport
from mdplatform.messaging.transport import Asker
from mdplatform.settings import Settings
from mdplatform.worker.handler import StrategyDataRequestHandler

from .market import fill


@asynccontextmanager
async def in_process(settings: Settings) -> AsyncIterator[Callable[[], Asker]]:
    """The transport in memory, with a worker."""
    memory = MemoryTransport(settings)
    async with StrategyDataRequestHandler(settings, memory.answerer("test"), worker="test", stop_seconds=0.0):
        yield memory.asker


@asynccontextmanager
async def unanswered(settings: Settings) -> AsyncIterator[Callable[[], Asker]]:
    """The transport in memory, and nobody who answers."""
    yield MemoryTransport(settings).asker


class Gateway:
    """A gateway that serves until it is stopped, and whoever made its keys."""

    def __init__(self, settings: Settings, transport: Any = in_process) -> None:
        self.settings = settings
        self.keys = KeyStore(settings.home)
        self._transport = transport
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._started.wait(20), "the gateway did not start"
        if self._failure is not None:
            raise self._failure

    def _serve(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as failure:  # noqa: BLE001 - the test has to hear of it
            self._failure = failure
            self._started.set()

    async def _run(self) -> None:
        listening = listen(self.settings)
        self.port = listening.getsockname()[1]
        self.loop = asyncio.get_running_loop()
        async with self._transport(self.settings) as open_asker:
            self.app = create_app(self.settings, open_asker)
            self.server = GatewayServer(self.app)
            serving = asyncio.create_task(self.server.serve([listening]))
            while not self.server.started and not serving.done():
                await asyncio.sleep(0.005)
            self._started.set()
            await serving

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def socket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/answers"

    def key(
        self,
        name: str,
        scopes: Sequence[str] = ("request", "read"),
        strategies: Sequence[str] = ("*",),
        rate: float = 1e4,
    ) -> str:
        return self.keys.create(name, scopes, strategies, rate)[1]

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False, **options)

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(15)
        assert not self._thread.is_alive(), "the gateway did not stop"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a small market in it, which the environment names."""
    folder = tmp_path_factory.mktemp("gateway") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MDPLATFORM_HOME", str(folder))
        fill(folder)
        yield folder


@pytest.fixture(scope="module")
def gateway(home: Path) -> Iterator[Gateway]:
    """A gateway that wants keys."""
    running = Gateway(Settings.load(home=home, gateway_port=0))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    """A client that may do all for every strategy."""
    with gateway.client(gateway.key("all")) as client:
        yield client
