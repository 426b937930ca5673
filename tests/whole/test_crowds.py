"""A thousand at once, and too many: all are answered, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from mdplatform.settings import Settings
from mdplatform.strategy import Status, StrategyDataManager
from mdplatform.valkey.connection import connect

from .crowd import Workers, crowd_on, envelope, left_in_redis


def used(settings: Settings) -> tuple[int, int]:
    """Memory and keys of Redis."""
    with connect(settings) as connection:
        facts: Any = connection.info("memory")
        keys: Any = connection.dbsize()
        return int(facts["used_memory"]), int(keys)


async def a_thousand(settings: Settings) -> None:
    async with crowd_on(settings) as crowd:
        receipts = await crowd.ask([envelope(number) for number in range(1000)])
        assert all(each.admitted for each in receipts)
        await crowd.all_answered(30.0)
        await crowd.check()
        assert len({each.worker for each in crowd.bodies()}) == 2


def test_a_thousand_at_once_are_all_answered_and_leave_only_bounded_tombstones(
    settings: Settings, two_workers: Workers
) -> None:
    asyncio.run(a_thousand(settings))
    assert left_in_redis(settings) == {}
    memory, keys = used(settings)
    asyncio.run(a_thousand(settings))
    assert left_in_redis(settings) == {}
    more_memory, more_keys = used(settings)
    assert more_keys - keys <= 1010  # a tombstone each, which goes with its time, and the new asker's stream
    assert more_memory - memory < 8_000_000


def test_over_capacity_the_least_urgent_are_turned_away_first_and_at_once(settings: Settings, processes: Any) -> None:
    small = settings.model_copy(update={"request_capacity": 100})

    async def ask() -> list[int]:
        admitted = []
        async with crowd_on(small) as crowd:
            for rank in (3, 2, 1, 0):
                receipts = await crowd.ask([envelope(4 * number + rank) for number in range(160)])
                admitted.append(sum(each.admitted for each in receipts))
                assert all(each.retry_after_seconds > 0 for each in receipts if not each.admitted)
        return admitted

    assert asyncio.run(ask()) == [100, 10, 15, 25]

    async def ask_once_more() -> float:
        async with StrategyDataManager(small) as manager:
            began = time.perf_counter()
            id = await manager.request_technical_indicators("crowd", ["BTCUSDT"], ["RSI"], ["15m"], priority="LOW")
            answer = await manager.result(id, timeout=5)
            assert answer.status is Status.REJECTED
            assert answer.problem is not None
            assert answer.problem.retry_after_seconds
            return time.perf_counter() - began

    assert asyncio.run(ask_once_more()) < 2.0


STRATEGY = """
import asyncio
from mdplatform.strategy import StrategyDataManager

async def main():
    async with StrategyDataManager(address="the-strategy") as manager:
        ids = [
            await manager.request_technical_indicators(
                "the_strategy", ["BTCUSDT"], ["RSI", "MACD"], ["15m"], request_id=f"mine-{each}", deadline=30
            )
            for each in range(200)
        ]
        print("asked", flush=True)
        answers = [await manager.result(id) for id in ids]
        print(len({each.request_id for each in answers}), sum(each.is_ok for each in answers), flush=True)

asyncio.run(main())
"""


def test_a_strategy_that_is_killed_and_asks_again_by_the_same_ids_gets_the_one_answer_to_each(
    settings: Settings, two_workers: Workers, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    first = python(STRATEGY)
    assert first.stdout is not None
    assert first.stdout.readline() == "asked\n"
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    again = python(STRATEGY)
    assert again.stdout is not None
    assert [again.stdout.readline(), again.stdout.readline()] == ["asked\n", "200 200\n"]
    assert left_in_redis(settings) == {}
