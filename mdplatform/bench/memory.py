"""The memory of processes while something is measured: resident bytes, sampled at equal steps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import psutil


class Memory:
    """Samples of resident memory in MB by name of the process; `below` names the children of a process together."""

    def __init__(self, pids: Mapping[str, int], below: Mapping[str, int]) -> None:
        self.seconds: list[float] = []
        self.resident: dict[str, list[float]] = {name: [] for name in (*pids, *below)}
        self._pids = dict(pids)
        self._below = dict(below)
        self._began = time.monotonic()

    def sample(self) -> None:
        """Take one sample; a process that has ended has 0."""
        self.seconds.append(time.monotonic() - self._began)
        for name, pid in self._pids.items():
            self.resident[name].append(_resident(pid) / 1e6)
        for name, pid in self._below.items():
            self.resident[name].append(sum(map(_resident, _children(pid))) / 1e6)

    async def watch(self, step_seconds: float) -> None:
        """Sample again and again, until cancelled."""
        while True:
            await asyncio.to_thread(self.sample)
            await asyncio.sleep(step_seconds)

    def summary(self) -> dict[str, dict[str, float]]:
        """Give of each process the first, last and highest sample, and what it grew in the second half, in MB."""
        found: dict[str, dict[str, float]] = {}
        for name, samples in self.resident.items():
            taken = [each for each in samples if each > 0]
            if taken:
                behind = taken[len(taken) // 2 :]
                quarter = max(1, len(behind) // 4)
                grown = sum(behind[-quarter:]) / quarter - sum(behind[:quarter]) / quarter
                first, last, most = taken[0], taken[-1], max(taken)
                values = {"first_mb": first, "last_mb": last, "max_mb": most, "grown_mb": grown}
                found[name] = {name: round(value, 1) for name, value in values.items()}
        return found


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _children(pid: int) -> list[int]:
    try:
        return [each.pid for each in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
