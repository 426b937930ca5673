"""Bars from events: closed by the venue's time with a grace period, never by this machine's clock.

How minutes are made and corrected is told in `minutes`, how longer bars follow in `parents`. Here events find their
symbol, in the order they come; how they are batched changes nothing. State is bounded whatever comes: of each symbol an
hour of minutes, a few longer bars, 256 holes in the ids of trades and 64 losses of a kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mdplatform.errors import InvalidBars, PlatformError
from mdplatform.market.events import BookChange, Candle, Clock, Event, Trade
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.streaming.dating import AHEAD_UNRECEIVED_US, is_possible
from mdplatform.streaming.live_bar import LiveBar
from mdplatform.streaming.minutes import NOTHING, Changes, Minutes
from mdplatform.streaming.parents import Parents

KEPT_US = 60 * MINUTE_US
"""How far back a closed minute may be corrected."""

_COUNTED = (
    "trades",
    "candles",
    "closed",
    "corrected",
    "gaps",
    "late",
    "too_late",
    "repeated",
    "ahead",
    "invalid",
    "minutes_skipped",
    "other_timeframe",
    "unknown_symbol",
)


class LiveBars:
    """Makes the bars of many symbols, in `timeframes`, of trades or of the venue's own candles of 1m.

    `grace_us` is how long after its close, by the venue's clock, a bar waits for trades that come late. `forming` also
    gives open bars.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        timeframes: Sequence[Timeframe],
        *,
        source: str,
        grace_us: int = 500_000,
        forming: bool = False,
    ) -> None:
        if not 0 <= grace_us <= MINUTE_US:
            raise PlatformError("Not a grace for bars", value=grace_us, remedy="Allowed: 0 to 60,000,000 microseconds")
        self._forming = forming
        self._gives_minutes = Timeframe.M1 in timeframes
        self._counts: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))
        self._clock = 0
        self._minutes = {name: Minutes(name, source, grace_us, KEPT_US, self._counts) for name in symbols}
        self._parents = {name: Parents(name, timeframes, KEPT_US) for name in symbols}
        self._shown: dict[str, dict[tuple[Timeframe, int], LiveBar]] = {name: {} for name in symbols}

    @property
    def counts(self) -> Mapping[str, int]:
        """What was taken in, given and refused since the start.

        `closed`, `corrected` and `gaps` are bars of 1m; `late` trades came after their bar closed and corrected it,
        `too_late` is what came when it could not be corrected any more; `ahead` was dated ahead of all clocks.
        """
        return dict(self._counts)

    def closed_until(self, symbol: str) -> int:
        """Give the venue's time (µs) up to which the bars of `symbol` are closed, 0 before there is any."""
        return max(self._minutes[symbol].closed_until, 0)

    def seed(self, bars: Iterable[LiveBar]) -> None:
        """Take in what is known already, ascending: the closed bars of 1m since the longest timeframe's last close.

        Longer bars may be among them, each before the minutes that follow its close: they need not be built of minutes
        then, and keep their revisions.
        """
        for bar in bars:
            if bar.symbol not in self._minutes:
                self._counts["unknown_symbol"] += 1
                continue
            if not bar.is_closed:
                raise InvalidBars("A bar that is still forming is no history", value=f"{bar.symbol} {bar.timeframe}")
            if bar.timeframe is Timeframe.M1:
                self._minutes[bar.symbol].seed(bar)
            self._parents[bar.symbol].seed(bar)

    def join(self, symbol: str) -> None:
        """Note that a symbol's trades are heard from somewhere on: a minute in whose midst they begin is not known."""
        self._minutes[symbol].joins = True

    def take(self, events: Sequence[Event]) -> list[LiveBar]:
        """Take events in; give the bars that closed or were corrected by them, in the order in which that was known.

        Of one symbol and instant the shortest timeframe comes first. With `forming`, the newest state of each forming
        bar that changed comes last.
        """
        found: list[LiveBar] = []
        touched: dict[str, None] = {}
        trades = candles = 0
        of, forming = self._minutes.get, self._forming
        for event in events:
            if isinstance(event, Clock):
                self._tick(event.time, found, touched)
                continue
            if isinstance(event, BookChange):
                continue
            symbol = event.symbol
            minutes = of(symbol)
            if minutes is None:
                self._counts["unknown_symbol"] += 1
                continue
            if isinstance(event, Candle):
                candles += 1
                if event.timeframe is not Timeframe.M1:
                    self._counts["other_timeframe"] += 1
                    continue
                changes = minutes.candle(event)
            elif isinstance(event, Trade):
                trades += 1
                changes = minutes.trade(event)
            else:
                changes = minutes.lost(event)
            if changes is not NOTHING:
                self._follow(symbol, changes, found)
            if forming:
                touched[symbol] = None
        self._counts["trades"] += trades
        self._counts["candles"] += candles
        for symbol in touched:
            found += self._open_bars(symbol)
        return found

    def changed(self, symbol: str) -> list[LiveBar]:
        """Give the newest state of a symbol's forming bar of each timeframe, if it is not as it was given before.

        While a bar waits for its grace to pass, that is this one, and not the one behind it.
        """
        return self._open_bars(symbol, self.closed_until(symbol)) if symbol in self._minutes else []

    def _tick(self, time: int, found: list[LiveBar], touched: dict[str, None]) -> None:
        """Let every symbol know the time; one more than a day after all that was heard is no time of this venue."""
        if time <= self._clock:
            return
        if time > self._clock + AHEAD_UNRECEIVED_US:
            heard = max((minutes.heard for minutes in self._minutes.values()), default=0)
            if 0 < max(heard, self._clock) < time - AHEAD_UNRECEIVED_US or not is_possible(time):
                self._counts["ahead"] += 1
                return
        self._clock = time
        for symbol, minutes in self._minutes.items():
            changes = minutes.tick(time)
            if changes is not NOTHING:
                self._follow(symbol, changes, found)
                if self._forming:
                    touched[symbol] = None

    def _follow(self, symbol: str, changes: Changes, found: list[LiveBar]) -> None:
        """Add what changed of a symbol, and the longer bars that follow, to `found`."""
        corrected, closed = changes
        parents, counts = self._parents[symbol], self._counts
        if corrected:
            counts["corrected"] += len(corrected)
            if self._gives_minutes:
                found += corrected
            found += parents.take(corrected)
        for bar in closed:
            counts["closed"] += 1
            counts["gaps"] += bar.state == "gap"
            if self._gives_minutes:
                found.append(bar)
            found += parents.take((bar,))

    def _open_bars(self, symbol: str, until: int | None = None) -> list[LiveBar]:
        """Give the forming bars that changed, of those that opened by `until` if that is given."""
        minutes = self._minutes[symbol].forming()
        bars = [*(minutes if self._gives_minutes else ()), *self._parents[symbol].forming(minutes)]
        if until is not None:
            bars = [bar for bar in bars if bar.open_time <= until]
        before = self._shown[symbol]
        self._shown[symbol] = {(bar.timeframe, bar.open_time): bar for bar in bars}
        return [bar for key, bar in self._shown[symbol].items() if before.get(key) != bar]
