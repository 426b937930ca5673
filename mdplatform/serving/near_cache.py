"""The near cache: what Redis holds, kept in this process, until Redis says that it has changed.

It is fed by what is read, and told by `tracking` which keys have been written since. A message and an answer come on
two connections, in any order: what is read before a write may arrive after the word of it, and would stay wrong for
ever. So each read is a *fill* with a token:

1. `begin`, before Redis is asked, takes note of the keys that are to come.
2. A word that a key was written (`forget`) forgets its value, and voids the fills of it that are under way.
3. `keep` keeps those values whose fills are not void. Who reads a void one has a right answer, which is not kept.

Fills of one key at a time share a token, so that a crowd of readers of one key does not void its own fills. A key that
does not exist is a value, too: `None`. While the tracking connection is down nothing is held, and no fill begins.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_OVERHEAD = 300
"""What an entry takes beside its key and its value, in bytes: measured."""


@dataclass(slots=True, eq=False)
class _Token:
    """Fills of one key that are under way, of which no word has come since the first began."""

    fills: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Fill:
    """What is being read: a token for each key. Each fill is ended by `NearCache.keep`."""

    tokens: Mapping[str, _Token]


class NearCache:
    """Keeps values by their keys, at most so many bytes of them: the longest unused goes first. Thread-safe."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._under_way: dict[str, _Token] = {}
        self._is_open = False
        self._lock = threading.Lock()
        self.size = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def filling(self) -> int:
        """How many keys are being read, and no word has come of them."""
        return len(self._under_way)

    def open(self) -> None:
        """Let fills begin: from now on every write is told."""
        with self._lock:
            self._is_open = True

    def close(self) -> None:
        """Hold nothing, and let no fill begin: what is written is told no longer."""
        with self._lock:
            self._is_open = False
            self._flush()

    def get(self, keys: Sequence[str]) -> list[Any] | None:
        """Give the values of all these keys, None if any is not held."""
        with self._lock:
            found = []
            for key in keys:
                entry = self._held.get(key)
                if entry is None:
                    return None
                self._held.move_to_end(key)
                found.append(entry[0])
            return found

    def begin(self, keys: Iterable[str]) -> Fill | None:
        """Take note that these keys are about to be read; None where nothing would be kept. Call it before reading."""
        with self._lock:
            if not self._is_open:
                return None
            tokens = {}
            for key in keys:
                token = self._under_way.get(key)
                if token is None:
                    token = self._under_way[key] = _Token()
                if key not in tokens:
                    token.fills += 1
                    tokens[key] = token
            return Fill(tokens)

    def keep(self, fill: Fill, values: Mapping[str, bytes | None]) -> None:
        """End a fill with what was read, nothing if that failed; what was written since it began is not kept."""
        with self._lock:
            for key, token in fill.tokens.items():
                if self._under_way.get(key) is token and key in values:
                    self._put(key, values[key])
                token.fills -= 1
                if not token.fills and self._under_way.get(key) is token:
                    del self._under_way[key]

    def replace(self, key: str, had: object, value: object) -> None:
        """Put another form of the same value in its place, if it is held still."""
        with self._lock:
            entry = self._held.get(key)
            if entry is not None and entry[0] is had:
                self._held[key] = (value, entry[1])

    def forget(self, keys: Iterable[str] | None) -> None:
        """Take note that these keys were written, or all that there are (None)."""
        with self._lock:
            if keys is None:
                self._flush()
                return
            for key in keys:
                self._under_way.pop(key, None)
                self._drop(key)

    def _put(self, key: str, value: bytes | None) -> None:
        self._drop(key)
        size = _OVERHEAD + len(key) + (0 if value is None else len(value))
        if size > self._most_bytes:
            return
        self._held[key] = (value, size)
        self.size += size
        while self.size > self._most_bytes:
            self._drop(next(iter(self._held)))

    def _drop(self, key: str) -> None:
        entry = self._held.pop(key, None)
        if entry is not None:
            self.size -= entry[1]

    def _flush(self) -> None:
        self._held.clear()
        self._under_way.clear()
        self.size = 0
