"""How much a transport holds at most: the same for each."""

from __future__ import annotations

from mdplatform.messaging.priority import DataPriority
from mdplatform.settings import Settings

LONGEST_DEADLINE_US = 7 * 86_400 * 1_000_000
"""How far away a deadline counts, in microseconds; requests have at most a day, but the transport cannot read them."""

_FACTORS = {
    DataPriority.CRITICAL: 1.5,
    DataPriority.HIGH: 1.25,
    DataPriority.NORMAL: 1.1,
    DataPriority.LOW: 1.0,
}


def capacities(settings: Settings) -> list[int]:
    """Give how many may be in flight before a request is refused, for each class from the most urgent.

    >>> capacities(Settings(request_capacity=1000))
    [1500, 1250, 1100, 1000]
    """
    return [round(settings.request_capacity * _FACTORS[each]) for each in DataPriority]


def most_standing(settings: Settings) -> int:
    """Give how many standing requests there may be beside those in flight."""
    return 10 * settings.request_capacity


def most_tombstones(settings: Settings) -> int:
    """Give how many settled ids are remembered, whatever their age."""
    return max(100_000, settings.answers_kept)


def keeping(settings: Settings) -> list[int]:
    """Give how many answers are kept, how many bytes of them, and for how long, in microseconds."""
    return [settings.answers_kept, settings.answers_kept_mb * 1_000_000, round(settings.answers_kept_seconds * 1e6)]
