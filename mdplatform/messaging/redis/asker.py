"""The strategy's side over Redis.

Replies come in a stream of its own, which is read from its beginning: what a call gave is deleted by the next, so that
whatever is in there was not given yet. A reply is thus never passed over, whatever clocks do and however often the
connection breaks; one whose deletion did not come through is given twice. A large answer lies in its record alone, and
is fetched from there. What lies at an address is dropped when nobody reads for a minute: an asker that is made with the
address of an earlier one, which one at a time may use, gets what that one did not take if it comes within that time.
Later, the answers are found by id for as long as they are kept.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
import time
from collections.abc import Sequence

import redis
from redis.exceptions import NoScriptError

from mdplatform.errors import InvalidSetting
from mdplatform.messaging.limits import capacities, keeping, most_standing, most_tombstones
from mdplatform.messaging.redis import scripts
from mdplatform.messaging.redis.forms import envelope_fields, record
from mdplatform.messaging.redis.keys import PREFIX, record_key, replies_key
from mdplatform.messaging.redis.line import BlockingLine, Entries, Line, entries_of, gone, script_command
from mdplatform.messaging.redis.socket import Command
from mdplatform.messaging.transport import Envelope, Receipt, Record, Reply
from mdplatform.settings import Settings

_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_ADMITTED_AT_ONCE = 128
_REPLIES_AT_ONCE = 1000
_FETCHED_BYTES = 16_000_000
_TOUCH_SECONDS = 10.0


class RedisAsker:
    """An `Asker`, for one event loop; with an `address` of the caller's it resumes what an earlier one left."""

    def __init__(self, settings: Settings, address: str | None = None) -> None:
        if address is not None and not _ADDRESS.fullmatch(address):
            raise InvalidSetting(
                "An address for replies is refused", value=address, remedy="Up to 128 letters, digits and _ . : -"
            )
        self._settings = settings
        self._address = address or f"asker-{secrets.token_hex(8)}"
        self._line = Line(settings)
        self._replies = BlockingLine(settings)
        self._given: list[bytes] = []  # place and size of each reply
        self._touched = -math.inf

    @property
    def address(self) -> str:
        """Where replies to what it sent come."""
        return self._address

    async def send(self, envelopes: Sequence[Envelope], routes: Sequence[str] | None = None) -> list[Receipt]:
        """Admit envelopes, in one round trip; a receipt for each, in order.

        `routes` are for a bridge, which sends for others: the replies of each come with its route.
        """
        given = routes or [""] * len(envelopes)
        if len(envelopes) <= _ADMITTED_AT_ONCE:
            return await self._admit(envelopes, given)
        parts = [slice(start, start + _ADMITTED_AT_ONCE) for start in range(0, len(envelopes), _ADMITTED_AT_ONCE)]
        admitted = await asyncio.gather(*(self._admit(envelopes[part], given[part]) for part in parts))
        return [receipt for each in admitted for receipt in each]

    async def _admit(self, envelopes: Sequence[Envelope], routes: Sequence[str]) -> list[Receipt]:
        settings = self._settings
        fields = [part for each in zip(envelopes, routes, strict=True) for part in envelope_fields(*each)]
        limits = [most_standing(settings), most_tombstones(settings), *capacities(settings)]
        answer = await self._line.run(scripts.ADMIT, secrets.token_hex(8), self._address, *limits, *fields)
        open_now, *results = answer
        return [
            Receipt(admitted=True, known=result == 2, open=open_now)
            if result in (1, 2)
            else Receipt(admitted=False, taken=True, open=open_now)
            if result
            else Receipt(admitted=False, open=open_now, retry_after_seconds=envelope.priority.target_seconds)
            for result, envelope in zip(results, envelopes, strict=True)
        ]

    async def receive(self, wait_seconds: float) -> list[Reply]:
        """Give the replies that came since the last call, in order; wait for the first, at most so long."""
        return [reply for _, reply in await self.receive_routed(wait_seconds)]

    async def receive_routed(self, wait_seconds: float) -> list[tuple[str, Reply]]:
        """The same, with the route of each."""
        end = time.monotonic() + wait_seconds
        key = replies_key(self._address)
        while True:
            left = max(0.0, end - time.monotonic())
            wait = min(left, self._replies.LONGEST)
            commands: list[Command] = []
            touches = time.monotonic() - self._touched > _TOUCH_SECONDS
            if self._given or touches:
                commands.append(script_command(scripts.READ, self._address, *self._given))
            block = ("BLOCK", max(1, round(wait * 1000))) if wait > 0 else ()
            commands.append(("XREAD", "COUNT", _REPLIES_AT_ONCE, *block, "STREAMS", key, "0"))
            answers = await self._replies.read(wait, *commands)
            if answers is not None and isinstance(answers[0], NoScriptError):
                await self._replies.read(0.0, ("EVAL", scripts.READ.text, 1, PREFIX, self._address, *self._given))
                continue
            if answers is not None:
                refused = next((each for each in answers if isinstance(each, redis.ResponseError)), None)
                if refused is not None:
                    raise gone(self._settings, refused)
                if touches:
                    self._touched = time.monotonic()
                self._given = []
                found = await fetched(self._replies, entries_of(answers[-1]))
                self._given = [part for _, place, fields in found for part in (place, fields.get(b"size", b"0"))]
                if found:
                    return [_reply(fields) for _, _, fields in found]
            if time.monotonic() >= end:
                return []

    async def look_up(self, ids: Sequence[str]) -> list[Record | None]:
        """Give what is known of requests; None where nothing is (any more)."""
        return await self._look_up(ids, "0")

    async def adopt(self, ids: Sequence[str], route: str = "") -> list[Record | None]:
        """Have the replies to these requests, of whoever sent them, sent here as well; give what is known of them."""
        return await self._look_up(ids, "1", route)

    async def _look_up(self, ids: Sequence[str], adopt: str, route: str = "") -> list[Record | None]:
        if not ids:
            return []
        address = f"{self._address}/{route}" if route else self._address
        found = await self._line.run(scripts.LOOK_UP, address, adopt, *ids)
        return [record(id, told) for id, (_, told) in zip(ids, found, strict=True)]

    async def settle(self, id: str, body: bytes) -> bool:
        """Record a final answer from this side (cancelled, deadline passed). False if there was one already."""
        firsts = await self._line.run(scripts.SETTLE, *keeping(self._settings), secrets.token_hex(8), id, body)
        return bool(firsts[0])

    async def close(self) -> None:
        """Let go of the connections; what is in flight stays in flight."""
        await self._line.close()
        await self._replies.close()


async def fetched(line: BlockingLine, found: Entries) -> Entries:
    """Give the first of these replies, with those answers that lie in their records: as many as are no burden.

    An answer that was let go meanwhile is empty. Nothing is given if Redis is away.
    """
    size, some = 0, 0
    for _, _, fields in found:
        size += int(fields.get(b"fetched", 0))
        if some and size > _FETCHED_BYTES:
            break
        some += 1
    found = found[:some]
    large = [fields for _, _, fields in found if b"fetched" in fields]
    if large:
        answers = await line.read(0.0, *(("HGET", record_key(each[b"id"].decode()), "answer") for each in large))
        if answers is None:
            return []
        for fields, answer in zip(large, answers, strict=True):
            fields[b"body"] = answer if isinstance(answer, bytes) else b""
    return found


def _reply(fields: dict[bytes, bytes]) -> tuple[str, Reply]:
    reply = Reply(id=fields[b"id"].decode(), final=fields.get(b"final") == b"1", body=fields.get(b"body", b""))
    return fields.get(b"to", b"").decode(), reply
