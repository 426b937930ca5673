"""Reads that are answered near: the same answers, without asking Redis, and never older than they may be."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import redis

from mdplatform.errors import UnknownSymbol
from mdplatform.features import parse_feature
from mdplatform.market.timeframe import Timeframe
from mdplatform.serving.async_reader import AsyncReader
from mdplatform.serving.codec import decode, encode
from mdplatform.serving.keys import bars_key, blob_key
from mdplatform.serving.publisher import Publisher
from mdplatform.serving.reader import Reader
from mdplatform.serving.result import FeatureResult
from mdplatform.serving.tracking import BOUND_SECONDS
from mdplatform.valkey.connection import connect
from mdplatform.valkey.embedded import embedded
from mdplatform.worker.evaluator import Evaluator
from tests.conftest import raw_bars
from tests.serving.tracked import until
from tests.worker.asking import ask

RSI = "RSI(timeperiod=14)"
RSI_KEY = blob_key("BTCUSDT", Timeframe.M15, parse_feature(RSI).id)


@pytest.fixture(autouse=True)
def bars(market):
    return market.walk("BTCUSDT", 700)


@pytest.fixture
def client(settings, processes) -> Iterator[redis.Redis]:
    with connect(settings) as client:
        yield client


@pytest.fixture
def reader(settings, client) -> Iterator[Reader]:
    with Reader(settings) as reader:
        yield reader


@pytest.fixture
def far(settings, client) -> Iterator[Reader]:
    """A reader that does not see the lake."""
    elsewhere = {"home": settings.home / "elsewhere", "redis_url": f"unix://{embedded(settings).path}"}
    with Reader(settings.model_copy(update=elsewhere)) as reader:
        yield reader


def near(reader: Reader, feature: str = RSI, n: int = 1) -> FeatureResult:
    """Read until it comes from near."""
    found: list[FeatureResult] = []

    def is_near() -> bool:
        found.append(reader.latest("BTCUSDT", feature, n=n))
        return found[-1].layer == "near"

    until(is_near)
    return found[-1]


def mgets(client: redis.Redis) -> int:
    return int(client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"])


def test_a_near_answer_is_the_one_that_redis_gives(reader):
    computed = reader.latest("BTCUSDT", RSI, n=50)
    held = near(reader, n=50)
    assert (held.source, held.layer, held.notes) == ("cache", "near", ())
    assert (held.version, held.made_by, held.engine) == (computed.version, "reader", computed.engine)
    assert held.rows == computed.rows
    assert set(held.timings) <= {"check", "decode", "near", "total"}
    assert near(reader, n=50).to_dict().keys() == computed.to_dict().keys()


def test_a_near_answer_asks_nothing_of_redis(reader, client):
    near(reader)
    before, found = mgets(client), [reader.latest("BTCUSDT", RSI) for _ in range(200)]
    asked = sum(each.layer != "near" for each in found)
    assert mgets(client) - before == asked < 100


def test_outputs_and_lengths_are_cut_from_one_near_blob(reader):
    whole = near(reader, "MACD", n=20)
    one = near(reader, "MACD_HISTOGRAM", n=5)
    assert one.outputs == {"macdhist": "MACD(fastperiod=12,slowperiod=26,signalperiod=9).macdhist"}
    assert [each["macdhist"] for each in one.rows] == [each["macdhist"] for each in whole.rows[-5:]]
    assert len(reader.latest("BTCUSDT", "MACD", n=600)) == 600
    assert reader.latest("BTCUSDT", "MACD", n=600).source == "computed"


def test_bars_that_redis_was_not_told_of_are_noticed_at_once(reader, market):
    old = near(reader)
    market.deliver("BTCUSDT", raw_bars(701).tail(1))
    new = reader.latest("BTCUSDT", RSI)
    assert new.source == "computed"
    assert new.available_at > old.available_at
    assert near(reader).version == new.version


def test_who_does_not_see_the_lake_hears_of_a_bump_within_the_bound(reader, far, client, settings):
    reader.latest("BTCUSDT", RSI)
    near(far)
    Publisher(client, settings).bump_bars("BTCUSDT")
    bumped = time.monotonic()
    while (asked := time.monotonic()) < bumped + BOUND_SECONDS + 0.1:
        try:
            found = far.latest("BTCUSDT", RSI)
        except UnknownSymbol:  # it is stale, and there is no lake to compute from
            continue
        assert (found.layer, asked <= bumped + BOUND_SECONDS) == ("near", True)
    with pytest.raises(UnknownSymbol):
        far.latest("BTCUSDT", RSI)


def test_a_newer_blob_takes_the_place_of_the_near_one(far, reader, client):
    reader.latest("BTCUSDT", RSI)
    old = near(far)
    blob = decode(client.get(RSI_KEY))
    client.set(RSI_KEY, encode(replace(blob, version="another", sequence=blob.sequence + 1)))
    until(lambda: far.latest("BTCUSDT", RSI).version != old.version)
    assert near(far).version == "another"


def test_a_bad_blob_is_noted_once_and_replaced(reader, client):
    before = near(reader)
    client.set(RSI_KEY, b"rubbish")
    found = []
    until(lambda: [found.append(reader.latest("BTCUSDT", RSI))] and found[-1].source == "computed")
    assert len(found[-1].notes) == 1
    assert "no valid blob" in found[-1].notes[0]
    assert near(reader).version == before.version


def test_a_redis_that_stands_still_is_said_once_nothing_is_proven(settings, client, processes):
    with Reader(settings.model_copy(update={"redis_timeout_seconds": 0.05, "redis_retry_seconds": 600.0})) as reader:
        near(reader)
        os.kill(processes.server(), signal.SIGSTOP)
        try:
            stopped = time.monotonic()
            while (asked := time.monotonic()) < stopped + BOUND_SECONDS + 0.1:
                found = reader.latest("BTCUSDT", RSI)
                assert (found.layer == "near") != bool(found.notes)
                assert found.layer != "near" or asked <= stopped + BOUND_SECONDS
            assert "Redis was not used" in found.notes[0]
        finally:
            os.kill(processes.server(), signal.SIGCONT)


def test_many_threads_and_loops_read_near_from_one_cache(settings, reader):
    version = near(reader).version

    async def crowd():
        async with AsyncReader(settings) as other:
            await other.latest("BTCUSDT", RSI)  # the first of a reader asks Redis
            return await asyncio.gather(*(other.latest("BTCUSDT", RSI) for _ in range(500)))

    with ThreadPoolExecutor(4) as pool:
        loop = pool.submit(asyncio.run, crowd())
        found = list(pool.map(lambda _: reader.latest("BTCUSDT", RSI), range(500))) + loop.result()
    assert {each.version for each in found} == {version}
    assert "near" in {each.layer for each in found}


def test_a_worker_asks_nothing_of_redis_for_what_it_has_near_and_heard_of(settings, client):
    async def asked():
        async with Evaluator(settings, worker="a") as one:
            end = time.monotonic() + 20
            while time.monotonic() < end:
                before = mgets(client)
                outcome = await ask(one)
                if mgets(client) == before:
                    return outcome.body
            raise AssertionError("it always asks")

    body = asyncio.run(asked())
    assert (body.parts[0].source, body.parts[0].layer) == ("cache", "near")
    assert "redis" not in body.timings_ms


def test_a_worker_goes_by_a_bump_at_the_latest_after_the_bound(settings, client, market):
    async def asked():
        async with Evaluator(settings, worker="a") as one:
            for _ in range(5):
                await ask(one)
            old = (await ask(one)).body.parts[0]
            client.set(bars_key("BTCUSDT"), time.time_ns() // 1000 + 10**9)  # and the lake stays as it is
            await asyncio.sleep(BOUND_SECONDS)
            return old, (await ask(one)).body.parts[0]

    old, new = asyncio.run(asked())
    assert (old.layer, new.source) == ("near", "computed")
