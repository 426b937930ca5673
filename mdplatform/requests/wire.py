"""Bytes of requests and answers: MessagePack, one document each. Decoding checks types alone."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from mdplatform.errors import InvalidRequest
from mdplatform.requests.answer import AnswerBody, Progress
from mdplatform.requests.request import DataRequest, RequestType


class _Typed(msgspec.Struct):
    """What every request says, whatever else it does."""

    type: RequestType


_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(DataRequest)
_types = msgspec.msgpack.Decoder(_Typed)
_answers = msgspec.msgpack.Decoder(AnswerBody)
_progress = msgspec.msgpack.Decoder(Progress)
_PROGRESS = b"P"
_ANSWER = b"A"


def encode_request(request: DataRequest) -> bytes:
    """Give the bytes of a request."""
    return _encoder.encode(request)


def decode_request(raw: bytes) -> DataRequest:
    """Read the bytes of a request; only types are checked. Raises `InvalidRequest` with the field in its cause."""
    try:
        return _requests.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as refused:
        raise InvalidRequest(f"These bytes are no request ({refused})") from None


def content_of(request: DataRequest) -> bytes:
    """Give a digest of what is asked, by which a request that is sent again is told from another of the same id."""
    told = msgspec.structs.replace(request, request_id="", sent_at=0, deadline=0)
    return blake2b(_encoder.encode(told), digest_size=16).digest()


def type_of(raw: bytes) -> RequestType:
    """Give the type that a request's bytes say: for a final answer that is made without the request itself.

    `TECHNICAL_INDICATORS` if they say none.
    """
    try:
        return _types.decode(raw).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return RequestType.TECHNICAL_INDICATORS


def encode_reply(reply: AnswerBody | Progress) -> bytes:
    """Give the bytes of an answer or of progress."""
    return (_PROGRESS if isinstance(reply, Progress) else _ANSWER) + _encoder.encode(reply)


def decode_reply(raw: bytes) -> AnswerBody | Progress:
    """Read the bytes of an answer or of progress. Raises `InvalidRequest`."""
    try:
        return _progress.decode(raw[1:]) if raw[:1] == _PROGRESS else _answers.decode(raw[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as refused:
        raise InvalidRequest(f"These bytes are no answer ({refused})") from None
