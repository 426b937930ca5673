"""Timings: how long each stage of a read took."""

from __future__ import annotations

import time


class Timings:
    """A stop-watch with named laps, in milliseconds."""

    def __init__(self) -> None:
        self._began = self._lap = time.perf_counter()
        self._stages: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """Count the time since the last mark to `stage`."""
        now = time.perf_counter()
        self._stages[stage] = self._stages.get(stage, 0.0) + (now - self._lap) * 1000
        self._lap = now

    def finish(self) -> dict[str, float]:
        """Give the stages and their `total`, rounded to a tenth of a microsecond."""
        self._stages["total"] = (time.perf_counter() - self._began) * 1000
        return {stage: round(taken, 4) for stage, taken in self._stages.items()}
