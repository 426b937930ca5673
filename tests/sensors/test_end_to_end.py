"""A request for what nobody took in, from the call to the answer: worker, sensor, source, run, news, worker."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest

from mdplatform.lake import Lake
from mdplatform.market.timeframe import Timeframe
from mdplatform.messaging import registry
from mdplatform.messaging.transport import Envelope
from mdplatform.processes import running
from mdplatform.requests import making, wire
from mdplatform.requests.answer import AnswerBody, Progress, Status
from mdplatform.requests.request import DataRequest
from mdplatform.runs import open_instance
from mdplatform.sensors.request_runs import was_left_behind
from mdplatform.settings import Settings

_SECONDS = 150.0
_FEBRUARY = datetime(2025, 2, 1, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC)


def _request(
    strategy: str, first: datetime, end: datetime, symbol: str = "BTCUSDT", seconds: float = 2 * _SECONDS
) -> DataRequest:
    return making.make(
        "TECHNICAL_INDICATORS",
        strategy_id=strategy,
        symbols=[symbol],
        indicators=[{"name": "RSI", "parameters": {"period": 14}}],
        timeframes=["1h"],
        start=first,
        end=end,
        priority="HIGH",
        deadline=seconds,  # it is not what is tried here, and no load may make it so
    )


@contextmanager
def _archive() -> Iterator[str]:
    """Serve an archive without a file, which does not answer for symbols whose name begins with HANGS; give its URL."""
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if "/HANGS" in self.path:
                closing.wait(_SECONDS)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815 (the base class calls it so)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _kill(pid: int) -> None:
    """Kill a process and all that it has started."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    children = {int(child) for thread in threads for child in (thread / "children").read_text().split()}
    os.kill(pid, signal.SIGKILL)
    for child in children:
        _kill(child)


class _Asking:
    """A strategy's end of the transport."""

    def __init__(self, settings: Settings) -> None:
        self._asker = registry.asker(settings)
        self.replies: dict[str, list[AnswerBody | Progress]] = {}

    async def send(self, request: DataRequest) -> str:
        envelope = Envelope(
            id=request.request_id,
            priority=request.priority,
            deadline=request.deadline,
            sent_at=request.sent_at,
            body=wire.encode_request(request),
            strategy=request.strategy_id,
        )
        assert (await self._asker.send([envelope]))[0].admitted
        self.replies[request.request_id] = []
        return request.request_id

    async def until(self, reached: Callable[[], bool]) -> None:
        """Receive until the condition holds."""
        while not reached():
            for reply in await self._asker.receive(1.0):
                self.replies[reply.id].append(wire.decode_reply(reply.body))

    def stages(self, id: str) -> list[str]:
        return [each.stage for each in self.replies[id] if isinstance(each, Progress)]

    def finals(self, id: str) -> list[AnswerBody]:
        return [each for each in self.replies[id] if isinstance(each, AnswerBody) and each.final]

    async def close(self) -> None:
        await self._asker.close()


async def _talk(settings: Settings, first: DataRequest, second: DataRequest) -> _Asking:
    """Ask for a month, kill the daemon before it has stored the tick, start it again, and ask for more than that."""
    asking = _Asking(settings)
    try:
        with running(settings, workers=0, dagster=True) as pids:
            one = await asking.send(first)
            await asking.until(lambda: "run_requested" in asking.stages(one))
            _kill(pids["dagster"])
        with running(settings, workers=0, dagster=True):
            other = await asking.send(second)
            await asking.until(lambda: bool(asking.finals(one) and asking.finals(other)))
        return asking
    finally:
        await asking.close()


@pytest.mark.timeout(240)
def test_overlapping_requests_are_answered_by_runs_that_make_each_partition_once_though_the_daemon_is_killed(
    settings: Settings,
) -> None:
    february, march, april = (datetime(2025, month, 1, tzinfo=UTC) for month in (2, 3, 4))
    first, second = _request("momentum", february, march), _request("mean-reversion", february, april)
    with running(settings, workers=1):
        asking = asyncio.run(asyncio.wait_for(_talk(settings, first, second), _SECONDS))
    for request, rows in ((first, 28 * 24), (second, 59 * 24)):
        (answer,) = asking.finals(request.request_id)
        assert answer.status is Status.OK
        assert [part.rows for part in answer.parts] == [rows]
    instance = open_instance(settings)
    try:
        made = instance.fetch_materializations(dg.AssetKey("bars"), limit=100).records
        for request in (first, second):
            tags = {f"mdplatform.request/{request.request_id}": request.request_id}
            runs = {each.run_id for each in instance.get_runs(dg.RunsFilter(tags=tags))}
            (part,) = asking.finals(request.request_id)[0].parts
            assert (part.source, part.layer) == ("run", "run")
            assert part.run_id in runs
    finally:
        instance.dispose()
    partitions = [each.partition_key for each in made if each.partition_key is not None]
    assert sorted(partitions) == sorted(set(partitions))
    assert {"2025-02|BTCUSDT", "2025-03|BTCUSDT"} <= set(partitions)
    assert Lake(settings.lake_dir).bars.months("BTCUSDT") == sorted(each.partition("|")[0] for each in partitions)


async def _suffer(
    settings: Settings, instance: dg.DagsterInstance, failing: DataRequest, killed: DataRequest
) -> tuple[_Asking, DataRequest]:
    """Ask for what a run fails at, and for what two hang at, past the deadline of one; kill the daemon, and go on."""
    asking = _Asking(settings)
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    try:
        with running(settings, workers=0, dagster=True) as pids:
            one = await asking.send(failing)
            await asking.until(lambda: bool(asking.finals(one)))
            hanging = _request("momentum", *_FEBRUARY, symbol="HANGSUSDT", seconds=15.0)
            two = await asking.send(hanging)
            await asking.until(lambda: "run_requested" in asking.stages(two))
            three = await asking.send(killed)
            await asking.until(lambda: bool(asking.finals(two)) and len(instance.get_runs(started)) == 2)
            _kill(pids["dagster"])
        Lake(settings.lake_dir).universe.add(killed.symbols[0], "simulated", Timeframe.H1)
        with running(settings, workers=0, dagster=True):
            await asking.until(lambda: bool(asking.finals(three)))
        return asking, hanging
    finally:
        await asking.close()


@pytest.mark.timeout(300)
def test_runs_that_fail_hang_or_are_killed_with_their_daemon_leave_each_request_one_answer_and_block_nobody(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = _request("momentum", *_FEBRUARY, symbol="NOSUCHUSDT")
    killed = _request("momentum", *_FEBRUARY, symbol="HANGSTOOUSDT")
    with _archive() as url:
        monkeypatch.setenv("MDPLATFORM_DATA_SOURCE", "binance")
        monkeypatch.setenv("MDPLATFORM_ARCHIVE_URL", url)
        monkeypatch.setenv("MDPLATFORM_ARCHIVE_RETRIES", "0")
        monkeypatch.setenv("MDPLATFORM_ARCHIVE_TIMEOUT_SECONDS", str(_SECONDS))
        monkeypatch.setenv("MDPLATFORM_FIRST_MONTH", "2025-02")
        settings = Settings.load()
        instance = open_instance(settings)
        try:
            with running(settings, workers=1):
                talk = _suffer(settings, instance, failing, killed)
                asking, hanging = asyncio.run(asyncio.wait_for(talk, _SECONDS))
            runs = instance.get_runs()
        finally:
            instance.dispose()
    answers = {each.symbols[0]: asking.finals(each.request_id) for each in (failing, hanging, killed)}
    assert [len(each) for each in answers.values()] == [1, 1, 1]
    assert [each.status for (each,) in answers.values()] == [Status.FAILED, Status.FAILED, Status.OK]
    failed, hung, twice = (
        [run for run in runs if f"mdplatform.request/{each.request_id}" in run.tags]
        for each in (failing, hanging, killed)
    )
    assert [run.status for run in (*failed, *hung)] == [dg.DagsterRunStatus.FAILURE] * 2
    problem = answers["NOSUCHUSDT"][0].problem
    assert problem is not None
    assert f"run {failed[0].run_id} failed" in problem.cause
    (again,) = [run for run in twice if not was_left_behind(run)]
    (lost,) = [run for run in twice if was_left_behind(run)]
    assert lost.status is dg.DagsterRunStatus.FAILURE
    assert [part.run_id for part in answers["HANGSTOOUSDT"][0].parts] == [again.run_id]
