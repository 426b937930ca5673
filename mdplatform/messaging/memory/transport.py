"""The transport inside one process: for tests and notebooks. What it holds is gone with the process.

All askers and answerers of one `MemoryTransport` share its state, in one event loop. It has no run path.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence

from mdplatform.messaging.memory.state import MemoryState, RequestState, now_us
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import BadDelivery, Delivery, Envelope, Receipt, Record, Reply, Wanted

_ADDRESSES_OF_ONE = 64


class MemoryTransport(MemoryState):
    """The shared state; `asker` and `answerer` give its sides."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._names = itertools.count(1)

    def asker(self, address: str | None = None) -> MemoryAsker:
        """Give a strategy's side, with an address of its own or that of an earlier one."""
        return MemoryAsker(self, address or f"asker-{next(self._names)}")

    def answerer(self, worker: str = "") -> MemoryAnswerer:
        """Give a worker's side."""
        return MemoryAnswerer(self, worker or f"worker-{next(self._names)}")


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
            return self._transport.received(self._address)

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
                del state.addresses[1:-_ADDRESSES_OF_ONE]
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
                    _, id = queue.popitem(last=False)
                    found.append(self._hand(self._transport.states[id]))
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

    async def tell(
        self, id: str, body: bytes, *, number: int | None = None, mark: str = "", delivery: Delivery | None = None
    ) -> bool:
        """Send an update; see the protocol."""
        if delivery is not None and (held := self._mine(delivery)):
            self._transport.done(held)
        state = self._transport.open.get(id)
        if state is None or (number is not None and state.told is not None and number <= state.told):
            return False
        if number is not None:
            state.told, state.mark = number, mark
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
        if transport.released_since(state.turn, all_needs):
            transport.queue(state, returned=True)
            return
        state.needs = all_needs
        for need in all_needs:
            transport.parked.setdefault(need, {})[state.envelope.id] = None

    async def release(self, needs: Sequence[str], note: str = "", runs: Mapping[str, str] | None = None) -> int:
        """Give what waits for any of `needs` back to the workers; give how many there were. There are no `runs`."""
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
        late = [each for each in self._transport.open.values() if each.envelope.deadline <= now_us()]
        return [each.record() for each in sorted(late, key=lambda each: each.envelope.deadline)[:at_most]]

    async def changes(self, wait_seconds: float) -> dict[str, str]:
        """Give the needs that were announced as changed; each goes to one worker of the group."""

        def look() -> list[str]:
            found = list(dict.fromkeys(self._transport.changed))
            self._transport.changed.clear()
            return found

        return dict.fromkeys(await self._transport.wait_for(look, wait_seconds), "")

    async def report(self, entries: Sequence[bytes]) -> None:
        """Append to the outbox of lineage; the oldest go first."""
        self._transport.reported.extend(entries)

    async def beat(self, counts: Mapping[str, int | float | str], life_seconds: float) -> None:
        """Say what this worker has done so far; kept with the transport."""
        self._transport.beats[self._worker] = dict(counts)

    async def close(self) -> None:
        """Nothing is held but deliveries, which others reclaim."""

    def _hand(self, state: RequestState) -> Delivery:
        state.stage, state.holder = "taken", self._worker
        state.attempts += 1
        state.turn, state.alive_at = self._transport.turn, time.monotonic()
        token = f"{state.entry} {state.attempts}"
        return Delivery(
            envelope=state.envelope, token=token, attempt=state.attempts, returned=state.returned, note=state.note,
            told=state.told or 0, mark=state.mark,
        )  # fmt: skip

    def _mine(self, delivery: Delivery) -> RequestState | None:
        """Give the state if the delivery is still the valid one: nobody took it away, and it was not settled."""
        state = self._transport.open.get(delivery.envelope.id)
        if state is None or state.stage != "taken" or delivery.token != f"{state.entry} {state.attempts}":
            return None
        return state
