"""Broadcasts' way to listeners over RabbitMQ: what Redis pushes is published to an exchange, by one bridge at a time.

1. The bridge that holds an exclusive queue subscribes to all that is posted in Redis.
2. What has come is published as it is, the posts of a topic together, under the topic's name as routing key.
3. Whenever its subscription begins, as posts may have passed by before, it says so under an empty key: listeners then
   look on the shelves, by way of a bridge, for what they have not heard.

Nothing is kept in RabbitMQ for longer than it takes to be heard; cursors, facts and wishes are those of Redis. A post
that is lost on the way is noticed by its number, and one that comes twice is dropped by it.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.rabbitmq.link import (
    CALL_SECONDS,
    CONNECT_SECONDS,
    Connection,
    DeliveryMode,
    Message,
    declare_live,
    speaking,
    take_turn,
)
from mdplatform.messaging.redis.line import pause
from mdplatform.messaging.redis.pushes import RedisPushes
from mdplatform.settings import Settings

CARRIER = "mdplatform.live.carrier"
"""The exclusive queue that the bridge holds which carries broadcasts."""

_WAIT_SECONDS = 5.0
_LARGEST = 1_000_000
_log = logging.getLogger(__name__)
_payloads = msgspec.msgpack.Encoder()


class Carrier:
    """Carries broadcasts on one connection to RabbitMQ at a time, once no other bridge does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pushes = RedisPushes(settings, everything=True)

    async def carry(self, connection: Connection) -> None:
        """Wait for the turn, then publish for ever. Raises `TransportUnavailable`."""
        await take_turn(self._settings, connection, CARRIER)
        async with speaking(self._settings, CONNECT_SECONDS):
            channel = await connection.channel(publisher_confirms=False)
            exchange = await declare_live(channel)
        try:
            while True:
                if not self._pushes.is_connected:
                    await self._connect()
                for topic, payloads in _gathered(self._pushes):
                    message = Message(_payloads.encode(payloads), delivery_mode=DeliveryMode.NOT_PERSISTENT)
                    async with speaking(self._settings, CALL_SECONDS):
                        await exchange.publish(message, topic, mandatory=False)
                await self._pushes.wait(_WAIT_SECONDS)
        finally:
            self._pushes.cut()

    async def close(self) -> None:
        """Let go of the connection to Redis."""
        await self._pushes.close()

    async def _connect(self) -> None:
        """Subscribe in Redis, however long that takes."""
        failures = 0
        while True:
            try:
                return await self._pushes.connect([])
            except TransportUnavailable as failure:
                if failures == 0:
                    _log.warning("No broadcast is carried: %s", failure)
                await asyncio.sleep(pause(failures))
                failures += 1


def _gathered(pushes: RedisPushes) -> list[tuple[str, list[bytes]]]:
    """Give what has come by topic, as much in a message as is no burden; under an empty name that all may be behind."""
    messages: list[tuple[str, list[bytes]]] = []
    latest: dict[str, tuple[list[bytes], int]] = {}
    for topic, payload in pushes.take():
        if payload is None:
            messages.insert(0, ("", []))
            continue
        payloads, size = latest.get(topic, ([], _LARGEST))
        size += len(payload)
        if size > _LARGEST:
            payloads, size = [], len(payload)
            messages.append((topic, payloads))
        payloads.append(payload)
        latest[topic] = (payloads, size)
    return messages
