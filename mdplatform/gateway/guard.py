"""The guard: bounds that hold before anything reads a request.

1. How many are answered at once.
2. Of what wants a key the body is read only once the headers have shown one; of what wants none, no body is read.
3. How large a body is, and all that are held at once together; how slowly one may come.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mdplatform.errors import PlatformError
from mdplatform.gateway.access import Access
from mdplatform.gateway.problems import Refusal, respond

MOST_BODY_BYTES = 1_000_000
MOST_BYTES_TOGETHER = 100_000_000
MOST_AT_ONCE = 4_000
BODY_SECONDS = 30.0
_WITH_KEY = "/v1/"


class Guard:
    """A layer around the application, for HTTP."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        most_bytes: int = MOST_BODY_BYTES,
        most_together: int = MOST_BYTES_TOGETHER,
        most_at_once: int = MOST_AT_ONCE,
        seconds: float = BODY_SECONDS,
    ) -> None:
        self._app = app
        self._access = access
        self._most_bytes = most_bytes
        self._most_together = most_together
        self._most_at_once = most_at_once
        self._seconds = seconds
        self._running = 0
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._running += 1
        body = _Body()
        try:
            if self._running > self._most_at_once:
                raise _busy(f"The gateway answers {self._most_at_once:,} at once", "too-many-at-once")
            if scope["path"].startswith(_WITH_KEY):
                self._access.caller(HTTPConnection(scope))
                await self._read(scope, receive, body)
        except PlatformError as error:
            await respond(error)(scope, receive, send)
        else:
            await self._app(scope, _Replay(b"".join(body.chunks), receive), send)
        finally:
            self._running -= 1
            self._held -= body.size

    async def _read(self, scope: Scope, receive: Receive, body: _Body) -> None:
        """Read a body; what has come of it counts until its request has been answered."""
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not length.isdigit() or int(length) > self._most_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        body.chunks.clear()
                        return
                    self._count(message.get("body", b""), body)
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            raise Refusal(408, "The body did not come in time", value=f"{self._seconds:g} s") from None

    def _count(self, chunk: bytes, body: _Body) -> None:
        body.chunks.append(chunk)
        body.size += len(chunk)
        self._held += len(chunk)
        if body.size > self._most_bytes:
            raise self._too_large()
        if self._held > self._most_together:
            raise _busy("The gateway holds too many bodies", "too-much-at-once")

    def _too_large(self) -> Refusal:
        remedy = f"At most {self._most_bytes:,} bytes: ask in several requests"
        return Refusal(413, "The body is too large", kind="body-too-large", remedy=remedy)


def _busy(cause: str, kind: str) -> Refusal:
    return Refusal(503, cause, kind=kind, remedy="Try again in a second", headers={"Retry-After": "1"})


@dataclass
class _Body:
    """What has come of a body."""

    chunks: list[bytes] = field(default_factory=list)
    size: int = 0


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
