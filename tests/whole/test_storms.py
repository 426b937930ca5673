"""One final answer per request, whoever is killed: real workers, a real Redis, and load all the while."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from mdplatform.settings import Settings

from .crowd import Crowd, Workers, crowd_on, envelope, left_in_redis

RATE = 150.0


async def under_load(settings: Settings, seconds: float, trouble: Callable[[], Awaitable[None]]) -> Crowd:
    """Ask at a steady rate for so long while `trouble` is made, and wait for the answers."""
    async with crowd_on(settings) as crowd:
        making = asyncio.create_task(trouble())
        began, number = time.monotonic(), 0
        sending = set()
        while (gone := time.monotonic() - began) < seconds:
            due = int(gone * RATE)
            if due > number:
                task = asyncio.create_task(crowd.ask([envelope(each) for each in range(number, due)]))
                sending.add(task)
                number = due
            await asyncio.sleep(0.01)
        await asyncio.gather(making, *sending)
        assert len(crowd.sent) == number
        await crowd.all_answered(20.0)
        await crowd.check(twice_delivered=True)
        return crowd


def test_workers_killed_at_any_instant_one_by_one_and_at_once_leave_one_answer_to_each_request(
    settings: Settings, two_workers: Workers
) -> None:
    lots = random.Random(11)

    async def kill() -> None:
        for _ in range(2):
            await asyncio.sleep(lots.uniform(0.1, 0.6))
            number = lots.randrange(2)
            two_workers.kill(number)
            await asyncio.to_thread(two_workers.replace, number)
        await asyncio.sleep(lots.uniform(0.1, 0.6))
        for number in range(2):
            two_workers.kill(number)
        await asyncio.to_thread(two_workers.replace, 0)

    crowd = asyncio.run(under_load(settings, 6.0, kill))
    assert all(len(each) == 1 for each in crowd.replies.values())
    assert left_in_redis(settings) == {}


def test_a_redis_that_is_killed_and_comes_back_loses_no_request(
    settings: Settings, two_workers: Workers, processes: Any
) -> None:
    async def kill() -> None:
        for _ in range(2):
            await asyncio.sleep(1.0)
            os.kill(processes.server(), signal.SIGKILL)

    asyncio.run(under_load(settings, 4.0, kill))
    assert left_in_redis(settings) == {}
