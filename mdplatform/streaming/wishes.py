"""Wishes: what a consumer would like a feed to compute, beside the standing catalogue.

A consumer process says all of its wishes under one name, as a list of `Wish`, and renews them; a feed reads those that
are alive and adds what is new to the cells that it sends.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Wish(msgspec.Struct, frozen=True, array_like=True):
    """These features (canonical texts) of each of these symbols, in cells of each of these timeframes.

    `forming` asks for the cells of bars that are still forming as well.
    """

    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    features: tuple[str, ...] = ()
    forming: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[Wish, ...])


def encode_wishes(wishes: Sequence[Wish]) -> bytes:
    """Give the bytes, empty for no wishes: the body of `Listener.wish`."""
    return _encoder.encode(tuple(wishes)) if wishes else b""


def decode_wishes(raw: bytes) -> tuple[Wish, ...]:
    """Read the wishes of one consumer. Raises `msgspec.DecodeError`.

    >>> decode_wishes(encode_wishes([Wish(("BTCUSDT",), ("5m",), ("RSI(timeperiod=7)",))]))[0].timeframes
    ('5m',)
    """
    return _decoder.decode(raw) if raw else ()
