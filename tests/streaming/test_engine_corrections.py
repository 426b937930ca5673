"""A correction: all bars behind it are told again, with the values of a batch and the next edition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec
import numpy as np
import pytest

from mdplatform.features import evaluate
from mdplatform.features.parse import parse_feature
from mdplatform.features.spec import FeatureSpec
from mdplatform.lake import Lake
from mdplatform.market.events import Candle, Event, Lost
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe
from mdplatform.messaging import registry
from mdplatform.messaging.broadcast import Broadcaster, Post
from mdplatform.messaging.memory.broadcast import MemoryBroadcast
from mdplatform.settings import Settings
from mdplatform.streaming.cells import Cell, Packet, decode_corrections, decode_layout, decode_packet, numbers
from mdplatform.streaming.engine import Engine
from mdplatform.streaming.live_bar import LiveBar
from mdplatform.streaming.opening import correct
from mdplatform.streaming.standing import Standing
from mdplatform.streaming.track import Track

from .scripted import START, ScriptedFeed, candles, in_loop
from .test_engine import SPECS, cells_of, heard, standing, until

M1, M5 = Timeframe.M1, Timeframe.M5


def better(candle: Candle, rise: float = 1.01) -> Candle:
    return msgspec.structs.replace(candle, close=candle.close * rise, high=candle.high * 1.1, time=candle.time + 1)


class Late(ScriptedFeed):
    """A venue that also tells of what is older than what it was asked for."""

    async def events(self, since: Mapping[str, int]) -> AsyncIterator[Sequence[Event]]:
        async for events in super().events(dict.fromkeys(since, 0)):
            yield events


async def play(settings: Settings, broadcaster: Broadcaster, *batches: Sequence[Event]) -> Engine:
    engine = Engine(settings, Late(batches), broadcaster, standing(timeframes=[M1, M5]))
    async with asyncio.timeout(30):
        await engine.run()
    return engine


def minutes(cells: Sequence[Cell]) -> list[int]:
    return [(cell.open_time - START) // MINUTE_US for cell in cells]


def newest(cells: Sequence[Cell], timeframe: Timeframe) -> dict[int, Cell]:
    """Give the cell of each bar that stands, as a consumer finds it."""
    found: dict[int, Cell] = {}
    for cell in (each for each in cells if each.timeframe == timeframe):
        held = found.get(cell.open_time)
        if held is None or (cell.revision, cell.edition) > (held.revision, held.edition):
            found[cell.open_time] = cell
    return found


def check_against_a_batch(
    lake: Lake, cells: Sequence[Cell], facts: dict[str, bytes], specs: Sequence[FeatureSpec] = SPECS
) -> None:
    for timeframe in (M1, M5):
        bars = lake.bars.read("BTCUSDT", timeframe)
        wanted = evaluate(bars, specs, timeframe=timeframe)
        standing_cells = newest(cells, timeframe)
        assert sorted(standing_cells) == bars["open_time"].dt.epoch("us").to_list()
        for row, cell in enumerate(sorted(standing_cells.values(), key=lambda each: each.open_time)):
            assert numbers(cell.bar)[3] == bars["close"][row]
            columns = decode_layout(facts[f"layout:{cell.layout}"]).columns
            np.testing.assert_array_equal(
                numbers(cell.numbers), [wanted.values[column][row] for column in columns], strict=False
            )


@pytest.mark.usefixtures("processes")
@in_loop
async def test_bars_behind_a_correction_come_again_with_the_values_of_a_batch_also_from_the_next_process(
    settings: Settings,
) -> None:
    every = candles("BTCUSDT", 50)
    listener, broadcaster = registry.listener(settings), registry.broadcaster(settings)
    await listener.follow(["BTCUSDT"])

    async def said() -> list[Packet]:
        await broadcaster.send([Post("BTCUSDT", b"end")])
        found: list[Post] = []
        async with asyncio.timeout(10):
            while not found or found[-1].body != b"end":
                found += [each for each in await listener.receive(1.0) if isinstance(each, Post)]
        return [decode_packet(each.body) for each in found[:-1]]

    try:
        await play(settings, broadcaster, every[:30], [better(every[14])], every[30:32])
        first = cells_of(await said())
        again = [cell for cell in first if cell.edition and cell.timeframe == "1m"]
        assert minutes(again) == list(range(14, 32))
        assert {cell.edition for cell in again} == {1}
        assert [cell.revision for cell in again] == [1] + 17 * [0]
        assert minutes([cell for cell in first if cell.edition and cell.timeframe == "5m"]) == [10, 15, 20, 25]
        facts = (await listener.facts(["BTCUSDT"]))["BTCUSDT"]
        check_against_a_batch(Lake(settings.lake_dir), first, facts)
        assert decode_corrections(facts["corrected:1m"]) == {every[14].open_time: 1}

        engine = await play(settings, broadcaster, [better(every[20])], every[32:])
        second = cells_of(await said())
        assert minutes([cell for cell in second if cell.timeframe == "1m"]) == [*range(20, 32), *range(32, 50)]
        assert {cell.edition for cell in second} == {2}
        check_against_a_batch(engine.lake, first + second, (await listener.facts(["BTCUSDT"]))["BTCUSDT"])
    finally:
        await broadcaster.close()
        await listener.close()


@in_loop
async def test_all_that_is_behind_a_correction_that_was_not_sent_is_told_by_the_next_process_and_once(
    settings: Settings,
) -> None:
    every = candles("BTCUSDT", 30)
    broadcast, deaf = MemoryBroadcast(settings), MemoryBroadcast(settings)
    await play(settings, broadcast.broadcaster(), every[:20])
    await play(settings, deaf.broadcaster(), [better(every[14])])  # it stored the correction, and could not say so
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    await play(settings, broadcast.broadcaster(), every[20:25])
    told = [cell for cell in cells_of(await heard(listener)) if cell.timeframe == "1m"]
    assert [(at, cell.revision, cell.edition) for at, cell in zip(minutes(told), told, strict=True)] == [
        (at, int(at == 14), 1) for at in range(14, 25)
    ]
    await play(settings, broadcast.broadcaster(), every[25:])
    told = [cell for cell in cells_of(await heard(listener)) if cell.timeframe == "1m"]
    assert (minutes(told), {cell.edition for cell in told}) == (list(range(25, 30)), {1})


@in_loop
async def test_a_gap_that_was_filled_while_nobody_heard_is_told_by_the_next_process_and_once(
    settings: Settings,
) -> None:
    every = candles("BTCUSDT", 30)
    hole = Lost("BTCUSDT", "candles", every[14].open_time, every[15].open_time, "not to be had")
    broadcast, deaf = MemoryBroadcast(settings), MemoryBroadcast(settings)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    await play(settings, broadcast.broadcaster(), [*every[:14], hole, *every[15:20]])
    first = cells_of(await heard(listener))
    assert newest(first, M1)[every[14].open_time].state == "gap"
    assert every[10].open_time not in newest(first, M5)
    await play(settings, deaf.broadcaster(), [every[14]])
    await play(settings, broadcast.broadcaster(), every[20:25])
    told = cells_of(await heard(listener))
    assert minutes([cell for cell in told if cell.timeframe == "1m"]) == list(range(14, 25))
    assert minutes([cell for cell in told if cell.timeframe == "5m"]) == [10, 15, 20]
    assert {cell.revision for cell in told} == {0}
    check_against_a_batch(Lake(settings.lake_dir), first + told, (await listener.facts(["BTCUSDT"]))["BTCUSDT"])
    await play(settings, broadcast.broadcaster(), every[25:])
    assert minutes([cell for cell in cells_of(await heard(listener)) if cell.timeframe == "1m"]) == list(range(25, 30))


@in_loop
async def test_what_is_told_again_has_a_bound_and_goes_in_posts_of_sane_size(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mdplatform.streaming.track._MOST_BYTES", 1_000)
    monkeypatch.setattr("mdplatform.streaming.lane.MOST_TOLD_AGAIN", 20)
    every = candles("BTCUSDT", 100)
    broadcast = MemoryBroadcast(settings)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    engine = await play(settings, broadcast.broadcaster(), every, [better(every[45])], [better(every[90])])
    packets = await heard(listener)
    assert [packet.number for packet in packets] == list(range(1, len(packets) + 1))
    again = [packet for packet in packets if any(cell.edition == 1 for cell in packet.cells)]
    assert len(again) > 2
    assert all(sum(len(cell.numbers) for cell in packet.cells) < 1_500 for packet in again)
    of_minutes = [cell for packet in again for cell in packet.cells if cell.timeframe == "1m"]
    assert minutes(of_minutes) == [45, *range(80, 100)]
    twice = [cell for cell in cells_of(packets) if cell.edition == 2 and cell.timeframe == "1m"]
    assert minutes(twice) == list(range(90, 100))
    check = newest(cells_of(packets), M1)[every[99].open_time]
    (fact,) = decode_packet((await listener.facts(["BTCUSDT"]))["BTCUSDT"]["cell:1m"]).cells
    assert fact == check
    assert engine.tracks["BTCUSDT"].lanes[M1].edition == 2


@in_loop
async def test_bars_told_without_features_behind_a_correction_come_again_when_these_can_be_opened(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mdplatform.streaming.engine.WISH_SECONDS", 0.01)

    def failing(*_: object) -> None:
        raise OSError(24, "Too many open files")

    every = candles("BTCUSDT", 25)
    broadcast = MemoryBroadcast(settings)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    feed = ScriptedFeed([every[:20]], ends=False)
    engine = Engine(settings, feed, broadcast.broadcaster(), standing(timeframes=[M1, M5]))
    running = asyncio.create_task(engine.run())
    found: list[Cell] = []
    try:
        await until(lambda: engine.closed == 20)
        track: Track = engine.tracks["BTCUSDT"]
        with monkeypatch.context() as patched:
            patched.setattr("mdplatform.streaming.opening.open_features", failing)
            feed.push(better(every[14]))
            await until(lambda: track.lanes[M1].without is not None and track.held is None)
            feed.push(*every[20:22])
            await until(lambda: engine.closed == 23)
        await until(lambda: track.lanes[M1].without is None and track.lanes[M5].without is None)
        feed.push(*every[22:])
        await until(lambda: engine.closed == 26)
    finally:
        await engine.stop()
        await running
    found = cells_of(await heard(listener))
    bare = [cell for cell in found if not cell.layout and cell.timeframe == "1m"]
    assert minutes(bare) == [*range(14, 20), 20, 21]
    assert {cell.edition for cell in bare} == {1}
    assert minutes([cell for cell in found if cell.edition == 2 and cell.timeframe == "1m"]) == list(range(14, 25))
    check_against_a_batch(engine.lake, found, (await listener.facts(["BTCUSDT"]))["BTCUSDT"])


class Gate:
    """Stands in for `opening.correct`: features are opened when it is told so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.called = 0
        self.open = asyncio.Event()
        monkeypatch.setattr("mdplatform.streaming.engine.correct", self)

    async def __call__(self, lake: Lake, track: Track, corrected: Sequence[LiveBar]) -> list[Cell]:
        self.called += 1
        await self.open.wait()
        return await correct(lake, track, corrected)


@in_loop
async def test_bars_of_a_month_that_is_corrected_while_features_open_across_its_end_are_those_of_a_batch(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    start = START + 28 * DAY_US - 20 * MINUTE_US  # the last twenty minutes of February
    every = candles("BTCUSDT", 20, start) + candles("BTCUSDT", 20, START + 28 * DAY_US)
    specs = [*SPECS, parse_feature("OBV(anchor=month)")]
    broadcast = MemoryBroadcast(settings)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    feed = Late([every[:21]], ends=False)
    engine = Engine(settings, feed, broadcast.broadcaster(), Standing(["BTCUSDT"], [M1, M5], specs))
    running = asyncio.create_task(engine.run())
    try:
        await until(lambda: engine.closed == 21)
        feed.push(better(every[15]))
        await until(lambda: gate.called == 1)
        feed.push(*every[21:30], better(every[18]), better(every[21]), better(better(every[15])), *every[30:])
        await until(lambda: engine.closed == 44)
        assert engine.tracks["BTCUSDT"].at == every[21].open_time
        gate.open.set()
        await until(lambda: engine.tracks["BTCUSDT"].held is None)
    finally:
        gate.open.set()
        await engine.stop()
        await running
    packets = await heard(listener)
    assert [packet.at for packet in packets] == sorted(packet.at for packet in packets)
    check_against_a_batch(engine.lake, cells_of(packets), (await listener.facts(["BTCUSDT"]))["BTCUSDT"], specs)


@in_loop
async def test_the_feed_waits_where_too_many_bars_of_a_symbol_are_held(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    monkeypatch.setattr("mdplatform.streaming.engine.MOST_HELD", 10)
    every = candles("BTCUSDT", 60)
    broadcast = MemoryBroadcast(settings)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    feed = ScriptedFeed([every[:20], [better(every[14])], *([each] for each in every[20:])], ends=False)
    engine = Engine(settings, feed, broadcast.broadcaster(), standing(timeframes=[M1, M5]))
    running = asyncio.create_task(engine.run())
    try:
        await until(lambda: engine._is_crowded)
        held = engine.tracks["BTCUSDT"].held
        assert held is not None
        assert len(held) <= 10 + len(Timeframe)
        assert not feed._batches.empty()
        gate.open.set()
        await until(lambda: engine.closed == 61)
    finally:
        gate.open.set()
        await engine.stop()
        await running
    check_against_a_batch(engine.lake, cells_of(await heard(listener)), (await listener.facts(["BTCUSDT"]))["BTCUSDT"])


@in_loop
async def test_bars_go_on_without_features_where_these_are_not_opened_in_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    monkeypatch.setattr("mdplatform.streaming.engine.OPENING_SECONDS", 0.01)
    every = candles("BTCUSDT", 30)
    broadcast = MemoryBroadcast(settings)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    await play(settings, broadcast.broadcaster(), every[:20], [better(every[14])], every[20:])
    assert gate.called == 1
    told = newest(cells_of(await heard(listener)), M1)
    assert minutes(list(told.values())) == list(range(30))
    assert [bool(cell.layout) for cell in told.values()] == 14 * [True] + 16 * [False]
