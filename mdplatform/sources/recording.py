"""Recordings: what Binance's websocket sent, one message a line, behind the instant at which it was received.

1. A line is `RECEIVED JSON`: the receiver's clock (s, ms, µs or ns, one unit a file), and a message of the combined or
   a single stream, or the body of a depth request (`lastUpdateId`, `bids`, `asks`): a snapshot.
2. `trade` messages become trades; where a recording has none, `aggTrade` messages do. `depthUpdate` and snapshots
   become depth, a row a price level, with `U`, `u` and `pu` as they were sent. A message without a level makes no row:
   the one that follows it takes over where it began.
3. A row's time is the venue's (`T` of a trade, `E` of depth); a snapshot without one gets the latest time known at that
   line. It is available from then, or when it was received if that is later: clocks differ, and neither is believed
   beyond that.
4. A line that cannot be read is set aside, a cut one at the end under a name of its own; a cut gzip file is read as far
   as it goes. One whose checksum or packing says that it is damaged is refused: nothing tells which of its digits are
   those that were written. Messages of other kinds are counted and left out.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import polars as pl

from mdplatform.errors import EmptyFile, InvalidSymbol, MislabelledFile, OversizedFile, TruncatedFile, UnknownFormat
from mdplatform.market.depth import DEPTH
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.trades import TRADES
from mdplatform.sources.cells import instants
from mdplatform.sources.table_delivery import SET_ASIDE, TableDelivery, TableOptions
from mdplatform.sources.trade_files import AGGREGATED, SINGLE
from mdplatform.sources.unpack import read_bytes, refuse_packed, verify_checksum

ENDINGS = (".gz", ".dat", ".txt", ".log", ".jsonl")
CUT_LINE, UNREADABLE_LINE = "cut_line", "unreadable_line"
_MOST_SHOWN = 2_000
_ROWS_A_PIECE = 200_000

Levels = list[tuple[str, str]]


class _Message(msgspec.Struct):
    """What is used of any message; a field that another kind of message uses for something else may be of any type."""

    data: _Message | None = None
    e: str | None = None
    E: int | None = None
    T: int | None = None
    s: str | None = None
    t: object = None
    a: object = None
    b: object = None
    p: object = None
    q: object = None
    m: object = None
    U: int | None = None
    u: int | None = None
    pu: int | None = None
    lastUpdateId: int | None = None  # noqa: N815
    bids: Levels | None = None
    asks: Levels | None = None


_DECODER = msgspec.json.Decoder(_Message)


@dataclass
class _Table:
    """Rows that grow line by line, in pieces of typed columns so that a long recording fits."""

    columns: tuple[str, ...]
    pieces: list[pl.DataFrame] = field(default_factory=list)
    rows: list[tuple[object, ...]] = field(default_factory=list)
    count: int = 0

    def add(self, *row: object) -> None:
        self.rows.append(row)
        self.count += 1
        if len(self.rows) >= _ROWS_A_PIECE:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            kinds = {name: _KINDS[name] for name in self.columns}
            self.pieces.append(pl.DataFrame(self.rows, schema=kinds, orient="row", strict=False))
            self.rows = []

    def frame(self) -> pl.DataFrame:
        self.flush()
        return (
            pl.concat(self.pieces)
            if self.pieces
            else pl.DataFrame(schema={name: _KINDS[name] for name in self.columns})
        )


_KINDS: dict[str, pl.DataType] = {
    "symbol": pl.String(), "received": pl.Int64(), "time": pl.Int64(), "event": pl.Int64(), "trade_id": pl.Int64(),
    "price": pl.String(), "quantity": pl.String(), "is_buyer_maker": pl.Boolean(), "first_update_id": pl.Int64(),
    "last_update_id": pl.Int64(), "previous_update_id": pl.Int64(), "is_snapshot": pl.Boolean(), "is_bid": pl.Boolean(),
}  # fmt: skip
_TRADE = ("symbol", "received", "event", "time", "trade_id", "price", "quantity", "is_buyer_maker", "is_snapshot")
_DEPTH = (
    "symbol", "received", "event", "time", "first_update_id", "last_update_id", "previous_update_id", "is_snapshot",
    "is_bid", "price", "quantity",
)  # fmt: skip


@dataclass
class _Read:
    """What the lines so far have given."""

    trades: dict[str, _Table] = field(default_factory=lambda: {name: _Table(_TRADE) for name in ("trade", "aggTrade")})
    depth: _Table = field(default_factory=lambda: _Table(_DEPTH))
    broken: list[tuple[str, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    symbols: set[str] = field(default_factory=set)
    snapshots: set[int] = field(default_factory=set)
    latest: int = 0
    empty: dict[str, tuple[int | None, int | None, int | None]] = field(default_factory=dict)


def read_recording(path: Path, options: TableOptions) -> Iterator[TableDelivery]:
    """Give the trades and the depth of one recording. Raises errors of `SourceError`."""
    data, is_cut = recorded_bytes(path, options.max_bytes)
    read = _Read()
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            received, message = _parse(line)
        except (ValueError, msgspec.MsgspecError):
            last = number == len(lines)
            read.broken.append((CUT_LINE if last else UNREADABLE_LINE, line[:_MOST_SHOWN].decode(errors="replace")))
            continue
        _take(read, received, message)
    trades, form = read.trades["trade"].frame(), SINGLE
    if trades.is_empty():
        trades, form = read.trades["aggTrade"].frame(), AGGREGATED
    depth = read.depth.frame()
    if trades.is_empty() and depth.is_empty():
        raise UnknownFormat(
            f"{path} has no trades and no depth of Binance's websocket",
            value=first if (first := lines[0][:120].decode(errors="replace")).isprintable() else "no text",
            remedy="A line must be: instant of receipt, a space, the message as JSON",
        )
    symbol = _only_symbol(read, path, options)
    notes = _notes(read, path, is_cut)
    aside: pl.DataFrame | None = pl.DataFrame(read.broken, schema=SET_ASIDE, orient="row")
    source = f"recording:{path.name}"
    for dataset, frame in ((TRADES, trades), (DEPTH, depth)):
        if frame.height:
            rows = _typed(frame, symbol, path)
            rows = _within(rows, options).select(list(dataset.delivered)).cast(dataset.delivered)
            of_rows = form if dataset is TRADES else ""
            yield TableDelivery.of(dataset, source, rows, set_aside=aside, notes=notes, form=of_rows)
            aside, notes = None, ()  # they are told once


def recorded_bytes(path: Path, max_bytes: int) -> tuple[bytes, bool]:
    """Give a file's bytes, of a gzip file those that can be unpacked, and whether it was cut."""
    data = read_bytes(path, max_bytes)
    verify_checksum(path, data)
    is_cut = False
    parts, size = [], 0
    if data.startswith(b"\x1f\x8b"):
        while data:
            stream = zlib.decompressobj(wbits=31)
            try:
                part = stream.decompress(data, max_bytes - size + 1)
            except zlib.error as broken:
                raise TruncatedFile(
                    f"{path} is a damaged gzip file",
                    value=str(broken),
                    remedy="Fetch it again; or unpack what can be (gzip -dc) and take that in, if you trust it",
                ) from None
            parts.append(part)
            size += len(part)
            is_cut = not stream.eof
            data = stream.unused_data if stream.eof and stream.unused_data.startswith(b"\x1f\x8b") else b""
            if size > max_bytes:
                break
        data = b"".join(parts)
    if len(data) > max_bytes:
        raise OversizedFile(
            f"{path} is larger than allowed, unpacked",
            value=f"more than {max_bytes} bytes",
            remedy="Raise MDPLATFORM_MAX_FILE_MB if you trust it",
        )
    if is_cut and not data:
        raise TruncatedFile(f"{path} ends before anything can be unpacked", remedy="Fetch it again")
    refuse_packed(path, data)
    if not data.strip():
        raise EmptyFile(f"{path} has nothing in it", value=len(data))
    return data, is_cut


def _parse(line: bytes) -> tuple[int, _Message]:
    instant, _, text = line.strip().partition(b" ")
    message = _DECODER.decode(text)
    return int(instant), message.data or message


def _take(read: _Read, received: int, message: _Message) -> None:
    read.latest = max(read.latest, message.E or message.T or 0)
    if message.lastUpdateId is not None and message.bids is not None and message.asks is not None:
        if message.lastUpdateId not in read.snapshots:
            read.snapshots.add(message.lastUpdateId)
            at = message.E or message.T or read.latest or None
            ids = (message.lastUpdateId, message.lastUpdateId, None, True)
            _levels(read, (message.s, received, at, at, *ids), message.bids, message.asks)
    elif message.e == "depthUpdate" and isinstance(message.b, list) and isinstance(message.a, list):
        read.symbols.add(message.s or "")
        first, before = _with_empty(read, message)
        if message.b or message.a:
            ids_of_diff = (first, message.u, before, False)
            _levels(read, (message.s, received, message.E, message.E, *ids_of_diff), message.b, message.a)
        else:
            read.empty[message.s or ""] = (first, message.u, before)
    elif message.e in ("trade", "aggTrade"):
        read.symbols.add(message.s or "")
        number = message.t if message.e == "trade" else message.a
        identified = number if isinstance(number, int) else None
        maker = message.m if isinstance(message.m, bool) else None
        price, quantity = (each if isinstance(each, str) else None for each in (message.p, message.q))
        read.trades[message.e].add(
            message.s, received, message.E, message.T, identified, price, quantity, maker, False
        )  # fmt: skip
    else:
        read.others[message.e or ("bookTicker" if message.u is not None and message.s else "other")] += 1


def _with_empty(read: _Read, message: _Message) -> tuple[int | None, int | None]:
    """Give `U` and `pu` of a message, or of those without levels that it follows: the sequence has no hole for them."""
    first, last, before = read.empty.pop(message.s or "", (None, None, None))
    follows = message.pu == last if message.pu is not None else message.U is not None and last == message.U - 1
    return (first, before) if last is not None and follows else (message.U, message.pu)


def _levels(read: _Read, head: tuple[object, ...], bids: Sequence[object], asks: Sequence[object]) -> None:
    for is_bid, levels in ((True, bids), (False, asks)):
        for level in levels:
            price, quantity = level[:2] if isinstance(level, list | tuple) and len(level) >= 2 else (None, None)
            read.depth.add(*head, is_bid, price, quantity)


def _only_symbol(read: _Read, path: Path, options: TableOptions) -> str | None:
    """Give the symbol of snapshots, which don't say theirs; None where none is needed or it cannot be told."""
    try:
        known = {parse_symbol(each) for each in read.symbols if each}
    except InvalidSymbol as refused:
        refused.cause = f"{path}: {refused.cause.lower()}"
        raise
    if options.symbol is not None and known - {options.symbol}:
        other = min(known - {options.symbol})
        raise MislabelledFile(f"{path} has messages of {other}, but --symbol says {options.symbol}", value=other)
    if options.symbol is not None:
        return options.symbol
    if len(known) == 1:
        return known.pop()
    if read.snapshots:
        raise MislabelledFile(
            f"{path} has messages of {len(known)} symbols, and snapshots that don't say whose they are",
            value=sorted(known),
            remedy="Record one symbol a file, or say it with --symbol",
        )
    return None


def _typed(frame: pl.DataFrame, symbol: str | None, path: Path) -> pl.DataFrame:
    received = instants(frame["received"], path)
    times = {name: instants(frame[name].alias("time"), path) for name in ("event", "time")}
    return frame.with_columns(
        pl.col("symbol").fill_null(pl.lit(symbol)).str.to_uppercase(),
        times["event"].alias("event"),
        times["time"].alias("time"),
        pl.col("price", "quantity").cast(pl.Float64, strict=False),
        received.alias("received"),
    ).with_columns(
        pl.max_horizontal("time", "event", "received").alias("available_at"),
        pl.coalesce("time", pl.when("is_snapshot").then("received")).alias("time"),
    )


def _within(rows: pl.DataFrame, options: TableOptions) -> pl.DataFrame:
    at = pl.col("time").dt.epoch("us")
    if options.start is not None:
        rows = rows.filter((at >= options.start) | at.is_null())
    if options.end is not None:
        rows = rows.filter((at < options.end) | at.is_null())
    return rows


def _notes(read: _Read, path: Path, is_cut: bool) -> tuple[str, ...]:
    notes = []
    if is_cut:
        notes.append(f"{path.name}: the file is cut or damaged; it was read as far as it goes")
    if read.trades["trade"].count and read.trades["aggTrade"].count:
        notes.append(f"{path.name}: it has single and aggregated trades; the single ones were taken")
    if read.others:
        said = ", ".join(f"{name} {count:,}" for name, count in read.others.most_common(5))
        notes.append(f"{path.name}: messages that are neither trades nor depth were left out ({said})")
    return tuple(notes)
