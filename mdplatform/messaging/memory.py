"""The transport inside one process: for tests and notebooks. What it holds is gone with the process.

All askers and answerers of one `MemoryTransport` share its state, in one event loop. It has no run path.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from mdplatform.messaging.limits import capacities, keeping, most_standing, most_tombstones
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import BadDelivery, Delivery, Envelope, Receipt, Record, Reply, Wanted
from mdplatform.settings import Settings

T = TypeVar("T")
_REPLIES = 10_000
_ADDRESSES = 10_000
_DEAD = 10_000
_REPORTED = 100_000
_CHANGES = 50_000


@dataclass
class _State:
    """What is known of a request."""

    envelope: Envelope
    addresses: list[str]
    stage: str = "queued"
    entry: int = 0
    holder: str = ""
    attempts: int = 0
    turn: int = 0
    alive_at: float = 0.0
    returned: bool = False
    note: str = ""
    needs: tuple[str, ...] = ()
    told: int | None = None
    answer: bytes | None = None
    gone_at: int = 0

    def record(self) -> Record:
        envelope = self.envelope
        return Record(
            id=envelope.id,
            priority=envelope.priority,
            strategy=envelope.strategy,
            label=envelope.label,
            stage=self.stage,
            sent_at=envelope.sent_at,
            deadline=envelope.deadline,
            holder=self.holder or ", ".join(self.needs),
            attempts=self.attempts,
            answer=self.answer,
            standing=envelope.standing,
        )


@dataclass
class _Bad:
    raw: bytes


@dataclass
class MemoryTransport:
    """The shared state; `asker` and `answerer` give its sides."""

    settings: Settings
    states: dict[str, _State] = field(default_factory=dict)
    open: dict[str, _State] = field(default_factory=dict)
    standing: set[str] = field(default_factory=set)
    queues: dict[DataPriority, OrderedDict[int, str | _Bad]] = field(
        default_factory=lambda: {each: OrderedDict() for each in DataPriority}
    )
    replies: OrderedDict[str, deque[Reply]] = field(default_factory=OrderedDict)
    parked: dict[str, dict[str, None]] = field(default_factory=dict)
    released: dict[str, int] = field(default_factory=dict)
    tombstones: OrderedDict[str, None] = field(default_factory=OrderedDict)
    answers: OrderedDict[str, int] = field(default_factory=OrderedDict)
    dead: deque[tuple[str, str, bytes]] = field(default_factory=lambda: deque(maxlen=_DEAD))
    reported: deque[bytes] = field(default_factory=lambda: deque(maxlen=_REPORTED))
    changed: deque[str] = field(default_factory=lambda: deque(maxlen=_CHANGES))
    beats: dict[str, dict[str, int | float | str]] = field(default_factory=dict)
    turn: int = 0
    answer_bytes: int = 0

    def __post_init__(self) -> None:
        self._entries = itertools.count(1)
        self._names = itertools.count(1)
        self._bell = asyncio.Event()

    def asker(self, address: str | None = None) -> MemoryAsker:
        """Give a strategy's side, with an address of its own or that of an earlier one."""
        return MemoryAsker(self, address or f"asker-{next(self._names)}")

    def answerer(self, worker: str = "") -> MemoryAnswerer:
        """Give a worker's side."""
        return MemoryAnswerer(self, worker or f"worker-{next(self._names)}")

    def announce(self, need: str) -> None:
        """Say that data has changed, as a publisher's `bump` does."""
        self.changed.append(need)
        self.ring()

    def ring(self) -> None:
        """Wake whoever waits for something."""
        self._bell.set()
        self._bell = asyncio.Event()

    async def wait_for(self, look: Callable[[], list[T]], wait_seconds: float) -> list[T]:
        """Give what `look` finds, once it finds something; nothing after that time."""
        end = time.monotonic() + wait_seconds
        while True:
            bell = self._bell
            found = look()
            left = end - time.monotonic()
            if found or left <= 0:
                return found
            try:
                async with asyncio.timeout(left):
                    await bell.wait()
            except TimeoutError:
                return look()

    def admit(self, envelope: Envelope, address: str) -> Receipt:
        self._sweep()
        in_flight = len(self.open) - len(self.standing)
        if envelope.id in self.states:
            return Receipt(admitted=True, known=True, open=in_flight)
        limit = capacities(self.settings)[envelope.priority.rank]
        full = envelope.standing and len(self.standing) >= most_standing(self.settings)
        if in_flight >= limit or full:
            wait = envelope.priority.target_seconds
            return Receipt(admitted=False, open=in_flight, retry_after_seconds=wait)
        state = _State(envelope, [address])
        self.states[envelope.id] = self.open[envelope.id] = state
        self.queue(state)
        return Receipt(admitted=True, open=in_flight + 1)

    def queue(self, state: _State, *, returned: bool = False, note: str = "") -> None:
        self._leave(state)
        state.stage, state.entry, state.holder, state.attempts = "queued", next(self._entries), "", 0
        state.returned, state.note = returned, note
        self.queues[state.envelope.priority][state.entry] = state.envelope.id
        self.ring()

    def settle(self, id: str, body: bytes) -> bool:
        state = self.states.get(id)
        now = _now()
        if state is None:
            nothing = Envelope(id=id, priority=DataPriority.NORMAL, deadline=now, sent_at=now, body=b"")
            state = self.states[id] = _State(nothing, [])
        if state.stage == "settled":
            return False
        self._leave(state)
        count, size, life = keeping(self.settings)
        self.open.pop(id, None)
        self.standing.discard(id)
        state.stage, state.holder, state.answer = "settled", "", body
        state.gone_at = max(now, state.envelope.deadline) + life
        self.tombstones[id] = None
        self.answers[id] = len(body)
        self.answer_bytes += len(body)
        while len(self.answers) > 1 and (len(self.answers) > count or self.answer_bytes > size):
            self._let_go(next(iter(self.answers)))
        self.reply(state, Reply(id=id, final=True, body=body))
        return True

    def reply(self, state: _State, reply: Reply) -> None:
        for address in state.addresses:
            if address not in self.replies:
                self.replies[address] = deque(maxlen=_REPLIES)
                while len(self.replies) > _ADDRESSES:
                    self.replies.popitem(last=False)
            self.replies[address].append(reply)
        self.ring()

    def done(self, state: _State) -> None:
        """Be done with the delivery: it is neither queued nor taken any more."""
        self._leave(state)
        state.stage, state.entry, state.holder = "parked", 0, ""

    def release(self, needs: Iterable[str], note: str) -> int:
        self.turn += 1
        waiting: dict[str, None] = {}
        for need in needs:
            self.released[need] = self.turn
            waiting |= self.parked.get(need, {})
        for id in waiting:
            self.queue(self.states[id], returned=True, note=note)
        return len(waiting)

    def _leave(self, state: _State) -> None:
        self.queues[state.envelope.priority].pop(state.entry, None)
        for need in state.needs:
            waiting = self.parked.get(need, {})
            waiting.pop(state.envelope.id, None)
            if not waiting:
                self.parked.pop(need, None)
        state.needs = ()

    def _let_go(self, id: str) -> None:
        self.answer_bytes -= self.answers.pop(id, 0)
        if id in self.states:
            self.states[id].answer = None

    def _sweep(self) -> None:
        while self.tombstones:
            oldest = next(iter(self.tombstones))
            if len(self.tombstones) <= most_tombstones(self.settings) and self.states[oldest].gone_at > _now():
                return
            del self.tombstones[oldest]
            self._let_go(oldest)
            del self.states[oldest]


class MemoryAsker:
    """An `Asker` in the process; make it with `MemoryTransport.asker`."""

    def __init__(self, transport: MemoryTransport, address: str) -> None:
        self._transport = transport
        self._address = address

    @property
    def address(self) -> str:
        """Where replies to what it sent come."""
        return self._address

    async def send(self, envelopes: Sequence[Envelope]) -> list[Receipt]:
        """Admit envelopes; a receipt for each, in order."""
        return [self._transport.admit(each, self._address) for each in envelopes]

    async def receive(self, wait_seconds: float) -> list[Reply]:
        """Give the replies that came since the last call, in order; wait for the first, at most so long."""

        def look() -> list[Reply]:
            return list(self._transport.replies.pop(self._address, ()))

        return await self._transport.wait_for(look, wait_seconds)

    async def look_up(self, ids: Sequence[str]) -> list[Record | None]:
        """Give what is known of requests; None where nothing is (any more)."""
        found = (self._transport.states.get(id) for id in ids)
        return [None if each is None else each.record() for each in found]

    async def adopt(self, ids: Sequence[str]) -> list[Record | None]:
        """Have the replies to these requests sent here as well; give what is known of them."""
        for id in ids:
            state = self._transport.open.get(id)
            if state is not None and self._address not in state.addresses:
                state.addresses.append(self._address)
        return await self.look_up(ids)

    async def settle(self, id: str, body: bytes) -> bool:
        """Record a final answer from this side. False if there was one already."""
        return self._transport.settle(id, body)

    async def close(self) -> None:
        """Nothing is held."""


class MemoryAnswerer:
    """An `Answerer` in the process; make it with `MemoryTransport.answerer`."""

    def __init__(self, transport: MemoryTransport, worker: str) -> None:
        self._transport = transport
        self._worker = worker

    @property
    def has_runs(self) -> bool:
        """There is no run path."""
        return False

    async def take(self, shares: Mapping[DataPriority, int], wait_seconds: float) -> list[Delivery | BadDelivery]:
        """Take at most so many of each class, the most urgent first; wait for the first, at most so long."""

        def look() -> list[Delivery | BadDelivery]:
            found: list[Delivery | BadDelivery] = []
            for priority in DataPriority:
                queue = self._transport.queues[priority]
                for _ in range(min(len(queue), max(0, shares.get(priority, 0)))):
                    entry, held = queue.popitem(last=False)
                    if isinstance(held, _Bad):
                        found.append(BadDelivery(token=f"0 {entry}", raw=held.raw, reason="it has no id"))
                    else:
                        found.append(self._hand(self._transport.states[held]))
            return found

        return await self._transport.wait_for(look, wait_seconds)

    async def reclaim(self, idle_seconds: float, at_most: int) -> list[Delivery | BadDelivery]:
        """Take what another worker has held for so long without a sign of life (`keep`)."""
        before = time.monotonic() - idle_seconds
        silent = [each for each in self._transport.open.values() if each.stage == "taken" and each.alive_at <= before]
        return [self._hand(each) for each in sorted(silent, key=lambda each: each.envelope.priority.rank)[:at_most]]

    async def keep(self, deliveries: Sequence[Delivery]) -> None:
        """Give a sign of life: these are still being worked on."""
        for each in deliveries:
            state = self._mine(each)
            if state is not None:
                state.alive_at = time.monotonic()

    async def settle(self, id: str, body: bytes, delivery: Delivery | None = None) -> bool:
        """Record and send the final answer and be done with the delivery. False if there was one."""
        return self._transport.settle(id, body)

    async def settle_many(self, answers: Sequence[tuple[str, bytes, Delivery | None]]) -> list[bool]:
        """Settle many."""
        return [self._transport.settle(id, body) for id, body, _ in answers]

    async def tell(self, id: str, body: bytes, *, number: int | None = None, delivery: Delivery | None = None) -> bool:
        """Send an update; see the protocol."""
        if delivery is not None and (held := self._mine(delivery)):
            self._transport.done(held)
        state = self._transport.open.get(id)
        if state is None or (number is not None and state.told is not None and number <= state.told):
            return False
        state.told = state.told if number is None else number
        self._transport.reply(state, Reply(id=id, final=False, body=body))
        return True

    async def park(self, delivery: Delivery, needs: Sequence[str], wanted: Wanted | None = None) -> None:
        """Let a request wait until one of `needs` is released, and be done with the delivery."""
        state = self._mine(delivery)
        if state is None:
            return
        transport = self._transport
        all_needs = tuple(dict.fromkeys([*needs, *(wanted.needs if wanted else ())]))
        transport.done(state)
        if state.envelope.standing:
            transport.standing.add(state.envelope.id)
        if any(transport.released.get(need, 0) > state.turn for need in all_needs):
            transport.queue(state, returned=True)
            return
        state.needs = all_needs
        for need in all_needs:
            transport.parked.setdefault(need, {})[state.envelope.id] = None

    async def release(self, needs: Sequence[str], note: str = "") -> int:
        """Give what waits for any of `needs` back to the workers; give how many there were."""
        return self._transport.release(needs, note)

    async def bury(self, delivery: Delivery | BadDelivery, reason: str, body: bytes | None = None) -> None:
        """Put an entry into the dead letters with its reason, once, and settle it with `body` if it is given."""
        if isinstance(delivery, BadDelivery):
            self._transport.dead.append(("", reason, delivery.raw))
            return
        id = delivery.envelope.id
        state = self._mine(delivery)
        if state is not None:
            self._transport.done(state)
            self._transport.dead.append((id, reason, delivery.envelope.body))
        if body is not None:
            self._transport.settle(id, body)

    async def overdue(self, at_most: int) -> list[Record]:
        """Give open requests whose deadline has passed, oldest first."""
        late = [each for each in self._transport.open.values() if each.envelope.deadline <= _now()]
        return [each.record() for each in sorted(late, key=lambda each: each.envelope.deadline)[:at_most]]

    async def changes(self, wait_seconds: float) -> list[str]:
        """Give the needs that were announced as changed; each goes to one worker of the group."""

        def look() -> list[str]:
            found = list(dict.fromkeys(self._transport.changed))
            self._transport.changed.clear()
            return found

        return await self._transport.wait_for(look, wait_seconds)

    async def report(self, entries: Sequence[bytes]) -> None:
        """Append to the outbox of lineage; the oldest go first."""
        self._transport.reported.extend(entries)

    async def beat(self, counts: Mapping[str, int | float | str], life_seconds: float) -> None:
        """Say what this worker has done so far; kept with the transport."""
        self._transport.beats[self._worker] = dict(counts)

    async def close(self) -> None:
        """Nothing is held but deliveries, which others reclaim."""

    def _hand(self, state: _State) -> Delivery:
        state.stage, state.holder = "taken", self._worker
        state.attempts += 1
        state.turn, state.alive_at = self._transport.turn, time.monotonic()
        token = f"{state.entry} {state.attempts}"
        return Delivery(
            envelope=state.envelope, token=token, attempt=state.attempts, returned=state.returned, note=state.note
        )

    def _mine(self, delivery: Delivery) -> _State | None:
        """Give the state if the delivery is still the valid one: nobody took it away, and it was not settled."""
        state = self._transport.open.get(delivery.envelope.id)
        if state is None or state.stage != "taken" or delivery.token != f"{state.entry} {state.attempts}":
            return None
        return state


def _now() -> int:
    return time.time_ns() // 1000
