"""What the two sides of the transport over RabbitMQ share: the queues, connecting, and errors without passwords.

Each class of priority has a durable queue of its own, so that no prefetched LOW request stands before a CRITICAL one.
What nobody takes before its deadline, and what cannot be read, ends in the queue `mdplatform.requests.dead`. All
queues are bounded: a full request queue refuses what is sent, a full dead-letter queue drops its oldest.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from mdplatform.errors import InvalidSetting, TransportUnavailable
from mdplatform.messaging.priority import DataPriority
from mdplatform.settings import Settings

try:
    import aio_pika
    from aio_pika import DeliveryMode, Message
    from aio_pika.abc import AbstractChannel as Channel
    from aio_pika.abc import AbstractConnection as Connection
    from aio_pika.abc import AbstractExchange as Exchange
    from aio_pika.abc import AbstractIncomingMessage as IncomingMessage
    from aio_pika.exceptions import AMQPError, ChannelInvalidStateError, DeliveryError
    from pamqp.exceptions import PAMQPException
except ImportError:
    raise InvalidSetting(
        "The transport rabbitmq needs a package that is not installed",
        value="aio-pika",
        remedy="Run `pip install 'mdplatform[rabbitmq]'`, or set MDPLATFORM_TRANSPORT=redis",
    ) from None

__all__ = ["Channel", "Connection", "DeliveryError", "DeliveryMode", "Exchange", "IncomingMessage", "Message"]

QUEUES = {each: f"mdplatform.requests.{each.value.lower()}" for each in DataPriority}
"""The queue of each class."""

QUESTIONS = "mdplatform.requests.questions"
"""The queue of what askers want to know or to have done; nothing in it outlives the asker's patience."""

DEAD = "mdplatform.requests.dead"
"""The exchange and the queue of what was refused."""

LIVE = "mdplatform.live"
"""The exchange of broadcasts: a post's routing key is its topic."""

BRIDGES = "rabbitmq"
"""The address, on the Redis side, of all replies that bridges carry; what follows it is the asker's name."""

DIRECT_REPLY = "amq.rabbitmq.reply-to"
"""The pseudo-queue of RabbitMQ from which an asker reads its replies; the real name starts with it."""

LINE = "line"
"""The header that counts an asker's connections, so that an address which is old does not pass for the newest."""

RABBIT_FAILURES = (
    AMQPError,
    ChannelInvalidStateError,
    PAMQPException,
    OSError,
    asyncio.InvalidStateError,
    asyncio.TimeoutError,
)
"""What a call may raise when RabbitMQ is not there or not willing."""

KEPT_REPLIES = "mdplatform.replies."
"""What the names of the queues begin with in which replies wait for an asker that has an address of its own."""

ASKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
"""What an asker's name looks like."""

CONNECT_SECONDS = 5.0
CALL_SECONDS = 10.0
_LONGEST_QUEUE = 100_000
_LARGEST_QUEUE = 1_000_000_000
_MOST_DEAD = 10_000
_MOST_REPLIES = 10_000
_MOST_BYTES_OF_REPLIES = 64_000_000
_REPLIES_KEPT_SECONDS = 3600
_HEARTBEAT_SECONDS = 10
_TURN_SECONDS = 0.5
_CLOSE_SECONDS = 2.0
_BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


def check_url(settings: Settings) -> None:
    """Raise `InvalidSetting` if the URL cannot be read."""
    try:
        parts = urlsplit(settings.rabbitmq_url.get_secret_value())
        if parts.scheme in ("amqp", "amqps") and parts.hostname and parts.port != 0:
            return
    except ValueError:
        pass
    raise InvalidSetting(
        "MDPLATFORM_RABBITMQ_URL cannot be read",
        remedy="Write amqp://user:password@host:port/vhost, or amqps://…; quote % : / @ in a password",
    )


@asynccontextmanager
async def connected(settings: Settings, name: str) -> AsyncIterator[Connection]:
    """Connect, and close at the end; `name` is shown in RabbitMQ's own tools. Raises `TransportUnavailable`."""
    async with speaking(settings, CONNECT_SECONDS):
        connection = await aio_pika.connect(
            settings.rabbitmq_url.get_secret_value(),
            heartbeat=_HEARTBEAT_SECONDS,
            client_properties={"connection_name": f"mdplatform {name}"},
        )
    try:
        yield connection
    finally:
        with contextlib.suppress(*RABBIT_FAILURES):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await connection.close()


async def declare(channel: Channel) -> None:
    """Make the queues, if they are not there."""
    exchange = await channel.declare_exchange(DEAD, aio_pika.ExchangeType.FANOUT, durable=True)
    dead = await channel.declare_queue(DEAD, durable=True, arguments={"x-max-length": _MOST_DEAD})
    await dead.bind(exchange)
    arguments: dict[str, Any] = {
        "x-max-length": _LONGEST_QUEUE,
        "x-max-length-bytes": _LARGEST_QUEUE,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": DEAD,
    }
    for queue in QUEUES.values():
        await channel.declare_queue(queue, durable=True, arguments=arguments)
    await channel.declare_queue(QUESTIONS, durable=True, arguments={"x-max-length": _LONGEST_QUEUE})


async def declare_replies(channel: Channel, asker: str) -> str:
    """Make the queue in which replies wait for this asker for an hour, if it is not there; give its name."""
    arguments: dict[str, Any] = {
        "x-expires": _REPLIES_KEPT_SECONDS * 1000,
        "x-max-length": _MOST_REPLIES,
        "x-max-length-bytes": _MOST_BYTES_OF_REPLIES,
    }
    queue = await channel.declare_queue(f"{KEPT_REPLIES}{asker}", durable=True, arguments=arguments)
    return queue.name


async def declare_live(channel: Channel) -> Exchange:
    """Make the exchange of broadcasts, if it is not there."""
    return await channel.declare_exchange(LIVE, aio_pika.ExchangeType.DIRECT, durable=True)


@asynccontextmanager
async def speaking(settings: Settings, seconds: float) -> AsyncIterator[None]:
    """Bound what is done with RabbitMQ, and give its failures as `TransportUnavailable`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except RABBIT_FAILURES as failure:
        raise unavailable(settings, failure) from None
    except asyncio.CancelledError as cut:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise unavailable(settings, cut) from None  # aiormq cancels what waits on a channel that closes


async def take_turn(settings: Settings, connection: Connection, queue: str) -> None:
    """Wait until this connection holds an exclusive queue, as one at a time does. Raises `TransportUnavailable`."""
    while True:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                channel = await connection.channel()
                await channel.declare_queue(queue, exclusive=True)
                return
        except RABBIT_FAILURES:
            async with speaking(settings, CONNECT_SECONDS):
                await connection.ready()
            await asyncio.sleep(_TURN_SECONDS)


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task, again where a library swallowed it, and wait for its end, within bounds."""
    for _ in range(3):
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=_CLOSE_SECONDS + 1.0)
        if done:
            return


def backoff_seconds(attempts: int) -> float:
    """Give how long to wait before the next try."""
    return _BACKOFF_SECONDS[min(attempts, len(_BACKOFF_SECONDS) - 1)]


def unavailable(settings: Settings, failure: BaseException) -> TransportUnavailable:
    """Say in the platform's words that RabbitMQ failed."""
    return TransportUnavailable(
        f"RabbitMQ does not answer ({_describe(failure, settings)})",
        value=shown_url(settings),
        remedy="Check that the server runs and that MDPLATFORM_RABBITMQ_URL is right",
    )


def shown_url(settings: Settings) -> str:
    """Give the address of RabbitMQ without user name, password and options.

    >>> shown_url(Settings(rabbitmq_url="amqp://me:secret@queue.local:5672/trading?heartbeat=5"))
    'amqp://queue.local:5672/trading'
    """
    try:
        parts = urlsplit(settings.rabbitmq_url.get_secret_value())
        _ = parts.port  # a password in the place of the port does not pass for one
        return f"{parts.scheme}://{f'{parts.netloc}{parts.path}'.rpartition('@')[2]}"
    except ValueError:
        return "MDPLATFORM_RABBITMQ_URL"


def _describe(failure: BaseException, settings: Settings) -> str:
    text = " ".join(f"{type(failure).__name__}: {failure}".split()).rstrip(": ")
    url = settings.rabbitmq_url.get_secret_value()
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        password = ""
    for secret in (url, password, unquote(password)):
        text = text.replace(secret, "***") if len(secret) > 2 else text
    return text
