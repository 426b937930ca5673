"""Waiting: how long before something is tried again, and how often something may be done at all."""

from __future__ import annotations

import asyncio
import random
from collections import deque


class Backoff:
    """Delays that double from `first` up to `cap` seconds, each between half and all of it by chance."""

    def __init__(self, first: float = 0.25, cap: float = 30.0) -> None:
        self._first, self._cap = first, cap
        self._tries = 0

    def next(self) -> float:
        """Give the next delay, in seconds."""
        delay = min(self._first * 2.0 ** min(self._tries, 60), self._cap)
        self._tries += 1
        return delay * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin anew: it went well."""
        self._tries = 0


class Pace:
    """Lets through at most `amount` in any `seconds`; who comes too early waits, in the order of coming."""

    def __init__(self, amount: float, seconds: float) -> None:
        self._amount, self._seconds = amount, seconds
        self._done: deque[tuple[float, float]] = deque()
        self._sum = 0.0
        self._turn = asyncio.Lock()

    async def wait(self, weight: float = 1.0) -> None:
        """Wait until `weight` more may be done, and count it."""
        clock = asyncio.get_running_loop().time
        async with self._turn:
            while True:
                while self._done and self._done[0][0] <= clock() - self._seconds:
                    self._sum -= self._done.popleft()[1]
                if not self._done or self._sum + weight <= self._amount:
                    break
                await asyncio.sleep(self._done[0][0] + self._seconds - clock() + 0.001)
            self._done.append((clock(), weight))
            self._sum += weight
