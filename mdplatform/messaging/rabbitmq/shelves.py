"""The shelves of broadcasts, which are in Redis, as listeners over RabbitMQ read them: by asking a bridge.

A question of the kind `live` has a `LiveQuestion` as its body; `answer` is what the bridge does with it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from mdplatform.errors import InvalidPost, TransportUnavailable
from mdplatform.messaging.hearing import Shelf
from mdplatform.messaging.posting import check_topics, check_wish, read_place
from mdplatform.messaging.rabbitmq.line import RabbitLine
from mdplatform.messaging.rabbitmq.link import QUESTIONS, Message, check_url, shown_url
from mdplatform.messaging.rabbitmq.wire import Question, encode
from mdplatform.messaging.redis.shelves import RedisShelves
from mdplatform.settings import Settings

PATIENCE = 5.0
"""For how long a call tries to reach a bridge before it gives up, in seconds."""
_MOST_POSTS = 1000
_ASKED_AT_ONCE = 1000
T = TypeVar("T")


class LiveQuestion(msgspec.Struct, frozen=True, array_like=True):
    """`heads` and `facts` are about the topics of `places`, `after` about what follows them, at most `count` of each.

    `wish` has a name, a body and its life in seconds.
    """

    kind: Literal["heads", "after", "facts", "wish"]
    places: dict[str, str] = {}
    count: int = 1
    name: str = ""
    body: bytes = b""
    life: float = 0.0


_question = msgspec.msgpack.Decoder(LiveQuestion)


async def answer(raw: bytes, shelves: RedisShelves) -> bytes:
    """Answer a question from Redis. Raises `ValueError` if it makes no sense, and `TransportUnavailable`."""
    question = _question.decode(raw)
    found: Any = None
    try:
        check_topics(question.places)
        if question.kind == "wish":
            check_wish(question.name, question.body, question.life)
        if question.kind == "after":
            for topic, place in question.places.items():
                read_place(place, topic)
    except InvalidPost as refused:
        raise ValueError(str(refused)) from None
    if question.kind == "heads":
        found = await shelves.heads(list(question.places))
    elif question.kind == "after":
        found = await shelves.after(question.places, max(1, min(question.count, _MOST_POSTS)))
    elif question.kind == "facts":
        found = await shelves.facts(list(question.places))
    else:
        await shelves.wish(question.name, question.body, question.life)
    return msgspec.msgpack.encode(found)


class RabbitShelves:
    """Asks bridges, on a connection of its own, for one event loop."""

    def __init__(self, settings: Settings) -> None:
        check_url(settings)
        self._settings = settings
        self._line = RabbitLine(settings, f"listener-{secrets.token_hex(8)}", lambda *_: None, _nothing)

    async def heads(self, topics: Sequence[str]) -> list[str]:
        """Give the places of the last posts."""
        found: list[str] = []
        for some in _parts(topics):
            found += await self._ask(LiveQuestion("heads", dict.fromkeys(some, "")), list[str])
        return found

    async def after(self, places: Mapping[str, str], at_most: int) -> list[Shelf]:
        """Give the shelves of topics after places, at most so many posts of each."""
        return await self._ask(LiveQuestion("after", dict(places), at_most), list[Shelf])

    async def facts(self, topics: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """Give the facts of topics."""
        found: dict[str, dict[str, bytes]] = {}
        for some in _parts(topics):
            found |= await self._ask(LiveQuestion("facts", dict.fromkeys(some, "")), dict[str, dict[str, bytes]])
        return found

    async def wish(self, name: str, body: bytes, life_seconds: float) -> None:
        """Keep a wish for so long; forget it if it is empty."""
        await self._ask(LiveQuestion("wish", name=name, body=body, life=life_seconds), None)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._line.close()

    async def _ask(self, question: LiveQuestion, kind: type[T] | None) -> T:
        self._line.keep()
        body = encode(Question(kind="live", body=msgspec.msgpack.encode(question)))
        found: Any = None
        try:
            async with asyncio.timeout(PATIENCE):
                while found is None:
                    found = await self._line.ask(QUESTIONS, Message(body, expiration=PATIENCE))
        except TimeoutError:
            raise self._line.failure or TransportUnavailable(
                f"No bridge answered within {PATIENCE:.0f} s",
                value=shown_url(self._settings),
                remedy="Run `mdplatform bridge`, or `mdplatform worker` with MDPLATFORM_TRANSPORT=rabbitmq",
            ) from None
        if found.problem:
            raise TransportUnavailable(found.problem)
        told: T = msgspec.msgpack.decode(found.live, type=kind)
        return told


def _parts(topics: Sequence[str]) -> list[Sequence[str]]:
    return [topics[start : start + _ASKED_AT_ONCE] for start in range(0, len(topics), _ASKED_AT_ONCE)]


async def _nothing() -> None:
    """Nothing is to be said when the line is back."""
