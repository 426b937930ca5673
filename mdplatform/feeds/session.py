"""Sessions: one venue's messages of some symbols, made into events in order; no network and no clock in sight.

1. A message is decoded (`binance_messages`); one that cannot be is counted, told, and left out.
2. Trades, closed candles and book changes go through their sequences (`sequences`): in order, each once.
3. A forming candle is given if it is newer than the last one, and not before the one that it follows has closed.
4. The `Clock` follows the venue's own event times, and never goes back. It never passes what is missing: what a
   sequence still waits for, or a candle that is due. So with `Clock(t)` all is given that the venue told up to t.
   A candle that does not come within `LATE` of its close is asked for; one that the venue does not have is given up.
5. Each stream shows whether another has stalled: trades of which a closed candle tells, and none came, are asked for.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from mdplatform.errors import ParameterOutOfRange
from mdplatform.feeds.binance_messages import Farewell, Reply, Said, Unreadable, decode
from mdplatform.feeds.sequences import BookSequence
from mdplatform.feeds.sequences import Sequence as Numbered
from mdplatform.market.events import Candle, Clock, Event, Trade
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.timeframe import MINUTE_US, Timeframe

KINDS = ("candles", "trades", "book")
DEFAULT_KINDS = ("candles", "trades")
LATE = 2_000_000
"""How long after its close (µs, venue's clock) a candle is waited for before it is asked for."""
_CLOCK_STEP = 100_000

_log = logging.getLogger(__name__)


def check_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Give what a feed is to follow, in order. Raises `ParameterOutOfRange`."""
    given = [kinds] if isinstance(kinds, str) else list(kinds)
    for each in given:
        if each not in KINDS:
            raise ParameterOutOfRange("A feed has no such kind of event", value=each, remedy=f"Known: {list(KINDS)}")
    if not given:
        raise ParameterOutOfRange("A feed must follow something", value=given, remedy=f"Known: {list(KINDS)}")
    return tuple(each for each in KINDS if each in given)


def check_symbols(symbols: Sequence[str]) -> tuple[str, ...]:
    """Give the symbols of a feed, each once. Raises `InvalidSymbol`, and `ParameterOutOfRange` if there is none."""
    if isinstance(symbols, str) or not symbols:
        raise ParameterOutOfRange("A feed needs symbols", value=symbols, remedy="Name at least one, as a list")
    return tuple(dict.fromkeys(parse_symbol(each) for each in symbols))


def check_speed(speed: float) -> None:
    """Refuse what is no speed of a replay. Raises `ParameterOutOfRange`."""
    if not 0.0 <= speed < 1e9:
        remedy = "1 is real time, 60 a minute a second, 0 as fast as it is taken"
        raise ParameterOutOfRange("A speed that cannot be", value=speed, remedy=remedy)


class Session:
    """What became of the messages so far; `take` adds to `events`, which `drain` empties."""

    def __init__(
        self,
        symbols: Sequence[str],
        kinds: Sequence[str],
        since: Mapping[str, int] | None = None,
        *,
        single: bool = False,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.now = 0
        self.events: list[Event] = []
        self.trades: dict[str, Numbered] = {}
        self.candles: dict[str, Numbered] = {}
        self.books: dict[str, BookSequence] = {}
        self._forming: dict[str, Candle] = {}
        self._told = dict.fromkeys(symbols, 0)
        self._single = single
        self._clock = self._looked_at = 0
        for symbol in symbols:
            begin = (since or {}).get(symbol)
            if "trades" in kinds:
                self.trades[symbol] = Numbered(symbol, "trades", begin)
            if "candles" in kinds:
                self.candles[symbol] = candles = Numbered(symbol, "candles", begin)
                if begin is not None:
                    candles.begin(begin // MINUTE_US)
                    candles.frontier = Timeframe.M1.floor(begin)
            if "book" in kinds:
                self.books[symbol] = BookSequence(symbol)

    @property
    def sequences(self) -> list[Numbered | BookSequence]:
        """All sequences, candles first."""
        return [*self.candles.values(), *self.trades.values(), *self.books.values()]

    def expect_books(self, symbols: Collection[str], *, has_snapshots: bool) -> None:
        """Follow the books of these alone: the clock does not wait for snapshots that do not come."""
        self.books = {each: BookSequence(each, has_snapshots=has_snapshots) for each in self.books if each in symbols}

    def take(self, raw: bytes | str, received_at: int, symbol: str = "") -> Reply | Farewell | None:
        """Take one message in, received at that instant (µs); give back what is said to the connection itself."""
        self.counts["messages"] += 1
        try:
            said = decode(raw, received_at, symbol=symbol, now=self.now)
        except Unreadable as refused:
            self.counts["unreadable"] += 1
            if self.counts["unreadable"].bit_count() == 1:  # the first, second, fourth, eighth, …
                _log.warning(
                    "%d messages could not be read; the last: %s: %.200r", self.counts["unreadable"], refused, raw
                )
            return None
        if isinstance(said, Said):
            self._take(said)
            return None
        if said is None:
            self.counts["other"] += 1
        return said

    def _take(self, said: Said) -> None:
        event = said.event
        if isinstance(event, Trade):
            sequence = self.trades.get(event.symbol)
            if sequence is None or said.single is not self._single:
                self.counts["other"] += 1
                return
            sequence.offer(event.trade_id, event, event.time, self.events)
        elif isinstance(event, Candle):
            self._take_candle(event)
        elif (book := self.books.get(event.symbol)) is not None:
            book.offer(event, self.events)
        else:
            self.counts["other"] += 1
        if said.time > self.now:
            self.now = said.time
            if self.now >= self._looked_at + _CLOCK_STEP:
                self._tell_clock()

    def _take_candle(self, candle: Candle) -> None:
        sequence = self.candles.get(candle.symbol)
        if sequence is None or candle.timeframe is not Timeframe.M1:
            self.counts["other"] += 1
        elif candle.is_closed:
            self.close(candle)
        elif candle.time > self._told[candle.symbol]:
            self._told[candle.symbol] = candle.time
            self._forming[candle.symbol] = candle
            number = candle.open_time // MINUTE_US
            if sequence.next is None and not sequence.is_behind:
                sequence.begin(number)
            if number == sequence.next:
                sequence.is_behind = False
            self._give_forming(candle.symbol)

    def close(self, candle: Candle, *, is_filled: bool = False) -> bool:
        """Take a closed candle in; tell whether it was new."""
        end = candle.open_time + MINUTE_US
        is_new = self.candles[candle.symbol].offer(
            candle.open_time // MINUTE_US, candle, end, self.events, is_filled=is_filled
        )  # fmt: skip
        self._give_forming(candle.symbol)
        if is_new and candle.trade_count and (trades := self.trades.get(candle.symbol)) is not None:
            trades.expect(candle.open_time)
        return is_new

    def _give_forming(self, symbol: str) -> None:
        candle, due = self._forming.get(symbol), self.candles[symbol].next
        if candle is None or due is None or candle.open_time // MINUTE_US > due:
            return
        del self._forming[symbol]
        if candle.open_time // MINUTE_US == due:
            self.events.append(candle)

    def hear(self, now: int) -> None:
        """Note that the venue's clock has come this far (µs); what is known up to then is looked at again."""
        self.now = max(self.now, now)
        self._looked_at = 0

    def wanted(self) -> list[Numbered | BookSequence]:
        """Give the sequences that miss something, those first in which events wait; and those with a late candle.

        What was never heard live is not among them: first comes the stream, then what lies before it.
        """
        wanted = (each for each in self.sequences if each.breaks and self.is_wanted(each))
        return sorted(wanted, key=lambda each: not each.has_held)

    def _due(self, sequence: Numbered) -> int:
        """Give when the next candle opens, if it is waited for."""
        if sequence.kind != "candles" or sequence.next is None or sequence.has_given_up:
            return 1 << 62
        return sequence.next * MINUTE_US

    def is_wanted(self, sequence: Numbered | BookSequence) -> bool:
        """Tell whether a sequence misses something, or a candle of it is due and did not come."""
        return sequence.is_blocked or (
            isinstance(sequence, Numbered) and self._due(sequence) <= self.now - LATE - MINUTE_US
        )

    def drain(self) -> list[Event]:
        """Give the events so far, with the clock behind them where it went on."""
        if self.now >= self._looked_at + _CLOCK_STEP:
            self._tell_clock()
        events, self.events = self.events, []
        return events

    def _tell_clock(self) -> None:
        self._looked_at = self.now
        known = min((each.frontier for each in self.sequences if each.is_blocked), default=self.now)
        due = min((self._due(each) + MINUTE_US - 1 for each in self.candles.values()), default=self.now)
        clock = min(self.now, known, due)
        if clock > self._clock:
            self._clock = clock
            self.events.append(Clock(clock))

    def tallies(self) -> dict[str, int]:
        """Give the counts, those of the sequences with them."""
        told = {name: self.counts[name] for name in ("messages", "unreadable", "other")}
        for name in ("repeated", "skipped", "dropped"):
            told[name] = sum(getattr(each, name) for each in self.sequences)
        return told
