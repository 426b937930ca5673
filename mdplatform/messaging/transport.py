"""The protocol that every transport speaks: what the strategy's side (`Asker`) and the worker's (`Answerer`) can do.

A request's life, in the words that are used here:

1. `Asker.send` admits an envelope, or refuses it because too many are open. An id that was admitted before is not
   admitted twice: sending the same again is harmless, and other content under it is refused.
2. `Answerer.take` gives it to one worker as a delivery. If that worker dies, `reclaim` gives it to another.
3. Somebody *settles* it: a worker with its answer, the asker because it was cancelled or its deadline passed, a sweep
   because the run failed. **The first one wins, for ever**: `settle` records the body under the id and sends it to all
   addresses in one atomic step, and says whether it was the first. So there is one final answer per request id.
4. On the way, `tell` sends updates that are not final: progress, and the numbered answers of a standing request.
5. What cannot be answered now is *parked*: the delivery is done, and the envelope waits for a need (a text such as
   `bars/BTCUSDT`). `release` gives all that wait for a need back to the workers; what the park says is `wanted` goes to
   the run path.
6. What cannot be read at all is *buried* in the dead letters with its reason, once, and settled if it has an id.

All times are microseconds since the epoch, UTC. Methods raise `TransportUnavailable` when the server does not answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from mdplatform.messaging.priority import DataPriority


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A request as the transport sees it: an id, a class, a deadline and opaque bytes.

    `strategy` and `label` are for people, who look at what is in flight; `standing` is true for requests that are
    answered again and again until they are settled: these don't count against the capacity once they are parked.
    `content` is a digest of what is asked: an id that was admitted with another one is refused.
    """

    id: str
    priority: DataPriority
    deadline: int
    sent_at: int
    body: bytes
    strategy: str = ""
    label: str = ""
    standing: bool = False
    content: bytes = b""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an envelope was admitted; if not, when to try again. `known`: its id had been admitted before; `taken`:
    with other content, so that it is not admitted.
    """

    admitted: bool
    known: bool = False
    taken: bool = False
    open: int = 0
    retry_after_seconds: float = 0.0


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Something for an asker: the final answer of a request, or an update of it (`final` is false).

    A final one without bytes says that there was an answer, which was let go before it was fetched.
    """

    id: str
    final: bool
    body: bytes


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a request: its envelope's words, where it is, and its final answer once there is one.

    `stage` is `queued`, `taken`, `parked` or `settled`; `holder` is the worker that has it, or the need it waits for.
    `answer` is None while it is open, and when the answer was let go to bound memory (`stage` is `settled` then).
    `standing` is its envelope's, and so is `body`, which is empty once it is settled.
    """

    id: str
    priority: DataPriority
    strategy: str
    label: str
    stage: str
    sent_at: int
    deadline: int
    holder: str = ""
    attempts: int = 0
    answer: bytes | None = None
    standing: bool = False
    body: bytes = b""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """An envelope in a worker's hands. `attempt` counts from 1, anew for what was parked and released (a standing
    request comes back for ever); from 2 on, an earlier worker did not end its work. `token` is the transport's own.

    `returned` is true for what was parked and released: `note` is what the releaser said, empty if data has changed,
    else that the runs it waited for are over, and how they ended. `runs` are those that brought what it had wanted from
    the run path: the id of the run by need. `told` and `mark` are those of the last numbered answer that was sent.
    """

    envelope: Envelope
    token: str
    attempt: int = 1
    returned: bool = False
    note: str = ""
    runs: dict[str, str] = {}
    told: int = 0
    mark: str = ""


class BadDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a request stream that is no envelope; it can only be buried."""

    token: str
    raw: bytes
    reason: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a stream that is read from a cursor: `place` is the cursor after it, `id` a request's."""

    place: str
    body: bytes
    id: str = ""
    priority: DataPriority = DataPriority.NORMAL
    strategy: str = ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a parked request wants from the run path: opaque bytes for the sensor, and the needs by which it comes."""

    body: bytes
    needs: tuple[str, ...]


class Asker(Protocol):
    """The strategy's side of a transport, for one event loop. It has an address of its own, to which replies come."""

    @property
    def address(self) -> str:
        """Where replies to what it sent come."""
        ...

    async def send(self, envelopes: Sequence[Envelope]) -> list[Receipt]:
        """Admit envelopes, in one round trip; a receipt for each, in order."""
        ...

    async def receive(self, wait_seconds: float) -> list[Reply]:
        """Give the replies that came since the last call, in order; wait for the first, at most so long.

        A reply may come twice (after a reconnection); none is lost while the asker reads. Where nobody reads for a
        minute, or too much waits, replies are dropped, the oldest first: `look_up` finds the final ones.
        """
        ...

    async def look_up(self, ids: Sequence[str]) -> list[Record | None]:
        """Give what is known of requests; None where nothing is (any more)."""
        ...

    async def adopt(self, ids: Sequence[str]) -> list[Record | None]:
        """Have the replies to these requests, of whoever sent them, sent here as well; give what is known of them."""
        ...

    async def settle(self, id: str, body: bytes) -> bool:
        """Record a final answer from this side (cancelled, deadline passed). False if there was one already."""
        ...

    async def close(self) -> None:
        """Let go of the connections; what is in flight stays in flight."""
        ...


class Answerer(Protocol):
    """The worker's side of a transport, for one event loop; one of a group that shares the work."""

    @property
    def has_runs(self) -> bool:
        """Whether there is a run path that reads what is `wanted`; without one nothing is parked for it."""
        ...

    async def take(self, shares: Mapping[DataPriority, int], wait_seconds: float) -> list[Delivery | BadDelivery]:
        """Take at most so many of each class, the most urgent first; wait for the first, at most so long.

        What was settled meanwhile is left out.
        """
        ...

    async def reclaim(self, idle_seconds: float, at_most: int) -> list[Delivery | BadDelivery]:
        """Take what another worker has held for so long without a sign of life (`keep`)."""
        ...

    async def keep(self, deliveries: Sequence[Delivery]) -> None:
        """Give a sign of life: these are still being worked on."""
        ...

    async def settle(self, id: str, body: bytes, delivery: Delivery | None = None) -> bool:
        """Record and send the final answer and be done with the delivery, atomically. False if there was one."""
        ...

    async def settle_many(self, answers: Sequence[tuple[str, bytes, Delivery | None]]) -> list[bool]:
        """Settle many in one round trip."""
        ...

    async def tell(
        self, id: str, body: bytes, *, number: int | None = None, mark: str = "", delivery: Delivery | None = None
    ) -> bool:
        """Send an update. A `number` makes it the numbered answer of a standing request: it is sent only if it is
        higher than the last one sent; it is kept, with `mark`, for the next delivery. A `delivery` is done with. False
        if it was not sent (settled, or not higher).
        """
        ...

    async def park(self, delivery: Delivery, needs: Sequence[str], wanted: Wanted | None = None) -> None:
        """Let a request wait until one of `needs` is released, and be done with the delivery, atomically.

        `wanted` is appended for the run path, in the same step. If one of `needs` was released since the delivery was
        taken, it goes back to the workers at once, so that no change is missed. Nothing happens to what is settled.
        """
        ...

    async def release(self, needs: Sequence[str], note: str = "", runs: Mapping[str, str] | None = None) -> int:
        """Give what waits for any of `needs` back to the workers; give how many there were.

        `runs` says which run brought a need; what had wanted it from the run path comes back with that.
        """
        ...

    async def bury(self, delivery: Delivery | BadDelivery, reason: str, body: bytes | None = None) -> None:
        """Put an entry into the dead letters with its reason, once, and settle it with `body` if it is given."""
        ...

    async def overdue(self, at_most: int) -> list[Record]:
        """Give open requests whose deadline has passed, oldest first."""
        ...

    async def changes(self, wait_seconds: float) -> dict[str, str]:
        """Give the needs that were announced as changed, each with the id of the run that did (empty if none did).

        Each goes to one worker of the group.
        What the call before gave counts as handled by now; what a worker that died had not handled goes to another.
        """
        ...

    async def report(self, entries: Sequence[bytes]) -> None:
        """Append to the outbox from which the lineage of what workers made is drained; bounded, the oldest go first."""
        ...

    async def beat(self, counts: Mapping[str, int | float | str], life_seconds: float) -> None:
        """Say that this worker lives, and what it has done so far; forgotten after so long. For people to look at."""
        ...

    async def close(self) -> None:
        """Let go of the connections; what it held is claimed by others."""
        ...


class Desk(Protocol):
    """What the run path sees of the requests: streams read from a cursor, never by a group, and the open requests.

    Synchronous, because sensors are. Reading changes nothing; a tick may be repeated.
    """

    def wanted(self, after: str, at_most: int) -> list[Entry]:
        """Give what parked requests want from runs, after that place (`0` for the beginning)."""
        ...

    def lineage(self, after: str, at_most: int) -> list[Entry]:
        """Give what workers reported, after that place."""
        ...

    def trim(self, *, wanted: str | None = None, lineage: str | None = None) -> None:
        """Drop what lies up to and with these places."""
        ...

    def open(self, at_most: int) -> list[Record]:
        """Give open requests, those with the earliest deadlines first."""
        ...

    def stranded(self, idle_seconds: float, at_most: int) -> list[Record]:
        """Give requests that lie in the queues for so long, because no worker takes them."""
        ...

    def settle(self, id: str, body: bytes) -> bool:
        """Record and send a final answer. False if there was one already."""
        ...

    def release(self, ids: Sequence[str], note: str) -> int:
        """Give parked requests back to the workers; give how many there were."""
        ...

    def tell(self, id: str, body: bytes) -> bool:
        """Send an update that is not final. False if the request is settled."""
        ...

    def workers(self) -> list[str]:
        """Give the names of the workers that live."""
        ...
