"""The server: one process, one event loop, a line of JSON once it listens, and a clean end on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from mdplatform.errors import InvalidSetting
from mdplatform.gateway.app import create_app
from mdplatform.gateway.guard import MOST_BODY_BYTES
from mdplatform.settings import Settings

_BACKLOG = 2048
_STOP_SECONDS = 5
_MOST_UNREAD = 4  # messages of a WebSocket


class GatewayServer(uvicorn.Server):
    """uvicorn's server, which lets whoever waits for an answer go before it ends."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                http="h11",  # which bounds the headers, unlike httptools
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=_STOP_SECONDS,
                ws_max_size=MOST_BODY_BYTES,
                ws_max_queue=_MOST_UNREAD,
                ws_ping_interval=20,
                ws_ping_timeout=20,
            )
        )
        self._app = app

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `run`, so that the process ends with status 0."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End waits, then connections, then the application."""
        self._app.state.parts.switchboard.stop()
        await super().shutdown(sockets)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises `InvalidSetting` where the address cannot be listened on."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    # uvicorn takes a WebSocket that was refused with a response for a failure
    logging.getLogger("uvicorn.error").addFilter(lambda record: "completing handshake" not in record.getMessage())
    app = create_app(settings)
    listening = listen(settings)
    server = GatewayServer(app)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_serve(server, listening, settings))


async def _serve(server: GatewayServer, listening: socket.socket, settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, setattr, server, "should_exit", True)
    serving = asyncio.create_task(server.serve([listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        ready = {"ready": True, "url": f"http://{shown}:{port}", "pid": os.getpid(), "keys": settings.gateway_keys}
        print(json.dumps(ready), flush=True)  # noqa: T201
    await serving


def listen(settings: Settings) -> socket.socket:
    """Give a socket that listens where the settings say; port 0 is any free one. Raises `InvalidSetting`."""
    host, port = settings.gateway_host, settings.gateway_port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as failure:
        raise InvalidSetting(
            f"The gateway cannot listen on {host} ({failure.strerror})",
            value=port,
            remedy="Choose another: mdplatform gateway --port … (0 for any that is free)",
        ) from None
    return listening
