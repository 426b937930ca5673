"""Requests over a real RabbitMQ node and a real Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.rabbitmq_asker import RabbitAsker
from mdplatform.messaging.rabbitmq_bridge import Bridge
from mdplatform.messaging.redis_answerer import RedisAnswerer
from mdplatform.messaging.transport import Delivery, Envelope, Reply
from mdplatform.settings import Settings

EVERYTHING = dict.fromkeys(DataPriority, 100)


def envelope(id: str, priority: DataPriority = DataPriority.NORMAL, seconds: float = 30.0) -> Envelope:
    now = time.time_ns() // 1000
    return Envelope(id=id, priority=priority, deadline=now + round(seconds * 1e6), sent_at=now, body=id.encode())


@dataclass
class Ends:
    asker: RabbitAsker
    answerer: RedisAnswerer


@asynccontextmanager
async def ends(settings: Settings) -> AsyncIterator[Ends]:
    """A strategy's side over RabbitMQ and a worker's side over Redis."""
    both = Ends(RabbitAsker(settings), RedisAnswerer(settings, "worker"))
    try:
        yield both
    finally:
        await both.asker.close()
        await both.answerer.close()


async def deliveries(answerer: RedisAnswerer, count: int, seconds: float = 15.0) -> list[Delivery]:
    found: list[Delivery] = []
    async with asyncio.timeout(seconds):
        while len(found) < count:
            found += [each for each in await answerer.take(EVERYTHING, 1.0) if isinstance(each, Delivery)]
    return found


async def replies(asker: RabbitAsker, count: int, seconds: float = 15.0) -> list[Reply]:
    found: list[Reply] = []
    async with asyncio.timeout(seconds):
        while len(found) < count:
            found += await asker.receive(1.0)
    return found


def test_a_request_is_admitted_answered_and_looked_up(rabbitmq_settings: Settings) -> None:
    async def go() -> None:
        async with Bridge(rabbitmq_settings), ends(rabbitmq_settings) as both:
            receipts = await both.asker.send([envelope("a"), envelope("b", DataPriority.LOW)])
            assert [receipt.admitted for receipt in receipts] == [True, True]
            taken = await deliveries(both.answerer, 2)
            assert {each.envelope.id: each.envelope.body for each in taken} == {"a": b"a", "b": b"b"}
            for each in taken:
                assert await both.answerer.settle(each.envelope.id, b"answer of " + each.envelope.body, each)
            answers = await replies(both.asker, 2)
            assert {(each.id, each.final, each.body) for each in answers} == {
                ("a", True, b"answer of a"),
                ("b", True, b"answer of b"),
            }
            known, unknown = await both.asker.look_up(["a", "nobody"])
            assert known is not None
            assert (known.stage, known.answer, unknown) == ("settled", b"answer of a", None)

    asyncio.run(go())
