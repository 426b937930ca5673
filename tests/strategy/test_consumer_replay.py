"""History goes through the same callback: the frames are those that came live, and nothing is known too early."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from mdplatform.lake.data import LakeData
from mdplatform.lake.partition import write_partition
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.messaging.broadcast import Post
from mdplatform.messaging.memory.broadcast import MemoryBroadcast
from mdplatform.strategy import EnhancedMarketDataConsumer, FeatureReader, Frame
from mdplatform.streaming.cells import encode
from mdplatform.streaming.past import Past
from mdplatform.streaming.shape import Shape

from ..conftest import FIRST_OPEN
from .test_consumer import run, until

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
ASKED = {"strategy_id": "s", "symbols": SYMBOLS, "data_types": ["price", "volume", "indicators", "sentiment"],
         "timeframes": ["15m", "1h", "4h"], "indicators": ["RSI", "MACD", "close / EMA(close, 20) - 1"]}  # fmt: skip
START, END = FIRST_OPEN + timedelta(days=6), FIRST_OPEN + timedelta(days=7)


@pytest.fixture
def known(market):
    for seed, symbol in enumerate(SYMBOLS):
        market.walk(symbol, 900, seed)
    return market


async def replayed(settings, **given: object) -> list[Frame]:
    frames: list[Frame] = []
    async with EnhancedMarketDataConsumer(settings, open_listener=MemoryBroadcast(settings).listener) as consumer:
        id = await consumer.subscribe_to_market_data(**{**ASKED, **given}, callback=frames.append, real_time=False)
        await consumer.finished(id)
        assert consumer.status()[0].note == "The replay has ended"
    return frames


def same(one: Frame, other: Frame) -> None:
    """Statuses, times and revisions are equal; so are values, to the order in which they were summed up."""
    for some, others in zip(one, other, strict=True):
        told = [(each.status, each.close_time, each.revision, each.reasons) for each in (some, others)]
        assert told[0] == told[1]
        assert some.values == others.values
        np.testing.assert_allclose(some.numbers, others.numbers, rtol=1e-9)


def test_a_replay_gives_the_values_that_a_reader_gives_and_nothing_of_later(known, settings):
    frames = asyncio.run(replayed(settings, start=START, end=END))
    assert len(frames) == 96
    assert frames[0].time == START
    assert all(after.time - before.time == timedelta(minutes=15) for before, after in pairwise(frames))
    assert all(each.is_complete and each.available_at <= each.time for each in frames)
    with FeatureReader(settings) as reader:
        for timeframe in ASKED["timeframes"]:
            length = timedelta(microseconds=Timeframe(timeframe).microseconds)
            table = reader.frame(SYMBOLS, ASKED["indicators"], timeframe, start=START - length, end=END)
            rows = {(row["symbol"], row["close_time"]): row for row in table.iter_rows(named=True)}
            for frame in frames:
                for symbol in SYMBOLS:
                    cell = frame[symbol, timeframe]
                    row = rows[symbol, cell.close_time]
                    assert frame.time - length < cell.close_time <= frame.time
                    np.testing.assert_allclose(
                        [cell.features[name] for name in cell.columns], [row[name] for name in cell.columns], rtol=1e-9
                    )


def test_what_came_live_is_what_a_replay_gives(known, settings):
    frames: list[Frame] = []

    async def live() -> None:
        broadcast = MemoryBroadcast(settings)
        out = broadcast.broadcaster()
        shape = Shape.of(SYMBOLS, ASKED["timeframes"], features=("x",))
        async with EnhancedMarketDataConsumer(settings, open_listener=broadcast.listener) as consumer:
            cursorless = await consumer.subscribe_to_market_data(**ASKED, callback=print)
            wanted = consumer._subscriptions[cursorless].wanted.shape
            await consumer.unsubscribe(cursorless)
            assert wanted.timeframes == shape.timeframes
            past = Past(LakeData(known.lake), wanted)
            sent = [each for piece in past.packets(to_us(START), to_us(END) - 1) for each in piece]
            first = [each for each in sent if each.at <= to_us(START)]
            facts = {f"layout:{past.layout.id}": encode(past.layout)}
            for each in first:  # what a feed said before the strategy came
                cells = {f"cell:{one.timeframe}": encode(each) for one in each.cells}
                await out.send([Post(each.symbol, encode(each), {**facts, **cells})])
            await consumer.subscribe_to_market_data(**ASKED, callback=frames.append)
            for each in [one for one in sent if one.at > to_us(START)]:
                await out.send([Post(each.symbol, encode(each))])
            await until(lambda: len(frames) == 95)

    run(live())
    again = asyncio.run(replayed(settings, start=START + timedelta(minutes=15), end=END))
    assert [each.time for each in again] == [each.time for each in frames]
    for one, other in zip(frames, again, strict=True):
        same(one, other)
    ours, theirs = (each[-1].to_tensor(64) for each in (frames, again))
    assert ours.mask.all()
    np.testing.assert_allclose(ours.values, theirs.values, rtol=1e-6)


def test_a_replay_is_handed_over_to_what_comes_live_without_loss_or_repeat(known, settings):
    replay, live = [], []
    middle, kept = START + timedelta(hours=6), END - timedelta(hours=2)

    async def work() -> None:
        broadcast = MemoryBroadcast(settings)
        out = broadcast.broadcaster()
        async with EnhancedMarketDataConsumer(settings, open_listener=broadcast.listener) as consumer:
            id = await consumer.subscribe_to_market_data(
                **ASKED, callback=replay.append, real_time=False, start=START, end=middle
            )
            past = Past(LakeData(known.lake), consumer._subscriptions[id].wanted.shape)
            await consumer.finished(id)
            sent = [each for piece in past.packets(to_us(kept), to_us(END) - 1) for each in piece]
            facts = {f"layout:{past.layout.id}": encode(past.layout)}
            for each in sent[:-6]:  # what a feed said before the strategy came
                cells = {f"cell:{one.timeframe}": encode(each) for one in each.cells}
                await out.send([Post(each.symbol, encode(each), {**facts, **cells})])
            await consumer.subscribe_to_market_data(**ASKED, callback=live.append, cursor=replay[-1].cursor)
            for each in sent[-6:]:
                await out.send([Post(each.symbol, encode(each))])
            await until(lambda: live and live[-1].time == END - timedelta(minutes=15))

    run(work())
    whole = asyncio.run(replayed(settings, start=START, end=END))
    assert [each.time for each in replay + live] == [each.time for each in whole]
    for one, other in zip(replay + live, whole, strict=True):
        same(one, other)


def test_a_bar_that_came_late_is_not_in_the_frames_before_it_was_known(known, settings):
    path = known.lake.bars.path("ETHUSDT", "2025-01")
    late = START + timedelta(hours=5)
    partition = known.lake.bars.partition("ETHUSDT", "2025-01")
    tables = {}
    for name in partition.header.groups:
        rows = pl.DataFrame(partition.read(name))
        is_late = (pl.col("close_time") == late) & (pl.col("timeframe") == "15m")
        moved = pl.when(is_late).then(pl.col("available_at") + timedelta(minutes=10)).otherwise("available_at")
        tables[name] = rows.with_columns(moved.alias("available_at"))
    write_partition(path, tables, partition.header.notes)
    frames = asyncio.run(replayed(settings, start=START, end=END, revisions=True))
    [marked] = [each for each in frames if not each.is_complete]
    [corrected] = [each for each in frames if each.revision]
    assert (marked.time, marked.revision, marked["ETHUSDT", "15m"].status) == (late, 0, "stale")
    assert (corrected.time, corrected.revision, corrected.is_complete) == (late, 1, True)
    assert corrected.available_at == late + timedelta(minutes=10)


def test_a_replay_goes_on_from_a_cursor_and_waits_for_its_callback(known, settings):
    async def work() -> None:
        first = await replayed(settings, start=START, end=END, symbols="BTCUSDT", timeframes="15m")
        found: list[Frame] = []

        async def slow(frame: Frame) -> None:
            await asyncio.sleep(0)
            found.append(frame)

        async with EnhancedMarketDataConsumer(settings) as consumer:
            id = await consumer.subscribe_to_market_data(
                **{**ASKED, "symbols": "BTCUSDT", "timeframes": "15m"}, callback=slow, real_time=False,
                cursor=first[9].cursor, end=END, queue=1,
            )  # fmt: skip
            await consumer.finished(id)
        assert [each.time for each in found] == [each.time for each in first[10:]]

    run(work())


def test_sentiment_is_what_was_known_at_each_instant(known, settings):
    came = [START - timedelta(hours=1), START + timedelta(hours=2, minutes=1)]
    documents = pl.DataFrame(
        {"provider": "fear_greed", "doc_id": ["a", "b"], "symbols": "", "score": [0.25, -0.5], "label": "x",
         "published_at": came, "seen_at": came, "available_at": came}
    )  # fmt: skip
    store = known.lake.table("sentiment")
    schema = store.dataset.delivered
    rows = documents.with_columns(pl.lit(None).alias(name) for name in schema if name not in documents.columns)
    for key in store.stage(rows.select(schema.names()).cast(dict(schema)), "test", datetime(2026, 1, 1, tzinfo=UTC)):
        store.merge(key)
    frames = asyncio.run(replayed(settings, start=START, end=END))
    assert frames[0].shape.providers == ("fear_greed",)
    told = [each.sentiment("ETHUSDT")["fear_greed"] for each in frames]
    assert [each.score for each in told] == [0.25] * 9 + [-0.5] * 87
    assert told[8].age == timedelta(hours=3)
    assert told[9].available_at == came[1]
    assert frames[9].to_tensor(2).values[1, :, -1].tolist() == [0.25, -0.5]
    assert frames[9].to_polars()["sentiment:fear_greed.age"][0] == timedelta(minutes=14)
