"""Cells: what goes over the wire for one bar of one timeframe, with the features that were computed at its close.

The cells of a symbol that are due at one instant travel together in a *packet*. The names of the features stand in a
*layout*, which is sent once and named by its id; a cell has their numbers alone, as float64 bytes, and a status a
feature as int8 (an index in `features.guard.STATUSES`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray


class Layout(msgspec.Struct, frozen=True, array_like=True):
    """The features of the cells of a symbol and timeframe: `columns` name the numbers of `Cell.numbers`, in order.

    `features` are the canonical texts whose statuses `Cell.statuses` gives, and `counts` how many columns each has.
    """

    id: str
    features: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, features: tuple[str, ...], columns: tuple[str, ...], counts: tuple[int, ...]) -> Layout:
        """Make a layout; equal ones have equal ids in every process."""
        told = "\0".join((*features, "", *columns, "", *map(str, counts)))
        return cls(hashlib.blake2b(told.encode(), digest_size=8).hexdigest(), features, columns, counts)


class Cell(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One bar and its features. Times are microseconds.

    `bar` are the nine values of `market.bars.VALUE_COLUMNS` as float64 bytes (NaN for what is not known), `numbers` and
    `statuses` those of the features of the layout. `quality` is from 0 to 1, None where it was not assessed. `edition`
    counts how often features of this timeframe were computed anew because an earlier bar was corrected: of several
    cells of one bar, that with the highest `(revision, edition)` stands.
    """

    timeframe: str
    open_time: int
    close_time: int
    available_at: int
    state: str
    is_closed: bool
    revision: int
    bar: bytes
    layout: str = ""
    numbers: bytes = b""
    statuses: bytes = b""
    quality: float | None = None
    edition: int = 0


class Packet(msgspec.Struct, frozen=True, array_like=True):
    """What became known of a symbol at one instant: its cells, shortest timeframe first.

    `at` is the venue's time (µs) up to which the symbol's bars are closed with this packet; one without cells only says
    that time went on. `received_at` is when the message that closed them came in, by the feed's clock; `sent_at` when
    the packet was sent. `feed` names the process that made it and `number` counts its packets of the symbol from 1.
    """

    symbol: str
    at: int
    cells: tuple[Cell, ...] = ()
    received_at: int = 0
    sent_at: int = 0
    feed: str = ""
    number: int = 0


def forming_topic(symbol: str) -> str:
    """Give the topic of a symbol's forming cells, so that these crowd out no closed ones.

    Packets are numbered for themselves there; their layouts are among the facts of the symbol.

    >>> forming_topic("BTCUSDT")
    'BTCUSDT~forming'
    """
    return f"{symbol}~forming"


_encoder = msgspec.msgpack.Encoder()
_packets = msgspec.msgpack.Decoder(Packet)
_layouts = msgspec.msgpack.Decoder(Layout)
_corrections = msgspec.msgpack.Decoder(dict[int, int])


def encode(what: Packet | Layout) -> bytes:
    """Give the bytes."""
    return _encoder.encode(what)


def decode_packet(raw: bytes) -> Packet:
    """Read a packet. Raises `msgspec.DecodeError`."""
    return _packets.decode(raw)


def decode_layout(raw: bytes) -> Layout:
    """Read a layout. Raises `msgspec.DecodeError`."""
    return _layouts.decode(raw)


def encode_corrections(revisions: Mapping[int, int]) -> bytes:
    """Give the bytes of the revisions of bars by their open times (µs)."""
    return _encoder.encode(revisions)


def decode_corrections(raw: bytes) -> dict[int, int]:
    """Read the revisions of bars. Raises `msgspec.DecodeError`."""
    return _corrections.decode(raw)


def numbers(raw: bytes) -> NDArray[np.float64]:
    """Give the numbers in the bytes of a cell; the array cannot be written to."""
    return np.frombuffer(raw, dtype="<f8")
