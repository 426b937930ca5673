"""Minutes: the bars of 1m of one symbol, open and lately closed, and what each is made of.

1. A minute closes when the symbol's time (of its trades and candles, or the venue's clock) has passed its end and the
   grace, or with the venue's closed candle of it; earlier ones close before it, so that bars come in order.
2. What it is made of is told in `minute`: the venue's candle, its trades, or the close before it.
3. What comes after that changes the sources of a closed minute: it is settled again, and given as a correction if it is
   another bar then. So are the idle minutes that follow it, since they are flat at its close.
4. Where trades are heard from the midst of a minute on, those before are lost, unless the feed was asked for them.
   A loss of trades is mended when the ids show no hole there, one of candles when a later candle tells the minute.
5. Corrections reach `kept_us` back. What is older is refused and counted; so is what is dated ahead of all clocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from mdplatform.market.events import Candle, Lost, Trade
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe
from mdplatform.streaming.amending import amended
from mdplatform.streaming.candles import values_of
from mdplatform.streaming.dating import AHEAD_UNRECEIVED_US, is_believable
from mdplatform.streaming.live_bar import GAP_REVISION, LiveBar
from mdplatform.streaming.losses import Loss, Losses
from mdplatform.streaming.minute import GAP, Minute, Settled, settle
from mdplatform.streaming.trade_bars import TradeBar
from mdplatform.streaming.trade_ids import TradeIds

MOST_IDLE_US = DAY_US
"""The longest silence that is filled with idle minutes; after a longer one a symbol begins anew."""

_NEVER = -(1 << 62)
_INFINITE = float("inf")

Changes: TypeAlias = tuple[Sequence[LiveBar], Sequence[LiveBar]]
"""Bars that were corrected, and bars that closed, each ascending."""

NOTHING: Changes = ((), ())


class Minutes:
    """The minutes of one symbol; `counts` is shared by those of all symbols."""

    def __init__(self, symbol: str, source: str, grace_us: int, kept_us: int, counts: Counter[str]) -> None:
        self._symbol, self._source = symbol, source
        self._grace_us, self._kept_us = grace_us, kept_us
        self._counts = counts
        self.closed_until = _NEVER
        self.joins = False
        """Whether trades are heard from somewhere on, before which there may have been others."""
        self._begin = 0
        self._kept: dict[int, Minute] = {}
        self._ids = TradeIds()
        self._losses = Losses()
        self._clock = self._time = self._received_at = 0
        # the minute that trades go to without another thought, and until which time they do
        self._opened, self._until = 0, _NEVER
        self._trades = TradeBar()
        # the minute that forming candles tell without another thought: the one that closes next
        self._telling, self._told = _NEVER, Minute()

    @property
    def heard(self) -> int:
        """The newest time (µs) of which anything was heard, this machine's when the last event came included."""
        return max(self._clock, self._time, self._ids.time, self._received_at)

    # -- what comes in ------------------------------------------------------------------------------------------------

    def seed(self, bar: LiveBar) -> None:
        """Take a closed bar of history in; the symbol goes on from its end."""
        minute = self._minute(bar.open_time)
        self._telling = _NEVER
        minute.is_final, minute.state = True, bar.state
        if bar.state == "gap":
            minute.bar = self._made(bar.open_time, GAP, GAP_REVISION)
            self._losses.add(Loss("trades", bar.open_time, bar.close_time))
        else:
            minute.given, minute.bar = bar.values, bar
        if self.closed_until == _NEVER:
            self._begin = bar.open_time
        self._begin = min(self._begin, bar.open_time)
        self.closed_until = max(self.closed_until, bar.open_time + MINUTE_US)
        while (oldest := next(iter(self._kept))) < self.closed_until - self._kept_us - MINUTE_US:
            del self._kept[oldest]

    def trade(self, trade: Trade) -> Changes:
        """Take a trade in."""
        if (
            self._opened <= trade.time < self._until
            and trade.trade_id == self._ids.next
            and 0.0 < trade.price < _INFINITE
            and 0.0 <= trade.quantity < _INFINITE
        ):
            self._ids.next += 1
            if trade.time > self._ids.time:
                self._ids.time = trade.time
            self._trades.add(trade)
            return NOTHING
        return self._consider(trade)

    def candle(self, candle: Candle) -> Changes:
        """Take a candle of 1m in."""
        values = values_of(candle)
        if values is None:
            return self._refuse("invalid")
        opened, time, minute = candle.open_time, candle.time, self._told
        if (
            opened == self._telling
            and opened <= time < opened + MINUTE_US
            and time >= minute.told
            and not candle.is_closed
            and values != minute.given
        ):
            minute.given, minute.told = values, time
            self._received_at = candle.received_at
            if time > self._time:
                self._time = time
            return NOTHING
        return self._consider_candle(candle, values)

    def lost(self, lost: Lost) -> Changes:
        """Take in that messages are missing, and were not to be had."""
        if lost.kind == "book":
            return NOTHING
        latest = max(self._clock, self._time, self._ids.time)
        if not lost.since < lost.until or (latest > 0 and lost.until > latest + AHEAD_UNRECEIVED_US):
            return self._refuse("invalid")
        loss = Loss(lost.kind, lost.since, lost.until)
        self._losses.add(loss)
        self._until = self._telling = _NEVER
        touched = self._touched_by([loss])
        for opened in touched:
            minute = self._kept[opened]
            if lost.kind == "candles" and not minute.is_final:
                minute.given = None
        self._mend()
        return self._corrected(touched), ()

    def tick(self, time: int) -> Changes:
        """Take in that the venue's clock has come that far."""
        if time > self._clock:
            self._clock = time
        if self.closed_until == _NEVER or time < self.closed_until + MINUTE_US + self._grace_us:
            return NOTHING
        return (), self._close(time - self._grace_us, time)

    def forming(self) -> list[LiveBar]:
        """Give the open minutes, ascending, up to the newest that has something; those that are known, as they are."""
        last = max((each for each in self._kept if each >= self.closed_until), default=_NEVER)
        found: list[LiveBar] = []
        before = self._kept.get(self.closed_until - MINUTE_US)
        bar = before.bar if before else None
        for opened in range(self.closed_until, last + 1, MINUTE_US):
            settled = settle(self._kept.get(opened), opened, bar, self._losses)
            if settled is None:
                continue
            minute = self._kept.get(opened)
            newest = max(minute.told, minute.trades.time if minute.trades else 0) if minute else 0
            bar = self._made(opened, settled, 0, is_closed=False, known=newest or opened)
            if settled[1] != "gap":
                found.append(bar)
        return found

    # -- what needs a thought ------------------------------------------------------------------------------------------

    def _consider_candle(self, candle: Candle, values: tuple[float, ...]) -> Changes:
        opened = candle.open_time
        ends = opened + MINUTE_US
        told = ends if candle.is_closed else min(max(candle.time, opened), ends)
        if not self._is_believable(told, candle.received_at):
            return self._refuse("ahead")
        if self.closed_until == _NEVER:
            self.closed_until = self._begin = opened
        if opened < self.closed_until - self._kept_us:
            return self._refuse("too_late")
        minute = self._kept.get(opened)
        if minute is not None and self._is_known(minute, candle, values):
            return self._refuse("repeated")
        if opened < self.closed_until and not candle.is_closed:
            return self._refuse("too_late")
        minute = minute or self._minute(opened)
        minute.given, minute.state = values, ""
        minute.told, minute.is_final = candle.time, candle.is_closed
        self._begin = min(self._begin, opened)
        if opened < self.closed_until:
            return self._corrected([opened]), ()
        closed = self._close(ends if candle.is_closed else told - self._grace_us, told)
        if opened == self.closed_until and told < ends:
            self._telling, self._told = opened, minute
        return ((), closed) if closed else NOTHING

    def _consider(self, trade: Trade) -> Changes:
        time = trade.time
        if not (0.0 < trade.price < _INFINITE and 0.0 <= trade.quantity < _INFINITE) or trade.trade_id < 0:
            return self._refuse("invalid")
        if not self._is_believable(time, trade.received_at):
            return self._refuse("ahead")
        is_first = self._ids.next is None
        tells_more = self._ids.next is None or trade.trade_id >= self._ids.next
        if not self._ids.take(trade.trade_id, time):
            return self._refuse("repeated")
        opened = time - time % MINUTE_US
        if self.closed_until == _NEVER:
            self.closed_until = self._begin = (time - self._grace_us) // MINUTE_US * MINUTE_US
        if is_first and self.joins and trade.trade_id > 0 and opened < time:
            self._losses.add(Loss("trades", opened, time))
        mended = self._mend() if tells_more or self._ids.has_closed else []
        if opened < max(self._begin, self.closed_until - self._kept_us):
            self._counts["too_late"] += 1
            return self._corrected(mended), ()
        minute = self._minute(opened)
        minute.trades = minute.trades or TradeBar()
        minute.trades.add(trade)
        if opened < self.closed_until:
            self._counts["late"] += 1
            return self._corrected([*mended, opened]), ()
        corrected = self._corrected(mended)
        closed = self._close(time - self._grace_us, time)
        if self._losses.latest("trades") <= self._ids.time:
            self._opened, self._trades = opened, minute.trades
            self._until = min(opened, self.closed_until + self._grace_us) + MINUTE_US
        return corrected, closed

    def _mend(self) -> list[int]:
        """Forget the losses of trades that the ids show to be none; give the minutes that they touch."""
        if not self._losses:
            return []
        ids, expired = self._ids, self.closed_until - self._kept_us - 2 * MINUTE_US
        self._losses.settle(lambda loss: loss.until <= expired)
        mended = self._losses.settle(
            lambda loss: loss.kind == "trades" and ids.time >= loss.until and not ids.has_hole(loss.since, loss.until)
        )
        return self._touched_by(mended)

    def _touched_by(self, losses: Sequence[Loss]) -> list[int]:
        return [
            opened
            for opened in self._kept
            if any(loss.since < opened + MINUTE_US and opened < loss.until for loss in losses)
        ]

    def _is_believable(self, time: int, received_at: int) -> bool:
        self._received_at = received_at
        return is_believable(time, max(self._clock, self._time, self._ids.time), received_at)

    @staticmethod
    def _is_known(minute: Minute, candle: Candle, values: tuple[float, ...]) -> bool:
        """Tell whether a candle is older than what its minute was given already, or says the same."""
        if candle.is_closed != minute.is_final:
            return minute.is_final
        return 0 < candle.time < minute.told or minute.given == values

    def _refuse(self, why: str) -> Changes:
        self._counts[why] += 1
        return NOTHING

    def _minute(self, opened: int) -> Minute:
        minute = self._kept.get(opened)
        if minute is None:
            minute = self._kept[opened] = Minute()
        return minute

    # -- closing and correcting ---------------------------------------------------------------------------------------

    def _close(self, until: int, time: int) -> list[LiveBar]:
        """Close the minutes that end by `until`."""
        if time > self._time:
            self._time = time
        closed: list[LiveBar] = []
        while self.closed_until + MINUTE_US <= until:
            if until - self.closed_until > MOST_IDLE_US and self._begins_anew(until - until % MINUTE_US):
                continue
            bar = self._published(self.closed_until)
            if bar is not None:
                closed.append(bar)
            self.closed_until += MINUTE_US
            self._kept.pop(self.closed_until - self._kept_us - 2 * MINUTE_US, None)
            self._until = self._telling = _NEVER
        return closed

    def _begins_anew(self, until: int) -> bool:
        """Leave a silence out that is too long to be filled, up to the next minute that has something."""
        at = min((opened for opened in self._kept if opened >= self.closed_until), default=until)
        if at - self.closed_until <= MOST_IDLE_US:
            return False
        self._counts["minutes_skipped"] += (at - self.closed_until) // MINUTE_US
        self.closed_until = self._begin = at
        self._kept = {opened: minute for opened, minute in self._kept.items() if opened >= at}
        self._until = self._telling = _NEVER
        return True

    def _corrected(self, touched: Sequence[int]) -> list[LiveBar]:
        """Settle minutes again that are closed, and the idle ones after them; give those that are other bars now."""
        found: list[LiveBar] = []
        for opened in sorted(set(touched)):
            while opened < self.closed_until:
                bar = self._published(opened)
                if bar is None:
                    break
                found.append(bar)
                opened += MINUTE_US
        return found

    def _published(self, opened: int) -> LiveBar | None:
        """Settle a closed minute; give its bar if that is new or changed."""
        before = self._kept.get(opened - MINUTE_US)
        settled = settle(self._kept.get(opened), opened, before.bar if before else None, self._losses)
        if settled is None:
            return None
        minute = self._minute(opened)
        old, revision = minute.bar, 0
        if old is None:
            revision = GAP_REVISION if settled[1] == "gap" else 0
        elif "gap" in (old.state, settled[1]):
            if old.state == settled[1]:
                return None
            revision = old.revision + 1
        else:
            values = amended(old.values, settled[0])
            if values is None:
                return None
            settled, revision = (values, settled[1]), old.revision + 1
        minute.bar = self._made(opened, settled, revision)
        return minute.bar

    def _made(
        self, opened: int, settled: Settled, revision: int, is_closed: bool = True, known: int | None = None
    ) -> LiveBar:
        return LiveBar.of(
            self._symbol,
            Timeframe.M1,
            opened,
            settled[0],
            state=settled[1],
            is_closed=is_closed,
            revision=revision,
            available_at=opened + MINUTE_US if known is None else known,
            source=self._source,
        )
