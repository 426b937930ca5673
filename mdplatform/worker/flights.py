"""Flights: equal work under way in this process is waited for, not done again.

Work is equal if its key is, and the key has in it the sequences and stamps that were read before it began: so whoever
joins it gets what is as new as what it would compute itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Flights(Generic[T]):
    """What is under way, by key; for one event loop."""

    def __init__(self) -> None:
        self._flying: dict[Hashable, asyncio.Future[T]] = {}

    def __len__(self) -> int:
        return len(self._flying)

    def join(self, key: Hashable) -> tuple[asyncio.Future[T], bool]:
        """Give the future of that work, and whether it is new: then the caller has to see to it that it gets done."""
        future = self._flying.get(key)
        if future is not None:
            return future, False
        future = self._flying[key] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: self._flying.pop(key, None))
        return future, True
