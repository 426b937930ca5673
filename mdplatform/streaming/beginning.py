"""A beginning: where a feed takes up a symbol, so that its bars go on in the lake and for consumers without a hole.

1. The lake's bars of 1m end at L (its inbox was sealed just before). From there on the venue is asked.
2. Consumers have been told up to R, as the facts of the symbol say; where there are none, nobody waits for what was,
   and R is L. What lies between R and L is in the lake, but was not sent by the process before: it is told again. So
   are the bars of the hour before R of which they do not know that they were corrected, and those behind them.
3. Longer bars that are forming at R are built from the lake's bars of 1m, and features are opened up to R.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from mdplatform.features.spec import FeatureSpec
from mdplatform.lake import Lake
from mdplatform.lake.bars import DERIVED
from mdplatform.market.bars import empty_bars
from mdplatform.market.events import Candle, Event, Lost
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe
from mdplatform.streaming.bars import KEPT_US
from mdplatform.streaming.cells import decode_corrections, decode_packet
from mdplatform.streaming.lane import Key, Lane, as_live, open_features
from mdplatform.streaming.live_bar import LiveBar
from mdplatform.streaming.track import CELL, CORRECTED

_RECENT = 3
_LONGEST_RETELLING_US = DAY_US


@dataclass(frozen=True)
class Beginning:
    """`since` (µs) is from where on the venue is asked, None where nothing is known of the symbol.

    `seeds` are the bars of 1m that forming ones are built of, `recent` the newest closed bars of each lane, still to be
    taken by it, `corrected` the revisions of bars that consumers know to be corrected, by open time, and `untold` what
    the lake has and consumers have not.
    """

    symbol: str
    since: int | None
    at: int
    seeds: list[LiveBar]
    untold: list[Event]
    lanes: list[Lane]
    recent: dict[Timeframe, list[LiveBar]]
    corrected: dict[Timeframe, dict[int, int]]


def begin(
    lake: Lake, symbol: str, specs: Mapping[Timeframe, Sequence[FeatureSpec]], facts: Mapping[str, bytes]
) -> Beginning:
    """Work out where to begin; `specs` are the features of each timeframe. Raises what the lake and features raise."""
    told, corrected, told_at = _told(facts)
    since, end = _end_of(lake, symbol)
    at = end
    if told_at and told_at < end:
        at = max(Timeframe.M1.floor(told_at), end - _LONGEST_RETELLING_US)
    lanes, recent = [], {}
    for timeframe in Timeframe:
        close = timeframe.floor(at)
        newest: list[LiveBar] = []
        if timeframe in specs:
            begin_at = min(close - _RECENT * timeframe.microseconds, timeframe.floor(at - KEPT_US))
            newest = as_live(lake.bars.read(symbol, timeframe, begin_at, close))
        first = newest[0].open_time if newest else close
        opened = open_features(lake, symbol, timeframe, specs.get(timeframe, ()), empty_bars(), first)
        lanes.append(Lane(symbol, timeframe, opened, told.get(timeframe, (-1, 0, 0))))
        recent[timeframe] = newest
    untold = lake.bars.read(symbol, Timeframe.M1, at, end) if at < end else empty_bars()
    return Beginning(
        symbol=symbol,
        since=since,
        at=at,
        seeds=_seeds(lake, symbol, at) if at else [],
        untold=[_as_event(bar) for bar in as_live(untold)],
        lanes=lanes,
        recent=recent,
        corrected=corrected,
    )


def _seeds(lake: Lake, symbol: str, at: int) -> list[LiveBar]:
    """Give what the bars that are forming at `at` are built of, in the order in which it closed.

    That is the longer bars that the lake keeps since the week (for `1w`) or the day began, and the minutes of the last
    hours, of which some may be corrected yet.
    """
    seeds: list[LiveBar] = []
    for timeframe in (Timeframe.M1, *DERIVED):
        begin = Timeframe.W1.floor(at) if timeframe is Timeframe.D1 else Timeframe.D1.floor(at - KEPT_US)
        if timeframe is Timeframe.M1:
            begin = Timeframe.H1.floor(at - KEPT_US)
        seeds += as_live(lake.bars.read(symbol, timeframe, begin, timeframe.floor(at)))
    seeds = [bar for bar in seeds if bar.state != "gap" or bar.timeframe is Timeframe.M1]
    return sorted(seeds, key=lambda bar: (bar.close_time, -bar.timeframe.microseconds))


def _told(
    facts: Mapping[str, bytes],
) -> tuple[dict[Timeframe, Key], dict[Timeframe, dict[int, int]], int]:
    """Give what consumers were told last of each timeframe, which bars as corrected, and up to when.

    What was written by another version cannot be read, and is told again.
    """
    told: dict[Timeframe, Key] = {}
    corrected: dict[Timeframe, dict[int, int]] = {}
    at = 0
    for name, raw in facts.items():
        try:
            if name.startswith(CELL):
                packet = decode_packet(raw)
                cell = packet.cells[0]
                told[Timeframe(cell.timeframe)] = (cell.open_time, cell.revision, cell.edition)
                at = max(at, packet.at)
            elif name.startswith(CORRECTED):
                corrected[Timeframe(name.removeprefix(CORRECTED))] = decode_corrections(raw)
        except (msgspec.MsgspecError, IndexError, ValueError):
            continue
    return told, corrected, at


def _end_of(lake: Lake, symbol: str) -> tuple[int | None, int]:
    """Give from where on the venue is asked, and the end of what the lake has, 0 if that is nothing.

    Where the lake has longer bars alone, the venue is asked for the whole of the day: else the next longer bars would
    lack their beginning.
    """
    for timeframe in lake.bars.timeframes(symbol):
        newest = lake.bars.tail(symbol, timeframe, 1)
        if len(newest):
            end = to_us(newest["close_time"][-1])
            return (end, end) if timeframe is Timeframe.M1 else (end - end % DAY_US, end - end % MINUTE_US)
    return None, 0


def _as_event(bar: LiveBar) -> Event:
    if bar.state == "gap":
        return Lost(bar.symbol, "candles", bar.open_time, bar.close_time, "the lake does not have them")
    quote, count, bought, bought_quote = (
        None if math.isnan(each) else each
        for each in (bar.quote_volume, bar.trade_count, bar.taker_buy_volume, bar.taker_buy_quote_volume)
    )
    return Candle(
        symbol=bar.symbol,
        timeframe=bar.timeframe,
        open_time=bar.open_time,
        open=bar.open,
        high=bar.high,
        low=bar.low,
        close=bar.close,
        volume=bar.volume,
        quote_volume=quote,
        trade_count=None if count is None else int(count),
        taker_buy_volume=bought,
        taker_buy_quote_volume=bought_quote,
        time=bar.close_time,
    )
