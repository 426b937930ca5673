"""The protocol: a newer blob never loses to an older one, and a stale one is never taken for fresh."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import polars as pl
import pytest
import redis

from mdplatform.errors import RedisUnavailable
from mdplatform.features import parse_feature
from mdplatform.market.timeframe import Timeframe
from mdplatform.serving.codec import HIGHEST_SEQUENCE, Blob, content_version, decode, make_batch
from mdplatform.serving.keys import bars_key
from mdplatform.serving.publisher import Publisher
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect

BASE = datetime(2025, 1, 1, tzinfo=UTC)


def blob(last: int, value: float = 0.0, spec_id: str = "aa") -> Blob:
    """A blob whose watermark is `last` minutes after `BASE`."""
    frame = pl.DataFrame(
        {"open_time": [BASE], "available_at": [BASE + timedelta(minutes=last)], "X": [value], "status": ["settled"]}
    )
    batch = make_batch(frame)
    version = content_version("BTCUSDT", Timeframe.M15, "X", "e", batch)
    return Blob("BTCUSDT", Timeframe.M15, "X", spec_id, batch, version, whole=True, engine="e")


@pytest.fixture
def client(settings: Settings, processes: object) -> Iterator[redis.Redis]:
    with connect(settings) as client:
        yield client


@pytest.fixture
def publisher(client: redis.Redis, settings: Settings) -> Publisher:
    return Publisher(client, settings)


def held(client: redis.Redis, of: Blob) -> tuple[int, int]:
    found = decode(client.get(of.key))
    return found.sequence, found.watermark


def test_of_blobs_that_arrive_in_any_order_the_newest_stays(client, publisher):
    offers = [(0, 5), (1, 3), (1, 4), (2, 1)]
    for order in permutations(offers):
        client.flushall()
        for sequence, last in order:
            publisher.publish([blob(last)], sequence=sequence)
        assert held(client, blob(0)) == (2, blob(1).watermark)


def test_an_older_blob_is_reported_as_outdated(publisher):
    assert publisher.publish([blob(5)], sequence=3).stored == 1
    older = publisher.publish([blob(4), blob(9, spec_id="bb")], sequence=3)
    assert (older.stored, older.outdated) == (1, 1)
    assert older.sent_bytes > 500


def test_the_same_order_again_replaces(client, publisher):
    publisher.publish([blob(5, 1.0)], sequence=3)
    publisher.publish([blob(5, 2.0)], sequence=3)
    assert decode(client.get(blob(5).key)).batch.column("X").to_pylist() == [2.0]


def test_sequences_are_compared_as_numbers_to_the_last_one(client, publisher):
    for sequence in (9, 10, HIGHEST_SEQUENCE - 1, HIGHEST_SEQUENCE, 99):
        publisher.publish([blob(1)], sequence=sequence)
    assert held(client, blob(1))[0] == HIGHEST_SEQUENCE
    for wrong in (-1, HIGHEST_SEQUENCE + 1, 1.0, True):
        with pytest.raises(ValueError, match="a sequence is an integer"):
            publisher.publish([blob(1)], sequence=wrong)


@pytest.mark.parametrize("rubbish", [b"", b"x" * 48, b"MDP1 " + b"?" * 43, "a list"])
def test_rubbish_under_the_key_is_overwritten(client, publisher, rubbish):
    if rubbish == "a list":
        client.rpush(blob(1).key, "a")
    else:
        client.set(blob(1).key, rubbish)
    assert publisher.publish([blob(1)], sequence=0).stored == 1


def test_blobs_expire_and_the_bars_do_not(client, publisher, settings):
    publisher.publish([blob(1)], sequence=0)
    publisher.bump_bars("BTCUSDT")
    assert 0 < client.pttl(blob(1).key) <= settings.cache_days * 86_400_000
    assert client.pttl(bars_key("BTCUSDT")) == -1


def test_many_blobs_go_in_few_round_trips(client, publisher):
    before = client.info("stats")["total_reads_processed"]
    many = [blob(1, spec_id=f"{i:04x}") for i in range(300)]
    assert publisher.publish(many, sequence=1).stored == 300
    assert client.dbsize() == 300
    assert client.info("stats")["total_reads_processed"] - before < 100


def test_writers_at_the_same_time_leave_the_newest(client, publisher, settings):
    """Eight threads, each with a connection of its own, write every order in a random sequence."""
    orders = [(sequence, last) for sequence in range(8) for last in range(8)]
    failures: list[Exception] = []

    def write(seed: int) -> None:
        mine = random.Random(seed).sample(orders, len(orders))
        try:
            with connect(settings) as own:
                for sequence, last in mine:
                    Publisher(own, settings).publish([blob(last)], sequence=sequence)
        except Exception as failure:  # noqa: BLE001 - any failure of a thread must fail the test
            failures.append(failure)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(8)]
    seen: list[tuple[int, int]] = []
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if client.exists(blob(0).key):
            seen.append(held(client, blob(0)))
    for writer in writers:
        writer.join()
    assert not failures
    assert seen == sorted(seen)
    assert held(client, blob(0)) == (7, blob(7).watermark)


def test_the_sequence_of_bars_only_grows(publisher):
    assert publisher.bars_sequence("BTCUSDT") == 0
    assert publisher.bump_bars("BTCUSDT", 5) == 5
    assert publisher.bump_bars("BTCUSDT", 3) == 5
    assert publisher.bars_sequence("BTCUSDT") == 5
    assert publisher.bars_sequence("ETHUSDT") == 0
    by_clock = publisher.bump_bars("BTCUSDT")
    assert by_clock > datetime.now(UTC).timestamp() * 1e6 - 60e6
    assert publisher.bump_bars("BTCUSDT", HIGHEST_SEQUENCE - 5) == HIGHEST_SEQUENCE - 5
    assert publisher.bump_bars("BTCUSDT") == HIGHEST_SEQUENCE - 4


def test_no_interleaving_of_the_protocol_leaves_an_old_value_fresh(client, publisher):
    """Every interleaving of one change of bars with two computations: what is fresh then is what the lake holds."""
    changing = ["lake", "bump"]
    computing = [f"{step}{who}" for who in "AB" for step in ("sequence", "read", "publish")]
    values = {value: blob(1, value) for value in (1.0, 2.0)}
    for number, order in enumerate(_interleavings(changing, computing[:3], computing[3:])):
        if order.index("sequenceA") > order.index("sequenceB"):
            continue  # the same as the one with A and B exchanged
        symbol = f"S{number}"
        lake = 1.0
        read: dict[str, float] = {}
        sequence: dict[str, int] = {}
        for step in order:
            who = step[-1]
            if step == "lake":
                lake = 2.0
            elif step == "bump":
                publisher.bump_bars(symbol, 7)
            elif step.startswith("sequence"):
                sequence[who] = publisher.bars_sequence(symbol)
            elif step.startswith("read"):
                read[who] = lake
            else:
                publisher.publish([replace(values[read[who]], symbol=symbol)], sequence=sequence[who])
        found = decode(client.get(replace(values[1.0], symbol=symbol).key))
        if found.sequence >= publisher.bars_sequence(symbol):
            assert found.batch.column("X").to_pylist() == [lake], order


def _interleavings(*runs: list[str]) -> Iterator[tuple[str, ...]]:
    runs = tuple(run for run in runs if run)
    if not runs:
        yield ()
    for index, run in enumerate(runs):
        for rest in _interleavings(*runs[:index], run[1:], *runs[index + 1 :]):
            yield (run[0], *rest)


def test_features_are_published_from_the_lake_with_the_sequence_read_before(client, publisher, market, settings):
    market.walk("BTCUSDT", 900)
    publisher.bump_bars("BTCUSDT", 41)
    specs = [parse_feature("RSI"), parse_feature("MACD")]
    report = publisher.publish_features(market.lake, "BTCUSDT", Timeframe.M15, specs, made_by="run 1")
    assert report.stored == 2
    found = {blob.feature: blob for blob in (decode(client.get(key)) for key in client.keys("mdp:{BTCUSDT}:15m:*"))}
    rsi = found["RSI(timeperiod=14)"]
    assert (rsi.sequence, rsi.made_by, rsi.rows, rsi.whole) == (41, "run 1", settings.window_rows, False)
    assert publisher.publish_features(market.lake, "NONE", Timeframe.M15, specs).stored == 0


def test_a_server_that_is_gone_is_one_error_without_the_password(settings):
    away = settings.model_copy(update={"redis_url": "redis://:hunter2@127.0.0.1:1/0"})
    publisher = Publisher(connect(away), away)
    for call in (
        lambda: publisher.bars_sequence("BTCUSDT"),
        lambda: publisher.bump_bars("BTCUSDT"),
        lambda: publisher.publish([replace(blob(1))], sequence=0),
    ):
        with pytest.raises(RedisUnavailable, match="does not answer") as refused:
            call()
        assert "hunter2" not in str(refused.value)
        assert "127.0.0.1:1" in str(refused.value)
