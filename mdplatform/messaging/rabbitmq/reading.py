"""Reading what came through RabbitMQ: anybody may have put it there, so nothing in it is trusted."""

from __future__ import annotations

from mdplatform.messaging.rabbitmq.link import ASKER, DIRECT_REPLY, KEPT_REPLIES, LINE, IncomingMessage
from mdplatform.messaging.rabbitmq.wire import read_envelope
from mdplatform.messaging.transport import Envelope

_LARGEST = 4_000_000
_LONGEST_ID = 256
_YEAR_2100 = 4_102_444_800_000_000


def request_of(message: IncomingMessage) -> Envelope:
    """Give the envelope of a message that the Redis side can take; `ValueError` or `MsgspecError` say why it cannot."""
    if len(message.body) > _LARGEST:
        raise ValueError(f"it has {len(message.body)} bytes, more than {_LARGEST}")
    asker_of(message)
    envelope = read_envelope(message.body)
    if not 1 <= len(envelope.id) <= _LONGEST_ID:
        raise ValueError(f"its id has {len(envelope.id)} characters, not 1 to {_LONGEST_ID}")
    if not (0 < envelope.deadline < _YEAR_2100 and 0 < envelope.sent_at < _YEAR_2100):
        raise ValueError("its times are not microseconds since 1970")
    return envelope


def asker_of(message: IncomingMessage) -> str:
    """Give the asker's name. Raises `ValueError` if it, its address or its connection is not told."""
    asker = message.app_id or ""
    if not ASKER.fullmatch(asker):
        raise ValueError("it does not name its asker (in `app_id`)")
    if not isinstance(message.headers.get(LINE), int):
        raise ValueError(f"it does not number its connection (in the header `{LINE}`)")
    if not can_be_told(message):
        raise ValueError("it has no address for replies (`reply_to`) or no `correlation_id`")
    return asker


def line_of(message: IncomingMessage) -> tuple[str, str, str]:
    """Give the asker's name, its address and the number of its connection."""
    return message.app_id or "", message.reply_to or "", str(message.headers.get(LINE))


def can_be_told(message: IncomingMessage) -> bool:
    """Whether it says where its receipt goes: never into just any queue."""
    return (message.reply_to or "").startswith((f"{DIRECT_REPLY}.", KEPT_REPLIES)) and bool(message.correlation_id)
