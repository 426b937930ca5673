"""Whatever the order of events: a model of the requests and each transport agree after every step.

A machine of hypothesis sends, takes, reclaims, lets workers die, settles from every side, parks, releases, tells and
buries, also with deliveries that were taken away or are over. The model is a few dicts. After each step every request
must be where the model says; in the end all is answered, and each asker must have received exactly what the model
says, in that order: so one final reply a request, and nothing after it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.redis.desk import RedisDesk
from mdplatform.messaging.redis.keys import PREFIX, queue_key
from mdplatform.messaging.transport import Answerer, Asker, Delivery, Envelope, Reply, Wanted
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect
from tests.messaging.transports import EVERY, TRANSPORTS, Parts, envelope

T = TypeVar("T")
CRITICAL, HIGH, NORMAL, LOW = DataPriority
NEEDS = ("bars/BTCUSDT", "macro/CPI")
CAPACITY = 6

classes = st.sampled_from(list(DataPriority))
needs = st.lists(st.sampled_from(NEEDS), min_size=1, max_size=2, unique=True)
sides = st.integers(0, 1)
picks = st.integers(0, 1000)


@dataclass
class Model:
    """What should be known of one request."""

    envelope: Envelope
    askers: list[int]
    stage: str = "queued"
    attempts: int = 0
    returned: bool = False
    turn: int = 0
    waits_for: tuple[str, ...] = ()
    again: str | None = None
    note: str = ""
    told: int = 0
    answer: bytes | None = None
    was_parked: bool = False


@dataclass(eq=False)
class Held:
    """A delivery in a worker's hands, and which hold on the request it stands for."""

    delivery: Delivery
    hold: int


@dataclass
class World:
    """All requests, the order of the queues, and what each asker should have received."""

    requests: dict[str, Model] = field(default_factory=dict)
    queues: dict[DataPriority, list[str]] = field(default_factory=lambda: {each: [] for each in DataPriority})
    expected: list[list[Reply]] = field(default_factory=lambda: [[], []])
    holds: dict[str, int] = field(default_factory=dict)
    released: dict[str, int] = field(default_factory=dict)
    turn: int = 0

    def in_flight(self) -> int:
        open_now = [each for each in self.requests.values() if each.stage != "settled"]
        return sum(not (each.envelope.standing and each.was_parked) for each in open_now)

    def queue(self, model: Model, note: str = "", returned: bool = True) -> None:
        model.stage, model.attempts, model.waits_for, model.again = "queued", 0, (), None
        model.returned, model.note = returned, note
        self.queues[model.envelope.priority].append(model.envelope.id)

    def leave(self, model: Model) -> None:
        queue = self.queues[model.envelope.priority]
        if model.envelope.id in queue:
            queue.remove(model.envelope.id)
        self.holds[model.envelope.id] = self.holds.get(model.envelope.id, 0) + 1

    def hand(self, model: Model) -> int:
        self.leave(model)
        model.stage, model.attempts, model.turn = "taken", model.attempts + 1, self.turn
        return self.holds[model.envelope.id]

    def reply(self, model: Model, body: bytes, final: bool) -> None:
        for asker in model.askers:
            self.expected[asker].append(Reply(id=model.envelope.id, final=final, body=body))

    def settle(self, id: str, body: bytes) -> bool:
        model = self.requests[id]
        if model.stage == "settled":
            return False
        self.leave(model)
        model.stage, model.answer = "settled", body
        self.reply(model, body, True)
        return True


requests = precondition(lambda self: self.world.requests)
deliveries = precondition(lambda self: self.handed or any(self.world.queues.values()))


class Machine(RuleBasedStateMachine):
    """The events, on two askers and two workers of one transport."""

    settings: ClassVar[Settings]
    transport: ClassVar[str]

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.world = World()
        self.bodies = 0
        self.handed: list[Held] = []
        self.by_hand = False
        self.seen: list[list[Reply]] = [[], []]
        self.parts: Parts = self.do(self.stack.enter_async_context(TRANSPORTS[self.transport](self.settings)))
        self.askers: list[Asker] = [self.parts.asker(f"asker-{number}") for number in (0, 1)]
        self.workers: list[Answerer] = [self.parts.answerer() for _ in (0, 1)]
        self.desk = None
        if self.transport == "redis":
            self.client = connect(self.settings)
            self.client.flushall()
            self.desk = RedisDesk(self.settings)
        for asker, priority in enumerate((NORMAL, HIGH)):
            self.send(asker=asker, priority=priority, standing=False, late=False)

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(asyncio.wait_for(coroutine, 20))

    def id(self, pick: int) -> str:
        """One of the requests: most times one that is open."""
        every = [id for id, model in self.world.requests.items() if model.stage != "settled" or pick % 5 == 0]
        return (every or list(self.world.requests))[pick // 5 % len(every or self.world.requests)]

    def hold(self, pick: int) -> Held:
        """One of the deliveries: most times one that is still valid, which is taken if there is none."""
        if not any(map(self._valid, self.handed)):
            self.take_all(pick % 2)
        every = [each for each in self.handed if self._valid(each) or pick % 4 == 0] or self.handed
        return every[pick // 4 % len(every)]

    def body(self) -> bytes:
        self.bodies += 1
        return f"body {self.bodies}".encode()

    @rule(asker=sides, priority=classes, standing=st.booleans(), late=st.booleans())
    def send(self, asker, priority, standing, late):
        deadline = time.time_ns() // 1000 + (-1_000_000 if late else 60_000_000)
        sent = envelope(priority, deadline=deadline, standing=standing)
        before = self.world.in_flight()
        limit = round(CAPACITY * {"CRITICAL": 1.5, "HIGH": 1.25, "NORMAL": 1.1, "LOW": 1.0}[priority])
        [receipt] = self.do(self.askers[asker].send([sent]))
        assert (receipt.admitted, receipt.known) == (before < limit, False)
        assert receipt.open == before + receipt.admitted
        if not receipt.admitted:
            return
        self.world.requests[sent.id] = model = Model(sent, [asker])
        self.world.queue(model, returned=False)

    @requests
    @rule(asker=sides, pick=picks)
    def send_again(self, asker, pick):
        id = self.id(pick)
        [receipt] = self.do(self.askers[asker].send([self.world.requests[id].envelope]))
        assert (receipt.admitted, receipt.known, receipt.open) == (True, True, self.world.in_flight())

    @requests
    @rule(pick=picks)
    def add_by_hand(self, pick):
        """A second entry for the same request: it must never be delivered."""
        id = self.id(pick)
        if self.transport == "redis":
            self.by_hand = True
            self.client.xadd(queue_key(self.world.requests[id].envelope.priority), {"id": id})

    @rule(worker=sides, shares=st.dictionaries(classes, st.integers(0, 3)))
    def take(self, worker, shares):
        if self.transport == "redis":
            shares = EVERY  # an entry that was added by hand takes up a share
        self._take(worker, shares)

    def take_all(self, worker):
        self._take(worker, EVERY)

    def _take(self, worker, shares):
        found = self.do(self.workers[worker].take(shares, 0))
        queues = self.world.queues
        due = [id for priority in DataPriority for id in queues[priority][: shares.get(priority, 0)]]
        assert [each.envelope.id for each in found] == due
        self._handed(found)

    @requests
    @rule(worker=sides, at_most=st.integers(1, 4))
    def reclaim(self, worker, at_most):
        found = self.do(self.workers[worker].reclaim(0, at_most))
        held = {id for id, model in self.world.requests.items() if model.stage == "taken"}
        assert len(found) == min(at_most, len(held))
        assert {each.envelope.id for each in found} <= held
        self._handed(found)

    def _handed(self, found):
        for each in found:
            model = self.world.requests[each.envelope.id]
            hold = self.world.hand(model)
            shown = (each.envelope, each.attempt, each.returned, each.note)
            assert shown == (model.envelope, model.attempts, model.returned, model.note)
            self.handed.append(Held(each, hold))

    def _valid(self, held: Held) -> Model | None:
        model = self.world.requests[held.delivery.envelope.id]
        return model if model.stage == "taken" and self.world.holds[model.envelope.id] == held.hold else None

    @deliveries
    @rule(worker=sides, pick=picks)
    def keep(self, worker, pick):
        self.do(self.workers[worker].keep([self.hold(pick).delivery]))

    @requests
    @rule(
        by=st.sampled_from(["worker", "holder", "asker"]), side=sides, several=st.lists(picks, min_size=1, max_size=3)
    )
    def settle(self, by, side, several):
        if by == "holder" and (self.handed or any(self.world.queues.values())):
            held = self.hold(several[0])
            answers = [(held.delivery.envelope.id, self.body(), held.delivery)]
        else:
            answers = [(self.id(pick), self.body(), None) for pick in several]
        expected = [self.world.settle(id, body) for id, body, _ in answers]
        if by == "asker":
            assert [self.do(self.askers[side].settle(id, body)) for id, body, _ in answers] == expected
        else:
            assert self.do(self.workers[side].settle_many(answers)) == expected

    @requests
    @rule(worker=sides)
    def answer_the_overdue(self, worker):
        now = time.time_ns() // 1000
        open_now = [each for each in self.world.requests.values() if each.stage != "settled"]
        late = {each.envelope.id for each in open_now if each.envelope.deadline < now}
        found = self.do(self.workers[worker].overdue(100))
        assert {each.id for each in found} == late
        for each in found[:1]:
            body = self.body()
            assert self.do(self.workers[worker].settle(each.id, body)) == self.world.settle(each.id, body)

    @deliveries
    @rule(worker=sides, pick=picks, needs=needs, wanted=st.none() | needs)
    def park(self, worker, pick, needs, wanted):
        held = self.hold(pick)
        runs = None if wanted is None else Wanted(body=b"runs", needs=tuple(wanted))
        self.do(self.workers[worker].park(held.delivery, needs, runs))
        model = self._valid(held)
        if model is None:
            return
        self.world.leave(model)
        model.was_parked = True
        waits_for = tuple(dict.fromkeys([*needs, *(wanted or ())]))
        if model.again is not None:
            self.world.queue(model, model.again)
        elif any(self.world.released.get(need, 0) > model.turn for need in waits_for):
            self.world.queue(model)
        else:
            model.stage, model.waits_for = "parked", waits_for

    @requests
    @rule(worker=sides, needs=needs, note=st.sampled_from(["", "the runs are over"]))
    def release(self, worker, needs, note):
        self.world.turn += 1
        self.world.released |= dict.fromkeys(needs, self.world.turn)
        parked = [each for each in self.world.requests.values() if each.stage == "parked"]
        due = [each for each in parked if set(each.waits_for) & set(needs)]
        assert self.do(self.workers[worker].release(needs, note)) == len(due)
        self._released(due, note)

    def _released(self, due, note):
        """Which of those of one class come first is the transport's affair: the model learns it by taking all."""
        for each in due:
            self.world.queue(each, note)
        if len(due) > 1:
            for queue in self.world.queues.values():
                order = [each.envelope.id for each in due]
                queue[:] = [id for id in queue if id not in order] + [id for id in queue if id in order]
            found = self.do(self.workers[0].take(EVERY, 0))
            assert sorted(each.envelope.id for each in found) == sorted(
                id for queue in self.world.queues.values() for id in queue
            )
            self._handed(found)

    @requests
    @rule(several=st.lists(picks, min_size=1, max_size=2), note=st.sampled_from(["", "the runs are over"]))
    def release_by_id(self, several, note):
        ids = list(dict.fromkeys(map(self.id, several)))
        if self.desk is None:
            return
        models = [self.world.requests[id] for id in ids]
        open_now = [each for each in models if each.stage != "settled"]
        assert self.desk.release(ids, note) == len(open_now)
        for each in open_now:
            if each.stage == "queued":
                each.returned, each.note = True, note
            elif each.stage == "taken":
                each.again = each.note = note
        self._released([each for each in open_now if each.stage == "parked"], note)

    @requests
    @rule(worker=sides, pick=picks, number=st.none() | st.integers(1, 3))
    def tell(self, worker, pick, number):
        id = self.id(pick)
        model, body = self.world.requests[id], self.body()
        due = model.stage != "settled" and (number is None or number > model.told)
        assert self.do(self.workers[worker].tell(id, body, number=number)) == due
        if due:
            model.told = model.told if number is None else number
            self.world.reply(model, body, False)

    @deliveries
    @rule(worker=sides, pick=picks)
    def tell_and_be_done(self, worker, pick):
        held = self.hold(pick)
        model, body = self._valid(held), self.body()
        told = self.world.requests[held.delivery.envelope.id]
        due = told.stage != "settled"
        assert self.do(self.workers[worker].tell(told.envelope.id, body, delivery=held.delivery)) == due
        if due:
            self.world.reply(told, body, False)
        if model is not None:
            self.world.leave(model)
            model.stage = "parked"

    @deliveries
    @rule(worker=sides, pick=picks, answered=st.booleans())
    def bury(self, worker, pick, answered):
        held = self.hold(pick)
        body = self.body() if answered else None
        model = self._valid(held)
        self.do(self.workers[worker].bury(held.delivery, "poison", body))
        if model is not None:
            self.world.leave(model)
            model.stage = "parked"
        if body is not None:
            self.world.settle(held.delivery.envelope.id, body)

    @requests
    @rule(asker=sides, pick=picks)
    def adopt(self, asker, pick):
        id = self.id(pick)
        [record] = self.do(self.askers[asker].adopt([id]))
        model = self.world.requests[id]
        assert record.stage == model.stage
        if model.stage != "settled" and asker not in model.askers:
            model.askers.append(asker)

    @requests
    @rule(asker=sides)
    def receive(self, asker):
        self.seen[asker] += self.do(self.askers[asker].receive(0))

    @requests
    @rule(asker=sides)
    def start_the_asker_again(self, asker):
        self.askers[asker] = self.parts.asker(f"asker-{asker}")

    @invariant()
    def every_request_is_where_it_should_be(self):
        if not hasattr(self, "world") or not self.world.requests:
            return
        records = self.do(self.askers[0].look_up(list(self.world.requests)))
        for record, model in zip(records, self.world.requests.values(), strict=True):
            shown = (record.stage, record.attempts if record.stage == "taken" else None, record.answer)
            assert shown == (model.stage, model.attempts if model.stage == "taken" else None, model.answer)
            if model.stage == "parked":
                assert set(filter(None, record.holder.split(", "))) == set(model.waits_for)

    @invariant()
    def nothing_is_kept_without_need(self):
        if self.transport != "redis" or not hasattr(self, "world"):
            return
        models = self.world.requests.values()
        with self.client.pipeline(transaction=False) as pipe:
            for need in NEEDS:
                pipe.zcard(f"{PREFIX}parked:{need}")
            for each in DataPriority:
                pipe.xlen(queue_key(each))
            *waiting, critical, high, normal, low = pipe.execute()
        parked = [each.waits_for for each in models if each.stage == "parked"]
        assert waiting == [sum(need in each for each in parked) for need in NEEDS]
        if not self.by_hand:
            assert critical + high + normal + low == sum(each.stage in ("queued", "taken") for each in models)

    def teardown(self):
        if not hasattr(self, "world"):
            return
        try:
            self._answer_all()
        finally:
            self.do(self.stack.aclose())
            self.loop.close()
            if self.desk is not None:
                self.desk.close()
                self.client.close()

    def _answer_all(self):
        """All that is in the queues, held by the dead, or waits for a need comes to a worker, and all is answered."""
        worker = self.workers[0]
        self.do(worker.release(NEEDS))
        found = [*self.do(worker.reclaim(0, 1000)), *self.do(worker.take(EVERY, 0))]
        lost = {id for id, model in self.world.requests.items() if model.stage == "parked" and not model.waits_for}
        open_now = {id for id, model in self.world.requests.items() if model.stage != "settled"}
        assert {each.envelope.id for each in found} == open_now - lost
        for id in open_now:
            self.world.requests[id].stage = "taken"
            body = self.body()
            assert self.do(worker.settle(id, body))
            assert self.world.settle(id, body)
        for number, asker in enumerate(self.askers):
            while came := self.do(asker.receive(0)):
                self.seen[number] += came
            assert _once(self.seen[number]) == self.world.expected[number]
        if self.transport == "redis":
            self._nothing_is_left()

    def _nothing_is_left(self):
        assert self.client.keys(f"{PREFIX}parked:*") == []
        assert self.client.zcard(f"{PREFIX}open") == self.client.scard(f"{PREFIX}standing") == 0
        self.do(self.workers[0].take(EVERY, 0))  # lets go of what was added by hand
        self.do(self.workers[0].reclaim(0, 1000))
        assert {self.client.xlen(queue_key(each)) for each in DataPriority} == {0}


def _once(replies: list[Reply]) -> list[Reply]:
    """Drop the second of equal replies, which an asker that starts again may be given; each body was sent once."""
    return list({each.body: each for each in replies}.values())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """One server for all examples."""
    home = tmp_path_factory.mktemp("home")
    own = Settings(home=home, request_capacity=CAPACITY, request_claim_seconds=600)
    with connect(own):
        yield own


@pytest.mark.parametrize(("transport", "examples"), [("memory", 60), ("redis", 20)])
def test_whatever_the_order_of_events_each_request_has_one_answer(server, transport, examples):
    machine = type("Events", (Machine,), {"settings": server, "transport": transport})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            phases=[Phase.generate],
        ),
    )
