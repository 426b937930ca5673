"""The evaluator: from checked requests to values, from the nearest place that has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from mdplatform.lake import Lake
from mdplatform.requests.answer import AnswerBody
from mdplatform.requests.request import DataRequest
from mdplatform.requests.wanted import Made, RunWanted
from mdplatform.settings import Settings


@dataclass(frozen=True)
class Outcome:
    """What became of a request: its answer as of now, and what a better one would need.

    `wanted` are partitions that are missing and could be fetched, None where a run would not help. `needs` are what its
    values depend on (`wanted.need`): a standing request waits for these. `made` is what was computed for it, for the
    lineage. `watermark` is the newest `available_at` among the answer's rows, in microseconds, 0 without any.
    """

    body: AnswerBody
    needs: tuple[str, ...]
    wanted: RunWanted | None = None
    made: tuple[Made, ...] = ()
    watermark: int = 0


class Evaluator:
    """Answers checked requests inside one event loop. Close it."""

    def __init__(self, settings: Settings, *, worker: str, lake: Lake | None = None) -> None:
        raise NotImplementedError

    async def evaluate(self, requests: Sequence[DataRequest]) -> list[Outcome]:
        """Give the outcome of each; never raises for what is asked: a problem is in the body."""
        raise NotImplementedError

    @property
    def answered_by_layer(self) -> dict[str, int]:
        """How many results came from where: `near`, `redis`, `memory`, `lake`, `run`."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of Redis."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
