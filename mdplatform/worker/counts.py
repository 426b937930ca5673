"""The counters of a worker: what it took, and what became of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mdplatform.requests.answer import Status


@dataclass
class Counts:
    """How many since the worker's start.

    `answered` are final answers that were recorded, by status; `superseded` are those that came after another one
    (cancelled, expired, answered twice). `told` are numbered answers of standing requests. `failures` are errors of the
    worker itself, each of which is in its log with a traceback.
    """

    taken: int = 0
    answered: Counter[Status] = field(default_factory=Counter)
    superseded: int = 0
    told: int = 0
    parked: int = 0
    released: int = 0
    reclaimed: int = 0
    buried: int = 0
    expired: int = 0
    failures: int = 0
    outages: int = 0

    def to_dict(self) -> dict[str, int]:
        """Give all counters by name; those of answers as `answered_ok` and so on.

        >>> counts = Counts(taken=2)
        >>> counts.answered[Status.OK] += 1
        >>> {name: count for name, count in counts.to_dict().items() if count}
        {'taken': 2, 'answered_ok': 1}
        """
        plain = {name: value for name, value in vars(self).items() if name != "answered"}
        return plain | {f"answered_{status}": self.answered[status] for status in Status}
