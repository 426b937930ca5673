"""Filling: what a session's sequences miss is asked of REST, page by page, a few sequences at a time.

1. After a short patience (messages out of order fill their holes themselves) a page from the first missing number is
   asked for; where no number is known yet, from the instant `since` on.
2. What it has is offered to the sequence. What lies between two of its rows the venue does not have: it is given up.
3. A page that is not full says that all is there that there was when it was asked for. Of candles only those are taken
   that ended `LATE` ago: until then the stream's final one is waited for, which has all of the minute's trades.
4. Where pages bring nothing for `_EMPTY` tries, or questions are not answered for `seconds`, what is missing is given
   up: the sequence says it as `Lost`, and goes on with what it has. While the API answers nobody, those that have no
   turn yet are given up as soon: all that have waited for `seconds` at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from mdplatform.feeds.backoff import Backoff
from mdplatform.feeds.binance_rest import PAGE, BinanceRest, NotToBeHad
from mdplatform.feeds.sequences import BookSequence, Sequence
from mdplatform.feeds.session import LATE, Session
from mdplatform.market.events import Candle, Lost, Trade
from mdplatform.market.timeframe import MINUTE_US

_PATIENCE, _EMPTY, _AT_A_TIME = 0.05, 3, 4
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
NOT_KEPT, UNANSWERED = "the venue does not have them", "the venue's API did not answer"

_log = logging.getLogger(__name__)


class Filler:
    """Fills the holes of `session` from `rest`.

    `seconds` is how long a sequence waits for an API that does not answer, `back` how far (µs) trades and candles are
    fetched at the start. `room` waits until there is room for events, `told` is called when there are some.
    """

    def __init__(
        self,
        session: Session,
        rest: BinanceRest,
        *,
        seconds: float,
        back: dict[str, int],
        counts: Counter[str],
        room: Callable[[], Awaitable[None] | None],
        told: Callable[[], None],
    ) -> None:
        self._session, self._rest, self._seconds, self._back = session, rest, seconds, back
        self._counts, self._room, self._told = counts, room, told
        self._time_then, self._asked_at = 0, -2.0
        self._at_work: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._fell_behind: dict[tuple[str, str], float] = {}
        self._answered_at = 0.0
        self._unanswered: tuple[float, NotToBeHad] | None = None
        """Since when the API has answered nobody, and what it said last."""

    async def run(self) -> None:
        """Look for holes several times a second, and fill them, until this is cancelled."""
        try:
            while True:
                wanted = {(each.kind, each.symbol): each for each in self._session.wanted()}
                now = asyncio.get_running_loop().time()
                self._fell_behind = {key: self._fell_behind.get(key, now) for key in wanted}
                for key, sequence in wanted.items():
                    if key in self._at_work:
                        continue
                    if self._has_waited(key, now):
                        self._give_up_unanswered(sequence)
                    elif len(self._at_work) < _AT_A_TIME:
                        self._at_work[key] = asyncio.create_task(self._fill(sequence))
                if self._at_work:
                    await asyncio.wait(self._at_work.values(), timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(_PATIENCE)
                for key, task in list(self._at_work.items()):
                    if task.done():
                        del self._at_work[key]
                        task.result()
        finally:
            for task in self._at_work.values():
                task.cancel()
            await asyncio.gather(*self._at_work.values(), return_exceptions=True)

    def _has_waited(self, key: tuple[str, str], now: float) -> bool:
        """Tell whether a sequence without a turn has waited for too long, or would have, for an API that is silent."""
        if self._unanswered is None or now < self._fell_behind[key] + _PATIENCE:
            return False
        since = max(self._fell_behind[key], self._unanswered[0])
        return now + self._rest.quiet > since + self._seconds

    async def _fill(self, sequence: Sequence | BookSequence) -> None:
        await asyncio.sleep(_PATIENCE)
        clock = asyncio.get_running_loop().time
        backoff, empty, turn = Backoff(_FIRST_WAIT, _LONGEST_WAIT), 0, clock()
        while self._session.is_wanted(sequence):
            if (room := self._room()) is not None:
                self._unanswered = None  # meanwhile nothing is asked
                await room
            asked_at = clock()
            try:
                came = await self._page(sequence)
            except NotToBeHad as failed:
                since = max(asked_at, self._answered_at) if self._unanswered is None else self._unanswered[0]
                self._unanswered = since, failed
                fell_behind = self._fell_behind.get((sequence.kind, sequence.symbol), turn)
                wait = max(failed.wait, backoff.next())
                if clock() + wait > min(turn, max(fell_behind, since)) + self._seconds:
                    self._give_up_unanswered(sequence)
                    return
                await asyncio.sleep(wait)
                continue
            self._answered_at, self._unanswered = clock(), None
            if came:
                empty, turn = 0, clock()
                backoff.reset()
            elif self._session.is_wanted(sequence):
                empty += 1
                if empty >= _EMPTY:
                    self._give_up(sequence, NOT_KEPT)
                    return
                await asyncio.sleep(backoff.next())
            self._session.hear(0)
            self._told()

    def _give_up_unanswered(self, sequence: Sequence | BookSequence) -> None:
        assert self._unanswered is not None
        self._give_up(sequence, f"{UNANSWERED} ({self._unanswered[1]})")

    def _give_up(self, sequence: Sequence | BookSequence, reason: str) -> None:
        self._counts["given_up"] += 1
        _log.warning("%s of %s are given up: %s", sequence.kind, sequence.symbol, reason)
        sequence.give_up(reason, self._session.events)
        self._session.hear(0)
        self._told()

    async def _page(self, sequence: Sequence | BookSequence) -> int:
        """Ask for one page; give how many new rows it had."""
        if isinstance(sequence, BookSequence):
            before = sequence.last
            book = await self._rest.book(sequence.symbol, self._session.now, _now())
            sequence.offer(book, self._session.events)
            return int(sequence.last != before)
        breaks = sequence.breaks
        if sequence.kind == "candles":
            rows, is_last = await self._candles(sequence)
            came = sum(self._session.close(row, is_filled=True) for row in rows)
            newest = rows[-1].open_time // MINUTE_US if rows else None
        else:
            trades, is_last = await self._trades(sequence)
            came = sum(
                sequence.offer(row.trade_id, row, row.time, self._session.events, is_filled=True) for row in trades
            )
            newest = trades[-1].trade_id if trades else None
        self._counts["filled"] += came
        if newest is not None:
            sequence.give_up(NOT_KEPT, self._session.events, until=newest)
        if is_last:
            sequence.caught_up(breaks)
        return came

    async def _candles(self, sequence: Sequence) -> tuple[list[Candle], bool]:
        now = max(await self._time(), self._session.now) if sequence.is_behind else self._session.now
        minute = now - now % MINUTE_US
        if sequence.next is not None and sequence.next * MINUTE_US > minute:
            _log.warning("candles of %s are known up to a time that is still to come; it goes on now", sequence.symbol)
            sequence.next, sequence.frontier = minute // MINUTE_US, minute
        since = sequence.next * MINUTE_US if sequence.next is not None else minute
        earliest = now - self._back["candles"]
        if since < earliest:
            since = earliest - earliest % MINUTE_US
            self._too_far(sequence, since)
            sequence.next = since // MINUTE_US
        sequence.begin(since // MINUTE_US)
        settled = now - LATE  # of a minute that is just over the API may tell less than the stream's last candle of it
        rows, is_last = await self._rest.candles(sequence.symbol, since, settled, _now())
        if is_last:
            self._session.hear(now)
        return rows, is_last

    async def _trades(self, sequence: Sequence) -> tuple[list[Trade], bool]:
        if sequence.next is not None:
            trades = await self._rest.trades_from(sequence.symbol, sequence.next, _now())
            return trades, len(trades) < PAGE
        now = max(await self._time(), self._session.now)
        earliest = now - self._back["trades"]
        sequence.frontier = min(sequence.frontier or now, now)
        if sequence.frontier < earliest:
            self._too_far(sequence, earliest)
        newest = await self._rest.last_trades(sequence.symbol, _now())
        trades = [each for each in newest if each.time >= sequence.frontier]
        if len(trades) < len(newest) or len(newest) < PAGE:  # it goes back far enough
            if newest:
                sequence.begin(trades[0].trade_id if trades else newest[-1].trade_id + 1, self._session.events)
            return trades, True
        trades = await self._rest.trades_since(sequence.symbol, sequence.frontier, _now())
        if trades:
            sequence.begin(trades[0].trade_id)
        return trades, len(trades) < PAGE

    async def _time(self) -> int:
        """Give the venue's time, at most a second old."""
        now = asyncio.get_running_loop().time()
        if now > self._asked_at + 1.0:
            self._time_then, self._asked_at = await self._rest.time(), now
        return self._time_then

    def _too_far(self, sequence: Sequence, until: int) -> None:
        reason = "so far back a feed does not ask; take the time in with `mdplatform ingest`"
        self._session.events.append(Lost(sequence.symbol, sequence.kind, sequence.frontier, until, reason))
        sequence.frontier = until


def _now() -> int:
    return time.time_ns() // 1000
