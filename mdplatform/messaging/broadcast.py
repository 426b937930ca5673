"""The protocol of broadcasts: what one process says and many hear, each from where it left off.

A *post* belongs to a topic (a symbol). Posts of a topic are heard in the order in which they were sent, each once, by
every `Listener` that follows it. A listener has a *cursor* for each topic: given to a new listener, it goes on behind
the last post that was heard, without loss or repetition, as long as the post is still kept. What was let go before it
was heard is said as `Missed`, never passed over in silence.

Beside its posts a topic has *facts*: the newest value under a name (the newest closed cell of each timeframe, a
layout), for those who come late. A post and the facts that change with it are written in one atomic step. An empty
value takes a fact away.

*Wishes* go the other way: what a listener would like to be computed, forgotten when it is not renewed.

RabbitMQ only carries posts: they are kept, with facts and wishes, in Redis, to which a feed speaks in any case; a
bridge must run, and cursors are the same in either. A server that comes back without its last second (it writes to disk
once a second), or empty, is noticed, and said as `Missed`.

Methods raise `TransportUnavailable` when the server does not answer, and `InvalidPost` for what cannot be. After a
`send` that raised the first, posts may have been kept or not; all else can be called again, and goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec


class Post(msgspec.Struct, frozen=True):
    """Something said under a topic; `facts` become the newest values under their names in the same step.

    `place` is the cursor behind it, set by the transport for listeners.
    """

    topic: str
    body: bytes
    facts: Mapping[str, bytes] = {}
    place: str = ""


class Missed(msgspec.Struct, frozen=True):
    """Posts of a topic were let go before this listener heard them: those between its cursor and `place`."""

    topic: str
    place: str


class Broadcaster(Protocol):
    """The side that says, for one event loop."""

    async def send(self, posts: Sequence[Post]) -> None:
        """Append posts, in order, in one round trip; when it returns they are kept, as long as the bound allows."""
        ...

    async def facts(self, topics: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """Give the facts of topics; an empty mapping where there are none."""
        ...

    async def wishes(self) -> dict[str, bytes]:
        """Give the wishes that are alive, by the name of who has them."""
        ...

    async def close(self) -> None:
        """Let go of the connections."""
        ...


class Listener(Protocol):
    """The side that hears, for one event loop: one for a process, whatever the number of its subscriptions."""

    async def follow(self, topics: Sequence[str], cursors: Mapping[str, str] | None = None) -> dict[str, str]:
        """Hear these topics too: from a given cursor on, else from now on. Give the cursor of each.

        What is posted after this returns is heard. A topic that is followed already goes on where it is.
        """
        ...

    async def leave(self, topics: Sequence[str]) -> None:
        """Hear these topics no more."""
        ...

    async def receive(self, wait_seconds: float) -> list[Post | Missed]:
        """Give what was posted since the last call, in order within a topic; wait for the first, at most so long."""
        ...

    async def facts(self, topics: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """Give the facts of topics; an empty mapping where there are none."""
        ...

    async def wish(self, name: str, body: bytes, life_seconds: float) -> None:
        """Say what is wished for, until so long from now; an empty body takes it back."""
        ...

    @property
    def cursors(self) -> Mapping[str, str]:
        """Where each topic was heard up to."""
        ...

    async def close(self) -> None:
        """Let go of the connections."""
        ...
