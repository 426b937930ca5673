"""Bars that close by what was traded, and CUSUM events, in the rows of a grid: against the plain functions."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.errors import PlatformError
from mdplatform.features import Truncated, evaluate_on, parse_feature
from mdplatform.features.flow.trade_bars import cusum_events, dollar_bars, imbalance_bars, tick_bars, volume_bars
from mdplatform.features.guard import STATUSES
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe

from ..flow.tape import START, tapes, trades_of
from .test_flow import DAY, SYMBOL, Grid, grid, of_trades, tape, value, whole

MADE = {
    "VOLUME_BARS(size=25)": lambda trades: volume_bars(trades, 25),
    "DOLLAR_BARS(size=2500)": lambda trades: dollar_bars(trades, 2500),
    "TICK_BARS(size=7)": lambda trades: tick_bars(trades, 7),
    "IMBALANCE_BARS(expected_count=10)": lambda trades: imbalance_bars(trades, expected_count=10),
    "IMBALANCE_BARS(measure=volume,expected_count=10,span=5,most=2)": lambda trades: imbalance_bars(
        trades, "volume", expected_count=10, span=5, most=2
    ),
}


@pytest.mark.parametrize("feature", MADE)
@pytest.mark.parametrize("timeframe", [Timeframe.M30, Timeframe.H4, Timeframe.D1])
def test_rows_tell_of_the_bars_that_each_day_s_trades_make(feature: str, timeframe: Timeframe) -> None:
    trades, rows = tape(), grid(timeframe)
    times = trades["time"].dt.epoch("us")
    values = whole(feature, of_trades(trades), rows)
    told = 0
    for at, (open_time, close) in enumerate(zip(rows.open_time.tolist(), rows.close_time.tolist(), strict=True)):
        day = open_time // DAY_US * DAY_US
        made = MADE[feature](trades.filter((times >= day) & (times < close)))
        if made.is_empty():
            assert STATUSES[values.statuses[at]] == "insufficient_history"
            continue
        told += 1
        inside = made["close_time"].dt.epoch("us") >= open_time
        assert values.outputs[0][at] == inside.sum()
        newest = made.row(-1, named=True)
        for output, name in enumerate(("open", "high", "low", "close", "volume"), 1):
            assert values.outputs[output][at] == pytest.approx(newest[name], rel=1e-12)
    assert told >= 3


def test_a_week_s_row_counts_the_bars_of_each_of_its_days() -> None:
    monday = DAY - (DAY - 4 * DAY_US) % (7 * DAY_US)
    trades = tape(days=7).with_columns(pl.col("time") + pl.duration(microseconds=monday - DAY))
    values = whole("TICK_BARS(size=30)", of_trades(trades), Grid(SYMBOL, Timeframe.W1, np.array([monday])))
    days = trades["time"].dt.date()
    wanted = [tick_bars(trades.filter(days == day), 30) for day in days.unique().sort()]
    assert STATUSES[values.statuses[0]] == "settled"
    assert values.outputs[0][0] == sum(len(each) for each in wanted)
    assert values.outputs[4][0] == wanted[-1]["close"][-1]


def test_events_are_counted_by_direction_and_begin_anew_each_day() -> None:
    trades, rows = tape(), grid()
    (up, down), told = value("CUSUM_EVENTS(threshold=0.002)", of_trades(trades), rows)
    assert set(told) == {"settled"}
    days = trades["time"].dt.date()
    events = pl.concat([cusum_events(trades.filter(days == day), 0.002) for day in days.unique().sort()])
    for at, open_time in enumerate(rows.open_time.tolist()):
        times = events["time"].dt.epoch("us")
        sides = events.filter((times >= open_time) & (times < open_time + 60 * MINUTE_US))["side"]
        assert (up[at], down[at]) == ((sides == 1).sum(), (sides == -1).sum())
    assert sum(up) > 10
    assert sum(down) > 10


def test_a_bar_belongs_to_the_row_in_which_its_last_trade_became_known() -> None:
    half = 30 * MINUTE_US
    trades = trades_of([(DAY + half - 9, 5.0, 1.0, False), (DAY + half - 5, 6.0, 1.0, False)])
    for delay, wanted in ((0, ["settled", "settled"]), (60_000_000, ["insufficient_history", "settled"])):
        data = of_trades(trades, np.array([0, delay]))
        (count, _, _, _, close, _), told = value("TICK_BARS(size=2)", data, grid(Timeframe.M30, days=1 / 24))
        assert told == wanted
        assert (count[1], close[1]) == (float(bool(delay)), 6.0)


def test_sides_that_nobody_told_matter_to_imbalance_bars_alone() -> None:
    trades = tape(days=1).with_columns(is_buyer_maker=pl.lit(None, pl.Boolean))
    for feature, status in (
        ("IMBALANCE_BARS(expected_count=10)", "missing_volume"),
        ("TICK_BARS(size=10)", "settled"),
        ("CUSUM_EVENTS", "settled"),
    ):
        assert value(feature, of_trades(trades), grid(days=1))[1][-1] == status


@settings(max_examples=20, deadline=None)
@given(
    tapes(1), st.integers(0, 11),
    st.sampled_from(["VOLUME_BARS(size=30)", "TICK_BARS(size=3)", "IMBALANCE_BARS(expected_count=3)", "CUSUM_EVENTS"]),
)  # fmt: skip
def test_no_row_knows_what_came_later_nor_where_the_grid_began(trades: pl.DataFrame, at: int, feature: str) -> None:
    data, rows = of_trades(trades), grid(Timeframe.M5, START - START % DAY_US + 23 * 60 * MINUTE_US, 1 / 24)
    spec, values = parse_feature(feature), whole(feature, of_trades(trades), rows)
    one = Grid(SYMBOL, Timeframe.M5, rows.open_time[at : at + 1])
    then = evaluate_on(one, [spec], Truncated(data, int(rows.close_time[at])))[spec]
    assert then.statuses[0] == values.statuses[at]
    for output, other in zip(then.outputs, values.outputs, strict=True):
        np.testing.assert_allclose(output[0], other[at], rtol=1e-12)


@pytest.mark.parametrize(
    "wrong", ["VOLUME_BARS", "VOLUME_BARS(size=0)", "TICK_BARS(size=0)", "TICK_BARS(size=1.5)", "CUSUM_EVENTS(0)",
              "IMBALANCE_BARS(measure=shares)", "IMBALANCE_BARS(most=0.5)", "DOLLAR_BARS(size=nan)"]
)  # fmt: skip
def test_parameters_out_of_range_are_refused(wrong: str) -> None:
    with pytest.raises(PlatformError):
        parse_feature(wrong)
