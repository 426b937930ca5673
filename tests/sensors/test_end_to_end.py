"""A request for what nobody took in, from the call to the answer: worker, sensor, source, run, news, worker."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from mdplatform.lake import Lake
from mdplatform.messaging import registry
from mdplatform.messaging.transport import Envelope
from mdplatform.processes import running
from mdplatform.requests import making, wire
from mdplatform.requests.answer import AnswerBody, Progress, Status
from mdplatform.requests.request import DataRequest
from mdplatform.runs import open_instance
from mdplatform.settings import Settings

_SECONDS = 150.0


def _request(strategy: str, first: datetime, end: datetime) -> DataRequest:
    return making.make(
        "TECHNICAL_INDICATORS",
        strategy_id=strategy,
        symbols=["BTCUSDT"],
        indicators=[{"name": "RSI", "parameters": {"period": 14}}],
        timeframes=["1h"],
        start=first,
        end=end,
        priority="HIGH",
        deadline=2 * _SECONDS,  # it is not what is tried here, and no load may make it so
    )


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
