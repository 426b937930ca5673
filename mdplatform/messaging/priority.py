"""The classes of priority and their targets."""

from __future__ import annotations

from enum import StrEnum


class DataPriority(StrEnum):
    """How urgent a request is. The target is measured from send to callback.

    >>> DataPriority.CRITICAL.target_seconds, list(DataPriority)[-1].value
    (0.1, 'LOW')
    """

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    NORMAL = "NORMAL"
    LOW = "LOW"

    @property
    def target_seconds(self) -> float:
        """Within what time an answer should come, in seconds."""
        return _TARGETS[self]

    @property
    def rank(self) -> int:
        """0 for the most urgent."""
        return _RANKS[self]


_TARGETS = {
    DataPriority.CRITICAL: 0.1,
    DataPriority.HIGH: 0.5,
    DataPriority.NORMAL: 2.0,
    DataPriority.LOW: 10.0,
}
_RANKS = {each: rank for rank, each in enumerate(DataPriority)}
