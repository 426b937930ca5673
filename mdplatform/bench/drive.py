"""Driving: a crowd of strategies in one event loop, with one `StrategyDataManager`, asks what a plan says.

What is asked is made and checked before the clock runs: strategies do that on processors of their own, while the load
generator shares those of the workers. A request is sent when it is due, or at once if the loop is late; it is never
held back because others are unanswered. Each has a callback of its own, in which its clock stops. After the last one
was sent, answers are waited for as long as the deadline of the requests allows and a little longer: what has no final
answer then is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from mdplatform.bench.plan import Planned, Question
from mdplatform.bench.samples import Sample, Samples
from mdplatform.errors import PlatformError
from mdplatform.messaging.priority import DataPriority
from mdplatform.requests import making
from mdplatform.requests.answer import Answer
from mdplatform.requests.ids import new_id
from mdplatform.requests.request import DataRequest
from mdplatform.strategy import StrategyDataManager

GRACE_SECONDS = 5.0
_CALLS_A_TICK = 8
"""Strategies are processes of their own: the first one's request must not wait here until the last one has called."""


async def drive(
    manager: StrategyDataManager,
    plan: Sequence[Planned],
    *,
    deadline_seconds: float = 30.0,
    pids: Mapping[str, int] | None = None,
    listen_seconds: float = 0.3,
) -> Samples:
    """Ask what the plan says, and give what came of each request. `pids` are processes whose time is taken too.

    After all had their answer, second ones are listened for, for `listen_seconds`.
    """
    maker = _Maker(deadline_seconds)
    maker.ready(plan)
    samples = [Sample(each, each.due) for each in plan]
    with _no_long_collections():
        return await _drive(manager, samples, maker, deadline_seconds, pids, listen_seconds)


async def _drive(
    manager: StrategyDataManager,
    samples: list[Sample],
    maker: _Maker,
    deadline_seconds: float,
    pids: Mapping[str, int] | None,
    listen_seconds: float,
) -> Samples:
    cpu, worker_cpu = time.process_time(), _cpu_seconds(pids)
    began = time.perf_counter()
    for each in samples:
        each.due += began
    open_requests = _Open(len(samples))
    tasks: set[asyncio.Task[None]] = set()
    for number, sample in enumerate(samples):
        if (early := sample.due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        elif number % _CALLS_A_TICK == 0:
            await asyncio.sleep(0)
        task = asyncio.create_task(_ask(manager, sample, maker.make(sample.planned), open_requests))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await open_requests.wait(deadline_seconds + GRACE_SECONDS)
    await asyncio.sleep(listen_seconds)
    ended = max([each.answered for each in samples] + [time.perf_counter() if not samples else 0.0])
    return Samples(
        samples, began, ended, time.process_time() - cpu, max(0.0, _cpu_seconds(pids) - worker_cpu)
    )  # fmt: skip


@contextlib.contextmanager
def _no_long_collections() -> Iterator[None]:
    """Have the collector leave alone what is there: to go through millions of samples would stop the clock's hand."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 1_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class _Open:
    """How many requests have no final answer yet."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._none = asyncio.Event()
        if not count:
            self._none.set()

    def done(self) -> None:
        """Count one final answer."""
        self._count -= 1
        if self._count == 0:
            self._none.set()

    async def wait(self, seconds: float) -> None:
        """Wait until there are none, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._none.wait()


async def _ask(manager: StrategyDataManager, sample: Sample, made: DataRequest, open_requests: _Open) -> None:
    sample.called = time.perf_counter()
    try:
        (sample.request_id,) = await manager.request_many([made], _listener(sample, open_requests))
    except PlatformError as refused:
        if not sample.answers:
            sample.answered = time.perf_counter()
            sample.answers += 1
            sample.status, sample.problem = "refused", str(refused)
            open_requests.done()


class _Maker:
    """Makes the requests: each question is made and checked once; only who asks, and until when, differs."""

    def __init__(self, deadline_seconds: float) -> None:
        self._deadline_us = round(deadline_seconds * 1e6)
        self._made: dict[tuple[Question, DataPriority], DataRequest] = {}

    def ready(self, plan: Sequence[Planned]) -> None:
        """Make what a plan asks, before it begins."""
        for each in plan:
            self._base(each)

    def make(self, planned: Planned) -> DataRequest:
        """Give the request of one strategy, with an id of its own."""
        now = time.time_ns() // 1000
        return msgspec.structs.replace(
            self._base(planned),
            request_id=new_id(),
            strategy_id=f"bench_{planned.strategy:04d}",
            deadline=now + self._deadline_us,
            sent_at=now,
        )

    def _base(self, planned: Planned) -> DataRequest:
        key = (planned.question, planned.priority)
        if key not in self._made:
            asked = planned.question
            self._made[key] = making.technical_indicators(
                "bench", [asked.symbol], [asked.feature], [asked.timeframe], priority=planned.priority
            )
        return self._made[key]


def _listener(sample: Sample, open_requests: _Open) -> Callable[[Answer], None]:
    def answered(answer: Answer) -> None:
        now = time.perf_counter()
        if not answer.final:
            return
        sample.answers += 1
        if sample.answers > 1:
            return
        sample.answered = now
        body = answer.body
        sample.status, sample.worker = body.status.value, body.worker
        sample.stages = body.timings_ms
        sample.layer = body.parts[0].layer if body.parts else ""
        sample.problem = "" if body.problem is None else str(body.problem)
        open_requests.done()

    return answered


def _cpu_seconds(pids: Mapping[str, int] | None) -> float:
    """Give the processor time that processes have taken, where the system tells it (Linux)."""
    ticks = 0
    for pid in (pids or {}).values():
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(words[11]) + int(words[12])
    return ticks / 100
