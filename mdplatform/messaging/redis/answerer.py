"""The worker's side over Redis: one consumer of the group `workers`.

`take` reads by shares without waiting; where nothing is there, one blocking read waits on all classes for one entry,
and then the script of taking adds what else has come. Blocking reads have connections of their own.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence

import msgspec
import redis

from mdplatform.messaging.limits import keeping
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.redis import scripts
from mdplatform.messaging.redis.forms import MICROSECONDS, UNREADABLE, deliveries, records, text, token_parts
from mdplatform.messaging.redis.keys import CHANGES, DEAD_KEPT, GROUP, LINEAGE, LINEAGE_KEPT, PREFIX, queue_key
from mdplatform.messaging.redis.line import BlockingLine, Line, entries_of, gone
from mdplatform.messaging.redis.socket import Command
from mdplatform.messaging.transport import BadDelivery, Delivery, Record, Wanted
from mdplatform.settings import Settings

_SETTLED_AT_ONCE = 16
_RELEASED_AT_ONCE = 256
_RELEASES_KEPT = 50_000
_WANTED_BYTES = 32_000_000
_CHANGES_AT_ONCE = 1000
_TIDY_SECONDS = 60.0
_FORGOTTEN_SECONDS = 3600.0


class RedisAnswerer:
    """An `Answerer`, for one event loop; `worker` is its name, which no other living one has."""

    def __init__(self, settings: Settings, worker: str = "") -> None:
        self._settings = settings
        self._worker = worker or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._line = Line(settings)
        self._queues = BlockingLine(settings)
        self._changes = BlockingLine(settings)
        self._given: list[bytes] = []
        self._tidied = time.monotonic()

    @property
    def has_runs(self) -> bool:
        """There is a run path: its sensors read the same Redis."""
        return True

    async def take(self, shares: Mapping[DataPriority, int], wait_seconds: float) -> list[Delivery | BadDelivery]:
        """Take at most so many of each class, the most urgent first; wait for the first, at most so long."""
        end = time.monotonic() + wait_seconds
        counts = [max(0, shares.get(each, 0)) for each in DataPriority]
        wanted = [each for each, count in zip(DataPriority, counts, strict=True) if count]
        if not wanted:
            return []
        taken = await self._line.run(scripts.TAKE, self._worker, *counts)
        while not taken and (left := end - time.monotonic()) > 0:
            wait = min(left, self._queues.LONGEST)
            keys = [queue_key(each) for each in wanted]
            reading = ("XREADGROUP", "GROUP", GROUP, self._worker, "COUNT", 1, "BLOCK", max(1, round(wait * 1000)))
            answer = await self._read(self._queues, (*reading, "STREAMS", *keys, *(">" for _ in keys)), wait, keys)
            found = [part for key, place, _ in answer for part in (key.rpartition(":")[2], place, "")]
            if found:
                taken = await self._line.run(scripts.TAKE, self._worker, *counts, *found)
        return deliveries(taken)

    async def reclaim(self, idle_seconds: float, at_most: int) -> list[Delivery | BadDelivery]:
        """Take what another worker has held for so long without a sign of life (`keep`)."""
        if time.monotonic() - self._tidied >= _TIDY_SECONDS:
            self._tidied = time.monotonic()
            await self._line.run(scripts.TIDY, self._worker, round(_FORGOTTEN_SECONDS * 1000))
        return deliveries(await self._line.run(scripts.RECLAIM, self._worker, round(idle_seconds * 1000), at_most))

    async def keep(self, held: Sequence[Delivery]) -> None:
        """Give a sign of life: these are still being worked on."""
        if held:
            parts = [part for each in held for part in _fence(each)]
            await self._line.run(scripts.KEEP, self._worker, *parts)

    async def settle(self, id: str, body: bytes, delivery: Delivery | None = None) -> bool:
        """Record and send the final answer and be done with the delivery, atomically. False if there was one."""
        return (await self.settle_many([(id, body, delivery)]))[0]

    async def settle_many(self, answers: Sequence[tuple[str, bytes, Delivery | None]]) -> list[bool]:
        """Settle many in one round trip."""
        parts = [answers[start : start + _SETTLED_AT_ONCE] for start in range(0, len(answers), _SETTLED_AT_ONCE)]
        firsts = await asyncio.gather(*(self._settle(part) for part in parts))
        return [first for each in firsts for first in each]

    async def _settle(self, answers: Sequence[tuple[str, bytes, Delivery | None]]) -> list[bool]:
        parts = [part for id, body, _ in answers for part in (id, body)]
        return [
            bool(first)
            for first in await self._line.run(scripts.SETTLE, *keeping(self._settings), secrets.token_hex(8), *parts)
        ]

    async def tell(
        self, id: str, body: bytes, *, number: int | None = None, mark: str = "", delivery: Delivery | None = None
    ) -> bool:
        """Send an update; see the protocol."""
        done = token_parts(delivery)[:3] if delivery is not None else ()
        return bool(await self._line.run(scripts.TELL, id, body, "" if number is None else number, mark, *done))

    async def park(self, delivery: Delivery, needs: Sequence[str], wanted: Wanted | None = None) -> None:
        """Let a request wait until one of `needs` is released, and be done with the delivery, atomically."""
        priority, entry, attempt, id = token_parts(delivery)
        from_runs = dict.fromkeys(wanted.needs if wanted else ())
        all_needs = from_runs | dict.fromkeys(needs)
        told = (len(from_runs) if wanted else "", wanted.body if wanted else b"", _WANTED_BYTES)
        await self._line.run(scripts.PARK, id, priority, entry, attempt, *told, *all_needs)

    async def release(self, needs: Sequence[str], note: str = "", runs: Mapping[str, str] | None = None) -> int:
        """Give what waits for any of `needs` back to the workers; give how many there were."""
        turn: int | str = ""
        total, more = 0, bool(needs)
        told = [part for need in dict.fromkeys(needs) for part in (need, (runs or {}).get(need, ""))]
        while more:
            turn, count, more = await self._line.run(
                scripts.RELEASE, turn, note, _RELEASED_AT_ONCE, _RELEASES_KEPT, *told
            )
            total += count
        return total

    async def bury(self, delivery: Delivery | BadDelivery, reason: str, body: bytes | None = None) -> None:
        """Put an entry into the dead letters with its reason, once, and settle it with `body` if it is given."""
        priority, entry, attempt, id = token_parts(delivery)
        raw = delivery.raw if isinstance(delivery, BadDelivery) else delivery.envelope.body
        settled = ("0" if body is None else "1", body or b"", *keeping(self._settings), secrets.token_hex(8))
        await self._line.run(scripts.BURY, priority, entry, id, attempt, raw, reason, DEAD_KEPT, *settled)

    async def overdue(self, at_most: int) -> list[Record]:
        """Give open requests whose deadline has passed, oldest first."""
        good, bad = records(await self._line.run(scripts.IN_FLIGHT, "1", at_most))
        if bad:
            await self._line.run(scripts.DISCARD, UNREADABLE, DEAD_KEPT, *bad)
        return good

    async def changes(self, wait_seconds: float) -> dict[str, str]:
        """Give the needs that were announced as changed, and by which run; each goes to one worker of the group."""
        end = time.monotonic() + wait_seconds
        idle = round(self._settings.request_claim_seconds * 1000)
        while True:
            wait = min(max(0.0, end - time.monotonic()), self._changes.LONGEST)
            first: list[Command] = []
            if self._given:
                first += [("XACK", CHANGES, GROUP, *self._given), ("XDEL", CHANGES, *self._given)]
            first.append(("XAUTOCLAIM", CHANGES, GROUP, self._worker, idle, "0-0", "COUNT", _CHANGES_AT_ONCE))
            reading = ("XREADGROUP", "GROUP", GROUP, self._worker, "COUNT", _CHANGES_AT_ONCE)
            answers = await self._changes.read(0.0, *first, (*reading, "STREAMS", CHANGES, ">"))
            if answers is not None and not await self._group(answers[-1], [CHANGES], self._changes):
                claimed = [
                    (CHANGES, place, dict(zip(f[::2], f[1::2], strict=True))) for place, f in answers[-2][1] if f
                ]
                found = [*claimed, *entries_of(answers[-1])]
                self._given = [place for _, place, _ in found]
                if not found and wait > 0:
                    block = ("BLOCK", max(1, round(wait * 1000)))
                    found = await self._read(
                        self._changes, (*reading, *block, "STREAMS", CHANGES, ">"), wait, [CHANGES]
                    )
                    self._given = [place for _, place, _ in found]
                if found:
                    return {text(fields.get(b"need")): text(fields.get(b"run")) for _, _, fields in found}
            if time.monotonic() >= end:
                return {}

    async def report(self, entries: Sequence[bytes]) -> None:
        """Append to the outbox of lineage; bounded, the oldest go first."""
        add = ("XADD", LINEAGE, "MAXLEN", "~", LINEAGE_KEPT, "*", "body")
        await asyncio.gather(*(self._line.command(*add, each) for each in entries))

    async def beat(self, counts: Mapping[str, int | float | str], life_seconds: float) -> None:
        """Say that this worker lives, and what it has done so far; forgotten after so long."""
        life = max(1, round(life_seconds * 1000))
        now = time.time()
        until = round((now + life_seconds) * MICROSECONDS)
        await asyncio.gather(
            self._line.command("ZREMRANGEBYSCORE", f"{PREFIX}workers", "-inf", round(now * MICROSECONDS)),
            self._line.command("SET", f"{PREFIX}beat:{self._worker}", msgspec.json.encode(counts), "PX", life),
            self._line.command("ZADD", f"{PREFIX}workers", until, self._worker),
        )

    async def close(self) -> None:
        """Let go of the connections; what it held is claimed by others."""
        for each in (self._line, self._queues, self._changes):
            await each.close()

    async def _read(
        self, line: BlockingLine, command: Command, wait: float, keys: Sequence[str]
    ) -> list[tuple[str, bytes, dict[bytes, bytes]]]:
        """Read by the group, which is made where it is missing; nothing if Redis is away."""
        answers = await line.read(wait, command)
        if answers is None or await self._group(answers[0], keys, line):
            return []
        return entries_of(answers[0])

    async def _group(self, answer: object, keys: Sequence[str], line: BlockingLine) -> bool:
        """Make the group if that is what the answer says; tell whether it does."""
        if not isinstance(answer, redis.ResponseError):
            return False
        if not str(answer).startswith(("NOGROUP", "UNBLOCKED")):
            raise gone(self._settings, answer)
        await line.read(0.0, *(("XGROUP", "CREATE", key, GROUP, "0", "MKSTREAM") for key in keys))
        return True


def _fence(delivery: Delivery) -> tuple[str, str, str, str]:
    priority, entry, attempt, id = token_parts(delivery)
    return priority, entry, id, attempt
