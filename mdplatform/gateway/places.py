"""Places: how many WebSockets may be open, of those who have shown a key and of those who are about to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from mdplatform.gateway.problems import Refusal

MOST_OF_A_KEY = 100
MOST_IN_ALL = 1_000
MOST_STRANGERS = 32
"""Those who have not shown their key yet; each may make the server hold some messages."""


class Places:
    """Counts open WebSockets, from before they are accepted until they are closed."""

    def __init__(self) -> None:
        self._of_keys: Counter[str] = Counter()
        self._strangers = 0

    @contextmanager
    def of_key(self, name: str) -> Iterator[None]:
        """Take a place of a key. Raises a refusal (429) where there is none."""
        if self._of_keys[name] >= MOST_OF_A_KEY or self._of_keys.total() >= MOST_IN_ALL:
            raise _full(f"At most {MOST_OF_A_KEY} a key; one carries many requests")
        self._of_keys[name] += 1
        try:
            yield
        finally:
            self._of_keys[name] -= 1
            self._of_keys += Counter()  # forgets those at zero

    @contextmanager
    def of_stranger(self) -> Iterator[None]:
        """Take a place of those who show their key later. Raises a refusal (429) where there is none."""
        if self._strangers >= MOST_STRANGERS:
            raise _full("Show the key as a header, or as a subprotocol `mdplatform.key.KEY`; or try again")
        self._strangers += 1
        try:
            yield
        finally:
            self._strangers -= 1


def _full(remedy: str) -> Refusal:
    headers = {"Retry-After": "5"}
    return Refusal(429, "Too many connections are open", kind="too-many-connections", remedy=remedy, headers=headers)
