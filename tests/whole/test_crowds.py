"""A thousand at once, and too many: all are answered, in the order of their classes, and nothing is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect

from .crowd import Workers, crowd_on, envelope, left_in_redis

ROUNDS_OF_MEMORY = 3


def used(settings: Settings) -> tuple[int, int]:
    """Memory and keys of Redis."""
    with connect(settings) as connection:
        facts: Any = connection.info("memory")
        return int(facts["used_memory"]), int(connection.dbsize())  # type: ignore[arg-type]


async def a_thousand(settings: Settings) -> None:
    async with crowd_on(settings) as crowd:
        receipts = await crowd.ask([envelope(number) for number in range(1000)])
        assert all(each.admitted for each in receipts)
        await crowd.all_answered(30.0)
        await crowd.check()
        assert len({each.worker for each in crowd.bodies()}) == 2


def test_a_thousand_at_once_are_all_answered_and_leave_nothing(settings: Settings, two_workers: Workers) -> None:
    asyncio.run(a_thousand(settings))
    assert left_in_redis(settings) == {}
