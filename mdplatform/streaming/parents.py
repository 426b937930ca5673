"""Parents: the longer bars of one symbol, built from its bars of 1m as they close, as the lake builds them.

1. Each timeframe is built from the longest one that the lake stores and that divides it: 15m from 5m, 1d from 4h.
2. A parent is made when all its children are there and none is a gap; it is corrected when one of them is.
3. Its numbers are those of `market.resample`, bit for bit: amounts are summed as polars sums a group (Kahan's
   algorithm), and rounded to the most decimals that one of its children has.
4. Children are kept as long as one of them may still be corrected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from msgspec import structs

from mdplatform.lake.bars import DERIVED
from mdplatform.market.bars import VALUE_COLUMNS
from mdplatform.market.resample import RESAMPLED
from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming.amending import amended
from mdplatform.streaming.live_bar import GAP_VALUES, LiveBar

_MORE = 16
"""How many bars of a timeframe may be kept beyond those that are needed."""
_EXACT, _SURE = 2.0**53, 2.0**48
_POWERS = tuple(10.0**n for n in range(11))
_STORED = (Timeframe.M1, *DERIVED)


def child_of(timeframe: Timeframe) -> Timeframe:
    """Give the timeframe of whose bars those of `timeframe`, longer than 1m, are built.

    >>> [child_of(Timeframe(name)).value for name in ("3m", "15m", "6h", "12h", "1w")]
    ['1m', '5m', '1h', '4h', '1d']
    """
    return [each for each in _STORED if each.divides(timeframe)][-1]


def chain(wanted: Iterable[Timeframe]) -> list[Timeframe]:
    """Give the timeframes, longer than 1m and shortest first, that are needed to build those `wanted`."""
    needed = set(wanted)
    for each in reversed(Timeframe):
        if each in needed and each is not Timeframe.M1:
            needed.add(child_of(each))
    needed.discard(Timeframe.M1)
    return [each for each in Timeframe if each in needed]


class Level:
    """The closed bars of one timeframe that may be needed again, by open time."""

    __slots__ = (
        "_full",
        "bars",
        "child",
        "count",
        "is_wanted",
        "length",
        "origin",
        "parents",
        "source",
        "step",
        "timeframe",
    )

    def __init__(self, timeframe: Timeframe, child: Level | None, is_wanted: bool) -> None:
        self.timeframe = timeframe
        self.is_wanted = is_wanted
        self.child = child
        self.length = timeframe.microseconds
        self.origin = timeframe.floor(0)
        self.step = child.length if child else 0
        self.count = self.length // child.length if child else 0
        self.parents: list[Level] = []
        self.bars: dict[int, LiveBar] = {}
        self.source = f"{RESAMPLED}{child.timeframe.value}" if child else ""
        self._full = 0
        if child:
            child.parents.append(self)

    def floor(self, instant: int) -> int:
        """Give the open time of the bar that holds `instant`."""
        return instant - (instant - self.origin) % self.length

    def put(self, bar: LiveBar, kept_us: int) -> None:
        """Keep a bar, and now and then forget what no correction can reach any more."""
        self.bars[bar.open_time] = bar
        if len(self.bars) > self._full:
            reach = bar.open_time - kept_us
            needed = min((parent.floor(reach) for parent in self.parents), default=reach)
            while (oldest := next(iter(self.bars))) < needed:
                del self.bars[oldest]
            self._full = len(self.bars) + _MORE


class Parents:
    """The longer bars of one symbol; `kept_us` is how far back its bars of 1m may be corrected."""

    def __init__(self, symbol: str, wanted: Collection[Timeframe], kept_us: int) -> None:
        self._symbol = symbol
        self._kept_us = kept_us
        self._decimals = Decimals(), Decimals(), Decimals(), Decimals()
        self._levels = {Timeframe.M1: Level(Timeframe.M1, None, False)}
        for timeframe in chain(wanted):
            self._levels[timeframe] = Level(timeframe, self._levels[child_of(timeframe)], timeframe in wanted)

    def seed(self, bar: LiveBar) -> None:
        """Take in a closed bar of history, of 1m or longer; one that is told here is not built anew."""
        self.take((bar,))

    def take(self, bars: Sequence[LiveBar]) -> list[LiveBar]:
        """Take in bars of one timeframe, closed or corrected at one instant; give the longer ones that follow.

        Those of the shortest timeframe come first. Bars of a timeframe from which nothing is built change nothing.
        """
        level = self._levels.get(bars[0].timeframe) if bars else None
        if level is None:
            return []
        for bar in bars:
            level.put(bar, self._kept_us)
        found: list[LiveBar] = []
        self._rise(level, [bar.open_time for bar in bars], found)
        if len(found) > 1:
            found.sort(key=_length)  # those of one timeframe stay as they are
        return found

    def forming(self, minutes: Sequence[LiveBar]) -> list[LiveBar]:
        """Give the longer bars that `minutes`, the open ones, ascending, make so far; partial ones are left out."""
        found: list[LiveBar] = []
        open_bars: dict[Timeframe, dict[int, LiveBar]] = {Timeframe.M1: {bar.open_time: bar for bar in minutes}}
        for timeframe, level in self._levels.items():
            if level.child is None:
                continue
            below = open_bars[level.child.timeframe]
            here = open_bars[timeframe] = {}
            for opened in sorted({level.floor(each) for each in below}):
                bar = self._so_far(level, opened, below)
                if bar is not None:
                    here[opened] = bar
                    if level.is_wanted:
                        found.append(bar)
        return found

    def _so_far(self, level: Level, opened: int, below: dict[int, LiveBar]) -> LiveBar | None:
        assert level.child is not None
        newest = max(each for each in below if level.floor(each) == opened)
        children = []
        for at in range(opened, newest + 1, level.step):
            child = below.get(at) or level.child.bars.get(at)
            if child is None or child.state == "gap":
                return None
            children.append(child)
        return self._bar(level, opened, children, revision=0, is_closed=False)

    def _rise(self, child: Level, changed: Sequence[int], found: list[LiveBar]) -> None:
        """Build what is made of changed bars, given by their open times, and what is made of that."""
        for level in child.parents:
            risen: list[int] = []
            opens = {level.floor(each) for each in changed}
            for opened in sorted(opens) if len(opens) > 1 else opens:
                bar = self._rebuilt(level, opened)
                if bar is not None:
                    level.put(bar, self._kept_us)
                    risen.append(opened)
                    if level.is_wanted:
                        found.append(bar)
            if risen:
                self._rise(level, risen, found)

    def _rebuilt(self, level: Level, opened: int) -> LiveBar | None:
        """Give the bar of `level` if it is new, or not as it was; a gap if it was there and a child is a gap now."""
        assert level.child is not None
        there, now = level.child.bars, level.bars.get(opened)
        if now is None and opened + level.length - level.step not in there:
            return None
        children = [there.get(at) for at in range(opened, opened + level.length, level.step)]
        whole = [child for child in children if child is not None]
        if "gap" in [child.state for child in whole]:
            return None if now is None or now.state == "gap" else self._bar(level, opened, (), now.revision + 1)
        if len(whole) < level.count:
            return None
        if now is None:
            return self._bar(level, opened, whole, revision=0)
        built = self._bar(level, opened, whole, revision=now.revision + 1)
        if now.state == "gap":
            return built
        values = amended(now.values, built.values)
        if values is None:
            return None
        return (
            built if values == built.values else structs.replace(built, **dict(zip(VALUE_COLUMNS, values, strict=True)))
        )

    def _bar(
        self, level: Level, opened: int, children: Sequence[LiveBar], revision: int, is_closed: bool = True
    ) -> LiveBar:
        """Give the bar that `children` make, a gap if there are none."""
        values, state, known = GAP_VALUES, "gap", opened + level.length
        if children:
            values = combined(children, self._decimals)
            state = "no_trade" if {child.state for child in children} == {"no_trade"} else "observed"
            known = max([child.available_at for child in children])
        return LiveBar.of(
            self._symbol,
            level.timeframe,
            opened,
            values,
            state=state,
            is_closed=is_closed,
            revision=revision,
            available_at=known,
            source=level.source,
        )


def combined(children: Sequence[LiveBar], decimals: Sequence[Decimals]) -> tuple[float, ...]:
    """Give the nine values of the bar that `children`, ascending, make."""
    columns = zip(*[child.values for child in children], strict=True)
    opens, highs, lows, closes, volumes, quotes, counts, bought, quotes_bought = columns
    volume, quote, buy, buy_quote = decimals
    return (
        opens[0],
        max(highs),
        min(lows),
        closes[-1],
        volume.total(volumes),
        quote.total(quotes),
        sum(counts),
        buy.total(bought),
        buy_quote.total(quotes_bought),
    )


class Decimals:
    """Adds amounts up as polars does, and rounds to the most decimals that one of them has.

    `seen` is how many that were the last time. With so many, amounts are mostly whole numbers; these are added as such
    where none of them can be so large that it would make a difference (2⁴⁸ at that scale), which gives the same bits.
    """

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen = 0

    def total(self, amounts: Sequence[float]) -> float:
        """Give the sum."""
        power = _POWERS[self.seen]
        if sum(amounts) * power < _SURE:
            whole = [round(each * power) for each in amounts]
            if [each / power for each in whole] == [*amounts]:
                return sum(whole) / power
        total = lost = 0.0
        decimals = 0
        for amount in amounts:
            more = amount - lost
            after = total + more
            lost = (after - total) - more
            total = after
            decimals = _decimals(amount, decimals)
        self.seen, power = decimals, _POWERS[decimals]
        return round(total * power) / power if total * power < _EXACT else total


def _length(bar: LiveBar) -> int:
    return bar.timeframe.microseconds


def _decimals(amount: float, least: int) -> int:
    """Give how many decimals `amount` has, at least `least` and at most 10; none if it is too large to tell."""
    while least < 10:
        scaled = amount * _POWERS[least]
        if not scaled < _EXACT or round(scaled) / _POWERS[least] == amount:
            return least
        least += 1
    return least
