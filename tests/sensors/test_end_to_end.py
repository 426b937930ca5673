"""A request for what nobody took in, from the call to the answer: worker, sensor, source, run, news, worker."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

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

_SECONDS = 90.0


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
        deadline=_SECONDS,
    )


async def _ask(settings: Settings, requests: list[DataRequest]) -> dict[str, list[AnswerBody | Progress]]:
    """Send requests; give what came back of each, up to the final answers."""
    asker = registry.asker(settings)
    try:
        await asker.send(
            [
                Envelope(
                    id=each.request_id,
                    priority=each.priority,
                    deadline=each.deadline,
                    sent_at=each.sent_at,
                    body=wire.encode_request(each),
                    strategy=each.strategy_id,
                )
                for each in requests
            ]
        )
        found: dict[str, list[AnswerBody | Progress]] = {each.request_id: [] for each in requests}
        open_ids = set(found)
        while open_ids:
            for reply in await asker.receive(1.0):
                found[reply.id].append(wire.decode_reply(reply.body))
                if reply.final:
                    open_ids.discard(reply.id)
        return found
    finally:
        await asker.close()


@pytest.mark.timeout(180)
def test_two_strategies_with_overlapping_ranges_are_answered_by_runs_that_make_each_partition_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    february, march, april = (datetime(2025, month, 1, tzinfo=UTC) for month in (2, 3, 4))
    with running(settings, workers=1, dagster=True):
        first = _request("momentum", february, march)
        second = _request("mean-reversion", february, april)
        replies = asyncio.run(asyncio.wait_for(_ask(settings, [first, second]), _SECONDS))
        instance = open_instance(settings)
        try:
            runs = {
                each.request_id: instance.get_runs(
                    dg.RunsFilter(tags={f"mdplatform.request/{each.request_id}": each.request_id})
                )
                for each in (first, second)
            }
            made = instance.fetch_materializations(dg.AssetKey("bars"), limit=100).records
        finally:
            instance.dispose()
    for request, rows in ((first, 28 * 24), (second, 59 * 24)):
        *progress, answer = replies[request.request_id]
        assert isinstance(answer, AnswerBody)
        assert answer.status is Status.OK
        assert [part.rows for part in answer.parts] == [rows]
        stages = [each.stage for each in progress if isinstance(each, Progress)]
        assert "run_requested" in stages
        assert sum(isinstance(each, AnswerBody) and each.final for each in replies[request.request_id]) == 1
        assert runs[request.request_id]
    partitions = [each.partition_key for each in made]
    assert sorted(partitions) == sorted(set(partitions))
    assert {"2025-02|BTCUSDT", "2025-03|BTCUSDT"} <= set(partitions)
    assert Lake(settings.lake_dir).bars.months("BTCUSDT") == sorted(
        each.partition("|")[0] for each in partitions if each
    )
