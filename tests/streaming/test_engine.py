"""The engine: what a venue says reaches consumers and the lake, each bar once, with the values of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mdplatform.errors import NoData, RedisUnavailable
from mdplatform.features import evaluate
from mdplatform.features.live import LiveFeatures
from mdplatform.features.parse import parse_feature
from mdplatform.lake import Lake
from mdplatform.market.events import Clock, Event, Trade
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.messaging.broadcast import Post
from mdplatform.messaging.memory.broadcast import MemoryBroadcast, MemoryListener
from mdplatform.settings import Settings
from mdplatform.sources.simulated import SimulatedMarket
from mdplatform.streaming.bars import LiveBars
from mdplatform.streaming.cells import Cell, Layout, Packet, decode_layout, decode_packet, forming_topic, numbers
from mdplatform.streaming.engine import Engine
from mdplatform.streaming.journal import raw_bars
from mdplatform.streaming.standing import Standing
from mdplatform.streaming.wishes import Wish, encode_wishes

from .scripted import START, ScriptedFeed, candles, in_loop, in_step

SPECS = [parse_feature(each) for each in ("RSI(timeperiod=5)", "SMA(timeperiod=3)", "BBANDS(timeperiod=5)")]
FRAMES = (Timeframe.M1, Timeframe.M5, Timeframe.M15)


def standing(*symbols: str, timeframes: Sequence[Timeframe] = FRAMES) -> Standing:
    return Standing(symbols or ("BTCUSDT",), timeframes, SPECS)


async def heard(listener: MemoryListener, seconds: float = 0.0) -> list[Packet]:
    return [decode_packet(each.body) for each in await listener.receive(seconds) if isinstance(each, Post)]


def cells_of(packets: Sequence[Packet], timeframe: str = "") -> list[Cell]:
    return [cell for packet in packets for cell in packet.cells if timeframe in ("", cell.timeframe)]


async def play(
    settings: Settings, broadcast: MemoryBroadcast, feed: ScriptedFeed, of: Standing | None = None
) -> Engine:
    engine = Engine(settings, feed, broadcast.broadcaster(), of or standing())
    async with asyncio.timeout(30):
        await engine.run()
    return engine


@pytest.fixture
def broadcast(settings: Settings) -> MemoryBroadcast:
    return MemoryBroadcast(settings)


async def until(condition, seconds: float = 15.0) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@in_loop
async def test_cells_have_the_values_of_a_batch_over_the_lake(settings: Settings, broadcast: MemoryBroadcast) -> None:
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT", "ETHUSDT"])
    feed = ScriptedFeed(in_step(candles("BTCUSDT", 90), candles("ETHUSDT", 90)))
    engine = await play(settings, broadcast, feed, standing("BTCUSDT", "ETHUSDT"))
    packets = await heard(listener)
    facts = await listener.facts(["BTCUSDT", "ETHUSDT"])
    for symbol in ("BTCUSDT", "ETHUSDT"):
        own = [packet for packet in packets if packet.symbol == symbol]
        assert [packet.at for packet in own] == [START + (n + 1) * MINUTE_US for n in range(90)]
        assert [packet.number for packet in own] == list(range(1, 91))
        for timeframe in FRAMES:
            cells = cells_of(own, timeframe)
            bars = engine.lake.bars.read(symbol, timeframe)
            assert [cell.open_time for cell in cells] == bars["open_time"].dt.epoch("us").to_list()
            wanted = evaluate(bars, SPECS, timeframe=timeframe)
            layout = decode_layout(facts[symbol][f"layout:{cells[0].layout}"])
            table = np.array([numbers(cell.numbers) for cell in cells])
            for place, column in enumerate(layout.columns):
                np.testing.assert_array_equal(table[:, place], wanted.values[column])
            statuses = np.array([np.frombuffer(cell.statuses, np.int8) for cell in cells])
            for place, feature in enumerate(layout.features):
                np.testing.assert_array_equal(statuses[:, place], wanted.statuses[feature])
            newest = decode_packet(facts[symbol][f"cell:{timeframe}"])
            assert newest.cells == (cells[-1],)
            assert all(packet.at >= packet.cells[-1].close_time for packet in own)


@in_loop
async def test_the_lake_of_a_stream_is_the_lake_of_a_delivery(
    settings: Settings, broadcast: MemoryBroadcast, tmp_path: Path
) -> None:
    every = candles("BTCUSDT", 300)
    feed = ScriptedFeed([[each] for each in every])
    engine = await play(settings, broadcast, feed)
    whole = Lake(tmp_path / "batch")
    for delivery in SimulatedMarket().bars("BTCUSDT", Timeframe.M1, START, START + 300 * MINUTE_US):
        for batch in whole.inbox.stage("BTCUSDT", Timeframe.M1, "scripted", "k", delivery.rows, datetime.now(UTC)):
            whole.bars.merge("BTCUSDT", batch.month, [batch])
    live, batch_made = engine.lake.bars.partition("BTCUSDT", "2025-02"), whole.bars.partition("BTCUSDT", "2025-02")
    assert live is not None
    assert batch_made is not None
    assert {name: each.days for name, each in live.header.groups.items()} == {
        name: each.days for name, each in batch_made.header.groups.items()
    }
    for name in live.header.groups:
        assert live.read(name).drop("ingested_at").equals(batch_made.read(name).drop("ingested_at"))


@in_loop
async def test_a_feed_that_starts_again_loses_nothing_and_repeats_nothing(
    settings: Settings, broadcast: MemoryBroadcast
) -> None:
    every = candles("BTCUSDT", 60)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    await play(settings, broadcast, ScriptedFeed([every[:23]]))
    again = ScriptedFeed([every])  # the venue tells all that it is asked for
    await play(settings, broadcast, again)
    assert again.since == {"BTCUSDT": START + 23 * MINUTE_US}
    packets = await heard(listener)
    for timeframe, count in (("1m", 60), ("5m", 12), ("15m", 4)):
        cells = cells_of(packets, timeframe)
        assert [cell.open_time for cell in cells] == [
            START + n * Timeframe(timeframe).microseconds for n in range(count)
        ]
    whole = Lake(settings.lake_dir).bars.read("BTCUSDT", Timeframe.M15)
    wanted = evaluate(whole, SPECS, timeframe="15m")
    layout = decode_layout((await listener.facts(["BTCUSDT"]))["BTCUSDT"][f"layout:{cells[0].layout}"])
    found = numbers(cells[-1].numbers)[layout.columns.index("SMA(timeperiod=3)")]
    assert found == wanted.values["SMA(timeperiod=3)"][-1]


@in_loop
async def test_what_the_lake_has_and_consumers_were_not_told_is_told(
    settings: Settings, broadcast: MemoryBroadcast
) -> None:
    every = candles("BTCUSDT", 30)
    await play(settings, broadcast, ScriptedFeed([every[:20]]))
    deaf = MemoryBroadcast(settings)  # a process that staged, and died before it could send
    await play(settings, deaf, ScriptedFeed([every[:26]]))
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    feed = ScriptedFeed([every])
    await play(settings, broadcast, feed)
    packets = await heard(listener)
    assert feed.since == {"BTCUSDT": START + 26 * MINUTE_US}
    told = cells_of(packets, "1m")
    assert [cell.open_time for cell in told] == [START + n * MINUTE_US for n in range(20, 30)]
    assert [numbers(cell.bar)[3] for cell in told] == [each.close for each in every[20:]]
    assert [cell.open_time for cell in cells_of(packets, "5m")] == [START + n * MINUTE_US for n in (20, 25)]


@in_loop
async def test_what_was_sent_and_not_staged_comes_again_from_the_venue_and_is_not_sent_twice(
    settings: Settings, broadcast: MemoryBroadcast, tmp_path: Path
) -> None:
    every = candles("BTCUSDT", 30)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    await play(settings, broadcast, ScriptedFeed([every[:20]]))
    elsewhere = settings.model_copy(update={"home": tmp_path / "other"})  # a lake that got nothing after the tenth
    await play(elsewhere, MemoryBroadcast(settings), ScriptedFeed([every[:10]]))
    await play(elsewhere, broadcast, ScriptedFeed([every]))
    packets = await heard(listener)
    assert [cell.open_time for cell in cells_of(packets, "1m")] == [START + n * MINUTE_US for n in range(30)]
    assert Lake(elsewhere.lake_dir).bars.read("BTCUSDT", Timeframe.M1).height == 30


@in_loop
async def test_one_who_comes_late_finds_the_newest_cell_of_each_timeframe(
    settings: Settings, broadcast: MemoryBroadcast
) -> None:
    await play(settings, MemoryBroadcast(settings), ScriptedFeed([candles("BTCUSDT", 62)]))
    await play(settings, broadcast, ScriptedFeed([]))  # a broadcast that knows nothing yet
    facts = (await broadcast.broadcaster().facts(["BTCUSDT"]))["BTCUSDT"]
    opened = {name: decode_packet(facts[f"cell:{name}"]).cells[0].open_time - START for name in ("1m", "5m", "15m")}
    assert opened == {"1m": 61 * MINUTE_US, "5m": 55 * MINUTE_US, "15m": 45 * MINUTE_US}


@in_loop
async def test_a_correction_gives_the_cell_anew_and_what_follows_it_is_right(
    settings: Settings, broadcast: MemoryBroadcast
) -> None:
    every = candles("BTCUSDT", 30)
    better = msgspec.structs.replace(every[19], close=every[19].close + 0.5, high=every[19].high + 1.0)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    feed = ScriptedFeed([every[:20], [better], every[20:]])
    engine = await play(settings, broadcast, feed)
    packets = await heard(listener)
    keys = [(cell.open_time - START, cell.revision) for cell in cells_of(packets, "5m")]
    assert keys == [(n * MINUTE_US, r) for n, r in ((0, 0), (5, 0), (10, 0), (15, 0), (15, 1), (20, 0), (25, 0))]
    bars = engine.lake.bars.read("BTCUSDT", Timeframe.M1)
    assert bars["revision"].to_list() == [0] * 19 + [1] + [0] * 10
    wanted = evaluate(bars, SPECS, timeframe="1m").values["RSI(timeperiod=5)"]
    facts = (await listener.facts(["BTCUSDT"]))["BTCUSDT"]
    for cell in cells_of(packets, "1m")[20:]:
        layout: Layout = decode_layout(facts[f"layout:{cell.layout}"])
        row = (cell.open_time - START) // MINUTE_US
        assert numbers(cell.numbers)[layout.columns.index("RSI(timeperiod=5)")] == wanted[row]
    assert packets == sorted(packets, key=lambda packet: packet.number)


@in_loop
async def test_bars_of_trades_close_by_the_venues_clock(settings: Settings, broadcast: MemoryBroadcast) -> None:
    def trade(number: int, time: int, price: float) -> Trade:
        return Trade("BTCUSDT", number, START + time, price, 1.0, False)

    feed = ScriptedFeed(
        [
            [trade(0, 5, 100.0), trade(1, 30_000_000, 101.0)],
            [Clock(START + MINUTE_US + 100)],  # within the grace
            [trade(2, 59_000_000, 102.0)],
            [Clock(START + MINUTE_US + 600_000), Clock(START + 3 * MINUTE_US + 600_000)],
        ],
        bars_from="trades",
    )
    engine = await play(settings, broadcast, feed)
    bars = engine.lake.bars.read("BTCUSDT", Timeframe.M1)
    assert bars["close"].to_list() == [102.0, 102.0, 102.0]
    assert bars["state"].to_list() == ["observed", "no_trade", "no_trade"]
    assert bars["revision"].sum() == 0


@in_loop
async def test_trades_beside_candles_count_for_nothing(settings: Settings, broadcast: MemoryBroadcast) -> None:
    every = candles("BTCUSDT", 5)
    beside = Trade("BTCUSDT", 1, START + 1, 1.0, 1.0, False)
    engine = await play(settings, broadcast, ScriptedFeed([[beside, *every]]))
    assert engine.lake.bars.read("BTCUSDT", Timeframe.M1)["low"].min() > 1.0  # type: ignore[operator]


@in_loop
async def test_a_wish_adds_features_and_timeframes_while_the_stream_goes_on(
    settings: Settings, broadcast: MemoryBroadcast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mdplatform.streaming.engine.WISH_SECONDS", 0.01)
    every = candles("BTCUSDT", 60)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    feed = ScriptedFeed([every[:45]], ends=False)
    engine = Engine(settings, feed, broadcast.broadcaster(), standing(timeframes=[Timeframe.M5]))
    running = asyncio.create_task(engine.run())
    try:
        await until(lambda: engine.closed == 45)
        wish = Wish(("BTCUSDT", "NOSUCH"), ("3m", "5m"), ("EMA(timeperiod=4)", "RSI@1h", "no such feature"))
        await listener.wish("somebody", encode_wishes([wish]), 60.0)
        track = engine.tracks["BTCUSDT"]
        await until(lambda: Timeframe.M3 in track.sent)
        feed.push(*every[45:])
        await until(lambda: engine.closed == 60)
    finally:
        await engine.stop()
        await running
    packets = await heard(listener)
    facts = (await listener.facts(["BTCUSDT"]))["BTCUSDT"]
    for name, first in (("3m", 45), ("5m", 45)):
        bars = engine.lake.bars.read("BTCUSDT", Timeframe(name))
        wanted = evaluate(bars, ["EMA(timeperiod=4)"], timeframe=name).values["EMA(timeperiod=4)"]
        cells = [cell for cell in cells_of(packets, name) if cell.open_time >= START + first * MINUTE_US]
        assert len(cells) == 15 // int(name[0])
        for cell in cells:
            columns = decode_layout(facts[f"layout:{cell.layout}"]).columns
            row = (cell.open_time - START) // Timeframe(name).microseconds
            assert numbers(cell.numbers)[columns.index("EMA(timeperiod=4)")] == pytest.approx(wanted[row], rel=1e-9)
    assert set(engine.standing.refused) >= {"no such feature"}


@in_loop
async def test_forming_bars_are_sent_to_those_who_wish_for_them_under_a_topic_of_their_own(
    settings: Settings, broadcast: MemoryBroadcast, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WISH_SECONDS", "FORMING_SECONDS"):
        monkeypatch.setattr(f"mdplatform.streaming.engine.{name}", 0.01)
    every = candles("BTCUSDT", 21)
    closed, forming = broadcast.listener(), broadcast.listener()
    await closed.follow(["BTCUSDT"])
    await forming.follow([forming_topic("BTCUSDT")])
    wish = Wish(("BTCUSDT",), ("5m", "1h"), ("RSI(timeperiod=5)", "SMA(timeperiod=3)", "EMA(timeperiod=4)"), True)
    await forming.wish("somebody", encode_wishes([wish]), 60.0)
    feed = ScriptedFeed([every[:20]], ends=False)
    engine = Engine(settings, feed, broadcast.broadcaster(), standing())
    running = asyncio.create_task(engine.run())
    try:
        await until(lambda: bool(engine.standing.forming) and engine.closed == 20)
        await until(lambda: len(engine.tracks["BTCUSDT"].lanes[Timeframe.M5].opened.specs) == 4)
        packets: list[Packet] = []
        for part in (5, 25, 45):
            half = msgspec.structs.replace(
                every[20], is_closed=False, close=every[20].open + part * 1e-5, time=every[20].open_time + part * 10**6
            )
            feed.push(half)
            async with asyncio.timeout(10):
                while not packets or numbers(packets[-1].cells[0].bar)[3] != half.close:
                    packets += await heard(forming, 0.01)
        feed.push(every[20])
        await until(lambda: engine.closed == 21)
    finally:
        await engine.stop()
        await running
    found = cells_of(packets)
    assert {(cell.timeframe, cell.open_time, cell.is_closed) for cell in found} == {
        ("5m", every[20].open_time, False), ("1h", START, False)
    }  # fmt: skip
    assert [packet.number for packet in packets] == list(range(1, len(packets) + 1))
    rest = await heard(closed)
    assert all(cell.is_closed for cell in cells_of(rest))
    assert [packet.number for packet in rest] == list(range(1, len(rest) + 1))
    facts = (await forming.facts(["BTCUSDT"]))["BTCUSDT"]
    assert decode_packet(facts["cell:5m"]).cells[0].is_closed
    bars = engine.lake.bars.read("BTCUSDT", Timeframe.M5, None, every[20].open_time)
    live = LiveFeatures([*SPECS, parse_feature("EMA(timeperiod=4)")], Timeframe.M5, bars)
    last = [cell for cell in found if cell.timeframe == "5m"][-1]
    assert decode_layout(facts[f"layout:{last.layout}"]).columns == live.columns
    np.testing.assert_array_equal(numbers(last.numbers), live.peek(last.open_time, numbers(last.bar).tolist()).numbers)
    assert f"layout:{next(cell.layout for cell in found if cell.timeframe == '1h')}" in facts  # none has closed yet


@in_loop
async def test_a_minute_that_is_missing_is_said_as_a_gap_and_time_goes_on(
    settings: Settings, broadcast: MemoryBroadcast
) -> None:
    every = candles("BTCUSDT", 15)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    feed = ScriptedFeed([every[:7], every[8:]])
    await play(settings, broadcast, feed, standing(timeframes=[Timeframe.M5]))
    packets = await heard(listener)
    assert [packet.at - START for packet in packets if packet.at > START][-1] == 15 * MINUTE_US
    assert len(packets) == 3


@in_loop
async def test_a_lake_that_cannot_be_written_stops_no_stream(
    settings: Settings, broadcast: MemoryBroadcast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mdplatform.streaming.engine.STAGE_SECONDS", 0.01)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    blocked = settings.lake_dir / "inbox"
    settings.lake_dir.mkdir(parents=True)
    blocked.write_text("a file where a folder should be")
    every = candles("BTCUSDT", 20)
    feed = ScriptedFeed([every[:10]], ends=False)
    engine = Engine(settings, feed, broadcast.broadcaster(), standing())
    running = asyncio.create_task(engine.run())
    try:
        await until(lambda: "inbox of the lake" in caplog.text)
        feed.push(*every[10:])
        await until(lambda: engine.closed == 20)
        assert engine.journal.waiting == 20
        assert len(cells_of(await heard(listener), "1m")) == 20
        blocked.unlink()
        await until(lambda: engine.journal.waiting == 0)
    finally:
        await engine.stop()
        await running
    assert engine.lake.bars.read("BTCUSDT", Timeframe.M1).height == 20
    assert caplog.text.count("inbox of the lake cannot be written; ") == 1
    assert "Over: the inbox of the lake" in caplog.text


@in_loop
async def test_an_engine_that_is_cancelled_leaves_what_it_took_in_the_lake(
    settings: Settings, broadcast: MemoryBroadcast
) -> None:
    feed = ScriptedFeed([candles("BTCUSDT", 12)], ends=False)
    engine = Engine(settings, feed, broadcast.broadcaster(), standing())
    running = asyncio.create_task(engine.run())
    await until(lambda: engine.closed == 12)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert engine.lake.bars.read("BTCUSDT", Timeframe.M1).height == 12
    assert engine.outgoing.waiting == 0


@in_loop
async def test_readers_are_told_and_told_again_when_redis_was_away(
    settings: Settings, broadcast: MemoryBroadcast
) -> None:
    told: list[str] = []
    away = [True]

    def announce(symbol: str) -> None:
        if away[0]:
            away[0] = False
            raise RedisUnavailable("gone")
        told.append(symbol)

    feed = ScriptedFeed([candles("BTCUSDT", 3)], ends=False)
    engine = Engine(
        settings.model_copy(update={"seal_seconds": 0.1}), feed, broadcast.broadcaster(), standing(), announce=announce
    )
    running = asyncio.create_task(engine.run())
    try:
        await until(lambda: told == ["BTCUSDT"])
    finally:
        await engine.stop()
        await running
    assert not away[0]


@in_loop
async def test_an_error_of_the_feed_is_raised_as_it_is_and_what_was_taken_is_in_the_lake(
    settings: Settings, broadcast: MemoryBroadcast
) -> None:
    class Failing(ScriptedFeed):
        async def events(self, since: Mapping[str, int]) -> AsyncIterator[Sequence[Event]]:
            yield candles("BTCUSDT", 4)
            raise NoData("The venue has no such symbol", value="BTCUSDT")

    with pytest.raises(NoData, match="no such symbol"):
        await play(settings, broadcast, Failing())
    assert Lake(settings.lake_dir).bars.read("BTCUSDT", Timeframe.M1).height == 4


@in_loop
async def test_a_feed_of_a_lake_of_longer_bars_asks_for_the_whole_day(
    settings: Settings, broadcast: MemoryBroadcast
) -> None:
    lake = Lake(settings.lake_dir)
    until = START + 17 * 60 * MINUTE_US
    for delivery in SimulatedMarket().bars("BTCUSDT", Timeframe.M15, START - 86_400_000_000, until):
        for batch in lake.inbox.stage("BTCUSDT", Timeframe.M15, "simulated", "k", delivery.rows, datetime.now(UTC)):
            lake.bars.merge("BTCUSDT", batch.month, [batch])
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    feed = ScriptedFeed([candles("BTCUSDT", 20 * 60)])
    frames = [Timeframe.M15, Timeframe.H4, Timeframe.D1]
    await play(settings, broadcast, feed, standing(timeframes=frames))
    assert feed.since == {"BTCUSDT": START}
    cells = cells_of(await heard(listener))
    opened = {
        name: [(c.open_time - START) // MINUTE_US for c in cells if c.timeframe == name] for name in ("15m", "4h")
    }
    assert opened["15m"] == [17 * 60 - 15 + 15 * n for n in range(13)]  # the newest that was known, then those after it
    assert opened["4h"] == [12 * 60, 16 * 60]
    assert lake.bars.read("BTCUSDT", Timeframe.H4)["open_time"].len() == 11


@in_loop
async def test_a_hole_in_the_lake_is_told_as_a_gap_and_not_as_a_quiet_minute(
    settings: Settings, broadcast: MemoryBroadcast
) -> None:
    every = candles("BTCUSDT", 30)
    await play(settings, broadcast, ScriptedFeed([every[:20]]))
    lake, told = Lake(settings.lake_dir), every[20:23] + every[24:30]  # a minute of which nobody knows
    rows = raw_bars([bar for batch in in_step(told) for bar in LiveBars(["BTCUSDT"], FRAMES, source="x").take(batch)])
    for batch in lake.inbox.stage("BTCUSDT", Timeframe.M1, "scripted", "k", rows, datetime.now(UTC)):
        lake.bars.merge("BTCUSDT", batch.month, [batch])
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    await play(settings, broadcast, ScriptedFeed([]))
    packets = await heard(listener)
    states = {(cell.open_time - START) // MINUTE_US: cell.state for cell in cells_of(packets, "1m")}
    assert states == {minute: "gap" if minute == 23 else "observed" for minute in range(20, 30)}
    assert [(cell.open_time - START) // MINUTE_US for cell in cells_of(packets, "5m")] == [25]
