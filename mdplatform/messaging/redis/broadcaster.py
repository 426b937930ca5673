"""The side that says, over Redis.

Posts go in scripts, each of which numbers, keeps and publishes some of them with their facts in one step. While Redis
is away a call waits and tries again, up to `line.PATIENCE`; a script whose answer was lost is not done twice.
Only a call that raises `TransportUnavailable` leaves open whether its posts were kept.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence

from mdplatform.messaging.broadcast import Post
from mdplatform.messaging.posting import Keeping, check_posts, check_topics
from mdplatform.messaging.redis.line import Line
from mdplatform.messaging.redis.posts import PREFIX, SEND, WISHES
from mdplatform.messaging.redis.shelves import RedisShelves
from mdplatform.settings import Settings

_POSTS_AT_ONCE, _BYTES_AT_ONCE = 256, 4_000_000


class RedisBroadcaster:
    """A `Broadcaster`, for one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._line = Line(settings)
        self._name = secrets.token_hex(8)
        self._calls = itertools.count(1)
        self._keeping = Keeping(settings)
        self._latest = 0

    async def send(self, posts: Sequence[Post]) -> None:
        """Append posts, in order; when it returns they are kept, as long as the bound allows.

        One round trip for 256 posts; more go one after another. Raises `InvalidPost` before anything is sent.
        """
        check_posts(posts)
        given: list[str | bytes | int] = []
        count = size = 0
        for post in posts:
            of_facts = sum(map(len, post.facts.values())) if post.facts else 0
            if count == _POSTS_AT_ONCE or (count and size + len(post.body) + of_facts > _BYTES_AT_ONCE):
                await self._say(given)
                given, count, size = [], 0, 0
            given += (post.topic, self._keeping.of(post.topic, len(post.body)), post.body, len(post.facts))
            for fact in post.facts.items():
                given += fact
            count += 1
            size += len(post.body) + of_facts
        if given:
            await self._say(given)

    async def facts(self, topics: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """Give the facts of topics; an empty mapping where there are none."""
        check_topics(topics)
        return await RedisShelves(self._line).facts(topics)

    async def wishes(self) -> dict[str, bytes]:
        """Give the wishes that are alive, by the name of who has them."""
        told = await self._line.command("EVAL", WISHES, 1, PREFIX)
        return {name.decode(): body for name, body in zip(told[::2], told[1::2], strict=True)}

    async def close(self) -> None:
        """Let go of the connection."""
        await self._line.close()

    async def _say(self, given: Sequence[str | bytes | int]) -> None:
        # by its text and not its hash: a script that were unknown would come again behind those sent after it
        latest = await self._line.command("EVAL", SEND, 1, PREFIX, self._name, next(self._calls), self._latest, *given)
        self._latest = max(self._latest, latest)
