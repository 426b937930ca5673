"""Cursors: how far a subscription has come, as a text that says nothing to people."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping

import msgspec

from mdplatform.errors import InvalidRequest


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """`time` is T up to which frames were given (microseconds); `places` are the transport's places by symbol, behind
    which it goes on.
    """

    time: int
    places: dict[str, str] = {}


_decoder = msgspec.msgpack.Decoder(Cursor)


def encode(time: int, places: Mapping[str, str]) -> str:
    """Give the text.

    >>> decode(encode(1735689600000000, {"BTCUSDT": "1-0"})).places
    {'BTCUSDT': '1-0'}
    """
    raw = msgspec.msgpack.encode(Cursor(time, dict(places)))
    return urlsafe_b64encode(raw + binascii.crc32(raw).to_bytes(4, "big")).decode().rstrip("=")


def decode(text: str) -> Cursor:
    """Read a cursor. Raises `InvalidRequest` for a text that is none."""
    try:
        told = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        raw, check = told[:-4], told[-4:]
        if binascii.crc32(raw).to_bytes(4, "big") == check:
            return _decoder.decode(raw)
    except (ValueError, msgspec.DecodeError):
        pass
    raise InvalidRequest("Not a cursor", value=text[:40], remedy="Give `frame.cursor` of the last frame, as it was")
