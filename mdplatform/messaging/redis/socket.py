"""A connection to Redis that is spoken to without tasks, timeouts and streams for each message.

redis-py connects (addresses, TLS, passwords, the embedded server); then the socket is this module's. What comes is
given to a callback as it is, in the turn of the event loop in which it comes; what is written leaves in the same turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hiredis import pack_command

from mdplatform.errors import TransportUnavailable
from mdplatform.settings import Settings
from mdplatform.valkey.connection import async_connect

Command = tuple[str | bytes | int | float, ...]
SLOWEST = 2.0
"""How long one answer is waited for at least, whatever readers of features are content with, in seconds."""


def closed() -> TransportUnavailable:
    """Say that this end is used no more."""
    return TransportUnavailable("This end of the transport was closed", remedy="Make a new one")


class RedisSocket:
    """One connection at a time, for one event loop; `heard` is called with what comes, `lost` once it has ended."""

    def __init__(self, settings: Settings, heard: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self.seconds = max(SLOWEST, settings.redis_timeout_seconds)
        self._client = async_connect(settings.model_copy(update={"redis_timeout_seconds": self.seconds}))
        self._heard = heard
        self._lost = lost
        self._connection: Any = None
        self._spoken: _Spoken | None = None
        self._is_closed = False

    @property
    def is_connected(self) -> bool:
        """Whether something may come and go."""
        return self._spoken is not None

    async def connect(self) -> Any:
        """Connect anew; give what makes an exception of the server's words.

        Raises `REDIS_FAILURES`, and `TransportUnavailable` if this was closed.
        """
        self.cut()
        if self._is_closed:
            raise closed()
        if self._connection is None:
            self._connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        else:
            await self._connection.disconnect(nowait=True)
        connection = self._connection
        await connection.connect()
        if self._is_closed:
            await connection.disconnect(nowait=True)
            raise closed()
        self._spoken = _Spoken(connection._writer.transport, self._heard, self._ended)
        return connection._parser.parse_error

    def write(self, *commands: Command) -> None:
        """Send commands in one go, if there is a connection."""
        if self._spoken is not None:
            packed = [pack_command(each) for each in commands]  # type: ignore[arg-type]
            self._spoken.transport.write(packed[0] if len(packed) == 1 else b"".join(packed))

    def pause(self) -> None:
        """Leave what comes to the server until `resume`."""
        if self._spoken is not None:
            self._spoken.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._spoken is not None:
            self._spoken.transport.resume_reading()

    def cut(self) -> None:
        """Give the connection up; whatever was still on its way belongs to nobody."""
        spoken = self._spoken
        if spoken is not None:
            self._ended(spoken)
            spoken.transport.abort()

    async def close(self) -> None:
        """Let go of the connection."""
        self._is_closed = True
        self.cut()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.disconnect(nowait=True)
            await self._client.connection_pool.release(connection)
        await self._client.aclose()

    def _ended(self, spoken: _Spoken) -> None:
        if self._spoken is spoken:
            self._spoken = None
            spoken.heard = _ignore
            self._lost()


class _Spoken(asyncio.Protocol):
    """The protocol of one connection, in the place of redis-py's own."""

    def __init__(self, transport: Any, heard: Callable[[bytes], None], ended: Callable[[_Spoken], None]) -> None:
        self.transport = transport
        self._former = transport.get_protocol()
        self._ended = ended
        self.heard = heard
        transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        self.heard(data)

    def connection_lost(self, failure: Exception | None) -> None:
        self._former.connection_lost(failure)  # redis-py waits for that where it closes
        self._ended(self)


def _ignore(_: bytes) -> None:
    """Nobody hears what comes on a connection that was given up."""
