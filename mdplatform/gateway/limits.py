"""Limits: a token bucket for each key."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_BUCKETS = 20_000


class Limits:
    """Counts what each key asks. A key with `per_second` 50 may ask 100 at once, then 50 each second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, id: str, per_second: float, count: int = 1) -> float:
        """Take `count` from the key's bucket; give 0, or after how many seconds it may try again.

        More at once than the bucket holds is let through when it is full, and paid back by waiting longer.
        """
        now = self._clock()
        most = max(1.0, 2 * per_second)
        held, at = self._buckets.pop(id, (most, now))
        held = min(most, held + max(0.0, now - at) * per_second)
        needed = min(float(count), most)
        allowed = held >= needed - 1e-9
        self._buckets[id] = (held - count if allowed else held, now)
        while len(self._buckets) > _MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (needed - held) / per_second
