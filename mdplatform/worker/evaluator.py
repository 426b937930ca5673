"""The evaluator: from checked requests to values, from the nearest place that has them.

1. A request becomes questions, one for each result (`questions`).
2. Their answers are found, or computed once for all who ask (`finder`, `workshop`).
3. Where something is missing that a source may have, the request is to wait for a run (`shortfall`); else what there is
   makes the answer: `ok`, `partial` with what is missing, or `failed`.
4. Each result says where it came from, how good it is (`market.quality`), and what it took. What was computed here is
   told for the lineage.

A call for each request is as quick as one call for many: what is asked in one tick of the loop is looked up together.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import msgspec

from mdplatform.errors import PlatformError, RequestFailed
from mdplatform.lake import Lake
from mdplatform.requests.answer import AnswerBody, Missing, Part, PartKind, Problem, Status
from mdplatform.requests.request import DataRequest
from mdplatform.requests.wanted import Made, RunWanted, need
from mdplatform.settings import Settings
from mdplatform.worker.finder import Answered, Finder
from mdplatform.worker.lineage import made
from mdplatform.worker.memory import MEMORY_BYTES, HeldLake
from mdplatform.worker.near import NEAR_BYTES
from mdplatform.worker.questions import AnyQuestion, questions
from mdplatform.worker.shortfall import Shortfall, shortfall
from mdplatform.worker.telling import finished, missing_of, problem_of

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
    """Answers checked requests inside one event loop. Close it.

    `near_bytes` and `memory_bytes` bound what is kept of answers and of bars.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        worker: str,
        lake: Lake | None = None,
        near_bytes: int = NEAR_BYTES,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        held = HeldLake(settings.lake_dir if lake is None else lake.folder, memory_bytes)
        self._finder = Finder(settings, held, worker=worker, near_bytes=near_bytes)
        self._lake = held
        self._settings = settings
        self._worker = worker
        self._layers: Counter[str] = Counter(dict.fromkeys(("near", "redis", "memory", "lake", "run"), 0))

    async def evaluate(
        self,
        requests: Sequence[DataRequest],
        runs_over: Collection[str] = (),
        runs: Mapping[str, Mapping[str, str]] | None = None,
    ) -> list[Outcome]:
        """Give the outcome of each; never raises for what is asked: a problem is in the body.

        `runs_over` are the ids of requests whose runs are over: what is still missing is not wanted again. `runs` says
        which run brought a need (`wanted.need`) that a request had waited for: run ids by need, by request id.
        """
        plans = [_planned(request) for request in requests]
        ranked: dict[AnyQuestion, int] = {}
        for request, plan in zip(requests, plans, strict=True):
            for each in () if isinstance(plan, PlatformError) else plan:
                ranked[each] = min(request.priority.rank, ranked.get(each, request.priority.rank))
        stages: dict[str, float] = {}
        answered = await self._finder.find(ranked, stages) if ranked else {}
        told: set[AnyQuestion] = set()
        outcomes: list[Outcome] = []
        for request, plan in zip(requests, plans, strict=True):
            if isinstance(plan, PlatformError):
                outcomes.append(self._refused(request, plan))
                continue
            lacking = None
            if any(_may_lack(each, answered[each]) for each in plan):
                lacking = await self._lacking(request, plan, answered, request.request_id in runs_over)
            brought = (runs or {}).get(request.request_id, {})
            outcomes.append(self._outcome(request, plan, answered, stages, lacking, told, brought))
        return outcomes

    @property
    def answered_by_layer(self) -> dict[str, int]:
        """How many results came from where: `near`, `redis`, `memory`, `lake`, `run`.

        A hit on what a run had published counts as `near` or `redis`, where it was found; `run` is what requests had
        waited for until a run brought it.
        """
        return dict(self._layers)

    @property
    def computations(self) -> int:
        """How many results were computed in this process: equal ones that were asked for together count once."""
        return self._finder.workshop.computations

    async def close(self) -> None:
        """Let go of Redis; what is being computed is left."""
        await self._finder.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _refused(self, request: DataRequest, error: PlatformError) -> Outcome:
        status = Status.FAILED if isinstance(error, RequestFailed) else Status.REJECTED
        return Outcome(self._body(request, status, problem=problem_of(error)), ())

    async def _lacking(
        self, request: DataRequest, plan: Sequence[AnyQuestion], answered: dict[AnyQuestion, Answered], over: bool
    ) -> Shortfall:
        """Look, in a thread, what the lake lacks for a request."""
        asked = [(each, _has_values(answered[each])) for each in plan]
        now = time.time_ns() // 1000
        look = partial(shortfall, self._lake, self._settings, asked, now, run_is_over=over)
        try:
            return await self._finder.workshop.threads.run(request.priority.rank, look).future
        except Exception:  # noqa: BLE001 (it is logged, and what there is makes the answer)
            _log.exception("What the lake lacks for %s cannot be told", request.request_id)
            return Shortfall({})

    def _outcome(
        self,
        request: DataRequest,
        plan: Sequence[AnyQuestion],
        answered: dict[AnyQuestion, Answered],
        stages: dict[str, float],
        lacking: Shortfall | None,
        told: set[AnyQuestion],
        brought: Mapping[str, str],
    ) -> Outcome:
        began = time.perf_counter()
        now = time.time_ns() // 1000
        timings = dict(stages)
        parts: list[Part] = []
        missing: list[Missing] = []
        computed: list[Made] = []
        errors: list[PlatformError] = []
        for question in plan:
            answer = answered[question]
            found = answer.found
            for stage, took in found.took_ms.items():
                timings[stage] = max(timings.get(stage, 0.0), took)
            if answer.cut is None:
                error = found.error or RequestFailed("Nothing came of it", remedy="Ask again")
                errors.append(error)
                missing.append(missing_of(question, error))
                continue
            run_id = next((brought[name] for each in question.needs if (name := need(*each)) in brought), "")
            part = finished(question, answer.cut, found, now, run_id)
            parts.append(part)
            self._layers[part.layer] += 1
            if answer.computed_here and question not in told:
                told.add(question)
                computed.append(made(question, part, request, self._worker, found.took_ms.get("compute", 0.0)))
        wanted = None
        problem = problem_of(errors[0]) if errors and not parts else None
        if lacking is not None:
            told_already = {(each.symbol, each.timeframe, each.feature) for each in lacking.missing}
            missing = [each for each in missing if (each.symbol, each.timeframe, each.feature) not in told_already]
            missing += [*lacking.missing, *lacking.too_much]
            if problem is not None and lacking.too_much:
                first = lacking.too_much[0]
                problem = msgspec.structs.replace(problem, cause=first.cause, remedy=first.remedy)
            if lacking.partitions:
                wanted = RunWanted(
                    request_id=request.request_id,
                    strategy_id=request.strategy_id,
                    priority=request.priority,
                    partitions=lacking.partitions,
                    deadline=request.deadline,
                )
        status = Status.OK if not missing else Status.PARTIAL if parts else Status.FAILED
        timings["encode"] = (time.perf_counter() - began) * 1000
        body = self._body(request, status, parts, missing, problem, timings)
        watermark = max((each.available_at for each in parts), default=0)
        return Outcome(body, _needs(plan), wanted, tuple(computed), watermark)

    def _body(
        self,
        request: DataRequest,
        status: Status,
        parts: Iterable[Part] = (),
        missing: Iterable[Missing] = (),
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
            timings_ms={stage: round(taken, 4) for stage, taken in (timings or {}).items()},
        )


def _planned(request: DataRequest) -> tuple[AnyQuestion, ...] | PlatformError:
    try:
        return questions(request)
    except PlatformError as refused:
        return refused
    except Exception as failure:  # noqa: BLE001 (it is told, and logged)
        _log.exception("A request cannot be read")
        return RequestFailed(f"The request cannot be read ({type(failure).__name__}: {failure})")


def _may_lack(question: AnyQuestion, answer: Answered) -> bool:
    """Tell whether something may be missing that a source has: newest rows with values lack nothing."""
    if answer.cut is None or not question.is_newest:
        return True
    return not _has_values(answer) or bool(answer.cut.part.about.get("without_bars"))


def _has_values(answer: Answered) -> bool:
    """Tell whether there is any value, settled or not; what has no statuses has values."""
    if answer.cut is None:
        return False
    counts = answer.cut.tally
    return answer.cut.part.kind != PartKind.FEATURE or counts.settled + counts.warming > 0


def _needs(plan: Sequence[AnyQuestion]) -> tuple[str, ...]:
    return tuple({need(*each): None for question in plan for each in question.needs})
