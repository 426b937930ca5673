"""Bars in whatever order, batches and repetitions events come: held to plain arithmetic and to the lake."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.lake import Lake
from mdplatform.market.events import Clock, Event, Lost, Trade
from mdplatform.market.resample import resample
from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming.bars import LiveBars
from mdplatform.streaming.live_bar import LiveBar
from mdplatform.streaming.parents import child_of

from .test_parents import assert_as_stored, bits, merged
from .trading import HOUR, M1, M3, M5, M15, MINUTE, NOON, SECOND, candle, newest, raw, table, values_by_hand

TIMEFRAMES = [M1, M3, M5, M15]
MINUTES = 24
END = NOON + MINUTES * MINUTE


@st.composite
def trades(draw: st.DrawFn) -> list[Trade]:
    """Trades of a symbol over twenty minutes and more, as the venue made them; the first in the first minute."""
    times = sorted(draw(st.lists(st.integers(1, MINUTES * 60_000 - 1), min_size=1, max_size=60)))
    return [
        Trade(
            "AUSDT",
            100 + n,
            NOON + time * 1000,
            draw(st.integers(1, 10**6)) / 100,
            draw(st.integers(0, 10**9)) / 10**5,
            draw(st.booleans()),
            fills=draw(st.integers(1, 5)),
        )
        for n, time in enumerate([0, *times])
    ]


@st.composite
def as_told(draw: st.DrawFn, made: list[Trade]) -> list[Event]:
    """Give trades in another order, some twice, with a clock that at times is set back; the first one comes first."""
    late = [each.time + draw(st.sampled_from([0, 0, 0, 300_000, 20 * SECOND, 9 * MINUTE])) for each in made[1:]]
    told: list[tuple[int, Event]] = [*zip(late, made[1:], strict=True)]
    told += [(draw(st.integers(NOON, END)), each) for each in draw(st.lists(st.sampled_from(made), max_size=8))]
    told += [
        (at, Clock(at - draw(st.sampled_from([0, 0, SECOND, 3600 * SECOND])))) for at in range(NOON, END, 25 * SECOND)
    ]
    return [made[0], *(event for _, event in sorted(told, key=lambda each: each[0])), Clock(END + MINUTE)]


def batches(events: list[Event], sizes: list[int]) -> Iterator[list[Event]]:
    at, n = 0, 0
    while at < len(events):
        yield events[at : at + sizes[n % len(sizes)]]
        at, n = at + sizes[n % len(sizes)], n + 1


def live(events: list[Event], sizes: list[int]) -> list[LiveBar]:
    bars = LiveBars(["AUSDT"], TIMEFRAMES, source="test")
    return [bar for batch in batches(events, sizes) for bar in bars.take(batch)]


def by_hand(made: list[Trade]) -> dict[int, tuple[float, ...]]:
    """Give the values of each minute that trades make, the idle ones flat."""
    found: dict[int, tuple[float, ...]] = {}
    for opened in range(NOON, END, MINUTE):
        inside = [each for each in made if opened <= each.time < opened + MINUTE]
        flat = (found[opened - MINUTE][3],) * 4 + (0.0,) * 5 if not inside else ()
        found[opened] = values_by_hand(inside) if inside else flat
    return found


@settings(max_examples=25, deadline=None)
@given(st.data(), trades(), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_trades_make_the_same_bars_however_they_come(data: st.DataObject, made: list[Trade], sizes: list[int]) -> None:
    events = data.draw(as_told(made))
    found = live(events, sizes)
    assert found == live(events, [1])
    expected = by_hand(made)
    last = newest(found)
    minutes = [bar for (timeframe, _), bar in sorted(last.items()) if timeframe is M1]
    assert {bar.open_time: bar.values for bar in minutes} == expected
    assert_revisions_ascend(found)
    stored = {M1: table(minutes)}
    for timeframe in (M3, M5, M15):
        batch = resample(stored[child_of(timeframe)], timeframe)
        mine = [bar for (each, _), bar in sorted(last.items()) if each is timeframe]
        stored[timeframe] = table(mine)
        assert [bits(bar) for bar in mine] == [bits(bar) for bar in from_table(batch)]


def from_table(batch: object) -> list[LiveBar]:
    rows = batch.iter_rows(named=True)  # type: ignore[attr-defined]
    names = ("open", "high", "low", "close", "volume", "quote_volume", "trade_count", "taker_buy_volume")
    return [
        LiveBar.of(
            "AUSDT", Timeframe(row["timeframe"]), 0, [*(row[name] for name in names), row["taker_buy_quote_volume"]],
            state=row["state"], is_closed=True, revision=0, available_at=0, source="",
        )
        for row in rows
    ]  # fmt: skip


def assert_revisions_ascend(found: list[LiveBar]) -> None:
    """Every bar of a key is newer than the one before it, and says something else."""
    before: dict[tuple[Timeframe, int], LiveBar] = {}
    for bar in found:
        key = (bar.timeframe, bar.open_time)
        if key in before:
            assert bar.revision == before[key].revision + 1
            assert bar.values != before[key].values
        else:
            assert bar.revision == (-1 if bar.state == "gap" else 0)
        before[key] = bar


@st.composite
def anything(draw: st.DrawFn) -> list[Event]:
    """Trades and candles, forming, closed, corrected and repeated, losses and clocks, in no order at all."""
    events: list[Event] = []
    for _ in range(draw(st.integers(5, 60))):
        minute, second = draw(st.integers(0, MINUTES - 1)), draw(st.integers(0, 59))
        kind = draw(st.sampled_from(["trade"] * 4 + ["candle"] * 3 + ["forming", "lost", "clock", "clock"]))
        at = NOON + minute * MINUTE + second * SECOND
        close = draw(st.integers(9_900, 10_100)) / 100
        if kind == "trade":
            events.append(Trade("AUSDT", minute * 60 + second, at, close, 1.5, draw(st.booleans())))
        elif kind == "candle":
            events.append(candle(minute, close, time=at + MINUTE))
        elif kind == "forming":
            events.append(candle(minute, close, is_closed=False, time=at))
        elif kind == "lost":
            what = draw(st.sampled_from(["trades", "candles", "book"]))
            events.append(Lost("AUSDT", what, at, at + draw(st.integers(1, 150)) * SECOND, ""))
        else:
            events.append(Clock(at))
    return events


@settings(max_examples=50, deadline=None)
@given(anything(), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_anything_at_all_gives_ordered_revisions_and_the_parents_of_the_minutes(
    events: list[Event], sizes: list[int]
) -> None:
    found = live(events, sizes)
    assert found == live(events, [1])
    assert_revisions_ascend(found)
    bars = LiveBars(["AUSDT"], TIMEFRAMES, source="test", forming=True)
    closed = [bar for batch in batches(events, sizes) for bar in bars.take(batch) if bar.is_closed]
    assert closed == found
    last = newest(found)
    for (timeframe, opened), bar in last.items():
        if timeframe is M1:
            continue
        child = child_of(timeframe)
        children = [last.get((child, at)) for at in range(opened, bar.close_time, child.microseconds)]
        is_whole = all(each is not None and each.state != "gap" for each in children)
        assert (bar.state != "gap") == is_whole
        if is_whole:
            (built,) = from_table(resample(table([each for each in children if each is not None]), timeframe))
            assert bits(built) == bits(bar)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_lake_has_the_same_revisions_of_the_same_bars(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    events: list[tuple[int, Event]] = [(NOON - 13 * MINUTE, Clock(NOON - 13 * MINUTE))]
    for n in range(1500):
        at = NOON - 12 * MINUTE + n * 3 * SECOND
        price, amount = chance.randint(900_000, 1_100_000) / 100, chance.randint(0, 10**7) / 10**5
        late = 4 * MINUTE if chance.random() < 0.003 else chance.randint(0, SECOND // 4)
        made = Trade("AUSDT", n, at, price, amount, chance.random() < 0.5)
        events += [(at + late, made)] if n % 400 < 350 else [(at, Clock(at))]
    told = [event for _, event in sorted(events, key=lambda each: each[0])]
    corrected = [candle(chance.randint(10, 40), 9000 + n / 4, high=20_000.0, time=END + HOUR + n) for n in range(3)]
    bars = LiveBars(["AUSDT"], list(Timeframe), source="test")
    found: list[LiveBar] = []
    deliveries: list[list[LiveBar]] = [[]]
    newest_open = 0
    for event in [*told, *corrected]:
        given_now = bars.take([event])
        found += given_now
        minutes = [bar for bar in given_now if bar.timeframe is M1]
        if any(bar.open_time <= newest_open for bar in minutes):
            deliveries += [minutes, []]  # what is corrected at one instant is merged at one
        else:
            deliveries[-1] += minutes
        newest_open = max([newest_open, *(bar.open_time for bar in minutes)])
    lake = Lake(tmp_path)
    for number, delivery in enumerate(deliveries):
        if delivery:
            merged(lake, raw(delivery), f"k{number}")
    assert sum(bar.revision > 0 for bar in found) >= 5
    assert_as_stored(lake, found)
