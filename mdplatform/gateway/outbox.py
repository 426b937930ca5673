"""The outbox of one WebSocket: what waits to be sent, within bounds.

Where a client reads more slowly than answers come, the policy is: first progress is dropped, then answers of a standing
request that a newer one has overtaken. If what must not be lost does not fit even so, the connection is closed; the
client comes back and resumes by its ids, since final answers are kept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from mdplatform.gateway.rendering import weight
from mdplatform.requests.answer import AnswerBody, Progress

MOST_MESSAGES = 2_000
MOST_BYTES = 32_000_000
_SMALL = 500


@dataclass(frozen=True)
class Letter:
    """A message to the client: something told as it is, or a reply that is rendered when its turn comes."""

    what: dict[str, Any] | AnswerBody | Progress

    @property
    def size(self) -> int:
        """About how many bytes it holds."""
        return _SMALL + (weight(self.what) if isinstance(self.what, AnswerBody) else 0)

    @property
    def overtaken_by(self) -> str:
        """The request whose newer answers make this one superfluous; empty where none does."""
        return self.what.request_id if isinstance(self.what, AnswerBody) and not self.what.final else ""


class Outbox:
    """A bounded queue with one reader, for one event loop."""

    def __init__(self, most_messages: int = MOST_MESSAGES, most_bytes: int = MOST_BYTES) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._letters: deque[Letter] = deque()
        self._bytes = 0
        self._there = asyncio.Event()
        self.dropped = 0
        """How many were left out."""
        self.overflowed = False
        """Set once something that must not be lost did not fit; nothing is taken any more then."""

    def put(self, letter: Letter) -> None:
        """Add a message, making room by the policy."""
        if self.overflowed:
            return
        self._letters.append(letter)
        self._bytes += letter.size
        if self._is_full():
            self._keep([each for each in self._letters if not isinstance(each.what, Progress)])
        if self._is_full():
            newest = {each.overtaken_by: each for each in self._letters}
            self._keep([each for each in self._letters if newest[each.overtaken_by] is each or not each.overtaken_by])
        if self._is_full():
            self._keep([])
            self.overflowed = True
        self._there.set()

    async def take(self) -> Letter | None:
        """Give the oldest message; wait for one. None once it has overflowed."""
        while not self._letters and not self.overflowed:
            self._there.clear()
            await self._there.wait()
        if self.overflowed:
            return None
        letter = self._letters.popleft()
        self._bytes -= letter.size
        return letter

    def _is_full(self) -> bool:
        return len(self._letters) > self._most_messages or self._bytes > self._most_bytes

    def _keep(self, letters: list[Letter]) -> None:
        self.dropped += len(self._letters) - len(letters)
        self._letters = deque(letters)
        self._bytes = sum(each.size for each in letters)
