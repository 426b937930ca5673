"""How what the scripts give becomes what the protocol says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import BadDelivery, Delivery, Entry, Envelope, Record

MICROSECONDS = 1_000_000
UNREADABLE = "its record cannot be read"


def envelope_fields(envelope: Envelope, route: str) -> list[str | bytes | int]:
    """Give what the script of admission takes of an envelope."""
    standing = int(envelope.standing)
    return [
        envelope.id,
        envelope.priority.value,
        envelope.deadline,
        envelope.sent_at,
        envelope.body,
        envelope.strategy,
        envelope.label,
        standing,
        route,
        envelope.content,
    ]


def record(id: str, told: Sequence[Any]) -> Record | None:
    """Give what is known of a request; None if nothing is. Raises `ValueError` if it cannot be read."""
    priority, strategy, label, stage, sent_at, deadline, holder, needs, attempts, answer, standing, body = told
    if stage is None:
        return None
    return Record(
        id=id,
        priority=DataPriority(priority.decode()) if priority else DataPriority.NORMAL,
        strategy=text(strategy),
        label=text(label),
        stage=text(stage),
        sent_at=int(sent_at or 0),
        deadline=int(deadline or 0),
        holder=text(holder) or text(needs).replace("\n", ", "),
        attempts=int(attempts or 0),
        answer=answer,
        standing=standing == b"1",
        body=body or b"",
    )


def records(found: Sequence[Any]) -> tuple[list[Record], list[bytes]]:
    """Give the records that there are, and the ids of those that cannot be read or are not there."""
    good, bad = [], []
    for id, told in found:
        try:
            each = record(id.decode(), told)
        except ValueError:
            each = None
        if each is None:
            bad.append(id)
        else:
            good.append(each)
    return good, bad


def deliveries(taken: Sequence[Any]) -> list[Delivery | BadDelivery]:
    """Give what the scripts of taking gave."""
    return [_delivery(each) for each in taken]


def _delivery(taken: Sequence[Any]) -> Delivery | BadDelivery:
    try:
        return _readable(taken)
    except (ValueError, TypeError) as failure:
        token = f"{taken[0].decode()} {taken[1].decode()} 0 {text(taken[2])}"
        return BadDelivery(token=token, raw=taken[6] or b"", reason=f"its record cannot be read ({failure})")


def _readable(taken: Sequence[Any]) -> Delivery | BadDelivery:
    priority, entry, id, attempt = taken[0].decode(), taken[1].decode(), text(taken[2]), int(taken[3])
    token = f"{priority} {entry} {attempt} {id}"
    if attempt == 0:
        return BadDelivery(token=token, raw=taken[4], reason=text(taken[5]))
    deadline, sent_at, body, strategy, label, standing, returned, note, runs, told = taken[4:]
    number, _, mark = text(told).partition(" ")
    envelope = Envelope(
        id=id,
        priority=DataPriority(priority),
        deadline=int(deadline),
        sent_at=int(sent_at),
        body=body,
        strategy=text(strategy),
        label=text(label),
        standing=standing == b"1",
    )
    return Delivery(
        envelope=envelope,
        token=token,
        attempt=attempt,
        returned=returned == b"1",
        note=text(note),
        runs=dict(line.rsplit(" ", 1) for line in text(runs).splitlines()),
        told=int(number or 0),
        mark=mark,
    )


def token_parts(delivery: Delivery | BadDelivery) -> tuple[str, str, str, str]:
    """Give class, entry, attempt and id of a delivery."""
    priority, entry, attempt, id = delivery.token.split(" ", 3)
    return priority, entry, attempt, id


def entry(place: bytes, fields: dict[bytes, bytes]) -> Entry:
    """Give an entry of a stream that is read from a cursor."""
    priority = text(fields.get(b"priority"))
    return Entry(
        place=place.decode(),
        body=fields.get(b"body", b""),
        id=text(fields.get(b"id")),
        priority=DataPriority(priority) if priority in DataPriority.__members__ else DataPriority.NORMAL,
        strategy=text(fields.get(b"strategy")),
    )


def text(value: bytes | None) -> str:
    """Give text of bytes, whatever they are."""
    return (value or b"").decode(errors="replace")
