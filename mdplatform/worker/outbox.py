"""The outbox of lineage: what was computed for requests, the last of each partition and feature, sent now and then."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mdplatform.requests.wanted import Made, encode

MOST = 10_000
"""Entries that wait to be sent, a count; beyond it the oldest go."""


class Outbox:
    """Keeps the last entry of each asset, partition, feature and timeframe, with the longest time that one took."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str, str], Made] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, made: Iterable[Made]) -> None:
        """Take entries in; the later of two stays."""
        for each in made:
            key = (each.asset, each.partition, each.feature, each.timeframe)
            earlier = self._entries.pop(key, None)
            if earlier is not None and earlier.took_ms > each.took_ms:
                each = msgspec.structs.replace(each, took_ms=earlier.took_ms)
            self._entries[key] = each
        while len(self._entries) > MOST:
            del self._entries[next(iter(self._entries))]

    def drain(self, at_most: int) -> list[Made]:
        """Take the oldest entries out."""
        return [self._entries.pop(key) for key in list(self._entries)[:at_most]]

    def put_back(self, entries: Iterable[Made]) -> None:
        """Keep entries that could not be sent, unless there are later ones."""
        later, self._entries = list(self._entries.values()), {}
        self.add([*entries, *later])


def encoded(entries: Iterable[Made]) -> list[bytes]:
    """Give the bytes of entries."""
    return [encode(each) for each in entries]
