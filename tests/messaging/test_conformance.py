"""What every transport keeps: one final answer per id, none lost, bounds, the order of urgency."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from mdplatform.messaging.memory.transport import MemoryTransport
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import Answerer, Asker, Delivery, Reply, Wanted
from mdplatform.settings import Settings
from tests.messaging.transports import EVERY, TRANSPORTS, Parts, envelope

CRITICAL, HIGH, NORMAL, LOW = DataPriority
Test = Callable[[Parts], Coroutine[Any, Any, None]]


@pytest.fixture(params=TRANSPORTS)
def run(request: pytest.FixtureRequest, settings: Settings) -> Callable[..., None]:
    """Runs a test's coroutine with the parts of each transport, within a deadline."""
    if request.param == "rabbitmq":
        settings = request.getfixturevalue("rabbitmq_settings")

    def on(test: Test, **changes: Any) -> None:
        async def whole() -> None:
            async with TRANSPORTS[request.param](settings.model_copy(update=changes)) as parts:
                await asyncio.wait_for(test(parts), 30)

        asyncio.run(whole())

    return on


async def taken(worker: Answerer, wait_seconds: float = 5.0, **shares: int) -> list[Delivery]:
    found = await worker.take({DataPriority(name): share for name, share in shares.items()} or EVERY, wait_seconds)
    assert all(isinstance(each, Delivery) for each in found)
    return [each for each in found if isinstance(each, Delivery)]


async def one(worker: Answerer) -> Delivery:
    [delivery] = await taken(worker)
    return delivery


async def nothing(side: Asker) -> None:
    assert await side.receive(0.05) == []


async def replies(asker: Asker, count: int) -> list[Reply]:
    found: list[Reply] = []
    while len(found) < count:
        came = await asker.receive(5)
        assert came, f"{len(found)} of {count} replies came"
        found += came
    await nothing(asker)
    return found


def test_a_request_goes_to_a_worker_and_its_answer_comes_back(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = envelope(HIGH, strategy="momentum", label="RSI", body=b"\x00\xff\n", standing=True)
        [receipt] = await asker.send([sent])
        assert (receipt.admitted, receipt.known, receipt.open) == (True, False, 1)
        delivery = await one(worker)
        assert (delivery.envelope, delivery.attempt, delivery.returned, delivery.note) == (sent, 1, False, "")
        assert await worker.settle(sent.id, b"\x00answer\xff", delivery)
        assert await replies(asker, 1) == [Reply(id=sent.id, final=True, body=b"\x00answer\xff")]

    run(test)


def test_what_is_sent_again_is_known_and_delivered_once(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = envelope()
        receipts = await asker.send([sent, sent])
        receipts += await asker.send([sent])
        assert all(each.admitted for each in receipts)
        assert [each.known for each in receipts] == [False, True, True]
        delivery = await one(worker)
        assert await taken(worker, 0) == []
        await worker.settle(sent.id, b"answer", delivery)
        assert (await asker.send([sent]))[0].known
        assert await taken(worker, 0) == []
        assert len(await replies(asker, 1)) == 1

    run(test)


def test_the_first_to_settle_wins_whoever_it_is(run):
    async def test(parts: Parts) -> None:
        asker, worker, other = parts.asker(), parts.answerer(), parts.answerer()
        first, second = envelope(), envelope()
        await asker.send([first, second])
        deliveries = {each.envelope.id: each for each in await taken(worker)}
        assert await asker.settle(first.id, b"cancelled")
        assert not await worker.settle(first.id, b"answer", deliveries[first.id])
        assert await worker.settle(second.id, b"answer", deliveries[second.id])
        assert not await asker.settle(second.id, b"cancelled")
        assert not await other.settle(second.id, b"another")
        bodies = {each.id: each.body for each in await replies(asker, 2)}
        assert bodies == {first.id: b"cancelled", second.id: b"answer"}
        found = [each for each in await asker.look_up([first.id, second.id]) if each]
        assert [(each.answer, each.body) for each in found] == [(body, b"") for body in bodies.values()]

    run(test)


def test_many_settle_at_once_and_one_wins_for_each(run):
    async def test(parts: Parts) -> None:
        asker, workers = parts.asker(), [parts.answerer() for _ in range(3)]
        sent = [envelope() for _ in range(150)]
        await asker.send(sent)
        both = [
            worker.settle_many([(each.id, str(number).encode(), None) for each in sent])
            for number, worker in enumerate(workers)
        ]
        results = await asyncio.gather(*both, *(asker.settle(each.id, b"asker") for each in sent))
        won = [list(each) for each in zip(*results[:3], results[3:], strict=True)]
        assert all(sum(each) == 1 for each in won)
        given = {each.id: each.body for each in await replies(asker, 150)}
        names = [b"0", b"1", b"2", b"asker"]
        assert given == {each.id: names[who.index(True)] for each, who in zip(sent, won, strict=True)}

    run(test)


def test_the_most_urgent_come_first_within_the_shares(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = [envelope(priority) for priority in (LOW, NORMAL, HIGH, CRITICAL) for _ in range(3)]
        await asker.send(sent)
        found = await taken(worker, CRITICAL=2, HIGH=2, LOW=1)
        order = [each.envelope.priority for each in found]
        assert order == [CRITICAL, CRITICAL, HIGH, HIGH, LOW]
        by_class = {priority: [each.id for each in sent if each.priority is priority] for priority in DataPriority}
        assert [each.envelope.id for each in found] == [
            *by_class[CRITICAL][:2],
            *by_class[HIGH][:2],
            *by_class[LOW][:1],
        ]
        rest = await taken(worker)
        assert len(rest) == 7
        assert await worker.take({}, 0.05) == []

    run(test)


def test_taking_waits_for_what_comes(run):
    async def test(parts: Parts) -> None:
        asker, worker, idle = parts.asker(), parts.answerer(), parts.answerer()
        begun = time.monotonic()
        assert await idle.take(EVERY, 0.1) == []
        assert 0.09 < time.monotonic() - begun < 2
        waiting = asyncio.create_task(taken(worker, 10))
        await asyncio.sleep(0)
        sent = envelope(LOW)
        await asker.send([sent])
        assert [each.envelope for each in await waiting] == [sent]

    run(test)


def test_receiving_waits_for_what_comes(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = envelope()
        await asker.send([sent])
        waiting = asyncio.create_task(asker.receive(10))
        await asyncio.sleep(0)
        await worker.settle(sent.id, b"answer", await one(worker))
        assert [each.id for each in await waiting] == [sent.id]

    run(test)


def test_what_was_settled_meanwhile_is_not_delivered(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = [envelope() for _ in range(3)]
        await asker.send(sent)
        await asker.settle(sent[1].id, b"cancelled")
        assert [each.envelope for each in await taken(worker)] == [sent[0], sent[2]]
        await asker.settle(sent[0].id, b"cancelled")
        assert [each.envelope for each in await worker.reclaim(0, 10)] == [sent[2]]

    run(test)


def test_another_worker_reclaims_what_a_silent_one_held(run):
    async def test(parts: Parts) -> None:
        asker, silent, other = parts.asker(), parts.answerer(), parts.answerer()
        sent = [envelope(LOW), envelope(CRITICAL)]
        await asker.send(sent)
        held = await taken(silent)
        assert await other.reclaim(60, 10) == []
        [urgent] = await other.reclaim(0, 1)
        assert isinstance(urgent, Delivery)
        assert (urgent.envelope, urgent.attempt) == (sent[1], 2)
        assert len(await other.reclaim(0, 10)) == 2
        # The silent one comes back: its answer may still be the first, but it has no hold on the request any more.
        await silent.park(held[0], ["bars/BTCUSDT"])
        await silent.bury(held[0], "too late")
        await silent.keep(held)
        [record] = await asker.look_up([sent[1].id])
        assert record is not None
        assert (record.stage, record.attempts, record.body) == ("taken", 3, sent[1].body)
        assert await silent.settle(sent[1].id, b"late but first", held[0])
        assert not await other.settle(sent[1].id, b"second", urgent)
        assert [each.body for each in await replies(asker, 1)] == [b"late but first"]

    run(test)


def test_a_sign_of_life_keeps_a_delivery(run):
    async def test(parts: Parts) -> None:
        asker, worker, other = parts.asker(), parts.answerer(), parts.answerer()
        await asker.send([envelope(), envelope()])
        kept, silent = await taken(worker)
        end = time.monotonic() + 0.3
        found: list[object] = []
        while not found and time.monotonic() < end:
            await worker.keep([kept])
            found = [*await other.reclaim(0.2, 10)]
        assert [each.envelope.id for each in found if isinstance(each, Delivery)] == [silent.envelope.id]

    run(test)


def test_updates_come_before_the_answer_and_none_after_it(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = envelope()
        await asker.send([sent])
        delivery = await one(worker)
        assert await worker.tell(sent.id, b"half")
        await worker.settle(sent.id, b"all", delivery)
        assert not await worker.tell(sent.id, b"more")
        assert not await worker.tell("never heard of", b"more")
        assert [(each.final, each.body) for each in await replies(asker, 2)] == [(False, b"half"), (True, b"all")]

    run(test)


def test_numbered_answers_only_go_up(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = envelope(standing=True)
        await asker.send([sent])
        delivery = await one(worker)
        base = 1_700_000_000_000_000
        told = [await worker.tell(sent.id, str(each).encode(), number=base + each) for each in (1, 1, 3, 2, 4)]
        assert told == [True, False, True, False, True]
        assert await worker.tell(sent.id, b"progress")
        assert not await worker.tell(sent.id, b"4", number=base + 4, delivery=delivery)
        assert await worker.reclaim(0, 10) == []
        assert [each.body for each in await replies(asker, 4)] == [b"1", b"3", b"4", b"progress"]

    run(test)


def test_an_id_is_not_admitted_with_other_content_while_it_is_open_or_known(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = envelope(content=b"one")
        other, silent = msgspec.structs.replace(sent, content=b"two"), msgspec.structs.replace(sent, content=b"")
        [first] = await asker.send([sent])
        assert (first.admitted, first.known, first.taken) == (True, False, False)
        again = [(await asker.send([each]))[0] for each in (sent, other, silent)]
        told = [(True, True, False), (False, False, True), (True, True, False)]
        assert [(each.admitted, each.known, each.taken) for each in again] == told
        delivery = await one(worker)
        assert await worker.settle(sent.id, b"answer", delivery)
        again = [(await asker.send([each]))[0] for each in (sent, other, silent)]
        assert [(each.admitted, each.known, each.taken) for each in again] == told
        assert [each.body for each in await replies(asker, 1)] == [b"answer"]

    run(test)


def test_the_next_delivery_knows_the_last_number_that_was_told_and_its_mark(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        await asker.send([sent := envelope(standing=True)])
        delivery = await one(worker)
        assert (delivery.told, delivery.mark) == (0, "")
        number = 1_700_000_000_000_000
        assert await worker.tell(sent.id, b"3", number=number, mark="a mark")
        assert not await worker.tell(sent.id, b"2", number=number - 1, mark="another")
        await worker.park(delivery, ["bars/BTCUSDT"])
        await worker.release(["bars/BTCUSDT"])
        again = await one(worker)
        assert (again.told, again.mark) == (number, "a mark")

    run(test)


def test_what_is_parked_comes_back_when_one_of_its_needs_is_released(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = envelope(HIGH)
        await asker.send([sent])
        await worker.park(await one(worker), ["bars/BTCUSDT", "macro/CPI"], Wanted(body=b"x", needs=("bars/ETHUSDT",)))
        [record] = await asker.look_up([sent.id])
        assert record is not None
        assert record.stage == "parked"
        assert set(record.holder.split(", ")) == {"bars/BTCUSDT", "macro/CPI", "bars/ETHUSDT"}
        assert await worker.release(["bars/BTC", "bars"]) == 0
        assert await taken(worker, 0) == []
        assert await worker.reclaim(0, 10) == []
        assert await worker.release(["bars/ETHUSDT", "macro/CPI"], "the runs are over") == 1
        assert await worker.release(["bars/BTCUSDT"]) == 0
        back = await one(worker)
        assert (back.envelope, back.returned, back.note, back.attempt) == (sent, True, "the runs are over", 1)
        await worker.settle(sent.id, b"answer", back)
        assert len(await replies(asker, 1)) == 1

    run(test)


def test_a_change_between_take_and_park_is_not_missed(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        await asker.send([envelope()])
        await worker.release(["bars/BTCUSDT"])
        first = await one(worker)
        await worker.release(["bars/BTCUSDT"])
        await worker.park(first, ["bars/BTCUSDT"])
        again = await one(worker)
        assert (again.returned, again.note) == (True, "")
        await worker.park(again, ["bars/BTCUSDT"])
        assert await taken(worker, 0) == []

    run(test)


def test_a_parked_request_can_be_settled_and_is_then_not_released(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = envelope()
        await asker.send([sent])
        delivery = await one(worker)
        await worker.park(delivery, ["bars/BTCUSDT"])
        assert await asker.settle(sent.id, b"cancelled")
        assert await worker.release(["bars/BTCUSDT"]) == 0
        await worker.park(delivery, ["bars/BTCUSDT"])
        assert await worker.release(["bars/BTCUSDT"]) == 0
        assert len(await replies(asker, 1)) == 1

    run(test)


def test_over_capacity_the_least_urgent_are_refused_first_and_told_when_to_come_again(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        admitted = {}
        for priority in (LOW, NORMAL, HIGH, CRITICAL):
            receipts = await asker.send([envelope(priority) for _ in range(20)])
            admitted[priority] = sum(each.admitted for each in receipts)
            assert all(each.retry_after_seconds > 0 for each in receipts if not each.admitted)
        assert admitted == {LOW: 20, NORMAL: 2, HIGH: 3, CRITICAL: 5}
        held = [*await taken(worker), *await taken(worker, 0)]
        assert len(held) == 30
        await worker.settle_many([(each.envelope.id, b"answer", each) for each in held[:11]])
        assert [each.admitted for each in await asker.send([envelope(LOW), envelope(LOW)])] == [True, False]

    run(test, request_capacity=20)


def test_a_refused_request_may_be_sent_again(run):
    async def test(parts: Parts) -> None:
        asker = parts.asker()
        first, second = envelope(LOW), envelope(LOW)
        assert [each.admitted for each in await asker.send([first, second])] == [True, False]
        assert await asker.look_up([second.id]) == [None]
        await asker.settle(first.id, b"cancelled")
        [receipt] = await asker.send([second])
        assert (receipt.admitted, receipt.known) == (True, False)

    run(test, request_capacity=1)


def test_standing_requests_do_not_count_once_they_were_parked_but_are_bounded(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        for _ in range(10):
            [receipt] = await asker.send([envelope(LOW, standing=True)])
            assert receipt.admitted
            await worker.park(await one(worker), ["bars/BTCUSDT"])
        [receipt] = await asker.send([envelope(LOW, standing=True)])
        assert not receipt.admitted
        assert await worker.release(["bars/BTCUSDT"]) == 10
        assert (await asker.send([envelope(LOW)]))[0].admitted

    run(test, request_capacity=1)


def test_replies_go_to_whoever_adopted_the_request_too(run):
    async def test(parts: Parts) -> None:
        asker, other, worker = parts.asker(), parts.asker(), parts.answerer()
        assert asker.address != other.address
        sent = envelope(strategy="momentum", label="RSI")
        await asker.send([sent])
        for _ in range(2):
            [record, none] = await other.adopt([sent.id, "never heard of"])
            assert none is None
            assert record is not None
            assert (record.strategy, record.label, record.stage) == ("momentum", "RSI", "queued")
        await worker.settle(sent.id, b"answer", await one(worker))
        assert await replies(asker, 1) == await replies(other, 1)
        [record] = await parts.asker().adopt([sent.id])
        assert record is not None
        assert record.answer == b"answer"
        assert await asker.look_up([]) == []

    run(test)


def test_records_tell_where_a_request_is(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = envelope(HIGH, standing=True)
        stages = []

        async def look() -> None:
            [record] = await asker.look_up([sent.id])
            assert record is not None
            stages.append((record.stage, bool(record.holder), record.answer))
            assert (record.priority, record.deadline, record.sent_at) == (HIGH, sent.deadline, sent.sent_at)
            assert record.standing

        assert await asker.look_up([sent.id]) == [None]
        await asker.send([sent])
        await look()
        delivery = await one(worker)
        await look()
        await worker.park(delivery, ["bars/BTCUSDT"])
        await look()
        await asker.settle(sent.id, b"answer")
        await look()
        assert stages == [
            ("queued", False, None),
            ("taken", True, None),
            ("parked", True, None),
            ("settled", False, b"answer"),
        ]

    run(test)


def test_answers_are_kept_up_to_a_count_and_the_ids_longer(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = [envelope() for _ in range(5)]
        await asker.send(sent)
        for each in sent:
            await worker.settle(each.id, b"answer")
        records = await asker.look_up([each.id for each in sent])
        assert [each.answer for each in records if each] == [None, None, None, b"answer", b"answer"]
        assert {each.stage for each in records if each} == {"settled"}
        assert not await worker.settle(sent[0].id, b"again")

    run(test, answers_kept=2)


def test_answers_are_kept_up_to_a_size(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = [envelope() for _ in range(5)]
        await asker.send(sent)
        for each in sent:
            await worker.settle(each.id, b"x" * 400_000)
        records = await asker.look_up([each.id for each in sent])
        assert [each.answer is not None for each in records if each] == [False, False, False, True, True]

    run(test, answers_kept_mb=1)


def test_a_tombstone_goes_when_its_time_is_over(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        now = time.time_ns() // 1000
        sent = envelope(deadline=now - 5_000_000)
        await asker.send([sent])
        await worker.settle(sent.id, b"answer")
        end = time.monotonic() + 10
        while await asker.look_up([sent.id]) != [None] and time.monotonic() < end:
            await asker.send([envelope()])
        assert await asker.look_up([sent.id]) == [None]

    run(test, answers_kept_seconds=1.0)


def test_overdue_requests_are_told_oldest_first(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        now = time.time_ns() // 1000
        late, later, fine = (envelope(deadline=now + each) for each in (-1_000_000, -2_000_000, 60_000_000))
        await asker.send([late, later, fine])
        assert [each.id for each in await worker.overdue(10)] == [later.id, late.id]
        assert [each.id for each in await worker.overdue(1)] == [later.id]
        await worker.settle(later.id, b"deadline passed")
        assert [each.id for each in await worker.overdue(10)] == [late.id]

    run(test)


def test_poison_is_buried_once_and_answered(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = envelope()
        await asker.send([sent])
        delivery = await one(worker)
        await worker.bury(delivery, "no request", b"refused")
        await worker.bury(delivery, "no request", b"refused")
        assert await worker.reclaim(0, 10) == []
        assert [each.body for each in await replies(asker, 1)] == [b"refused"]

    run(test)


def test_settling_what_nobody_sent_is_remembered_and_harms_nothing(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        assert await worker.settle("by hand", b"answer")
        assert not await worker.settle("by hand", b"another")
        [receipt] = await asker.send([envelope(id="by hand")])
        assert receipt.known
        assert await taken(worker, 0) == []
        assert await worker.release([]) == 0
        assert await worker.settle_many([]) == []
        assert await asker.send([]) == []

    run(test)


def test_an_asker_with_an_address_of_its_own_resumes_what_it_left(run):
    async def test(parts: Parts) -> None:
        worker = parts.answerer()
        sent = [envelope(), envelope()]
        gone = parts.asker("momentum-1")
        await gone.send(sent)
        await worker.settle(sent[0].id, b"first")
        assert len(await replies(gone, 1)) == 1
        await worker.settle(sent[1].id, b"second")
        await gone.close()
        back = parts.asker("momentum-1")
        assert back.address == "momentum-1"
        assert [each.body for each in await replies(back, 1)] == [b"second"]

    run(test)


def test_a_thousand_at_once_are_all_answered_once(run):
    async def test(parts: Parts) -> None:
        asker, workers = parts.asker(), [parts.answerer() for _ in range(2)]
        sent = [envelope(list(DataPriority)[number % 4], body=b"x" * 200) for number in range(1000)]
        receipts = await asyncio.gather(*(asker.send([each]) for each in sent))
        assert all(receipt.admitted for [receipt] in receipts)
        ended = asyncio.Event()

        async def work(worker: Answerer) -> None:
            while not ended.is_set():
                held = await taken(worker, 0.1)
                assert all(
                    await worker.settle_many([(each.envelope.id, each.envelope.id.encode(), each) for each in held])
                )

        working = [asyncio.create_task(work(each)) for each in workers]
        found = await replies(asker, 1000)
        ended.set()
        await asyncio.gather(*working)
        assert sorted(each.id for each in found) == sorted(each.id for each in sent)
        assert all(each.final and each.body == each.id.encode() for each in found)

    run(test)


@pytest.mark.parametrize("text", ["", "ü∞\n\t ", "x" * 5000, "a/b:c{d}", "--"])
def test_texts_of_people_come_through_unchanged(run, text):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        sent = envelope(strategy=text, label=text, body=text.encode())
        await asker.send([sent])
        delivery = await one(worker)
        assert delivery.envelope == sent
        await worker.park(delivery, ["macro/CPI"])
        assert await worker.release(["macro/CPI"], text) == 1
        assert (await one(worker)).note == text

    run(test)


def test_a_deadline_that_is_too_far_away_is_brought_near(run):
    async def test(parts: Parts) -> None:
        asker, worker = parts.asker(), parts.answerer()
        [receipt] = await asker.send([sent := envelope(deadline=time.time_ns() // 1000 + 30 * 86_400_000_000)])
        assert receipt.admitted
        week = time.time() * 1e6 + 7 * 86_400e6
        assert abs((await one(worker)).envelope.deadline - week) < 60e6
        assert await worker.settle(sent.id, b"answer")

    run(test)


def test_what_lies_where_nobody_reads_in_a_process_is_bounded(settings):
    async def test() -> None:
        transport = MemoryTransport(settings)
        dead, living, worker = transport.asker("dead"), transport.asker("living"), transport.answerer()
        sent, own = [envelope() for _ in range(100)], envelope()
        await dead.send(sent)
        await living.send([own])
        await worker.tell(own.id, b"news")
        await living.receive(0)
        for each in sent:
            await worker.settle(each.id, b"x" * 1_000_000)
        await worker.settle(own.id, b"answer")
        assert transport.reply_bytes < 65_000_000
        assert [each.body for each in await living.receive(0)] == [b"answer"]

    asyncio.run(test())
