"""What the transport inside one process holds, and its steps. In one event loop each step is atomic by itself."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from mdplatform.messaging.limits import LONGEST_DEADLINE_US, capacities, keeping, most_standing, most_tombstones
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import Envelope, Receipt, Record, Reply
from mdplatform.settings import Settings

T = TypeVar("T")
_REPLY_BYTES = 64_000_000
_ENTRY_BYTES = 200
_ADDRESS_SECONDS = 60.0
_ADDRESSES = 10_000
_DEAD = 10_000
_REPORTED = 100_000
_CHANGES = 50_000
_RELEASES = 50_000


@dataclass
class RequestState:
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
    mark: str = ""
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
            body=b"" if self.stage == "settled" else envelope.body,
        )


@dataclass
class MemoryState:
    """All requests of one process; bounded as those in Redis are."""

    settings: Settings
    states: dict[str, RequestState] = field(default_factory=dict)
    open: dict[str, RequestState] = field(default_factory=dict)
    standing: set[str] = field(default_factory=set)
    queues: dict[DataPriority, OrderedDict[int, str]] = field(
        default_factory=lambda: {each: OrderedDict() for each in DataPriority}
    )
    replies: dict[str, deque[Reply]] = field(default_factory=dict)
    read_at: dict[str, float] = field(default_factory=dict)
    reply_bytes: int = 0
    parked: dict[str, dict[str, None]] = field(default_factory=dict)
    released: dict[str, int] = field(default_factory=dict)
    tombstones: OrderedDict[str, None] = field(default_factory=OrderedDict)
    answers: OrderedDict[str, int] = field(default_factory=OrderedDict)
    dead: deque[tuple[str, str, bytes]] = field(default_factory=lambda: deque(maxlen=_DEAD))
    reported: deque[bytes] = field(default_factory=lambda: deque(maxlen=_REPORTED))
    changed: deque[str] = field(default_factory=lambda: deque(maxlen=_CHANGES))
    beats: dict[str, dict[str, int | float | str]] = field(default_factory=dict)
    turn: int = 0
    forgotten: int = 0
    answer_bytes: int = 0

    def __post_init__(self) -> None:
        self._entries = itertools.count(1)
        self._bell = asyncio.Event()

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
            before = self.states[envelope.id].envelope.content
            if before and envelope.content and before != envelope.content:
                return Receipt(admitted=False, taken=True, open=in_flight)
            return Receipt(admitted=True, known=True, open=in_flight)
        limit = capacities(self.settings)[envelope.priority.rank]
        full = envelope.standing and len(self.standing) >= most_standing(self.settings)
        if in_flight >= limit or full:
            wait = envelope.priority.target_seconds
            return Receipt(admitted=False, open=in_flight, retry_after_seconds=wait)
        latest = now_us() + LONGEST_DEADLINE_US
        if envelope.deadline > latest:
            envelope = msgspec.structs.replace(envelope, deadline=latest)
        state = RequestState(envelope, [address])
        self.states[envelope.id] = self.open[envelope.id] = state
        self.queue(state)
        return Receipt(admitted=True, open=in_flight + 1)

    def queue(self, state: RequestState, *, returned: bool = False, note: str = "") -> None:
        self._leave(state)
        state.stage, state.entry, state.holder, state.attempts = "queued", next(self._entries), "", 0
        state.returned, state.note = returned, note
        self.queues[state.envelope.priority][state.entry] = state.envelope.id
        self.ring()

    def settle(self, id: str, body: bytes) -> bool:
        state = self.states.get(id)
        now = now_us()
        if state is None:
            nothing = Envelope(id=id, priority=DataPriority.NORMAL, deadline=now, sent_at=now, body=b"")
            state = self.states[id] = RequestState(nothing, [])
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

    def reply(self, state: RequestState, reply: Reply) -> None:
        for address in state.addresses:
            if address not in self.read_at:
                self.read_at[address] = time.monotonic()
            self.replies.setdefault(address, deque()).append(reply)
            self.reply_bytes += _ENTRY_BYTES + len(reply.body)
        if self.reply_bytes > _REPLY_BYTES or len(self.read_at) > _ADDRESSES:
            self._make_room()
        self.ring()

    def received(self, address: str) -> list[Reply]:
        """Give what lies at an address, and note that somebody reads there."""
        self.read_at.pop(address, None)
        self.read_at[address] = time.monotonic()
        return self._drop(address)

    def _drop(self, address: str) -> list[Reply]:
        found = list(self.replies.pop(address, ()))
        self.reply_bytes -= sum(_ENTRY_BYTES + len(each.body) for each in found)
        return found

    def _make_room(self) -> None:
        """Drop what nobody has read for a minute, then where nobody has read for the longest time."""
        before = time.monotonic() - _ADDRESS_SECONDS
        for address, read_at in list(self.read_at.items()):
            full = self.reply_bytes > _REPLY_BYTES or len(self.read_at) > _ADDRESSES
            if read_at > before and not full:
                return
            self._drop(address)
            del self.read_at[address]

    def released_since(self, turn: int, needs: Iterable[str]) -> bool:
        """Tell whether any of the needs was released after that turn, or may have been."""
        return any(self.released.get(need, self.forgotten) > turn for need in needs)

    def done(self, state: RequestState) -> None:
        """Be done with the delivery: it is neither queued nor taken any more."""
        self._leave(state)
        state.stage, state.entry, state.holder = "parked", 0, ""

    def release(self, needs: Iterable[str], note: str) -> int:
        self.turn += 1
        waiting: dict[str, None] = {}
        for need in needs:
            self.released.pop(need, None)
            self.released[need] = self.turn
            waiting |= self.parked.get(need, {})
        while len(self.released) > _RELEASES:
            self.forgotten = self.released.pop(next(iter(self.released)))
        for id in waiting:
            self.queue(self.states[id], returned=True, note=note)
        return len(waiting)

    def _leave(self, state: RequestState) -> None:
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
            if len(self.tombstones) <= most_tombstones(self.settings) and self.states[oldest].gone_at > now_us():
                return
            del self.tombstones[oldest]
            self._let_go(oldest)
            del self.states[oldest]


def now_us() -> int:
    """Give the clock, in microseconds."""
    return time.time_ns() // 1000
