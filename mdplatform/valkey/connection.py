"""Connections to Redis: to `MDPLATFORM_REDIS_URL` where it is set, else to the embedded Valkey of the home.

A client of the embedded server is a user of it until it is closed (or the process ends), and starts the server again
when it finds it gone. Timeouts come from the settings. No password ever gets into an error, a log line or a status.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from mdplatform.errors import InvalidSetting, RedisUnavailable
from mdplatform.settings import Settings
from mdplatform.valkey.embedded import EmbeddedValkey, embedded

REDIS_FAILURES = (redis.RedisError, RedisUnavailable, OSError)
"""What a call may raise when Redis is not there, not ready or not willing."""

# A server that was just killed may still take a connection and reset it. Timeouts are not tried again.
_BACKOFF = ExponentialBackoff(cap=0.02, base=0.002)
_RETRIES = 3
_SECRET = frozenset({"password", "ssl_password", "username"})


class _KeptConnection(redis.UnixDomainSocketConnection):
    """A connection that starts the embedded server when nobody listens."""

    def __init__(self, *, server: EmbeddedValkey, **options: Any) -> None:
        super().__init__(path=server.path, **options)  # type: ignore[no-untyped-call]
        self._server = server

    def _connect(self) -> socket.socket:
        try:
            return cast(socket.socket, super()._connect())  # type: ignore[no-untyped-call]
        except (FileNotFoundError, ConnectionRefusedError):
            self._server.ensure()
            return cast(socket.socket, super()._connect())  # type: ignore[no-untyped-call]


class _KeptAsyncConnection(redis.asyncio.UnixDomainSocketConnection):
    """The same for asyncio."""

    def __init__(self, *, server: EmbeddedValkey, **options: Any) -> None:
        super().__init__(path=server.path, **options)
        self._server = server

    async def _connect(self) -> None:
        try:
            await super()._connect()  # type: ignore[no-untyped-call]
        except (FileNotFoundError, ConnectionRefusedError):
            await asyncio.to_thread(self._server.ensure)
            await super()._connect()  # type: ignore[no-untyped-call]


class EmbeddedRedis(redis.Redis):
    """A client of the embedded server, which counts as its user until it is closed."""

    _server: EmbeddedValkey | None = None

    def close(self) -> None:
        """Close the connections; the server stops if nobody else uses it."""
        super().close()
        server, self._server = self._server, None
        if server is not None:
            server.release()


class EmbeddedAsyncRedis(redis.asyncio.Redis):
    """The same for asyncio."""

    _server: EmbeddedValkey | None = None

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the connections; the server stops if nobody else uses it."""
        await super().aclose(close_connection_pool)
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.release)


def connect(settings: Settings) -> redis.Redis:
    """Give a client, thread-safe, that answers bytes; close it when done.

    The embedded server is started if need be; with a URL, the first command connects. Raises `RedisUnavailable` and
    `InvalidSetting`.
    """
    retry = Retry(_BACKOFF, _RETRIES, (redis.ConnectionError,))
    if settings.redis_url is not None:
        try:
            return redis.Redis.from_url(settings.redis_url, retry=retry, **_timeouts(settings))
        except (ValueError, TypeError):
            raise _refused_url() from None
    server = embedded(settings)
    server.acquire()
    pool = redis.ConnectionPool(connection_class=_KeptConnection, server=server, retry=retry, **_timeouts(settings))
    client = cast(EmbeddedRedis, EmbeddedRedis.from_pool(pool))
    client._server = server
    return client


def async_connect(settings: Settings) -> redis.asyncio.Redis:
    """Give an asyncio client, for one event loop; `await client.aclose()` when done.

    It may block for the tenth of a second that the embedded server takes to start. Raises like `connect`.
    """
    retry = AsyncRetry(_BACKOFF, _RETRIES, (redis.ConnectionError,))
    if settings.redis_url is not None:
        try:
            return redis.asyncio.Redis.from_url(settings.redis_url, retry=retry, **_timeouts(settings))
        except (ValueError, TypeError):
            raise _refused_url() from None
    server = embedded(settings)
    server.acquire()
    pool = redis.asyncio.ConnectionPool(
        connection_class=_KeptAsyncConnection, server=server, retry=retry, **_timeouts(settings)
    )
    client = cast(EmbeddedAsyncRedis, EmbeddedAsyncRedis.from_pool(pool))
    client._server = server
    return client


def push_connection(settings: Settings) -> Any:
    """Give one connection of redis-py on which the server sends by itself (RESP3), not connected yet.

    It tries once, and starts no server; `disconnect` it when done. Raises like `connect`.
    """
    options: dict[str, Any] = {"protocol": 3, "retry": Retry(NoBackoff(), 0), **_timeouts(settings)}
    options["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    if settings.redis_url is None:
        return redis.UnixDomainSocketConnection(embedded(settings).path, **options)  # type: ignore[no-untyped-call, abstract]
    try:
        pool = redis.ConnectionPool.from_url(settings.redis_url, **options)
        return pool.make_connection()
    except (ValueError, TypeError):
        raise _refused_url() from None


def _timeouts(settings: Settings) -> dict[str, Any]:
    return {
        "socket_timeout": settings.redis_timeout_seconds,
        "socket_connect_timeout": settings.redis_timeout_seconds,
    }


def _refused_url() -> InvalidSetting:
    return InvalidSetting(
        "MDPLATFORM_REDIS_URL cannot be read",
        remedy="Write redis://[user:password@]host:port/db; quote % : / @ in a password",
    )


def shown_url(settings: Settings) -> str:
    """Give the address of Redis without user name and password.

    >>> shown_url(Settings(redis_url="redis://:secret@cache.local:6379/0"))
    'redis://cache.local:6379/0'
    """
    if settings.redis_url is None:
        return f"unix://{embedded(settings).path}"
    try:
        parts = urlsplit(settings.redis_url)
        _ = parts.port  # a password in the place of the port does not pass for one
        address = f"{parts.netloc}{parts.path}".rpartition("@")[2]
        query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name not in _SECRET])
        return urlunsplit((parts.scheme, "", f"//{address}", query, ""))
    except ValueError:
        return "MDPLATFORM_REDIS_URL"


def unavailable(settings: Settings, failure: BaseException) -> RedisUnavailable:
    """Say in the platform's words that Redis failed."""
    if isinstance(failure, RedisUnavailable):
        return failure
    return RedisUnavailable(
        f"Redis does not answer ({describe(failure, settings)})",
        value=shown_url(settings),
        remedy="Check that the server runs and that MDPLATFORM_REDIS_URL is right; `mdplatform doctor` shows both",
    )


def describe(failure: BaseException, settings: Settings) -> str:
    """Give the failure in one line, from which the password has been struck, should a server have repeated it."""
    text = " ".join(f"{type(failure).__name__}: {failure}".split())
    for secret in _secrets(settings.redis_url or ""):
        text = text.replace(secret, "***")
    return text


def _secrets(url: str) -> set[str]:
    try:
        parts = urlsplit(url)
        given = [parts.password or "", dict(parse_qsl(parts.query)).get("password", "")]
    except ValueError:
        return set()
    return {form for each in given if each for form in (each, unquote(each))}


@dataclass(frozen=True)
class ServerStatus:
    """What `mdplatform doctor` says of Redis; counts are those of the selected database."""

    url: str
    embedded: bool
    reachable: bool
    version: str | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    keys: int | None = None
    problem: str | None = None


def status(settings: Settings, *, start: bool = False) -> ServerStatus:
    """Look at the server; the embedded one is started only if `start`. Never raises for a server that is not there."""
    own = settings.redis_url is None
    url = "the embedded Valkey"
    try:
        url = shown_url(settings)
        if own and not start and not embedded(settings).is_running():
            return ServerStatus(url, own, False, problem="not running; it starts when it is needed")
        with connect(settings) as client:
            facts = cast(dict[str, Any], client.info())
            return ServerStatus(
                url=url,
                embedded=own,
                reachable=True,
                version=_version(facts),
                memory_bytes=int(facts["used_memory"]),
                memory_limit_bytes=int(facts.get("maxmemory", 0)) or None,
                keys=cast(int, client.dbsize()),
            )
    except (*REDIS_FAILURES, InvalidSetting) as failure:
        return ServerStatus(url, own, False, problem=describe(failure, settings))


def _version(facts: dict[str, Any]) -> str:
    if "valkey_version" in facts:
        return f"Valkey {facts['valkey_version']}"
    return f"Redis {facts.get('redis_version', '?')}"
