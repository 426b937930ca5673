"""Bars held in memory are those of the lake, whatever is asked for, and however it changes."""

from __future__ import annotations

import os
import random

import pytest

from mdplatform.lake.bars import BarStore
from mdplatform.market.timeframe import Timeframe
from mdplatform.worker import memory
from mdplatform.worker.memory import HeldLake
from tests.conftest import Market, raw_bars

STEP = Timeframe.M15.microseconds
FRAMES = (Timeframe.M15, Timeframe.H1, Timeframe.H2, Timeframe.D1)


def stored(market: Market) -> BarStore:
    return market.lake.bars


@pytest.fixture
def held(market: Market, monkeypatch) -> HeldLake:
    monkeypatch.setattr(memory, "LEAST_ROWS", 50)
    return HeldLake(market.lake.folder, 100_000_000)


def test_whatever_is_read_is_what_the_lake_has(market, held):
    bars = market.walk("BTCUSDT", 3000).with_row_index().filter(~raw_index_gap()).drop("index")
    market.deliver("ETHUSDT", bars)
    first = int(bars["open_time"].dt.epoch("us")[0])
    draw = random.Random(7)
    for _ in range(150):
        symbol, frame = draw.choice(["BTCUSDT", "ETHUSDT", "NOPE"]), draw.choice(FRAMES)
        if draw.random() < 0.4:
            rows = draw.randint(1, 400)
            assert held.bars.tail(symbol, frame, rows).equals(stored(market).tail(symbol, frame, rows))
            continue
        start = draw.choice([None, first + draw.randint(-200, 3200) * STEP + draw.choice([0, 1])])
        end = draw.choice([None, (start or first) + draw.randint(0, 500) * STEP])
        assert held.bars.read(symbol, frame, start, end).equals(stored(market).read(symbol, frame, start, end))


def raw_index_gap():
    import polars as pl

    return pl.col("index").is_between(1000, 1010)


def test_files_are_read_once_until_they_change(market, held):
    bars = raw_bars(1201)
    market.deliver("BTCUSDT", bars.head(1200))
    old = 10**18
    os.utime(market.lake.bars.folder("BTCUSDT"), ns=(old, old))
    held.bars.tail("BTCUSDT", Timeframe.M15, 100)
    before = held.reads.count
    end = int(bars["open_time"].dt.epoch("us")[1199]) + STEP
    assert held.bars.tail("BTCUSDT", Timeframe.M15, 40).height == 40
    assert held.bars.read("BTCUSDT", Timeframe.M15, end - 60 * STEP, end).height == 60
    assert held.reads.count == before
    market.deliver("BTCUSDT", bars.tail(1))
    assert held.bars.tail("BTCUSDT", Timeframe.M15, 1)["open_time"].dt.epoch("us")[0] == end
    assert held.reads.count > before


def test_a_sequence_that_was_bumped_makes_what_was_read_before_it_old(market, held):
    bars = raw_bars(101)
    market.deliver("BTCUSDT", bars.head(100))
    folder, old = market.lake.bars.folder("BTCUSDT"), 10**18
    os.utime(folder, ns=(old, old))
    held.held.saw("BTCUSDT", 1)
    held.bars.tail("BTCUSDT", Timeframe.M15, 1)
    market.deliver("BTCUSDT", bars.tail(1))
    os.utime(folder, ns=(old, old))  # a folder whose time tells nothing
    newest = int(bars["open_time"].dt.epoch("us")[-1])
    assert held.bars.tail("BTCUSDT", Timeframe.M15, 1)["open_time"].dt.epoch("us")[0] < newest
    held.held.saw("BTCUSDT", 2)
    assert held.bars.tail("BTCUSDT", Timeframe.M15, 1)["open_time"].dt.epoch("us")[0] == newest


def test_what_is_held_stays_within_its_bytes(market):
    for number in range(6):
        market.walk(f"S{number}", 300, seed=number)
    held = HeldLake(market.lake.folder, 150_000)
    for _ in range(2):
        for number in range(6):
            expected = stored(market).tail(f"S{number}", Timeframe.M15, 200)
            assert held.bars.tail(f"S{number}", Timeframe.M15, 200).equals(expected)
            assert held.held.size <= 150_000


def test_long_ranges_and_those_as_of_an_instant_are_read_and_not_held(market, held, monkeypatch):
    monkeypatch.setattr(memory, "MOST_ROWS", 100)
    bars = market.walk("BTCUSDT", 1200)
    first = int(bars["open_time"].dt.epoch("us")[0])
    assert held.bars.read("BTCUSDT", Timeframe.M15, first, None).height == 1200
    as_of = bars["close_time"][600]
    known = held.bars.read("BTCUSDT", Timeframe.M15, first, None, as_of)
    assert known.equals(stored(market).read("BTCUSDT", Timeframe.M15, first, None, as_of))
    assert held.held.size == 0
