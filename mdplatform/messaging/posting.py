"""What every broadcast refuses, and how much of a topic it keeps: the same for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mdplatform.errors import InvalidPost
from mdplatform.messaging.broadcast import Post
from mdplatform.settings import Settings

BEGINNING = "0-0"
"""The place before the first post of a topic."""
LARGEST = 16_000_000
"""The largest body or value, in bytes."""
LONGEST_NAME = 200
"""The longest topic or name, in bytes of UTF-8."""
MOST_FACTS = 1000
"""The most facts that change with one post."""
LONGEST_LIFE = 86_400.0
"""How long a wish may live, in seconds."""
_LEAST_KEPT = 10
_ENTRY_BYTES = 64
_WEIGHT = 0.1


def check_topics(topics: Iterable[str]) -> None:
    """Raise `InvalidPost` if one cannot be a topic."""
    for topic in topics:
        check_name(topic, "topic")


def check_name(name: str, what: str) -> None:
    """Raise `InvalidPost` if a text cannot be the name of a topic, a fact or a wish."""
    try:
        if isinstance(name, str) and 1 <= len(name.encode()) <= LONGEST_NAME:
            return
    except UnicodeEncodeError:
        pass
    shown = name if not isinstance(name, str) or len(name) <= LONGEST_NAME else f"{name[:40]}…"
    raise InvalidPost(
        f"The name of a {what} is refused", value=shown, remedy=f"Give a text of 1 to {LONGEST_NAME} bytes in UTF-8"
    )


def check_posts(posts: Sequence[Post]) -> None:
    """Raise `InvalidPost` if one cannot be sent, before any of them is."""
    for post in posts:
        check_name(post.topic, "topic")
        _check_bytes(post.body, "body", post.topic)
        if post.facts:
            if len(post.facts) > MOST_FACTS:
                raise InvalidPost(
                    "A post has too many facts", value=len(post.facts), remedy=f"Up to {MOST_FACTS} are allowed"
                )
            for name, value in post.facts.items():
                check_name(name, "fact")
                _check_bytes(value, "fact", f"{post.topic}/{name}")


def check_wish(name: str, body: bytes, life_seconds: float) -> None:
    """Raise `InvalidPost` if this cannot be wished."""
    check_name(name, "wish")
    _check_bytes(body, "wish", name)
    if not 0 < life_seconds <= LONGEST_LIFE:
        raise InvalidPost(
            "The life of a wish is refused", value=life_seconds, remedy=f"Give seconds, up to {LONGEST_LIFE:.0f}"
        )


def read_place(place: str, topic: str) -> tuple[int, int]:
    """Give microseconds and number of a cursor `<microseconds>-<number>`. Raises `InvalidPost`."""
    first, dash, second = place.partition("-") if isinstance(place, str) else ("", "", "")
    if dash and all(each.isascii() and each.isdigit() and len(each) <= 16 for each in (first, second)):
        return int(first), int(second)
    raise InvalidPost(
        f"The cursor of {topic} cannot be read",
        value=place,
        remedy="Give one that a listener gave, 0-0 for all that is kept, or none for what comes from now on",
    )


class Keeping:
    """How many posts of a topic are kept: as many as the settings say, fewer where all topics would take too much.

    Each topic has the same share of `live_kept_mb`; how many posts are that is told by what its posts have measured.
    """

    def __init__(self, settings: Settings) -> None:
        self._count = settings.live_kept
        self._bytes = settings.live_kept_mb * 1_000_000
        self._sizes: dict[str, float] = {}

    def of(self, topic: str, size: int) -> int:
        """Give how many of a topic are kept once a post of `size` bytes has been added."""
        size += _ENTRY_BYTES
        known = self._sizes.get(topic, size)
        typical = self._sizes[topic] = known + _WEIGHT * (size - known)
        return max(_LEAST_KEPT, min(self._count, int(self._bytes / (len(self._sizes) * typical))))


def changed(facts: dict[str, bytes], changes: Mapping[str, bytes]) -> None:
    """Put changes into facts; an empty value takes one away."""
    for name, value in changes.items():
        if value:
            facts[name] = value
        else:
            facts.pop(name, None)


def _check_bytes(value: object, what: str, of: str) -> None:
    if not isinstance(value, bytes):
        raise InvalidPost(f"The {what} of {of} is no bytes", value=type(value).__name__, remedy="Give bytes")
    if len(value) > LARGEST:
        raise InvalidPost(
            f"The {what} of {of} is too large", value=len(value), remedy=f"Up to {LARGEST} bytes are allowed"
        )
