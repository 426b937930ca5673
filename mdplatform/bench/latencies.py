"""Latencies: as many as come, in as little memory as a few hundred counts.

They are counted in bins that grow by a hundredth each, so that every percentile is right to 1 %, and by the stretch of
time in which they were noted.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable

import msgspec
import numpy as np

_GROWTH = math.log(1.01)
_AT_ONCE = 50_000


class Counts(msgspec.Struct):
    """How many latencies there were in each bin: bin n ends at 1.01^n µs. `longest` is in µs."""

    bins: dict[int, int] = {}
    longest: int = 0

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(self.bins.values())

    def percentile_ms(self, share: float) -> float:
        """Give the value that this share stays within, in milliseconds, too high by 1 % at most; 0 of nothing."""
        left = max(1, math.ceil(self.total * share))
        for number in sorted(self.bins):
            left -= self.bins[number]
            if left <= 0:
                return min(math.exp(number * _GROWTH), float(self.longest)) / 1000
        return 0.0


def together(counts: Iterable[Counts]) -> Counts:
    """Sum up."""
    bins: Counter[int] = Counter()
    longest = 0
    for each in counts:
        bins.update(each.bins)
        longest = max(longest, each.longest)
    return Counts(dict(bins), longest)


class Latencies:
    """Notes latencies (µs), and counts them by stretches of `stretch_seconds`."""

    def __init__(self, stretch_seconds: float) -> None:
        self.stretches: list[Counts] = []
        self._stretch_us = stretch_seconds * 1e6
        self._number = -1
        self._begins = self._ends = 0.0
        self._noted: array[int] = array("q")

    def note(self, latency: int, after: int) -> None:
        """Note a latency; it ended `after` µs from the beginning of all."""
        if not self._begins <= after < self._ends or len(self._noted) >= _AT_ONCE:
            self.count()
            self._number = int(after // self._stretch_us)
            self._begins = self._number * self._stretch_us
            self._ends = self._begins + self._stretch_us
        self._noted.append(latency)

    def count(self) -> list[Counts]:
        """Count what was noted; give the counts of all stretches so far."""
        if self._noted:
            taken = np.maximum(np.frombuffer(self._noted, dtype=np.int64), 1)
            numbers, counts = np.unique(np.ceil(np.log(taken) / _GROWTH).astype(np.int64), return_counts=True)
            found = Counts(dict(zip(numbers.tolist(), counts.tolist(), strict=True)), int(taken.max()))
            self.stretches += [Counts() for _ in range(len(self.stretches), self._number + 1)]
            self.stretches[self._number] = together([self.stretches[self._number], found])
            self._noted = array("q")
        return self.stretches
