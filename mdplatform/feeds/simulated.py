"""A simulated market while it is open: no network, the same seed the same events, whenever it is started.

1. The bars of each minute are those of `sources.simulated`: its closed candles are they, bit for bit, so that what is
   built live equals what the source gives later.
2. Within a minute there are `TRADES_A_MINUTE` trades that make that bar: the first at its open, the last at its close,
   one at its high and one at its low; their quantities sum up to its volume, those of takers that buy to theirs. (Each
   stands for many fills: the venue's count of trades and its quote volume are the candle's alone.) After each trade
   comes the forming candle. A minute without a trade has its candle alone, one of an outage is said as `Lost`.
3. The venue's clock begins at `start` and goes `speed` times as fast as this machine's, but never ahead of it. What
   `since` asks for before that comes at once: candles of `CANDLES_BACK`, trades of `TRADES_BACK` at most.

Bars are to be built of candles, where they are followed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from mdplatform.errors import ParameterOutOfRange
from mdplatform.feeds.pausing import closed_within
from mdplatform.feeds.session import DEFAULT_KINDS, check_kinds, check_speed, check_symbols
from mdplatform.feeds.simulated_trades import TRADES_A_MINUTE, Row, forming, trades_of
from mdplatform.market.bars import VALUE_COLUMNS
from mdplatform.market.events import Candle, Clock, Event, Lost, Trade
from mdplatform.market.time import month_of, month_range
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe
from mdplatform.settings import Settings
from mdplatform.sources.simulated import DEFAULT_SEED, SimulatedMarket
from mdplatform.sources.simulation import FIRST_MONTH, month_number, traded_minutes

CANDLES_BACK, TRADES_BACK = 7 * DAY_US, 60 * MINUTE_US
_SECOND_US = 1_000_000
_AHEAD = 0.02
_MOST_AT_ONCE = 2_000
_TOO_FAR = "so far back a feed does not ask; take the time in with `mdplatform ingest`"
_OUTAGE = "the simulated venue was down"


@dataclass(frozen=True, slots=True)
class _Day:
    """A symbol's bars of a day by their open times, and the number of the first trade of each."""

    rows: dict[int, Row]
    numbers: dict[int, int]


class SimulatedFeed:
    """Events of `symbols` in the market of that `seed`; see the module's text. `start` and `until` are µs.

    Without a `start` it begins now, at another speed than 1 a day ago, in any case not before the end of what is known
    (`since`). The feed ends at `until`. Raises `InvalidSymbol` and `ParameterOutOfRange`.
    """

    name = "simulated"

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        streams: Sequence[str] = DEFAULT_KINDS,
        speed: float = 1.0,
        start: int | None = None,
        until: int | None = None,
        seed: int = DEFAULT_SEED,
    ) -> None:
        self.symbols, self.streams = check_symbols(symbols), check_kinds(streams)
        check_speed(speed)
        if "book" in self.streams:
            raise ParameterOutOfRange("The simulated market has no book", value=list(streams))
        if start is not None and not month_range(FIRST_MONTH)[0] <= start <= _now():
            raise ParameterOutOfRange(
                "A start that cannot be", value=start, remedy=f"Microseconds since the epoch, {FIRST_MONTH} to now"
            )
        self.bars_from: Literal["candles", "trades"] = "candles" if "candles" in self.streams else "trades"
        self.seed, self._speed, self._start, self._until = seed, speed, start, until
        self._market = SimulatedMarket(seed)
        self._counts = {"messages": 0}
        self._is_closed = asyncio.Event()

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        symbols: Sequence[str],
        *,
        streams: Sequence[str] = DEFAULT_KINDS,
        speed: float = 1.0,
        start: int | None = None,
        until: int | None = None,
        seed: int = DEFAULT_SEED,
    ) -> SimulatedFeed:
        """Make the feed."""
        return cls(symbols, streams=streams, speed=speed, start=start, until=until, seed=seed)

    @property
    def counts(self) -> Mapping[str, int]:
        """`messages`."""
        return self._counts

    async def close(self) -> None:
        """End; `events` ends."""
        self._is_closed.set()

    async def events(self, since: Mapping[str, int]) -> AsyncIterator[Sequence[Event]]:
        """Give the events as in `Feed.events`; a symbol of which `since` says nothing begins at the start."""
        pace = _Course(self._speed, self._begin(since))
        begins = {symbol: since.get(symbol, self._start or pace.start) for symbol in self.symbols}
        yield self._too_far(begins, pace.start)
        batch: list[Event] = []
        async for at, event in self._all(begins, pace.start):
            wait = pace.until(at)
            if batch and (wait > _AHEAD or len(batch) >= _MOST_AT_ONCE):
                self._counts["messages"] += len(batch)
                yield batch
                batch, wait = [], pace.until(at)
            if wait > _AHEAD and await closed_within(self._is_closed, wait):
                return
            if not batch and await closed_within(self._is_closed, 0.0):
                return
            batch.append(_received(event))
        yield batch

    def _begin(self, since: Mapping[str, int]) -> int:
        now = _now()
        start = self._start or (now if self._speed == 1 else now - DAY_US)
        return min(now, max([start, *(at for symbol, at in since.items() if symbol in self.symbols)]))

    def _too_far(self, begins: dict[str, int], start: int) -> list[Event]:
        """Move the beginnings up to what is given, and say what is not."""
        said: list[Event] = []
        earliest = Timeframe.M1.ceil(start - CANDLES_BACK)
        for symbol, begin in begins.items():
            if begin < earliest and "candles" in self.streams:
                said.append(Lost(symbol, "candles", begin, earliest, _TOO_FAR))
            if begin < start - TRADES_BACK and "trades" in self.streams:
                said.append(Lost(symbol, "trades", begin, start - TRADES_BACK, _TOO_FAR))
            begins[symbol] = max(begin, earliest)
        return said

    async def _all(self, begins: Mapping[str, int], start: int) -> AsyncIterator[tuple[int, Event]]:
        """Give all events from the earliest beginning on, with their times, in order."""
        minute = Timeframe.M1.floor(min(begins.values()))
        while self._until is None or minute < self._until:
            day = minute - minute % DAY_US
            days = await asyncio.to_thread(self._days, day)
            while minute < day + DAY_US:
                for at, event in self._minute(days, minute, begins, start - TRADES_BACK):
                    if self._until is not None and at > self._until:
                        return
                    yield at, event
                minute += MINUTE_US

    def _days(self, day: int) -> dict[str, _Day]:
        return {symbol: self._day(symbol, day) for symbol in self.symbols}

    def _day(self, symbol: str, day: int) -> _Day:
        """Give a day's bars; trades are counted since the market's beginning, so that each keeps its number."""
        first, _ = month_range(month_of(day))
        months = range(month_number(FIRST_MONTH), month_number(month_of(day)))
        number = 1 + TRADES_A_MINUTE * sum(traded_minutes(self.seed, symbol, month) for month in months)
        rows: dict[int, Row] = {}
        numbers: dict[int, int] = {}
        for delivery in self._market.bars(symbol, Timeframe.M1, first, day + DAY_US):
            opens = delivery.rows["open_time"].dt.epoch("us").to_list()
            for minute, row in zip(opens, delivery.rows.select(VALUE_COLUMNS).iter_rows(), strict=True):
                if minute >= day:
                    rows[minute], numbers[minute] = row, number
                number += TRADES_A_MINUTE if row[4] > 0 else 0
        return _Day(rows, numbers)

    def _minute(
        self, days: dict[str, _Day], minute: int, begins: Mapping[str, int], trades_since: int
    ) -> list[tuple[int, Event]]:
        """Give a minute's events of all symbols, by their times."""
        said: list[tuple[int, Event]] = []
        for symbol, day in days.items():
            begin = begins[symbol]
            for at, event in self._of(symbol, day, minute):
                if isinstance(event, Trade):
                    if at >= max(begin, trades_since):
                        said.append((at, event))
                elif minute >= Timeframe.M1.floor(begin):
                    said.append((at, event))
        said += ((at, Clock(at)) for at in range(minute + _SECOND_US, minute + MINUTE_US + 1, _SECOND_US))
        return sorted(said, key=lambda each: each[0])

    def _of(self, symbol: str, day: _Day, minute: int) -> Iterator[tuple[int, Event]]:
        row, end = day.rows.get(minute), minute + MINUTE_US
        if row is None:
            for kind in self.streams:
                yield end, Lost(symbol, "trades" if kind == "trades" else "candles", minute, end, _OUTAGE)
            return
        if row[4] > 0:
            trades = trades_of(self.seed, symbol, minute, row, day.numbers[minute])
            for trade, candle in zip(trades, forming(trades, minute), strict=True):
                if "trades" in self.streams:
                    yield trade.time, trade
                if "candles" in self.streams:
                    yield trade.time, candle
        if "candles" in self.streams:
            yield end, Candle(symbol, Timeframe.M1, minute, *row, is_closed=True, time=end)


class _Course:
    """How far the venue's clock is: `speed` times as fast as this machine's from `start` (µs) on, never ahead of it."""

    def __init__(self, speed: float, start: int) -> None:
        self.start, self._speed = start, speed
        self._now, self._began = _now(), time.monotonic()

    def until(self, at: int) -> float:
        """Give the seconds until the venue's clock is at an instant (µs); below 0 where that is past."""
        past = time.monotonic() - self._began
        ahead = (at - self._now) / _SECOND_US - past  # of this machine's clock, which may be set meanwhile
        return max(ahead, (at - self.start) / _SECOND_US / self._speed - past) if self._speed else ahead


def _received(event: Event) -> Event:
    return msgspec.structs.replace(event, received_at=_now()) if isinstance(event, Trade | Candle) else event


def _now() -> int:
    return time.time_ns() // 1000
