"""The strategy's side of the transport over RabbitMQ.

1. A request goes, persistent, into the queue of its class; a bridge admits it on the Redis side, and its receipt comes
   back over RabbitMQ's direct reply, as all replies do. A receipt says more than the publisher's confirm, so `send`
   waits for the receipt; the confirm tells of a full queue.
2. A direct reply address lives as long as its channel. The asker has a name that stays, and says `hello` from each
   new address. It gets the updates that it may have missed, and *adopts* what it has open: what was answered meanwhile
   comes with the records. What was being sent when the line was cut is sent again: the id makes it harmless.
3. So a reply may come twice: the inbox drops it by its id and its place among all replies.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from mdplatform.errors import InvalidSetting, TransportUnavailable
from mdplatform.messaging.rabbitmq.inbox import Inbox, Taken
from mdplatform.messaging.rabbitmq.line import RabbitLine
from mdplatform.messaging.rabbitmq.link import (
    ASKER,
    CALL_SECONDS,
    QUESTIONS,
    QUEUES,
    DeliveryError,
    DeliveryMode,
    Message,
    check_url,
    shown_url,
)
from mdplatform.messaging.rabbitmq.wire import Carried, Finding, Question, Told, encode
from mdplatform.messaging.transport import Envelope, Receipt, Record, Reply
from mdplatform.settings import Settings

_FULL_RETRY_SECONDS = 5.0
_SHORTEST_LIFE_SECONDS = 1.0
_LONGEST_LIFE_SECONDS = 7 * 86_400.0
_REMEMBERED_MICROSECONDS = 60_000_000
_ADOPTED_AT_ONCE = 100
_ADOPT_AGAIN_SECONDS = 0.5
_HELLO_SECONDS = 60.0
_FORGET_MICROSECONDS = 10_000_000


class RabbitAsker:
    """Sends requests through RabbitMQ and takes their replies; for one event loop. It connects at the first call.

    With an `address` of the caller's own, replies wait in a queue of that name, and who starts again with it gets what
    was not taken before; one at a time may use an address. `patience_seconds` is how long a call waits for RabbitMQ
    and a bridge, over reconnections, before it raises `TransportUnavailable`. What was sent may then still be taken,
    and its replies come; sending it again is harmless.
    Raises `InvalidSetting` for an address or an URL that cannot be read.
    """

    def __init__(self, settings: Settings, address: str | None = None, patience_seconds: float = CALL_SECONDS) -> None:
        check_url(settings)
        if address is not None and not ASKER.fullmatch(address):
            raise InvalidSetting(
                "An address for replies is refused", value=address, remedy="Up to 128 letters, digits and _ . : -"
            )
        self._settings = settings
        self._patience = patience_seconds
        self._kept = address is not None
        self._name = address or f"asker-{secrets.token_hex(8)}"
        self._inbox = Inbox()
        self._open: dict[str, int] = {}
        self._line = RabbitLine(settings, self._name, self._told, self._back, kept=self._kept)
        self._forget_at = 0

    @property
    def address(self) -> str:
        """Where replies to what it sent come: its name, behind the bridges."""
        return self._name

    async def send(self, envelopes: Sequence[Envelope]) -> list[Receipt]:
        """Admit envelopes; a receipt for each, in order. Raises `TransportUnavailable`."""
        self._line.keep()
        if not envelopes:
            return []
        now = _now()
        self._forget_overdue(now)
        life = (max(each.deadline for each in envelopes) - now) / 1e6
        seconds = min(self._patience, max(_SHORTEST_LIFE_SECONDS, life))
        open_now = {each.id: each.deadline for each in envelopes}
        number = self._line.number
        try:
            async with self._patient("No bridge took what was sent", seconds):
                receipts = await asyncio.gather(*(self._send(each) for each in envelopes))
            refused = {each.id for each, receipt in zip(envelopes, receipts, strict=True) if not receipt.admitted}
            open_now = {id: deadline for id, deadline in open_now.items() if id not in refused}
        finally:
            self._open.update({id: open_now[id] for id in open_now if not self._inbox.has_final(id)})
        if number and self._line.number != number and not self._kept:  # what was answered at once may have gone astray
            await self._adopt_some([id for id in open_now if id in self._open])
        return receipts

    async def receive(self, wait_seconds: float) -> list[Reply]:
        """Give the replies that came since the last call, in order; wait for the first, at most so long.

        Raises `TransportUnavailable` if there are none and RabbitMQ cannot be reached.
        """
        self._line.keep()
        replies = await self._inbox.take(wait_seconds)
        if not replies and self._line.failure is not None:
            raise self._line.failure
        return replies

    async def look_up(self, ids: Sequence[str]) -> list[Record | None]:
        """Give what is known of requests; None where nothing is (any more). Raises `TransportUnavailable`."""
        return list((await self._find(Question(kind="look_up", ids=tuple(ids)))).records)

    async def adopt(self, ids: Sequence[str]) -> list[Record | None]:
        """Have the replies to these requests sent here as well; give what is known of them."""
        records = (await self._find(Question(kind="adopt", ids=tuple(ids)))).records
        self._open.update({each.id: each.deadline for each in records if each and each.stage != "settled"})
        return list(records)

    async def settle(self, id: str, body: bytes) -> bool:
        """Record a final answer from this side. False if there was one already. Raises `TransportUnavailable`."""
        return (await self._find(Question(kind="settle", ids=(id,), body=body, nonce=secrets.token_hex(8)))).settled

    async def close(self) -> None:
        """Let go of the connection; what is in flight stays in flight."""
        await self._line.close()

    async def _send(self, envelope: Envelope) -> Receipt:
        body = encode(envelope)
        receipt: Receipt | None = None
        while receipt is None:
            life = min(max((envelope.deadline - _now()) / 1e6, _SHORTEST_LIFE_SECONDS), _LONGEST_LIFE_SECONDS)
            message = Message(body, delivery_mode=DeliveryMode.PERSISTENT, expiration=life)
            try:
                receipt = await self._line.ask(QUEUES[envelope.priority], message)
            except DeliveryError:
                return Receipt(admitted=False, retry_after_seconds=_FULL_RETRY_SECONDS)
        return receipt

    async def _find(self, question: Question) -> Finding:
        self._line.keep()
        if not question.ids and question.kind != "hello":
            return Finding()
        found: Finding | None = None
        async with self._patient("No bridge answered", self._patience):
            while found is None:
                found = await self._line.ask(QUESTIONS, Message(encode(question), expiration=self._patience))
        if found.problem:
            raise TransportUnavailable(found.problem)
        return found

    def _told(self, told: Told, taken: Taken | None) -> None:
        last = len(told.replies) - 1
        for number, carried in enumerate(told.replies):
            self._inbox.put(carried.reply, carried.place, taken if number == last else None)
            if carried.reply.final:
                self._open.pop(carried.reply.id, None)

    async def _back(self) -> None:
        """Say where the line is, and adopt what is open until it is known or overdue; then again and again say hello.

        What was sent and not taken yet is not known yet.
        """
        missed = await self._say_hello()
        for carried in () if self._kept else missed:
            self._inbox.put(carried.reply, carried.place)
        self._forget_overdue(_now())
        waiting = set() if self._kept else set(self._open)
        while waiting := waiting & self._open.keys():
            waiting -= await self._adopt_some(sorted(waiting))
            if waiting:
                await asyncio.sleep(_ADOPT_AGAIN_SECONDS)
                self._forget_overdue(_now())
        while True:
            await asyncio.sleep(_HELLO_SECONDS)
            await self._say_hello()

    async def _say_hello(self) -> tuple[Carried, ...]:
        while True:
            try:
                return (await self._find(Question(kind="hello"))).replies
            except TransportUnavailable:
                await asyncio.sleep(_ADOPT_AGAIN_SECONDS)  # no bridge yet

    async def _adopt_some(self, ids: Sequence[str]) -> set[str]:
        """Adopt, and take the answers that there are; give which are known."""
        known: set[str] = set()
        for start in range(0, len(ids), _ADOPTED_AT_ONCE):
            with contextlib.suppress(TransportUnavailable):  # asked again
                for record in await self.adopt(ids[start : start + _ADOPTED_AT_ONCE]):
                    if record is None:
                        continue
                    known.add(record.id)
                    if record.stage == "settled":
                        self._open.pop(record.id, None)
                        if record.answer is not None:
                            self._inbox.put(Reply(id=record.id, final=True, body=record.answer))
        return known

    def _forget_overdue(self, now: int) -> None:
        if now < self._forget_at:
            return
        self._forget_at = now + _FORGET_MICROSECONDS
        for id in [id for id, deadline in self._open.items() if deadline + _REMEMBERED_MICROSECONDS < now]:
            del self._open[id]
            self._inbox.forget(id)

    @asynccontextmanager
    async def _patient(self, problem: str, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            if self._line.failure is not None:
                raise self._line.failure from None
            raise TransportUnavailable(
                f"{problem} within {seconds:.1f} s",
                value=shown_url(self._settings),
                remedy="Run `mdplatform bridge`, or `mdplatform worker` with MDPLATFORM_TRANSPORT=rabbitmq; "
                "sending the same request id again is harmless",
            ) from None


def _now() -> int:
    return time.time_ns() // 1000
