"""What askers and bridges say to each other through RabbitMQ, as msgpack.

A message in the queue of a class is an `Envelope`; one in the queue of questions a `Question`. What comes back over
the direct reply is a `Told`: whatever the bridge has for that asker at the moment.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mdplatform.messaging.transport import Envelope, Receipt, Record, Reply


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an asker wants to know, or to have done.

    `hello` only says where its replies go from now on, as everything does; `look_up` and `adopt` are about `ids`;
    `settle` has a final answer, `body`, and a `nonce` that stays the same when it is asked again: who settled it
    before is then told so again. `live` is about broadcasts; its `body` is told in `shelves`.
    """

    kind: Literal["hello", "look_up", "adopt", "settle", "live"]
    ids: tuple[str, ...] = ()
    body: bytes = b""
    nonce: str = ""


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """A reply, and its place among all replies: a reply that is carried twice has the same place both times."""

    place: str
    reply: Reply


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a question: records, whether the body was the first, what was missed; or what the problem is."""

    records: tuple[Record | None, ...] = ()
    settled: bool = False
    replies: tuple[Carried, ...] = ()
    problem: str = ""
    live: bytes = b""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a bridge tells an asker; receipts and findings go by the correlation that the asker gave."""

    receipts: dict[str, Receipt] = {}
    findings: dict[str, Finding] = {}
    replies: tuple[Carried, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_envelope = msgspec.msgpack.Decoder(Envelope)
_question = msgspec.msgpack.Decoder(Question)
_told = msgspec.msgpack.Decoder(Told)


def encode(message: Envelope | Question | Told) -> bytes:
    """Give the message's bytes."""
    return _encoder.encode(message)


def read_envelope(raw: bytes) -> Envelope:
    """Raises `msgspec.MsgspecError`."""
    return _envelope.decode(raw)


def read_question(raw: bytes) -> Question:
    """Raises `msgspec.MsgspecError`."""
    return _question.decode(raw)


def read_told(raw: bytes) -> Told:
    """Raises `msgspec.MsgspecError`."""
    return _told.decode(raw)
