"""The overview: what is in flight, who works on it, and what could not be read, for people to look at.

It is read with few commands and changes nothing. Requests are those with the earliest deadlines; counts are of all of
them as far as they were read (`at_most`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import msgspec
import redis

from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.redis import scripts
from mdplatform.messaging.redis.forms import MICROSECONDS, record, records, text
from mdplatform.messaging.redis.keys import DEAD, LINEAGE, PREFIX, WANTED
from mdplatform.messaging.transport import Record

_DEAD_LOOKED_AT = 1000


class ClassOverview(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one class: how many are where, and the age of the oldest that waits in the queue, in seconds.

    `queued` and `oldest_seconds` are of those that no worker has taken.
    """

    queued: int
    taken: int
    parked: int
    oldest_seconds: float


class WorkerOverview(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that lives: its name and its counters since its start."""

    name: str
    counts: dict[str, Any]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Something that could not be read or killed its workers; `at` in microseconds."""

    id: str
    priority: str
    reason: str
    at: int


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What is going on; `dead_reasons` are those of the newest 1,000 dead letters. Times are microseconds."""

    at: int
    in_flight: int
    standing: int
    classes: dict[str, ClassOverview]
    requests: list[Record]
    workers: list[WorkerOverview]
    wanted: int
    lineage: int
    kept: int
    dead: int
    dead_reasons: dict[str, int]
    dead_newest: list[DeadLetter]


def overview(connection: redis.Redis, at_most: int = 5000) -> Overview:
    """Look at the requests. Raises what redis-py raises."""
    now = time.time_ns() // 1000
    live = [text(each) for each in cast(list[bytes], connection.zrangebyscore(f"{PREFIX}workers", now, "+inf"))]
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.eval(scripts.IN_FLIGHT.text, 1, PREFIX, "0", at_most)
        pipeline.zcard(f"{PREFIX}open")
        pipeline.scard(f"{PREFIX}standing")
        pipeline.zcard(f"{PREFIX}settled")
        for stream in (WANTED, LINEAGE, DEAD):
            pipeline.xlen(stream)
        pipeline.xrevrange(DEAD, count=_DEAD_LOOKED_AT)
        pipeline.mget([f"{PREFIX}beat:{name}" for name in live] or [f"{PREFIX}beat:"])
        answers = pipeline.execute()
    found, opened, standing, settled, wanted, lineage, dead, letters, beats = answers
    requests, _ = records(found)
    lost = [_letter(place, fields) for place, fields in letters]
    workers = [
        WorkerOverview(name=name, counts=msgspec.json.decode(beat))
        for name, beat in zip(live, beats, strict=False)
        if beat is not None
    ]
    return Overview(
        at=now,
        in_flight=opened,
        standing=standing,
        classes={each.value: _class(requests, each, now) for each in DataPriority},
        requests=sorted(requests, key=lambda each: each.sent_at),
        workers=sorted(workers, key=lambda each: each.name),
        wanted=wanted,
        lineage=lineage,
        kept=settled,
        dead=dead,
        dead_reasons=dict(Counter(each.reason for each in lost).most_common()),
        dead_newest=lost[:20],
    )


def look_up(connection: redis.Redis, id: str) -> tuple[Record, bytes | None] | None:
    """Give what is known of a request, and its own bytes while it is open; None if nothing is. Changes nothing."""
    found = cast(Any, connection.eval(scripts.LOOK_UP.text, 1, PREFIX, "", "0", id))
    told = record(id, found[0][1])
    return None if told is None else (told, found[0][1][-1])


def _class(requests: list[Record], priority: DataPriority, now: int) -> ClassOverview:
    own = [each for each in requests if each.priority is priority]
    stages = Counter(each.stage for each in own)
    waiting = [each.sent_at for each in own if each.stage == "queued"]
    return ClassOverview(
        queued=stages["queued"],
        taken=stages["taken"],
        parked=stages["parked"],
        oldest_seconds=round(max(0, now - min(waiting, default=now)) / MICROSECONDS, 3),
    )


def _letter(place: bytes, fields: Mapping[bytes, bytes]) -> DeadLetter:
    told = {name: fields.get(name, b"").decode(errors="replace") for name in (b"id", b"priority", b"reason")}
    return DeadLetter(
        id=told[b"id"], priority=told[b"priority"], reason=told[b"reason"], at=int(place.partition(b"-")[0]) * 1000
    )
