"""Formulas, order flow and profiles, live: equal to the batch, alone and mixed."""

from __future__ import annotations

from mdplatform.features.live import LiveFeatures
from mdplatform.features.parse import FeatureLike
from mdplatform.market.timeframe import Timeframe

from .bars import batch, check, differences, market, rows_of, troubled

ON_A_ROW: list[FeatureLike] = [
    {
        "formula": "(RSI - 50) * 0.6 + (MACD_HISTOGRAM / PRICE_STD) * 0.4",
        "input_indicators": [
            {"name": "RSI", "parameters": {"period": 14}},
            {"name": "MACD", "parameters": {"fast": 12, "slow": 26, "signal": 9}},
            {"name": "PRICE_STD", "parameters": {"period": 20}},
        ],
    },
    "EMA(close, 20) / EMA(close, 50) - 1",
    "close / open - 1",
    "where(close > open, log(close / open), -abs(close - open) / close) * sqrt(volume)",
    "where(RSI > 50, 1 / (volume - volume), TAKER_RATIO)",
    "1 / (close - open)",
    "(close - open) / (high - low)",
    "min(RSI, ADX, 30) + max(taker_buy_volume, 3) ** 0.37 + exp(-RSI) + ATR ** -2",
    "BBANDS_UPPERBAND > close and not OBV < 0",
    "EMA(5) - SMA(5)",
]
OVER_ROWS = [
    "close / lag(close, 1) - 1",
    "zscore(log(close / lag(close, 3)), 20)",
    "rank(close, 60) + sum(volume, 30)",
    "std(OBV, 10) / mean(trade_count, 7)",
    "diff(RSI, 2) * where(lag(close, 5) < close, 1, -1)",
    "mean(mean(close, 3), 4) - CVD",
]
FLOW = [
    "CVD", "CVD(anchor=week)", "DELTA", "TAKER_RATIO", "TAKER_IMBALANCE(10)", "TAKER_IMBALANCE(1)", "KYLE_LAMBDA(10)",
    "AMIHUD(5)", "ROLL_SPREAD(8)",
]  # fmt: skip


def test_formulas_of_one_row_equal_the_batch() -> None:
    check(troubled(market(900)), ON_A_ROW, [0, 500], 300)


def test_formulas_that_look_back_equal_the_batch() -> None:
    check(troubled(market(400)), OVER_ROWS, [0, 200], 120)


def test_order_flow_of_bars_equals_the_batch() -> None:
    check(troubled(market(700)), FLOW, [0, 400], 300)


def test_profiles_equal_the_batch_to_the_unit_in_which_it_counts() -> None:
    features = [
        "VOLUME_PROFILE", "VOLUME_PROFILE(session_hours=8,row_size=0.5,algorithm=one_row)", "VOLUME_PROFILE.poc",
        "ROLLING_VOLUME_PROFILE(hours=6)", "ROLLING_VOLUME_PROFILE(hours=1,value_area_pct=0.9)",
        "(close - VOLUME_PROFILE_POC) / ATR", "VOLUME_PROFILE_VAH - lag(VOLUME_PROFILE_VAH, 2)",
    ]  # fmt: skip
    check(troubled(market(500)), features, [0, 300], 150, nearly=True)


def test_a_session_that_is_no_multiple_of_the_timeframe_has_no_profile_as_in_a_batch() -> None:
    check(market(60, timeframe=Timeframe.H4), ["VOLUME_PROFILE(session_hours=6)", "SMA(2)"], [20], 20, Timeframe.H4)


def test_a_row_size_by_which_there_are_too_many_rows_is_degenerate_and_the_stream_goes_on() -> None:
    bars = market(40)
    live = LiveFeatures(["VOLUME_PROFILE(row_size=0.000000001)", "SMA(3)"], Timeframe.M15, bars.head(10))
    expected = batch(bars, ["SMA(3)"], LiveFeatures(["SMA(3)"], Timeframe.M15, bars))
    for row, each in enumerate(rows_of(bars)[10:], 10):
        given = live.update(*each)
        assert given.statuses.tolist() == [6, 0]
        assert given.numbers[5] == expected[row].numbers[0]


def test_features_that_share_a_computation_come_in_the_order_they_were_asked_for() -> None:
    features = ["MACD.macdhist", "RSI + MACD_MACD", "MACD", "RSI", "macd(fast=12)", "close - open", "MACD.macd"]
    bars = market(300)
    live = LiveFeatures(features, Timeframe.M15, bars.head(200))
    assert [str(each).partition("(")[0] for each in live.specs][:2] == ["MACD", "MACD_MACD"]
    assert live.counts == (1, 1, 3, 1, 1, 1)
    assert len(live.columns) == 8
    expected = batch(bars, features, live)
    assert not differences(live, live.update(*rows_of(bars)[200]), expected[200])
