"""Bars of the real trades of an exchange: the very bars of another project's file, in whatever order they come."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from mdplatform.market.events import Clock, Event, Trade
from mdplatform.streaming.bars import LiveBars
from mdplatform.streaming.live_bar import LiveBar

from .trading import M1, M5, MINUTE, SECOND, bars_of, newest, trade, values_by_hand


@pytest.fixture(scope="module")
def real_trades(shared_data: Path) -> list[Trade]:
    """Every aggregated trade of XRPETH over 59 hours of October 2019."""
    rows = pl.read_parquet(shared_data / "ready/ticks/binance_spot_aggtrades_XRPETH_20191011-13.parquet")
    names = ("agg_trade_id", "transact_time", "price", "quantity", "is_buyer_maker", "first_trade_id", "last_trade_id")
    return [
        Trade("XRPETH", number, time * 1000, price, quantity, is_maker, fills=last - first + 1)
        for number, time, price, quantity, is_maker, first, last in rows.select(names).iter_rows()
    ]


def live(events: list[Event], size: int) -> list[LiveBar]:
    bars = LiveBars(["XRPETH"], [M1, M5], source="test")
    return [bar for n in range(0, len(events), size) for bar in bars.take(events[n : n + size])]


def test_real_trades_make_the_bars_of_the_exchange(shared_data: Path, real_trades: list[Trade]) -> None:
    found = live([*real_trades, Clock(real_trades[-1].time + 2 * MINUTE)], 100)
    folder = shared_data / "ticks/freqtrade__freqtrade/tests/testdata"
    theirs = pl.read_ipc(folder / "XRP_ETH-1m.feather").with_columns(pl.col("date").dt.epoch("us")).rows()
    minutes = [bar for bar in found if bar.timeframe is M1]
    traded = [bar for bar in minutes if bar.state == "observed"]
    assert [(bar.open_time, *bar.values[:5]) for bar in traded] == theirs
    assert sum(bar.trade_count for bar in minutes) == sum(each.fills for each in real_trades)
    for before, bar in pairwise(minutes):
        assert bar.open_time == before.close_time
        if bar.state == "no_trade":
            assert bar.values == (before.close,) * 4 + (0.0,) * 5


def test_real_trades_that_come_late_and_twice_make_the_same_bars(real_trades: list[Trade]) -> None:
    chance = random.Random(3)
    few = real_trades[:4000]
    told = sorted((each.time + chance.choice([0, 0, SECOND // 3, 40 * SECOND]), n) for n, each in enumerate(few[1:]))
    events: list[Event] = [few[0], *(few[n + 1] for _, n in told for _ in range(chance.choice([1, 1, 2])))]
    end = Clock(few[-1].time + 2 * MINUTE)
    expected = newest(live([*few, end], 50))
    found = live([*events, end], 70)
    assert len(found) > len(expected)
    last = newest(found)
    assert last.keys() == expected.keys()
    assert all(last[key].values == bar.values for key, bar in expected.items())


def test_sums_are_exact_however_odd_the_amounts_and_their_order() -> None:
    trades = [
        trade(n, n / 10, price, quantity, is_buyer_maker=n % 3 == 0)
        for n, (price, quantity) in enumerate(
            [(0.1, 0.2), (1e-8, 123456789.0), (99999.99, 1e-5), (1 / 3, 2 / 3), (7e8, 3e9), (0.1, 0.1), (5.0, 0.0)]
        )
    ]
    for order in (trades, trades[:1] + trades[:0:-1]):
        (bar,) = bars_of().take([*order, trade(99, 60.5)])
        assert bar.values == values_by_hand(trades)
