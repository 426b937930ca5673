"""The engine in trouble: the stream goes on, and what was put off is made up for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
import pytest

from mdplatform.features import evaluate
from mdplatform.lake import Lake
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.messaging.memory.broadcast import MemoryBroadcast
from mdplatform.settings import Settings
from mdplatform.streaming.bars import LiveBars
from mdplatform.streaming.cells import Cell, decode_layout, decode_packet, numbers
from mdplatform.streaming.engine import Engine
from mdplatform.streaming.journal import raw_bars
from mdplatform.streaming.live_bar import LiveBar
from mdplatform.streaming.opening import correct
from mdplatform.streaming.track import Track
from mdplatform.streaming.wishes import Wish, encode_wishes

from .scripted import ScriptedFeed, candles, in_loop
from .test_engine import SPECS, cells_of, heard, standing, until

M1, M5 = Timeframe.M1, Timeframe.M5
EMA = "EMA(timeperiod=4)"


@pytest.fixture
def broadcast(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> MemoryBroadcast:
    monkeypatch.setattr("mdplatform.streaming.engine.WISH_SECONDS", 0.01)
    return MemoryBroadcast(settings)


@asynccontextmanager
async def running(
    settings: Settings, broadcast: MemoryBroadcast, feed: ScriptedFeed, timeframes: tuple[Timeframe, ...] = (M1, M5)
) -> AsyncIterator[Engine]:
    engine = Engine(settings, feed, broadcast.broadcaster(), standing(timeframes=timeframes))
    run = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        await engine.stop()
        await run


def failing(*_: object, **__: object) -> None:
    raise OSError(24, "Too many open files")


def specs_of(engine: Engine, timeframe: Timeframe) -> list[str]:
    return [str(each) for each in engine.tracks["BTCUSDT"].lanes[timeframe].opened.specs]


@in_loop
async def test_a_lake_that_cannot_be_read_for_a_wish_ends_no_stream(
    settings: Settings, broadcast: MemoryBroadcast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    listener = broadcast.listener()
    feed = ScriptedFeed([candles("BTCUSDT", 10)], ends=False)
    async with running(settings, broadcast, feed) as engine:
        await until(lambda: engine.closed == 10)
        with monkeypatch.context() as patched:
            patched.setattr(engine.lake.bars, "read", failing)
            await listener.wish("somebody", encode_wishes([Wish(("BTCUSDT",), ("5m",), (EMA,))]), 60.0)
            await until(lambda: "Too many open files" in caplog.text)
        await until(lambda: EMA in specs_of(engine, M5))
        await until(lambda: "Over: what is wished for" in caplog.text)
    assert caplog.text.count("Too many open files") == 1


@in_loop
async def test_corrected_bars_are_told_without_features_where_these_cannot_be_opened(
    settings: Settings, broadcast: MemoryBroadcast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    every = candles("BTCUSDT", 25)
    better = msgspec.structs.replace(every[14], close=every[14].close * 1.01, high=every[14].high * 1.02)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    feed = ScriptedFeed([every[:20]], ends=False)
    found: list[Cell] = []
    async with running(settings, broadcast, feed) as engine:
        await until(lambda: engine.closed == 20)
        with monkeypatch.context() as patched:
            patched.setattr(engine.lake.bars, "read", failing)
            feed.push(better, every[20])
            await until(lambda: engine.tracks["BTCUSDT"].at == every[21].open_time)
            async with asyncio.timeout(10):
                while not any(cell.revision == 1 for cell in found):
                    found += cells_of(await heard(listener, 0.5), "1m")
        await until(lambda: len(specs_of(engine, M1)) == len(SPECS))
        feed.push(*every[21:])
        await until(lambda: engine.closed == 26)
    corrected = [cell for cell in found if cell.revision == 1]
    assert [(cell.open_time, cell.layout) for cell in corrected] == [(every[14].open_time, "")]
    assert numbers(corrected[0].bar)[3] == better.close
    assert found[-1].open_time == every[20].open_time
    last = cells_of(await heard(listener), "1m")[-1]
    wanted = evaluate(engine.lake.bars.read("BTCUSDT", M1), SPECS, timeframe="1m").values
    assert numbers(last.numbers)[0] == pytest.approx(wanted["RSI(timeperiod=5)"][-1], rel=1e-9)
    assert caplog.text.count("Too many open files") <= 2  # for the correction, and for the wishes behind it


@in_loop
async def test_corrections_that_wait_for_others_are_told_before_the_end(
    settings: Settings, broadcast: MemoryBroadcast, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(lake: Lake, track: Track, corrected: Sequence[LiveBar]) -> list[Cell]:
        await asyncio.sleep(0.4)  # longer than all else that is done at the end
        return await correct(lake, track, corrected)

    monkeypatch.setattr("mdplatform.streaming.engine.correct", slow)
    every = candles("BTCUSDT", 20)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    better = [
        msgspec.structs.replace(every[at], close=every[at].close * rise, high=every[at].high * 1.1, time=later)
        for later, (at, rise) in enumerate([(14, 1.01), (15, 1.02), (14, 1.03), (16, 1.04)], every[19].time)
    ]
    async with running(settings, broadcast, ScriptedFeed([every, *([each] for each in better)])) as engine:
        await engine.ready.wait()
    newest = {cell.open_time: cell for cell in cells_of(await heard(listener), "1m")}
    bars = engine.lake.bars.read("BTCUSDT", M1)
    assert [numbers(newest[each.open_time].bar)[3] for each in every] == bars["close"].to_list()
    assert [newest[every[at].open_time].revision for at in (14, 15, 16)] == [2, 1, 1]


@in_loop
async def test_a_correction_that_was_not_sent_is_told_by_the_next_process(
    settings: Settings, broadcast: MemoryBroadcast
) -> None:
    every = candles("BTCUSDT", 30)
    better = msgspec.structs.replace(every[14], close=every[14].close * 1.01, high=every[14].high * 1.02)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    async with running(settings, broadcast, ScriptedFeed([every[:20]])) as engine:
        await engine.ready.wait()
    lake, rows = engine.lake, raw_bars(LiveBars(["BTCUSDT"], [M1], source="x").take([better]))
    for batch in lake.inbox.stage("BTCUSDT", M1, "scripted", "k", rows, datetime.now(UTC)):
        lake.bars.merge("BTCUSDT", batch.month, [batch])
    await heard(listener)
    async with running(settings, broadcast, ScriptedFeed([every[20:]])) as engine:
        await engine.ready.wait()
    found = cells_of(await heard(listener))
    told = {(cell.timeframe, cell.open_time): cell for cell in found if cell.revision}
    assert list(told) == [("1m", every[14].open_time), ("5m", every[10].open_time)]
    bars = engine.lake.bars.read("BTCUSDT", M1)
    cell = told["1m", every[14].open_time]
    assert numbers(cell.bar)[3] == better.close == bars["close"][14]
    assert numbers(cell.numbers)[0] == pytest.approx(
        evaluate(bars, SPECS, timeframe="1m").values["RSI(timeperiod=5)"][14], rel=1e-9
    )


@in_loop
async def test_features_are_opened_without_a_hole_however_far_the_lake_is_behind(
    settings: Settings, broadcast: MemoryBroadcast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mdplatform.streaming.lane.KEPT", 20)
    every = candles("BTCUSDT", 62)
    listener = broadcast.listener()
    await listener.follow(["BTCUSDT"])
    feed = ScriptedFeed([every[:60]], ends=False)
    text = "SMA(timeperiod=40)"
    async with running(settings, broadcast, feed) as engine:
        await until(lambda: engine.closed == 60)
        await listener.wish("somebody", encode_wishes([Wish(("BTCUSDT",), ("1m",), (text,))]), 60.0)
        await until(lambda: text in specs_of(engine, M1))
        feed.push(*every[60:])
        await until(lambda: engine.closed == 62)
    last = cells_of(await heard(listener), "1m")[-1]
    wanted = evaluate(engine.lake.bars.read("BTCUSDT", M1), [text], timeframe="1m").values[text][-1]
    layout = decode_layout((await listener.facts(["BTCUSDT"]))["BTCUSDT"][f"layout:{last.layout}"])
    assert numbers(last.numbers)[layout.columns.index(text)] == pytest.approx(wanted, rel=1e-9)
    assert engine.tracks["BTCUSDT"].lanes[M1].sealed == every[61].open_time + MINUTE_US


@in_loop
async def test_the_newest_cell_among_the_facts_has_its_right_features_after_a_correction(
    settings: Settings, broadcast: MemoryBroadcast
) -> None:
    every = candles("BTCUSDT", 20)
    better = msgspec.structs.replace(every[17], close=every[17].close * 1.01, high=every[17].high * 1.02)
    async with running(settings, broadcast, ScriptedFeed([every, [better]])) as engine:
        await engine.ready.wait()
    (cell,) = decode_packet((await broadcast.listener().facts(["BTCUSDT"]))["BTCUSDT"]["cell:1m"]).cells
    wanted = evaluate(engine.lake.bars.read("BTCUSDT", M1), SPECS, timeframe="1m").values["RSI(timeperiod=5)"]
    assert cell.open_time == every[19].open_time
    assert numbers(cell.numbers)[0] == pytest.approx(wanted[-1], rel=1e-9)


@in_loop
async def test_a_wish_that_is_refused_in_one_timeframe_takes_nothing_from_another(
    settings: Settings, broadcast: MemoryBroadcast
) -> None:
    listener = broadcast.listener()
    feed = ScriptedFeed([candles("BTCUSDT", 10)], ends=False)
    text = f"{EMA}@5m"
    async with running(settings, broadcast, feed) as engine:
        await until(lambda: engine.closed == 10)
        await listener.wish("one", encode_wishes([Wish(("BTCUSDT",), ("5m",), (text,))]), 60.0)
        await until(lambda: EMA in specs_of(engine, M5))
        await listener.wish("other", encode_wishes([Wish(("BTCUSDT",), ("1m",), (text, "SMA(timeperiod=4)"))]), 60.0)
        await until(lambda: "SMA(timeperiod=4)" in specs_of(engine, M1))
        assert (text, M1) in engine.standing.refused
        assert (text, M5) not in engine.standing.refused
        assert EMA in specs_of(engine, M5)
        assert text in [f"{each}{each.place}" for each in engine.standing.wanted()["BTCUSDT"][M5]]


@in_loop
async def test_a_log_that_was_damaged_is_said_once_with_what_to_do(
    settings: Settings, broadcast: MemoryBroadcast, caplog: pytest.LogCaptureFixture
) -> None:
    path = settings.lake_dir / "inbox" / "_live" / "1-1-ab.damaged"
    path.parent.mkdir(parents=True)
    path.touch()
    async with running(settings, broadcast, ScriptedFeed([candles("BTCUSDT", 2)], ends=False)) as engine:
        await until(lambda: engine.closed == 2)  # it seals as it begins, and again at its end
    [said] = [each.getMessage() for each in caplog.records if "damaged" in each.getMessage()]
    assert "mdplatform ingest" in said
    assert str(path) in said
