"""What a worker has in hand: how many of each class it takes at once, so that none starves and nothing is hoarded.

A worker takes again whenever it has room, a few of each class at a time, the most urgent first. As long as a class has
more waiting than was taken, those below it get a small share: enough that a flood of one starves none, little enough
that it does not slow the flood down. What it has not taken another worker may take.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping

from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import Delivery

HELD = {DataPriority.CRITICAL: 64, DataPriority.HIGH: 24, DataPriority.NORMAL: 20, DataPriority.LOW: 16}
"""The most that a worker has in hand of each class."""
AT_ONCE = {DataPriority.CRITICAL: 32, DataPriority.HIGH: 12, DataPriority.NORMAL: 10, DataPriority.LOW: 8}
"""The most that it takes of each class in one go."""
RESERVED = {DataPriority.CRITICAL: 32, DataPriority.HIGH: 4, DataPriority.NORMAL: 2, DataPriority.LOW: 1}
"""The same while more of a more urgent class is waiting."""


class Hands:
    """The deliveries that are being worked on. `freed` is set when a class that had no room has some again."""

    def __init__(self, held: Mapping[DataPriority, int] = HELD) -> None:
        self.freed = asyncio.Event()
        self._limits = held
        self._held: dict[tuple[str, str], Delivery] = {}
        self._counts = dict.fromkeys(DataPriority, 0)
        self._crowded = len(DataPriority)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def deliveries(self) -> list[Delivery]:
        """What is in hand."""
        return list(self._held.values())

    def shares(self, of: Collection[DataPriority] = tuple(DataPriority)) -> dict[DataPriority, int]:
        """Give how many of each class to take now; classes without room are left out."""
        at_once = {each: (RESERVED if each.rank > self._crowded else AT_ONCE)[each] for each in of}
        room = {each: min(self._limits[each] - self._counts[each], most) for each, most in at_once.items()}
        return {priority: count for priority, count in room.items() if count > 0}

    def took(self, shares: Mapping[DataPriority, int], taken: Counter[DataPriority]) -> None:
        """Note what came of a taking: the most urgent class that gave its whole share has more."""
        crowded = (each.rank for each in DataPriority if each in shares and taken[each] >= shares[each])
        self._crowded = min(crowded, default=len(DataPriority))

    def take(self, delivery: Delivery) -> bool:
        """Have a delivery in hand; False if it is already (it was claimed from ourselves)."""
        key = (delivery.envelope.id, delivery.token)
        if key in self._held:
            return False
        self._held[key] = delivery
        self._counts[delivery.envelope.priority] += 1
        return True

    def drop(self, delivery: Delivery) -> None:
        """Be done with it."""
        if self._held.pop((delivery.envelope.id, delivery.token), None) is not None:
            priority = delivery.envelope.priority
            if self._counts[priority] >= self._limits[priority]:
                self.freed.set()
            self._counts[priority] -= 1
