"""The evaluator: from checked requests to values, from the nearest place that has them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

from mdplatform.errors import PlatformError
from mdplatform.lake import Lake
from mdplatform.requests.answer import AnswerBody, Missing, Part, Problem, Status
from mdplatform.requests.request import DataRequest
from mdplatform.requests.wanted import Made, RunWanted, need
from mdplatform.serving.lookup import Library
from mdplatform.settings import Settings
from mdplatform.worker.computing import compute
from mdplatform.worker.questions import AnyQuestion, questions

_log = logging.getLogger(__name__)


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
        self._library = Library(settings, lake)
        self._worker = worker
        self._layers: Counter[str] = Counter()

    async def evaluate(self, requests: Sequence[DataRequest], runs_over: Collection[str] = ()) -> list[Outcome]:
        """Give the outcome of each; never raises for what is asked: a problem is in the body.

        `runs_over` are the ids of requests whose runs are over: what is still missing is not wanted again.
        """
        return [await asyncio.to_thread(self._one, request) for request in requests]

    def _one(self, request: DataRequest) -> Outcome:
        try:
            asked = questions(request)
        except PlatformError as refused:
            return Outcome(self._body(request, Status.REJECTED, problem=problem_of(refused)), ())
        began = time.perf_counter()
        parts: list[Part] = []
        missing: list[Missing] = []
        first: PlatformError | None = None
        for each in asked:
            try:
                parts.append(compute(self._library, each).part)
                self._layers["lake"] += 1
            except PlatformError as failed:
                first = first or failed
                missing.append(missing_of(each, failed))
        status = Status.OK if not missing else Status.PARTIAL if parts else Status.FAILED
        timings = {"compute": (time.perf_counter() - began) * 1000}
        body = self._body(request, status, parts, missing, problem_of(first) if first and not parts else None, timings)
        depends_on = dict.fromkeys(need(*one) for each in asked for one in each.needs)
        return Outcome(body, tuple(depends_on), watermark=max((each.available_at for each in parts), default=0))

    def _body(
        self,
        request: DataRequest,
        status: Status,
        parts: Sequence[Part] = (),
        missing: Sequence[Missing] = (),
        problem: Problem | None = None,
        timings: dict[str, float] | None = None,
    ) -> AnswerBody:
        return AnswerBody(
            request_id=request.request_id,
            strategy_id=request.strategy_id,
            type=request.type,
            status=status,
            parts=tuple(parts),
            missing=tuple(missing),
            problem=problem,
            worker=self._worker,
            answered_at=time.time_ns() // 1000,
            timings_ms=timings or {},
        )

    @property
    def answered_by_layer(self) -> dict[str, int]:
        """How many results came from where: `near`, `redis`, `memory`, `lake`, `run`."""
        return dict(self._layers)

    async def close(self) -> None:
        """Let go of Redis."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def problem_of(error: PlatformError) -> Problem:
    """Say an error in the words of an answer."""
    return Problem(
        error=type(error).__name__,
        cause=error.cause,
        remedy=error.remedy,
        field=error.field,
        value="" if error.value is None else str(error.value),
    )


def missing_of(question: AnyQuestion, error: PlatformError) -> Missing:
    """Say what is not in an answer, and why."""
    cause = error.cause if error.value is None else f"{error.cause}: {error.value}"
    return Missing(
        symbol=question.symbol,
        timeframe=question.timeframe_name,
        feature=question.feature,
        cause=cause,
        remedy=error.remedy,
    )
