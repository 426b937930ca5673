"""The replies' way back: from the stream of all bridges in Redis to the direct reply addresses of the askers."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

from mdplatform.messaging.rabbitmq_link import (
    BRIDGES,
    CALL_SECONDS,
    CONNECT_SECONDS,
    KEPT_REPLIES,
    RABBIT_FAILURES,
    Channel,
    Connection,
    DeliveryMode,
    Message,
    speaking,
)
from mdplatform.messaging.rabbitmq_scripts import CARRY
from mdplatform.messaging.rabbitmq_wire import Carried, Told, encode
from mdplatform.messaging.redis_keys import PREFIX, replies_key
from mdplatform.messaging.redis_line import BlockingLine, Line, entries_of
from mdplatform.messaging.transport import Reply
from mdplatform.settings import Settings

CARRIER = "mdplatform.replies.carrier"
"""The exclusive queue that the bridge holds which carries the replies."""

_AT_ONCE = 256
_AGAIN_SECONDS = 0.5
_KEPT_SECONDS = 3600.0
_STREAM = replies_key(BRIDGES)


class Replies:
    """Carries replies on one connection to RabbitMQ, once no other bridge does."""

    def __init__(self, settings: Settings, redis: Line) -> None:
        self._settings = settings
        self._redis = redis
        self._kept_at = 0.0

    async def carry(self, connection: Connection, talk: Channel) -> None:
        """Wait for the turn, then read, publish and delete for ever. Raises `TransportUnavailable`."""
        await self._take_turn(connection)
        blocking = BlockingLine(self._settings)
        try:
            while True:
                answers = await blocking.read(
                    BlockingLine.LONGEST,
                    ("XREAD", "COUNT", _AT_ONCE, "BLOCK", round(BlockingLine.LONGEST * 1000), "STREAMS", _STREAM, "0"),
                )
                await self._keep_address()
                found = entries_of(answers[-1]) if answers and not isinstance(answers[-1], Exception) else []
                if found:
                    await self._carry(talk, found)
        finally:
            await blocking.close()

    async def _take_turn(self, connection: Connection) -> None:
        while True:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    channel = await connection.channel()
                    await channel.declare_queue(CARRIER, exclusive=True)
                    return
            except RABBIT_FAILURES:
                async with speaking(self._settings, CONNECT_SECONDS):
                    await connection.ready()
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _keep_address(self) -> None:
        """Have replies kept although nobody sends anything."""
        if time.monotonic() - self._kept_at > _KEPT_SECONDS / 60:
            until = round((time.time() + _KEPT_SECONDS) * 1e6)
            await self._redis.command("ZADD", f"{PREFIX}addresses", "GT", until, BRIDGES)
            self._kept_at = time.monotonic()

    async def _carry(self, talk: Channel, found: list[tuple[str, bytes, dict[bytes, bytes]]]) -> None:
        words: list[str | bytes] = []
        for _, place, fields in found:
            words += [place, fields.get(b"to", b""), fields.get(b"final", b"")]
        addresses = await self._redis.run(CARRY, _STREAM, *words)
        by_address: dict[str, list[Carried]] = defaultdict(list)
        for (_, place, fields), address in zip(found, addresses, strict=True):
            reply = Reply(id=fields[b"id"].decode(), final=fields[b"final"] == b"1", body=fields[b"body"])
            by_address[address.decode()].append(Carried(place=place.decode(), reply=reply))
        by_address.pop("", None)  # nobody knows that asker any more
        async with speaking(self._settings, CALL_SECONDS):
            await asyncio.gather(
                *(
                    talk.default_exchange.publish(_message(some, address), address, mandatory=False)
                    for address, some in by_address.items()
                )
            )
        await self._redis.command("XDEL", _STREAM, *(place for _, place, _ in found))


def _message(some: list[Carried], address: str) -> Message:
    kept = DeliveryMode.PERSISTENT if address.startswith(KEPT_REPLIES) else DeliveryMode.NOT_PERSISTENT
    return Message(encode(Told(replies=tuple(some))), delivery_mode=kept)
