"""Messages: what Binance's websocket says, decoded; the live feed and recordings read with this alone.

A message is that of a combined stream (`{"stream": …, "data": {"e": …}}`) or the data alone; a depth request's body is
a snapshot. Instants are ms (or µs: told apart by magnitude) and become µs; numbers come as text. A message whose values
cannot be is refused whole.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from mdplatform.market.events import BookChange, Candle, Trade
from mdplatform.market.timeframe import Timeframe

_EARLIEST, _LATEST = 1_104_537_600_000_000, 4_102_444_800_000_000  # 2005 and 2100, in µs
_MILLISECONDS_BELOW = 10**14
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises of bytes that are not what was expected."""

Levels: TypeAlias = tuple[tuple[float, float], ...]


class Unreadable(ValueError):
    """Bytes that are no message, or one with values that cannot be."""


class Said(msgspec.Struct, frozen=True, gc=False):
    """One message: the event that it tells, and when the venue said it (µs). A `single` trade is no aggregate."""

    event: Trade | Candle | BookChange
    time: int
    single: bool = False


class Reply(msgspec.Struct, frozen=True, gc=False):
    """The answer to a message that was sent, by its `id`; `error` is what was refused."""

    id: int | None
    error: str = ""


class Farewell(msgspec.Struct, frozen=True, gc=False):
    """The venue is about to end the connection: another is to be made at once."""


class _AggTrade(msgspec.Struct, tag_field="e", tag="aggTrade", gc=False):
    E: int
    s: str
    a: int
    p: float
    q: float
    T: int
    m: bool


class _Trade(msgspec.Struct, tag_field="e", tag="trade", gc=False):
    E: int
    s: str
    t: int
    p: float
    q: float
    T: int
    m: bool


class _Bar(msgspec.Struct, gc=False):
    t: int
    i: str
    o: float
    h: float
    l: float  # noqa: E741
    c: float
    v: float
    q: float
    n: int
    V: float
    Q: float
    x: bool


class _Kline(msgspec.Struct, tag_field="e", tag="kline", gc=False):
    E: int
    s: str
    k: _Bar


class _Depth(msgspec.Struct, tag_field="e", tag="depthUpdate"):
    E: int
    s: str
    U: int
    u: int
    b: Levels
    a: Levels
    pu: int | None = None


_Known: TypeAlias = _AggTrade | _Trade | _Kline | _Depth


class _Combined(msgspec.Struct):
    data: _Known


class _Other(msgspec.Struct):
    """What tells kinds of messages apart that are none of the known ones."""

    data: msgspec.Raw = msgspec.Raw(b"")
    e: str | None = None
    id: int | None = None
    result: object = None
    error: object = None
    u: int | None = None
    s: str | None = None
    lastUpdateId: int | None = None  # noqa: N815
    bids: Levels | None = None
    asks: Levels | None = None


_combined = msgspec.json.Decoder(_Combined, strict=False)
_single = msgspec.json.Decoder(_Known, strict=False)
_other = msgspec.json.Decoder(_Other, strict=False)
_KINDS = ("aggTrade", "trade", "kline", "depthUpdate")
_FAREWELL = "serverShutdown"


def decode(raw: bytes | str, received_at: int, *, symbol: str = "", now: int = 0) -> Said | Reply | Farewell | None:
    """Read one message, received at that instant (µs, this machine's clock); None for one of another kind.

    A snapshot does not say its `symbol`, nor when it was taken: `now` is the venue's time at its receipt. Raises
    `Unreadable`.
    """
    try:
        return _said(_combined.decode(raw).data, received_at)
    except UNREADABLE as failed:
        return _uncommon(raw, received_at, symbol, now, failed)


def _uncommon(
    raw: bytes | str | msgspec.Raw, received_at: int, symbol: str, now: int, failed: Exception
) -> Said | Reply | Farewell | None:
    try:
        other = _other.decode(raw)
        if bytes(other.data):
            return _uncommon(other.data, received_at, symbol, now, failed)
        if other.e in _KINDS:
            return _said(_single.decode(raw), received_at)
    except UNREADABLE:
        raise Unreadable(str(failed)) from None
    if other.e == _FAREWELL:
        return Farewell()
    if other.lastUpdateId is not None and other.bids is not None and other.asks is not None:
        return Said(snapshot(symbol, other.lastUpdateId, other.bids, other.asks, now, received_at), now)
    if other.error is not None or other.id is not None:
        return Reply(other.id, "" if other.error is None else str(other.error))
    return None


def _said(data: _Known, received_at: int) -> Said:
    said = instant(data.E)
    if isinstance(data, _AggTrade):
        return Said(trade(data.s, data.a, data.p, data.q, data.T, data.m, received_at), said)
    if isinstance(data, _Trade):
        return Said(trade(data.s, data.t, data.p, data.q, data.T, data.m, received_at), said, True)
    if isinstance(data, _Kline):
        bar = data.k
        values = (bar.o, bar.h, bar.l, bar.c, bar.v, bar.q, bar.n, bar.V, bar.Q)
        return Said(candle(data.s, bar.i, bar.t, values, bar.x, said, received_at), said)
    _check(data.u >= data.U and _are_levels(data.b) and _are_levels(data.a), "a book change that cannot be")
    return Said(
        BookChange(data.s, said, data.U, data.u, data.b, data.a, data.pu, received_at=received_at), said
    )  # fmt: skip


def trade(
    symbol: str, number: int, price: float, quantity: float, at: int, is_maker: bool, received_at: int
) -> Trade:  # fmt: skip
    """Make a trade of what the venue told. Raises `Unreadable`."""
    _check(0.0 < price < 1e300 and 0.0 <= quantity < 1e300 and number >= 0, "a trade that cannot be")
    return Trade(symbol, number, instant(at), price, quantity, is_maker, received_at)


Values: TypeAlias = tuple[float, float, float, float, float, float, int, float, float]


def candle(
    symbol: str, timeframe: str, open_time: int, values: Values, is_closed: bool, said: int, received_at: int
) -> Candle:
    """Make a candle of what the venue told: open, high, low, close, volume, … as in `Candle`. Raises `Unreadable`."""
    opened, high, low, close, *amounts = values
    possible = 0.0 < low <= min(opened, close) <= max(opened, close) <= high < 1e300
    _check(possible and all(0 <= each < 1e300 for each in amounts), "a candle that cannot be")
    try:
        length = Timeframe(timeframe)
    except ValueError:
        raise Unreadable(f"a candle of {timeframe}") from None
    at = instant(open_time)
    _check(length.is_aligned(at), "a candle off the grid")
    return Candle(symbol, length, at, *values, is_closed, said, received_at)


def snapshot(symbol: str, last: int, bids: Levels, asks: Levels, now: int, received_at: int) -> BookChange:
    """Make a snapshot of the book of what the venue told. Raises `Unreadable`."""
    _check(_are_levels(bids) and _are_levels(asks), "a snapshot that cannot be")
    return BookChange(symbol, now, last, last, bids, asks, is_snapshot=True, received_at=received_at)


def instant(told: int) -> int:
    """Give an instant of the venue (ms or µs) as microseconds. Raises `Unreadable` before 2005 and after 2100."""
    at = told * 1000 if told < _MILLISECONDS_BELOW else told
    _check(_EARLIEST <= at < _LATEST, "an instant that cannot be")
    return at


def _are_levels(levels: Levels) -> bool:
    return all(0.0 < price < 1e300 and 0.0 <= amount < 1e300 for price, amount in levels)


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise Unreadable(what)
