"""Workers that are killed, and a Redis that goes away: each request has one answer all the same, and the right one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.redis.answerer import RedisAnswerer
from mdplatform.messaging.redis.asker import RedisAsker
from mdplatform.messaging.redis.desk import RedisDesk
from mdplatform.messaging.redis.keys import DEAD, PREFIX, queue_key
from mdplatform.requests import wire
from mdplatform.requests.answer import AnswerBody, Result, Status
from mdplatform.requests.request import DataRequest
from mdplatform.serving.publisher import Publisher
from mdplatform.serving.reader import Reader
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect
from mdplatform.worker.evaluator import Evaluator
from mdplatform.worker.handler import StrategyDataRequestHandler
from tests.conftest import Market, Processes, raw_bars

from .dying import INSTANTS
from .handling import Beside, Inbox, envelope_of, eventually, rsi_of

Python = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def quick(
    settings: Settings, market: Market, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """A lake with bars, a Redis that lives as long as the test, and workers whose silence is noticed soon."""
    market.walk("BTCUSDT", 300)
    monkeypatch.setenv("MDPLATFORM_REQUEST_CLAIM_SECONDS", "0.4")
    with connect(settings):
        yield Settings.load()


@asynccontextmanager
async def inbox_of(settings: Settings) -> AsyncIterator[Inbox]:
    asker = RedisAsker(settings)
    try:
        yield Inbox(asker)
    finally:
        await asker.close()


@asynccontextmanager
async def worker_on(
    settings: Settings, evaluator: Evaluator | None = None, name: str = "second"
) -> AsyncIterator[StrategyDataRequestHandler]:
    answerer = RedisAnswerer(settings)
    evaluator = evaluator or Evaluator(settings, worker=name)
    try:
        async with evaluator, StrategyDataRequestHandler(settings, answerer, evaluator, worker=name) as handler:
            yield handler
    finally:
        await answerer.close()


def right(settings: Settings, answer: AnswerBody, period: int) -> bool:
    """Whether it has the value that a reader gives."""
    with Reader(settings) as reader:
        expected = reader.latest("BTCUSDT", f"RSI({period})", "15m", 1)
    assert answer.status is Status.OK, answer
    return Result(answer.parts[0]).values.tolist() == pytest.approx(expected.values.tolist(), rel=1e-9)


def dead(settings: Settings) -> list[tuple[str, str]]:
    """Ids and reasons of the dead letters."""
    with connect(settings) as connection:
        return [(each[b"id"].decode(), each[b"reason"].decode()) for _, each in connection.xrange(DEAD)]


def left_in_queues(settings: Settings) -> int:
    with connect(settings) as connection:
        return sum(connection.xlen(queue_key(each)) for each in DataPriority)


@pytest.mark.parametrize("instant", INSTANTS)
def test_a_worker_killed_at_any_instant_leaves_one_right_answer(quick: Settings, python: Python, instant: str) -> None:
    first, after = rsi_of(period=7), rsi_of(period=9)

    async def asked() -> tuple[AnswerBody, AnswerBody]:
        async with inbox_of(quick) as inbox:
            await inbox.send(first)
            killed = python(f"from tests.worker.dying import work; work({instant!r})")
            assert await asyncio.to_thread(killed.wait, 30) == -signal.SIGKILL
            if instant == "after reply":
                await inbox.answers(first)
            else:
                assert first.request_id not in inbox.finals
            async with worker_on(quick):
                await inbox.answers(first)
                await inbox.ask(after)
                await eventually(lambda: left_in_queues(quick) == 0)  # nothing is left that could be claimed
                return *await inbox.answers(first), *await inbox.answers(after)

    answer, other = asyncio.run(asked())
    assert right(quick, answer, 7)
    assert right(quick, other, 9)
    assert answer.worker == ("dying" if instant == "after reply" else "second")
    assert dead(quick) == []


def test_a_request_that_kills_its_workers_is_buried_and_takes_no_other_along(quick: Settings, python: Python) -> None:
    deadly = rsi_of(period=13)
    others = [rsi_of(period=5 + n) for n in range(4)]

    async def asked() -> list[AnswerBody]:
        async with inbox_of(quick) as inbox:
            await inbox.send(deadly, *others)
            for _ in range(3):
                killed = python("from tests.worker.dying import work; work(deadly_period=13)")
                assert await asyncio.to_thread(killed.wait, 30) == -signal.SIGKILL
            async with worker_on(quick):
                return await inbox.answers(deadly, *others)

    answer, *rest = asyncio.run(asked())
    assert answer.status is Status.FAILED
    assert "3 workers ended while they had this request" in answer.problem.cause
    assert all(right(quick, each, 5 + n) for n, each in enumerate(rest))
    assert [id for id, _ in dead(quick)] == [deadly.request_id]


def test_a_worker_that_stands_still_longer_than_the_claim_time_answers_nothing_twice(
    quick: Settings, python: Python, tmp_path: Path
) -> None:
    request, after = rsi_of(period=7), rsi_of(period=9)
    mark = tmp_path / "stopped"

    async def asked() -> tuple[AnswerBody, AnswerBody, int, int]:
        async with inbox_of(quick) as inbox:
            await inbox.send(request)
            still = python(f"from tests.worker.dying import stand_still; stand_still({str(mark)!r})")
            _, status = await asyncio.to_thread(os.waitpid, still.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            async with worker_on(quick) as handler:
                first = await inbox.answers(request)
                assert handler.counts.reclaimed == 1
                reclaimed = handler.counts.reclaimed
            still.send_signal(signal.SIGCONT)
            await eventually(mark.exists)
            superseded = int(mark.read_text() or 0)
            return *first, *await inbox.ask(after), reclaimed, superseded

    answer, other, reclaimed, superseded = asyncio.run(asked())
    assert right(quick, answer, 7)
    assert right(quick, other, 9)
    assert (answer.worker, other.worker) == ("second", "still")
    assert reclaimed == 1
    assert superseded >= 1  # a busy machine may let it take over from itself before it stands still
    assert dead(quick) == []


def test_a_request_sent_and_queued_twice_is_answered_once(quick: Settings) -> None:
    request, after = rsi_of(), rsi_of()

    async def asked() -> None:
        async with inbox_of(quick) as inbox:
            envelope = envelope_of(request)
            await inbox.send(envelope)
            (again,) = await inbox.asker.send([envelope])
            assert again.known
            with connect(quick) as connection:
                connection.xadd(queue_key(request.priority), {"id": request.request_id})
            async with worker_on(quick):
                await inbox.answers(request)
                (again,) = await inbox.asker.send([envelope])
                assert again.known
                await inbox.ask(after)
                await inbox.answers(request)

    asyncio.run(asked())


def test_entries_written_by_hand_are_buried_once_and_stop_nobody(quick: Settings) -> None:
    async def asked() -> None:
        async with inbox_of(quick) as inbox:
            with connect(quick) as connection:
                connection.xadd(queue_key(DataPriority.CRITICAL), {"garbage": b"\xff\x00"})
                connection.xadd(queue_key(DataPriority.LOW), {"id": "nobody-knows-it"})
            async with worker_on(quick) as handler, worker_on(quick) as other:
                await inbox.ask(rsi_of(priority="LOW"), rsi_of(priority="CRITICAL"))
                await eventually(lambda: handler.counts.buried + other.counts.buried == 2)

    asyncio.run(asked())
    assert sorted(id for id, _ in dead(quick)) == ["", "nobody-knows-it"]


def test_a_redis_killed_while_a_request_is_computed_gets_the_answer_when_it_is_back(
    quick: Settings, processes: Processes
) -> None:
    request = rsi_of()

    async def asked() -> tuple[AnswerBody, AnswerBody, int]:
        async def kill(each: DataRequest) -> None:
            if each.request_id == request.request_id:
                os.kill(processes.server(), signal.SIGKILL)

        async with inbox_of(quick) as inbox, worker_on(quick, Beside(quick, kill)) as handler:
            await inbox.send(request)
            return *await inbox.answers(request), *await inbox.ask(rsi_of(period=9)), handler.counts.failures

    answer, after, failures = asyncio.run(asked())
    assert right(quick, answer, 14)
    assert right(quick, after, 9)
    assert failures == 0


def test_two_workers_tell_a_standing_request_each_new_bar_once(quick: Settings, market: Market) -> None:
    bars = raw_bars(330)
    standing = rsi_of(refresh="on_close", priority="HIGH")

    async def asked() -> list[AnswerBody]:
        async with inbox_of(quick) as inbox, worker_on(quick, name="one"), worker_on(quick, name="two"):
            numbered = inbox.numbered.setdefault(standing.request_id, [])
            await inbox.send(standing)
            await inbox.until(lambda: len(numbered) == 1)
            with connect(quick) as connection:
                publisher = Publisher(connection, quick)
                for count in range(301, 311):
                    await asyncio.to_thread(market.deliver, "BTCUSDT", bars[:count])
                    await asyncio.to_thread(publisher.bump_bars, "BTCUSDT")
                    await asyncio.to_thread(publisher.bump_bars, "BTCUSDT")
                    expected = count - 299
                    await inbox.until(lambda: len(numbered) >= expected)  # noqa: B023
            cancelled = wire.encode_reply(msgspec.structs.replace(numbered[0], parts=(), final=True))
            assert await inbox.asker.settle(standing.request_id, cancelled)
            await inbox.answers(standing)
            return numbered

    numbered = asyncio.run(asked())
    closes = [Result(each.parts[0]).available_at for each in numbered]
    assert [(after - before).total_seconds() for before, after in pairwise(closes)] == [900.0] * 10
    assert [each.number for each in numbered] == sorted({each.number for each in numbered})


def test_a_worker_process_says_when_it_is_ready_and_ends_cleanly_by_sigterm(quick: Settings) -> None:
    command = [sys.executable, "-m", "mdplatform", "worker", "--name", "tested", "--stats"]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert worker.stdout is not None
        ready = json.loads(worker.stdout.readline())
        assert (ready["ready"], ready["worker"], ready["pid"]) == (True, "tested", worker.pid)

        async def asked() -> AnswerBody:
            async with inbox_of(quick) as inbox:
                return (await inbox.ask(rsi_of()))[0]

        answer = asyncio.run(asked())
        assert answer.worker == "tested"
        with connect(quick) as connection:
            assert msgspec.json.decode(connection.get(f"{PREFIX}beat:tested"))["failures"] == 0
        worker.send_signal(signal.SIGTERM)
        told, log = worker.communicate(timeout=10)
    finally:
        worker.kill()
        worker.communicate()
    assert worker.returncode == 0
    assert json.loads(told)["answered_ok"] == 1
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert (events[0], events[-1]) == ("started", "stopped")


def test_what_a_run_could_bring_waits_and_is_answered_when_its_runs_are_over(
    quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MDPLATFORM_DATA_SOURCE", "simulated")
    settings = Settings.load()
    request = rsi_of("NEWUSDT")

    async def asked() -> tuple[AnswerBody, list[str]]:
        async with inbox_of(settings) as inbox, worker_on(settings):
            await inbox.send(request)
            await inbox.until(lambda: inbox.progress.get(request.request_id))
            with RedisDesk(settings) as desk, connect(settings) as connection:
                await eventually(lambda: len(desk.wanted("0", 9)) == 1)
                Publisher(connection, settings).bump_bars("NEWUSDT")  # a change that brought nothing
                await eventually(lambda: len(desk.wanted("0", 9)) == 2)
                assert request.request_id not in inbox.finals
                assert await asyncio.to_thread(desk.release, [request.request_id], "run 4711 failed: no such month")
            return *await inbox.answers(request), [each.stage for each in inbox.progress[request.request_id]]

    answer, stages = asyncio.run(asked())
    assert answer.status is Status.FAILED
    assert "run 4711 failed: no such month" in answer.problem.cause
    assert {"run"} <= answer.timings_ms.keys()
    assert set(stages) == {"waiting_for_run"}
