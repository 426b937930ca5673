"""The reader for asyncio gives the answers of the other one, and asks once for all of one tick."""

from __future__ import annotations

import asyncio
import os
import signal

import numpy as np
import pytest

from mdplatform.errors import UnknownFeature, UnknownSymbol
from mdplatform.serving.async_reader import AsyncReader
from mdplatform.serving.reader import Reader
from mdplatform.valkey.connection import connect

RSI = "RSI(timeperiod=14)"


@pytest.fixture(autouse=True)
def bars(market, processes):
    return market.walk("BTCUSDT", 700)


def test_both_readers_give_the_same(settings):
    async def read():
        async with AsyncReader(settings) as reader:
            first = await reader.latest("BTCUSDT", RSI, n=30)
            second = await reader.latest("BTCUSDT", RSI, n=30)
            between = await reader.between("BTCUSDT", RSI, start="2025-01-22", end="2025-01-23")
            return first, second, between

    first, second, between = asyncio.run(read())
    assert (first.source, second.source) == ("computed", "cache")
    with Reader(settings) as reader:
        other = reader.latest("BTCUSDT", RSI, n=30)
        assert other.version == first.version == second.version
        assert other.rows == first.rows == second.rows
        np.testing.assert_array_equal(
            reader.between("BTCUSDT", RSI, start="2025-01-22", end="2025-01-23").values, between.values
        )


def test_a_thousand_reads_of_one_tick_are_few_round_trips(settings):
    async def read():
        async with AsyncReader(settings) as reader:
            await reader.latest("BTCUSDT", RSI)
            with connect(settings) as client:
                before = client.info("commandstats")["cmdstat_mget"]["calls"]
                results = await asyncio.gather(*(reader.latest("BTCUSDT", RSI) for _ in range(1000)))
                return results, client.info("commandstats")["cmdstat_mget"]["calls"] - before

    results, calls = asyncio.run(read())
    assert {each.source for each in results} == {"cache"}
    assert len({each.version for each in results}) == 1
    assert calls <= 10


def test_redis_down_is_said_and_the_lake_answers(settings):
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0", "redis_retry_seconds": 600.0})

    async def read():
        async with AsyncReader(away) as reader:
            return await asyncio.gather(*(reader.latest("BTCUSDT", RSI) for _ in range(3)))

    for result in asyncio.run(read()):
        assert result.source == "computed"
        assert "Redis was not used" in result.notes[0]


def test_a_redis_that_takes_nothing_is_said_and_still_read(settings):
    async def read():
        async with AsyncReader(settings) as reader:
            await reader.latest("BTCUSDT", RSI)
            with connect(settings) as client:
                client.config_set("min-replicas-to-write", 1)
            return await reader.latest("BTCUSDT", "SMA"), await reader.latest("BTCUSDT", RSI)

    refused, held = asyncio.run(read())
    assert "could not be kept in Redis" in refused.notes[0]
    assert held.source == "cache"


def test_a_killed_server_is_started_again_by_a_read(settings, processes):
    async def read():
        async with AsyncReader(settings) as reader:
            await reader.latest("BTCUSDT", RSI)
            os.kill(processes.server(), signal.SIGKILL)
            return await reader.latest("BTCUSDT", RSI)

    result = asyncio.run(read())
    assert (result.source, result.notes) == ("cache", ())


def test_errors_reach_the_one_who_asked_and_nobody_else(settings):
    async def read():
        async with AsyncReader(settings) as reader:
            return await asyncio.gather(
                reader.latest("BTCUSDT", RSI),
                reader.latest("NOPE", RSI),
                reader.latest("BTCUSDT", "RSJ"),
                return_exceptions=True,
            )

    answer, unknown_symbol, unknown_feature = asyncio.run(read())
    assert answer.symbol == "BTCUSDT"
    assert isinstance(unknown_symbol, UnknownSymbol)
    assert isinstance(unknown_feature, UnknownFeature)


def test_a_cancelled_read_does_not_spoil_the_others_of_its_tick(settings):
    async def read():
        async with AsyncReader(settings) as reader:
            await reader.latest("BTCUSDT", RSI)
            tasks = [asyncio.create_task(reader.latest("BTCUSDT", RSI)) for _ in range(3)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    cancelled, *others = asyncio.run(read())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert {each.source for each in others} == {"cache"}


def test_one_reader_may_be_used_in_one_loop_after_another(settings):
    reader = AsyncReader(settings)

    async def read():
        result = await reader.latest("BTCUSDT", RSI)
        await reader.close()
        return result

    assert [asyncio.run(read()).source for _ in range(2)] == ["computed", "cache"]


def test_many_questions_are_answered_in_their_order(settings):
    async def read():
        async with AsyncReader(settings) as reader:
            questions = [("BTCUSDT", feature, "15m") for feature in (RSI, "MACD", "ATR")]
            many = [("BTCUSDT", f"SMA({period})", "15m") for period in range(2, 102)]
            assert {each.source for each in await reader.latest_many(many)} == {"computed"}
            assert {each.source for each in await reader.latest_many(many)} == {"cache"}
            return [await reader.latest_many(questions, n=2) for _ in range(2)] + [await reader.latest_many([])]

    first, second, none = asyncio.run(read())
    assert [each.source for each in first + second] == ["computed"] * 3 + ["cache"] * 3
    assert [each.version for each in first] == [each.version for each in second]
    assert none == []
