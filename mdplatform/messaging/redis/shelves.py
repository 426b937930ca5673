"""The shelves of broadcasts in Redis: reading posts and facts, and wishing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from mdplatform.messaging.hearing import Shelf
from mdplatform.messaging.posting import BEGINNING
from mdplatform.messaging.redis.line import Line
from mdplatform.messaging.redis.posts import HEADS, PREFIX, WISH, facts_key, posts_key


class RedisShelves:
    """Reads over a line that is the caller's."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def heads(self, topics: Sequence[str]) -> list[str]:
        """Give the places of the last posts."""
        if not topics:
            return []
        heads = await self._line.command("HMGET", HEADS, *topics)
        return [BEGINNING if head is None else head.decode() for head in heads]

    async def after(self, places: Mapping[str, str], at_most: int) -> list[Shelf]:
        """Give the shelves of topics after places, at most so many posts of each."""
        if not places:
            return []
        keys = [posts_key(topic) for topic in places]
        # in this order: what the heads know must be in the streams, unless it was let go
        heads, streams = await asyncio.gather(
            self.heads(list(places)),
            self._line.command("XREAD", "COUNT", at_most, "STREAMS", *keys, *places.values()),
        )
        posts = dict(streams.items() if isinstance(streams, dict) else streams or ())
        return [
            Shelf(head, tuple((place.decode(), fields[1]) for place, fields in posts.get(key.encode(), ())))
            for key, head in zip(keys, heads, strict=True)
        ]

    async def facts(self, topics: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """Give the facts of topics."""
        told = await asyncio.gather(*(self._line.command("HGETALL", facts_key(topic)) for topic in topics))
        found = {}
        for topic, answer in zip(topics, told, strict=True):
            pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
            found[topic] = {name.decode(): value for name, value in pairs}
        return found

    async def wish(self, name: str, body: bytes, life_seconds: float) -> None:
        """Keep a wish for so long; forget it if it is empty."""
        await self._line.command("EVAL", WISH, 1, PREFIX, name, body, round(life_seconds * 1e6))

    async def close(self) -> None:
        """Let go of the connection."""
        await self._line.close()
