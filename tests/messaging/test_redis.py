"""What only Redis can do to requests: it is killed and comes back, is emptied, full, or written to by hand."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
import redis

from mdplatform.errors import InvalidSetting, TransportRefused, TransportUnavailable
from mdplatform.messaging import registry
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.redis import answerer as redis_answerer
from mdplatform.messaging.redis import line as redis_line
from mdplatform.messaging.redis.answerer import RedisAnswerer
from mdplatform.messaging.redis.asker import RedisAsker
from mdplatform.messaging.redis.desk import RedisDesk
from mdplatform.messaging.redis.keys import DEAD, GROUP, LINEAGE, PREFIX, WANTED, queue_key
from mdplatform.messaging.transport import BadDelivery, Delivery, Entry, Wanted
from mdplatform.serving.publisher import Publisher
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect
from tests.messaging.transports import EVERY, Parts, envelope
from tests.messaging.transports import redis as over_redis

CRITICAL, HIGH, NORMAL, LOW = DataPriority


@pytest.fixture
def client(settings: Settings, processes: Any) -> Iterator[redis.Redis]:
    with connect(settings) as client:
        yield client


@pytest.fixture
def run(settings: Settings, client: redis.Redis) -> Callable[..., None]:
    """Runs a coroutine with makers of askers and answerers, within a deadline."""

    def on(test: Callable[[Parts], Coroutine[Any, Any, None]], **changes: Any) -> None:
        async def whole() -> None:
            async with over_redis(settings.model_copy(update=changes)) as parts:
                await asyncio.wait_for(test(parts), 30)

        asyncio.run(whole())

    return on


async def until(look: Callable[[], Awaitable[Any]], seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while True:
        found = await look()
        if found or time.monotonic() > end:
            return found


async def one(worker: RedisAnswerer) -> Delivery:
    [delivery] = await worker.take(EVERY, 5)
    assert isinstance(delivery, Delivery)
    return delivery


def test_nothing_is_lost_or_answered_twice_when_redis_is_killed(run, settings, processes):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = [envelope() for _ in range(40)]
        await asker.send(sent)
        held = await worker.take(dict.fromkeys(DataPriority, 30), 5)
        assert len(held) == 30
        first = [each.envelope.id for each in held[:10]]
        await worker.settle_many([(id, b"before", None) for id in first])
        await worker.park(held[10], ["bars/BTCUSDT"])
        waiting = asyncio.create_task(parts.answerer().changes(20))
        taking = asyncio.create_task(parts.asker("other").receive(20))
        os.kill(processes.server(), signal.SIGKILL)
        assert await worker.settle_many([(id, b"after", None) for id in first]) == [False] * 10
        assert all(each.known for each in await asker.send(sent))
        assert await worker.release(["bars/BTCUSDT"]) == 1
        rest = [*await worker.reclaim(0, 100), *await worker.take(EVERY, 5)]
        assert sorted(each.envelope.id for each in rest) == sorted(each.id for each in sent[10:])
        both = [worker.settle(each.envelope.id, b"after", each) for each in rest]
        both += [asker.settle(each.envelope.id, b"cancelled") for each in rest]
        assert sum(await asyncio.gather(*both)) == 30
        found = []
        while len(found) < 40:
            found += await asker.receive(5)
        assert sorted(each.id for each in found) == sorted(each.id for each in sent)
        assert {each.id for each in found if each.body == b"before"} == set(first)
        with connect(settings) as publishing:
            Publisher(publishing, settings).bump("bars", "BTCUSDT")
        assert await waiting == {"bars/BTCUSDT": ""}
        taking.cancel()

    run(test)


def test_calls_during_a_kill_come_through_once(run, processes):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        ended = asyncio.Event()
        won: dict[str, int] = {}

        async def work() -> None:
            while not ended.is_set():
                held = await worker.take(EVERY, 0.1) or await worker.reclaim(0.2, 100)
                firsts = await worker.settle_many([(each.envelope.id, b"answer", each) for each in held])
                for each, first in zip(held, firsts, strict=True):
                    won[each.envelope.id] = won.get(each.envelope.id, 0) + first

        async def send() -> list[str]:
            ids = []
            for _ in range(60):
                sent = [envelope() for _ in range(5)]
                receipts = await asker.send(sent)
                assert all(each.admitted and not each.known for each in receipts)
                ids += [each.id for each in sent]
            return ids

        working, sending = asyncio.create_task(work()), asyncio.create_task(send())
        found = []
        killed = 0
        while not sending.done() or len(found) < 300:
            found += await asker.receive(0.2)
            if len(found) > 60 * (killed + 1) and killed < 2:
                os.kill(processes.server(), signal.SIGKILL)
                killed += 1
        ended.set()
        await working
        assert killed == 2
        assert sorted({each.id for each in found}) == sorted(await sending)
        assert won == dict.fromkeys(won, 1)
        assert len(won) == 300

    run(test)


def test_everything_works_again_after_redis_was_emptied(run, client, settings):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker("stable"), parts.answerer()
        for _ in range(3):
            await asker.send([envelope()])
            old = await one(worker)
            waiting = asyncio.create_task(worker.take(EVERY, 10)), asyncio.create_task(worker.changes(10))
            await asyncio.sleep(0.01)
            client.flushall()
            client.script_flush()
            await worker.park(old, ["bars/BTCUSDT"])
            await worker.keep([old])
            sent = envelope()
            assert (await asker.send([sent]))[0].admitted
            Publisher(client, settings).bump("macro", "CPI")
            [delivery] = await waiting[0]
            assert await waiting[1] == {"macro/CPI": ""}
            await worker.settle(sent.id, b"answer", delivery)
            assert [each.id for each in await asker.receive(5)] == [sent.id]

    run(test)


def test_what_redis_refuses_is_told_from_a_redis_that_is_away(run, client):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        await asker.send([envelope()])
        delivery = await one(worker)
        limit = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 1)
        try:
            begun = time.monotonic()
            with pytest.raises(TransportRefused, match="memory"):
                await worker.tell(delivery.envelope.id, b"news")
            assert time.monotonic() - begun < 2
        finally:
            client.config_set("maxmemory", limit)
        assert await worker.tell(delivery.envelope.id, b"news")
        client.set(f"{PREFIX}parked:wrong", "no sorted set")
        client.hset(f"{PREFIX}record:{delivery.envelope.id}", "needs", "wrong")
        with pytest.raises(TransportRefused, match="WRONGTYPE"):
            await worker.settle(delivery.envelope.id, b"answer", delivery)

    run(test)


def test_what_is_written_by_hand_is_a_bad_delivery_and_is_buried_once(run, client, settings):
    async def test(parts: Parts) -> None:
        worker = parts.answerer()
        client.xadd(queue_key(HIGH), {"body": b"\xff\x00", "x": "1"})
        client.xadd(queue_key(LOW), {"id": "by hand", "body": b"{}"})
        bad = await worker.take(EVERY, 1)
        assert [type(each) for each in bad] == [BadDelivery, BadDelivery]
        assert [each.reason for each in bad] == [
            "it has no id, or one that is too long",
            "no request is open under its id",
        ]
        assert b"\xff\x00" in bad[0].raw
        [again, _] = await worker.reclaim(0, 10)
        for each in (*bad, again, *bad):
            await worker.bury(each, each.reason, b"refused")
        assert client.xlen(queue_key(HIGH)) == client.xlen(queue_key(LOW)) == 0
        letters = client.xrange(DEAD)
        assert [fields[b"id"] for _, fields in letters] == [b"", b"by hand"]
        [record] = await parts.asker().look_up(["by hand"])
        assert record.answer == b"refused"

    run(test)


@pytest.mark.parametrize("garbage", [b"", b"\x00", "ü" * 100, "a b c", "x" * 100_000])
def test_garbage_for_an_id_harms_nothing(run, client, garbage):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        client.xadd(queue_key(CRITICAL), {"id": garbage})
        client.xadd(queue_key(CRITICAL), {"id": "valid", garbage or "f": "x"})
        sent = envelope(CRITICAL)
        await asker.send([sent])
        found = await worker.take(EVERY, 1)
        assert [type(each) for each in found] == [BadDelivery, BadDelivery, Delivery]
        for each in found[:2]:
            await worker.bury(each, each.reason, b"refused")
        assert client.xlen(DEAD) == 2
        assert await worker.settle(sent.id, b"answer", found[2])

    run(test)


def test_a_change_of_data_reaches_one_worker_and_another_if_that_one_dies(run, client, settings):
    async def test(parts: Parts) -> None:
        first, second = parts.answerer(), parts.answerer()
        publisher = Publisher(client, settings)
        for symbol, run_id in (("BTCUSDT", "r1"), ("ETHUSDT", ""), ("BTCUSDT", "r2")):
            publisher.bump("bars", symbol, run_id=run_id)
        announced = {"bars/BTCUSDT": "r2", "bars/ETHUSDT": ""}
        assert await first.changes(5) == announced
        assert await second.changes(0) == {}
        await first.close()
        assert await until(lambda: second.changes(0.05)) == announced
        assert await second.changes(0.3) == {}
        publisher.bump("sentiment", "")
        assert await second.changes(5) == {"sentiment/": ""}

    run(test, request_claim_seconds=0.2)


def test_what_waited_for_runs_is_told_which_brought_what_whoever_takes_it(run):
    wanted = Wanted(body=b"w", needs=("bars/BTC", "bars/ETH"))
    needs = ("bars/BTC", "bars/ETH", "bars/SOL")

    async def test(parts: Parts) -> None:
        first, second = parts.answerer(), parts.answerer()
        await parts.asker().send([envelope(), envelope(standing=True)])
        for each in await first.take(EVERY, 5):
            assert each.runs == {}
            await first.park(each, needs, wanted)
        assert await first.release(["bars/SOL", "bars/BTC"], runs={"bars/SOL": "r0", "bars/BTC": "r1"}) == 2
        for each in await second.take(EVERY, 5):
            assert (each.runs, each.note) == ({"bars/BTC": "r1"}, "")
            await first.release(["bars/ETH"], runs={"bars/ETH": "r2"})  # before it parks
            await second.park(each, needs, None if each.envelope.standing else wanted)
        plain, standing = sorted(await first.take(EVERY, 5), key=lambda each: each.envelope.standing)
        assert plain.runs == {"bars/BTC": "r1", "bars/ETH": "r2"}
        assert standing.runs == {}
        await first.park(standing, needs)
        assert await first.release(["bars/BTC"], runs={"bars/BTC": "r3"}) == 1
        assert (await one(second)).runs == {}
        await first.park(plain, needs, wanted)
        assert (await one(second)).runs == {"bars/BTC": "r3", "bars/ETH": "r2"}

    run(test)


def test_bumps_are_bounded(client, settings, monkeypatch):
    monkeypatch.setattr("mdplatform.serving.publisher.CHANGES_KEPT", 100)
    publisher = Publisher(client, settings)
    for _ in range(500):
        publisher.bump("bars", "BTCUSDT")
    assert client.xlen(f"{PREFIX}changes") < 300


def test_the_desk_reads_from_a_cursor_and_trims(run, settings, client):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = [envelope(HIGH, strategy="momentum") for _ in range(3)]
        await asker.send(sent)
        with registry.desk(settings) as desk:
            assert desk.wanted("0", 10) == []
            for number, each in enumerate(await worker.take(EVERY, 5)):
                await worker.park(each, ["a"], Wanted(body=str(number).encode(), needs=("bars/BTCUSDT",)))
            found = desk.wanted("0", 2)
            assert found == desk.wanted("", 2)
            [last] = desk.wanted(found[-1].place, 10)
            assert last == Entry(place=last.place, body=b"2", id=sent[2].id, priority=HIGH, strategy="momentum")
            assert desk.wanted(last.place, 10) == []
            await worker.report([b"made", b"made too"])
            assert [each.body for each in desk.lineage("0", 10)] == [b"made", b"made too"]
            desk.trim(wanted=found[0].place)
            assert [each.body for each in desk.wanted("0", 10)] == [b"1", b"2"]
            desk.trim(wanted=last.place, lineage=desk.lineage("0", 1)[0].place)
            assert (client.xlen(WANTED), client.xlen(LINEAGE)) == (0, 1)
            assert [each.id for each in desk.open(10)] == [each.id for each in sent]
            assert len(desk.open(2)) == 2

    run(test)


def test_the_desk_sees_what_no_worker_takes(run, settings, client):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        left, busy = envelope(HIGH, body=b"left"), envelope(LOW, body=b"busy")
        await asker.send([left, busy])
        [held] = await worker.take({LOW: 1}, 5)
        with RedisDesk(settings) as desk:
            assert desk.stranded(60, 10) == []
            assert await until(lambda: asyncio.sleep(0.01, desk.stranded(0.05, 10)))
            await worker.keep([held])
            assert [each.id for each in desk.stranded(0.05, 10)] == [left.id]
            assert desk.tell(left.id, b"a run is on its way")
            assert desk.release([left.id, busy.id, "never heard of"], "the run is over") == 2
            back = await one(worker)
            assert (back.envelope, back.returned, back.note) == (left, True, "the run is over")
            await worker.park(held, ["bars/BTCUSDT"])
            again = await one(worker)
            assert (again.envelope, again.note) == (busy, "the run is over")
            assert desk.settle(left.id, b"failed")
            assert not desk.settle(left.id, b"failed")
            assert not desk.tell(left.id, b"progress")
        assert [each.body for each in await asker.receive(5)] == [b"a run is on its way", b"failed"]

    run(test)


def test_what_is_wanted_from_runs_is_bounded_by_its_bytes(run, settings, client, monkeypatch):
    monkeypatch.setattr(redis_answerer, "_WANTED_BYTES", 1_000_000)

    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = [envelope() for _ in range(100)]
        await asker.send(sent)
        for each in await worker.take(EVERY, 5):
            await worker.park(each, [], Wanted(body=b"x" * 20_000, needs=("bars/BTCUSDT",)))
        assert client.memory_usage(WANTED, samples=0) < 1_200_000
        with RedisDesk(settings) as desk:
            found = desk.wanted("0", 100)
            assert [each.id for each in found] == [each.id for each in sent[-len(found) :]]
            assert len(found) == 49
            assert int(client.get(f"{PREFIX}wanted_bytes")) == 49 * 20_200
            desk.trim(wanted=found[8].place)
            assert desk.wanted("0", 100) == found[9:]
            assert int(client.get(f"{PREFIX}wanted_bytes")) == 40 * 20_200
            desk.trim(wanted=found[-1].place)
            assert not client.exists(f"{PREFIX}wanted_bytes")

    run(test)


WRONG = {
    "a deadline": {"deadline": "soon"},
    "a class": {"priority": "URGENT"},
    "bytes": {"priority": b"\xff"},
    "a count": {"attempts": "x", "sent_at": "y"},
    "nothing": {},
    "no hash": None,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_record_that_cannot_be_read_is_buried_and_stops_nobody(run, settings, client, wrong):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        good, bad = envelope(deadline=1), envelope(CRITICAL)
        await asker.send([bad, good])
        key = f"{PREFIX}record:{bad.id}"
        if WRONG[wrong]:
            client.hset(key, mapping=WRONG[wrong])
        else:
            client.delete(key)
        if WRONG[wrong] is None:
            client.set(key, "text")
        client.zadd(f"{PREFIX}open", {bad.id: 0, b"\xff": 0})
        with RedisDesk(settings) as desk:
            overdue, opened = await worker.overdue(10), desk.open(10)
        assert [each.id for each in overdue] == [each.id for each in opened] == [good.id]
        assert client.zcard(f"{PREFIX}open") == 1
        found = await worker.take(EVERY, 5)
        for each in found:
            if isinstance(each, BadDelivery):
                await worker.bury(each, each.reason)
            else:
                assert await worker.settle(each.envelope.id, b"answer", each)
        assert [each.id for each in await asker.receive(5)] == [good.id]
        assert not client.exists(key)
        assert client.xlen(queue_key(CRITICAL)) == client.xlen(queue_key(NORMAL)) == 0
        assert client.xlen(DEAD) >= 1

    run(test)


@pytest.mark.parametrize("wrong", ["a deadline", "no hash"])
def test_a_record_that_cannot_be_read_does_not_keep_others_from_being_taken(run, client, wrong):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        bad, good = envelope(), envelope()
        await asker.send([bad, good])
        key = f"{PREFIX}record:{bad.id}"
        if WRONG[wrong]:
            client.hset(key, mapping=WRONG[wrong])
        else:
            client.set(key, "text")
        buried, delivery = await worker.take(EVERY, 5)
        assert isinstance(buried, BadDelivery)
        assert "its record cannot be read" in buried.reason
        await worker.bury(buried, buried.reason)
        assert not client.exists(key)
        assert client.zrange(f"{PREFIX}open", 0, -1) == [good.id.encode()]
        assert await worker.settle(good.id, b"answer", delivery)

    run(test)


def test_entries_that_are_no_text_stop_no_reader(run, settings, client):
    async def test(parts: Parts) -> None:
        for stream in (WANTED, LINEAGE):
            client.xadd(stream, {"priority": b"\xff", "id": b"\xff", "strategy": b"\xff", "body": b"x"})
        with RedisDesk(settings) as desk:
            [wanted], [lineage] = desk.wanted("0", 9), desk.lineage("0", 9)
        assert [(each.body, each.priority) for each in (wanted, lineage)] == [(b"x", NORMAL)] * 2
        Publisher(client, settings).bump("bars", "BTCUSDT")
        client.xadd(f"{PREFIX}changes", {"need": b"\xff", "run": b"\xfe"})
        assert "bars/BTCUSDT" in await parts.answerer().changes(5)

    run(test)


def test_calls_say_that_redis_is_gone_and_waiting_goes_on(settings, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(redis_line, "PATIENCE", 0.2)
    away = settings.model_copy(update={"redis_url": f"unix://{tmp_path}/nobody.sock"})

    async def test() -> None:
        asker, worker = RedisAsker(away), RedisAnswerer(away)
        for call in (
            asker.send([envelope()]),
            asker.settle("x", b""),
            asker.look_up(["x"]),
            worker.settle("x", b""),
            worker.reclaim(1, 1),
            worker.overdue(1),
            worker.take(EVERY, 0),
        ):
            begun = time.monotonic()
            with pytest.raises(TransportUnavailable, match=r"nobody\.sock.*doctor"):
                await call
            assert time.monotonic() - begun < 3
        assert await asker.receive(0.3) == []
        assert await asker.receive(0) == []
        assert await worker.changes(0.3) == {}
        await asker.close()
        await worker.close()
        for call in (asker.send([envelope()]), asker.receive(1), worker.take(EVERY, 1), worker.changes(1)):
            with pytest.raises(TransportUnavailable, match="closed"):
                await call

    asyncio.run(test())
    assert caplog.text.count("trying again") <= 3


def test_settling_goes_on_when_memory_is_full_and_admission_says_so(run, client):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = envelope()
        await asker.send([sent])
        held = await one(worker)
        client.config_set("maxmemory", "1mb")
        with pytest.raises(TransportUnavailable, match="memory"):
            await asker.send([envelope()])
        assert await worker.settle(sent.id, b"answer", held)
        assert [each.id for each in await asker.receive(5)] == [sent.id]
        client.config_set("maxmemory", "64mb")

    run(test)


def test_no_key_of_a_request_may_be_evicted(run, client):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        await asker.send([envelope(), envelope()])
        held = await worker.take(EVERY, 5)
        await worker.settle(held[0].envelope.id, b"answer", held[0])
        await worker.park(held[1], ["bars/BTCUSDT"])
        assert {client.pttl(key) for key in client.keys("mdp:*")} == {-1}

    run(test)


def test_the_replies_of_an_asker_that_is_gone_are_bounded_and_go_with_it(run, client):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker("gone"), parts.answerer()
        sent = envelope()
        await asker.send([sent])
        key = f"{PREFIX}replies:gone"
        for _ in range(30):
            await asyncio.gather(*(worker.tell(sent.id, b"x" * 500_000) for _ in range(10)))
        assert client.memory_usage(key) < 50_000_000
        client.zadd(f"{PREFIX}addresses", {"gone": 1})
        await parts.asker().send([envelope()])
        assert not client.exists(key)
        assert client.zcard(f"{PREFIX}reply_bytes") == 0
        assert int(client.get(f"{PREFIX}all_reply_bytes")) == 0
        assert await worker.settle(sent.id, b"answer")
        assert not client.exists(key)

    run(test)


def test_admission_goes_on_whatever_dead_askers_left(run, client):
    async def test(parts: Parts) -> None:
        worker, living = parts.answerer(), parts.asker()
        waiting = envelope()
        await living.send([waiting])
        for number in range(4):
            sent = [envelope() for _ in range(100)]
            await parts.asker(f"dead-{number}").send(sent)
            for each in sent:
                await worker.settle(each.id, b"x" * 1_000_000)
            for _ in range(30):
                told = envelope()
                await parts.asker(f"dead-{number}-{told.id}").send([told])
                await worker.tell(told.id, b"x" * 1_000_000)
        assert int(client.get(f"{PREFIX}all_reply_bytes")) <= 64 * 2**20
        assert client.info("memory")["used_memory"] < 200_000_000
        await worker.settle(waiting.id, b"answer")
        assert [each.body for each in await living.receive(5)] == [b"answer"]

    run(test)


def test_addresses_that_nobody_reads_go_although_nobody_is_admitted(run, client):
    async def test(parts: Parts) -> None:
        sent, worker = envelope(), parts.answerer()
        await parts.asker("gone").send([sent])
        await worker.tell(sent.id, b"news")
        life = client.zscore(f"{PREFIX}addresses", "gone") - time.time() * 1e6
        assert 50e6 < life < 61e6
        client.zadd(f"{PREFIX}addresses", {"gone": 1})
        client.config_set("maxmemory", 1)
        try:
            await worker.reclaim(60, 1)
        finally:
            client.config_set("maxmemory", 0)
        assert not client.exists(f"{PREFIX}replies:gone")

    run(test)


def test_a_large_answer_leaves_the_small_ones_that_wait_alone(run, client):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = [envelope(LOW) for _ in range(900)]
        await asker.send(sent)
        await worker.settle_many([(each.id, b"small", None) for each in sent[:-1]])
        await worker.settle(sent[-1].id, b"x" * 5_000_000)
        found = []
        while len(found) < 900:
            came = await asker.receive(5)
            assert came, f"{len(found)} came"
            found += came
        assert {each.id for each in found} == {each.id for each in sent}
        assert [len(each.body) for each in found if each.id == sent[-1].id] == [5_000_000]
        await asker.receive(0)
        assert int(client.get(f"{PREFIX}all_reply_bytes")) == 0

    run(test)


def test_a_large_answer_that_was_let_go_before_it_was_fetched_says_so(run, client):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = [envelope() for _ in range(3)]
        await asker.send(sent)
        for each in sent:
            await worker.settle(each.id, b"x" * 700_000)
        assert [(each.final, len(each.body)) for each in await asker.receive(5)] == [
            (True, 0),
            (True, 0),
            (True, 700_000),
        ]

    run(test, answers_kept_mb=1)


def test_a_dead_workers_delivery_is_found_behind_many_of_living_ones(run):
    async def test(parts: Parts) -> None:
        asker, living, dead = parts.asker(), parts.answerer(), parts.answerer()
        await asker.send([envelope(LOW) for _ in range(30)])
        held = await living.take({LOW: 30}, 5)
        sent = envelope(LOW)
        await asker.send([sent])
        await one(dead)
        found: list[Any] = []

        async def reclaimed() -> bool:
            await living.keep(held)
            found.extend(await living.reclaim(0.3, 1))
            return bool(found)

        assert await until(reclaimed, 5)
        assert [each.envelope.id for each in found] == [sent.id]

    run(test)


def test_bounds_hold_after_many_requests(run, client):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        for _ in range(20):
            sent = [envelope() for _ in range(50)]
            await asker.send(sent)
            held = await worker.take(EVERY, 5)
            await worker.settle_many([(each.envelope.id, b"x" * 1000, each) for each in held])
            await asker.receive(5)
        size = int(client.get(f"{PREFIX}answer_bytes"))
        assert size == 100_000
        assert client.llen(f"{PREFIX}answers") == 100
        assert client.xlen(queue_key(NORMAL)) == 0
        await asker.receive(0)
        assert client.xlen(f"{PREFIX}replies:{asker.address}") == 0

    run(test, answers_kept=100)


def test_names_of_workers_that_are_gone_do_not_gather(run, client, monkeypatch):
    monkeypatch.setattr(redis_answerer, "_TIDY_SECONDS", 0.0)
    monkeypatch.setattr(redis_answerer, "_FORGOTTEN_SECONDS", 0.0)

    async def test(parts: Parts) -> None:
        asker = parts.asker()
        await asker.send([envelope() for _ in range(3)])
        gone = [parts.answerer() for _ in range(3)]
        for each in gone:
            await each.take({NORMAL: 1}, 5)
            await each.beat({"answered": 1}, 0.01)
            await each.close()
        living = parts.answerer()
        assert len(await living.reclaim(0, 10)) == 3

        async def one_is_left() -> bool:
            await living.beat({"answered": 2}, 60)
            return client.zcard(f"{PREFIX}workers") == 1

        assert await until(one_is_left)
        await living.reclaim(60, 10)
        assert [each["pending"] for each in client.xinfo_consumers(queue_key(NORMAL), GROUP)] == [3]

    run(test)


def test_an_address_that_cannot_be_one_is_refused(settings):
    for wrong in ("", "a/b", "a b", "x" * 200, "ü", "a\nb"):
        with pytest.raises(InvalidSetting, match="address"):
            RedisAsker(settings, wrong)


def test_the_setting_chooses_the_transport(settings, client):
    async def test() -> None:
        sides = [registry.asker(settings), registry.answerer(settings, "w")]
        assert [type(each) for each in sides] == [RedisAsker, RedisAnswerer]
        for each in sides:
            await each.close()

    asyncio.run(test())
