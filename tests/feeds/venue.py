"""An exchange's market without its network: trades, one-minute candles and a book, in the shapes that Binance sends.

All instants are milliseconds of the venue's clock, `Venue.now`, which goes on only when it is told to. Numbers are
exact decimals, written as text. What happens is kept for REST, and handed to `tell` as (stream, data) at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

MINUTE_MS = 60_000
START_MS = 1_737_331_200_000
"""2025-01-20T00:00Z"""
MOST_KEPT = 200_000
"""Trades of a symbol that are kept at least."""

Message = dict[str, Any]


@dataclass
class Bar:
    """One minute while it forms, and afterwards."""

    open_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = Decimal(0)
    quote: Decimal = Decimal(0)
    count: int = 0
    taker: Decimal = Decimal(0)
    taker_quote: Decimal = Decimal(0)
    first: int = -1
    last: int = -1

    @classmethod
    def flat(cls, open_ms: int, price: Decimal) -> Bar:
        return cls(open_ms, price, price, price, price)

    def add(self, trade: Message) -> None:
        price, quantity = Decimal(trade["p"]), Decimal(trade["q"])
        if not self.count:
            self.open = self.high = self.low = price
            self.first = trade["f"]
        self.high, self.low, self.close = max(self.high, price), min(self.low, price), price
        self.volume += quantity
        self.quote += price * quantity
        self.count += trade["l"] - trade["f"] + 1
        self.last = trade["l"]
        if not trade["m"]:
            self.taker += quantity
            self.taker_quote += price * quantity

    def row(self) -> list[Any]:
        """The twelve elements of REST."""
        text = [str(each) for each in (self.open, self.high, self.low, self.close, self.volume)]
        amounts = [str(self.quote), self.count, str(self.taker), str(self.taker_quote), "0"]
        return [self.open_ms, *text, self.open_ms + MINUTE_MS - 1, *amounts]

    def kline(self, symbol: str, is_closed: bool) -> Message:
        """The `k` of the stream."""
        return {
            "t": self.open_ms, "T": self.open_ms + MINUTE_MS - 1, "s": symbol, "i": "1m", "f": self.first,
            "L": self.last, "o": str(self.open), "c": str(self.close), "h": str(self.high), "l": str(self.low),
            "v": str(self.volume), "n": self.count, "x": is_closed, "q": str(self.quote), "V": str(self.taker),
            "Q": str(self.taker_quote), "B": "0",
        }  # fmt: skip


@dataclass
class Book:
    """Price levels, and the number of the last change."""

    last: int = 1000
    bids: dict[str, str] = field(default_factory=dict)
    asks: dict[str, str] = field(default_factory=dict)


@dataclass
class Venue:
    """The market of `symbols`; `now` is its clock. A minute without a trade is flat, as the exchange gives it."""

    symbols: Sequence[str] = ("BTCUSDT",)
    now: int = START_MS
    tell: Callable[[str, Message], None] = lambda stream, data: None
    trades: dict[str, list[Message]] = field(default_factory=dict)
    bars: dict[str, list[Bar]] = field(default_factory=dict)
    books: dict[str, Book] = field(default_factory=dict)
    first_id: int = 1

    def __post_init__(self) -> None:
        for symbol in self.symbols:
            self.trades[symbol], self.bars[symbol], self.books[symbol] = [], [], Book()

    def trade(
        self, symbol: str, price: object, quantity: object, at: int | None = None, *, buyer_maker: bool = False
    ) -> Message:
        """Make an aggregate of one trade; the clock goes on to `at`, and what closes until then is told first."""
        at = self.now if at is None else at
        self.advance(at)
        made = self.trades[symbol]
        number = made[-1]["a"] + 1 if made else self.first_id
        trade = {
            "e": "aggTrade", "E": self.now + 1, "s": symbol, "a": number, "p": str(price), "q": str(quantity),
            "f": number, "l": number, "T": min(at, self.now), "m": buyer_maker, "M": True,
        }  # fmt: skip
        made.append(trade)
        if len(made) > 2 * MOST_KEPT:
            del made[:MOST_KEPT]
        bars = self.bars[symbol]
        if not bars:
            bars.append(Bar.flat(self.now - self.now % MINUTE_MS, Decimal(str(price))))
        bars[-1].add(trade)
        self.tell(f"{symbol.lower()}@aggTrade", trade)
        return trade

    def advance(self, to: int) -> None:
        """Let the clock go on: minutes that end are closed, one after the other, all symbols in step."""
        while (minute := self.now - self.now % MINUTE_MS + MINUTE_MS) <= to:
            self.now = minute
            for symbol, bars in self.bars.items():
                if bars:
                    self._candle(symbol, is_closed=True, said=minute + 5)
                    bars.append(Bar.flat(minute, bars[-1].close))
        self.now = max(self.now, to)

    def forming(self) -> None:
        """Tell the forming candle of each symbol."""
        for symbol, bars in self.bars.items():
            if bars:
                self._candle(symbol, is_closed=False, said=self.now)

    def change_book(self, symbol: str, bids: Sequence[tuple[str, str]], asks: Sequence[tuple[str, str]]) -> None:
        """Change levels; an amount of 0 takes one away."""
        book = self.books[symbol]
        first = book.last + 1
        book.last += len(bids) + len(asks)
        for levels, side in ((bids, book.bids), (asks, book.asks)):
            for price, amount in levels:
                side[price] = amount
                if not Decimal(amount):
                    del side[price]
        data = {
            "e": "depthUpdate", "E": self.now, "s": symbol, "U": first, "u": book.last, "b": [list(x) for x in bids],
            "a": [list(x) for x in asks],
        }  # fmt: skip
        self.tell(f"{symbol.lower()}@depth@100ms", data)

    def _candle(self, symbol: str, *, is_closed: bool, said: int) -> None:
        bar = self.bars[symbol][-1]
        data = {"e": "kline", "E": said, "s": symbol, "k": bar.kline(symbol, is_closed)}
        self.tell(f"{symbol.lower()}@kline_1m", data)
