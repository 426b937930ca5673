"""The replies' way back: from the stream of all bridges in Redis to the direct reply addresses of the askers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterator

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.rabbitmq.link import (
    BRIDGES,
    CALL_SECONDS,
    KEPT_REPLIES,
    Channel,
    Connection,
    DeliveryMode,
    Message,
    speaking,
    take_turn,
)
from mdplatform.messaging.rabbitmq.scripts import CARRY
from mdplatform.messaging.rabbitmq.wire import Carried, Told, encode
from mdplatform.messaging.redis import scripts
from mdplatform.messaging.redis.asker import fetched
from mdplatform.messaging.redis.keys import replies_key
from mdplatform.messaging.redis.line import BlockingLine, Entries, Line, entries_of
from mdplatform.messaging.transport import Reply
from mdplatform.settings import Settings

CARRIER = "mdplatform.replies.carrier"
"""The exclusive queue that the bridge holds which carries the replies."""

_AT_ONCE = 128
_KEPT_SECONDS = 3600.0
_LARGEST = 1_000_000
_STREAM = replies_key(BRIDGES)
_log = logging.getLogger(__name__)


class Replies:
    """Carries replies on one connection to RabbitMQ at a time, once no other bridge does."""

    def __init__(self, settings: Settings, redis: Line) -> None:
        self._settings = settings
        self._redis = redis
        self._blocking = BlockingLine(settings)
        self._kept_at = 0.0

    async def carry(self, connection: Connection, talk: Channel) -> None:
        """Wait for the turn, then read, publish and delete for ever. Raises `TransportUnavailable`."""
        await take_turn(self._settings, connection, CARRIER)
        while True:
            answers = await self._blocking.read(
                BlockingLine.LONGEST,
                ("XREAD", "COUNT", _AT_ONCE, "BLOCK", round(BlockingLine.LONGEST * 1000), "STREAMS", _STREAM, "0"),
            )
            if answers is None or isinstance(answers[-1], Exception):
                continue
            found = await fetched(self._blocking, entries_of(answers[-1]))
            by_address = await self._by_address(found)
            async with speaking(self._settings, CALL_SECONDS):
                await asyncio.gather(
                    *(
                        talk.default_exchange.publish(message, address, mandatory=False)
                        for address, replies in by_address.items()
                        for message in _messages(address, replies)
                    )
                )
            await self._done_with([part for _, place, each in found for part in (place, each.get(b"size", b"0"))])

    async def close(self) -> None:
        """Let go of the connection to Redis."""
        await self._blocking.close()

    async def _by_address(self, found: Entries) -> dict[str, list[Carried]]:
        """Give the replies by where their askers are now, for as long as Redis is away too."""
        words: list[str | bytes] = []
        for _, place, fields in found:
            words += [place, fields.get(b"to", b""), fields.get(b"final", b"")]
        while words:
            try:
                addresses = await self._redis.run(CARRY, _STREAM, *words)
                break
            except TransportUnavailable as failure:
                _log.warning("Replies wait in Redis: %s", failure)
        by_address: dict[str, list[Carried]] = defaultdict(list)
        for (_, place, fields), address in zip(found, addresses if words else (), strict=True):
            reply = Reply(id=fields[b"id"].decode(), final=fields[b"final"] == b"1", body=fields[b"body"])
            by_address[address.decode()].append(Carried(place=place.decode(), reply=reply))
        by_address.pop("", None)  # nobody knows that asker any more
        return by_address

    async def _done_with(self, read: list[bytes]) -> None:
        """Delete what was published (place and size of each), and have replies kept although nobody sends anything."""
        try:
            if read or time.monotonic() - self._kept_at > _KEPT_SECONDS / 60:
                await self._redis.run(scripts.READ, BRIDGES, *read)
                self._kept_at = time.monotonic()
        except TransportUnavailable as failure:
            _log.warning("Replies are carried again, and dropped by who has them: %s", failure)


def _messages(address: str, replies: list[Carried]) -> Iterator[Message]:
    """Give what carries the replies, some at a time."""
    mode = DeliveryMode.PERSISTENT if address.startswith(KEPT_REPLIES) else DeliveryMode.NOT_PERSISTENT
    some: list[Carried] = []
    size = 0
    for each in replies:
        if some and size + len(each.reply.body) > _LARGEST:
            yield Message(encode(Told(replies=tuple(some))), delivery_mode=mode)
            some, size = [], 0
        some.append(each)
        size += len(each.reply.body)
    yield Message(encode(Told(replies=tuple(some))), delivery_mode=mode)
