"""The guard: bounds that hold before anything reads a request: how many at once, how large a body, how slow."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mdplatform.errors import PlatformError
from mdplatform.gateway.problems import Refusal, respond

MOST_BODY_BYTES = 1_000_000
MOST_AT_ONCE = 4_000
BODY_SECONDS = 30.0


class Guard:
    """A layer around the application, for HTTP."""

    def __init__(
        self,
        app: ASGIApp,
        most_bytes: int = MOST_BODY_BYTES,
        most_at_once: int = MOST_AT_ONCE,
        seconds: float = BODY_SECONDS,
    ) -> None:
        self._app = app
        self._most_bytes = most_bytes
        self._most_at_once = most_at_once
        self._seconds = seconds
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._running += 1
        try:
            if self._running > self._most_at_once:
                raise Refusal(
                    503,
                    f"The gateway answers {self._most_at_once:,} at once",
                    kind="too-many-at-once",
                    remedy="Try again in a second",
                    headers={"Retry-After": "1"},
                )
            body = await self._body(scope, receive)
        except PlatformError as error:
            await respond(error)(scope, receive, send)
        else:
            await self._app(scope, _Replay(body, receive), send)
        finally:
            self._running -= 1

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not length.isdigit() or int(length) > self._most_bytes:
            raise self._too_large()
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return b""
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > self._most_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise Refusal(408, "The body did not come in time", value=f"{self._seconds:g} s") from None

    def _too_large(self) -> Refusal:
        remedy = f"At most {self._most_bytes:,} bytes: ask in several requests"
        return Refusal(413, "The body is too large", kind="body-too-large", remedy=remedy)


class _Replay:
    """Gives the body that was read, then what the server tells: that the client has gone."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()
