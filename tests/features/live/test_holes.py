"""Holes in a stream: bars that are missing or unknown, anchors, and states that are lost and found."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.features.live import LiveFeatures
from mdplatform.market.bars import VALUE_COLUMNS, empty_bars
from mdplatform.market.timeframe import Timeframe

from .bars import batch, check, differences, market, rows_of, table, values_of

MIXED = [
    "SMA(3)", "EMA(4)", "RSI(3)", "STOCH(4,2,0,2,0)", "OBV(anchor=day)", "VWAP(anchor=day)", "MFI(2)", "ROC(2)",
    "MAXINDEX(3)", "CVD", "DELTA", "TAKER_IMBALANCE(3)", "AMIHUD(2)", "ROLLING_VOLUME_PROFILE(hours=2)",
    "VOLUME_PROFILE(session_hours=4)",
    "close / lag(close, 2) - 1", "EMA(4) - SMA(3)", "mean(volume, 3) + CVD", "where(close > open, RSI(3), VWMA(2))",
    "lag(ROLLING_VOLUME_PROFILE_POC, 1) - close",
]  # fmt: skip
KINDS = ("bar", "bar", "bar", "bar", "flat", "idle", "unknown", "gap", "missing")
BARS = values_of(market(60, timeframe=Timeframe.H1))


def made(kinds: list[str]) -> pl.DataFrame:
    """Bars of an hour, a row for each kind: those that are missing are gaps, as on a complete grid."""
    values = {name: BARS[name][: len(kinds)].copy() for name in VALUE_COLUMNS}
    for row, kind in enumerate(kinds):
        if kind in ("flat", "idle") and row:
            for name in VALUE_COLUMNS[:4]:
                values[name][row] = values["close"][row - 1]
        for name in VALUE_COLUMNS if kind in ("gap", "missing") else VALUE_COLUMNS[4:] if kind == "unknown" else ():
            values[name][row] = np.nan
        if kind == "idle":
            for name in VALUE_COLUMNS[4:]:
                values[name][row] = 0.0
    return table(values, Timeframe.H1)


@settings(max_examples=35, deadline=None)
@given(st.lists(st.sampled_from(KINDS), min_size=2, max_size=40), st.integers(0, 20))
def test_whatever_is_missing_a_stream_equals_the_batch_on_the_complete_grid(kinds: list[str], opened_at: int) -> None:
    kinds[0] = "gap" if kinds[0] == "missing" else kinds[0]  # a grid begins with a row
    bars = made(kinds)
    at = min(opened_at, len(kinds) - 1)
    live = LiveFeatures(MIXED, Timeframe.H1, bars.head(at))
    expected = batch(bars, MIXED, live)
    for row, (open_time, values, state) in enumerate(rows_of(bars)[at:], at):
        if kinds[row] == "missing":
            continue
        if state != "gap":
            assert not differences(live, live.peek(open_time, values), expected[row], nearly=True), row
        assert not differences(live, live.update(open_time, values, state), expected[row], nearly=True), row


def test_history_with_missing_rows_is_as_one_with_gaps() -> None:
    bars = made(["bar"] * 9 + ["missing"] * 3 + ["bar"] * 20)
    live = LiveFeatures(MIXED, Timeframe.H1, bars.head(20).filter(pl.col("state") != "gap"))
    expected = batch(bars, MIXED, live)
    for row, each in enumerate(rows_of(bars)[20:], 20):
        assert not differences(live, live.update(*each), expected[row], nearly=True)


def test_a_hole_of_years_is_passed_at_once_and_forgotten() -> None:
    bars = market(400, timeframe=Timeframe.M1)
    live = LiveFeatures([*MIXED, "ROLLING_VOLUME_PROFILE(hours=168)"], Timeframe.M1, bars.head(200))
    later = market(50, timeframe=Timeframe.M1, start=datetime(2031, 3, 4, tzinfo=UTC))
    features = ["SMA(3)", "EMA(4)", "RSI(3)", "DELTA", "close/lag(close,2)-1"]
    anew = LiveFeatures(features, Timeframe.M1, empty_bars())
    places = [[str(each) for each in live.specs].index(str(each)) for each in anew.specs]
    for row, (open_time, values, state) in enumerate(rows_of(later)):
        peeked, given, fresh = (
            live.peek(open_time, values),
            live.update(open_time, values, state),
            anew.update(open_time, values, state),
        )
        assert not differences(live, peeked, given)
        firsts = np.cumsum([0, *live.counts])[places]
        assert (given.numbers[firsts].view(np.int64) == fresh.numbers.view(np.int64)).all(), row


@pytest.mark.parametrize(
    ("timeframe", "start", "rows"),
    [
        (Timeframe.H4, datetime(2024, 12, 20, tzinfo=UTC), 90),  # over Christmas and the year's end
        (Timeframe.D1, datetime(2023, 12, 1, tzinfo=UTC), 130),  # over the end of a leap February
        (Timeframe.W1, datetime(2023, 11, 6, tzinfo=UTC), 80),  # weeks that lie in two months
    ],
)
def test_cumulative_features_begin_anew_where_the_batch_does(timeframe: Timeframe, start: datetime, rows: int) -> None:
    names = ("OBV", "AD", "NVI", "PVI", "PVT", "WAD", "CUMSUM", "VWAP", "CVD")
    features = [f"{name}(anchor={anchor})" for name in names for anchor in ("day", "week", "month", "year")]
    bars = market(rows, timeframe=timeframe, start=start)
    values = values_of(bars)
    for row in (11, 40, 41, rows - 20):
        for name in VALUE_COLUMNS:
            values[name][row] = np.nan
    check(table(values, timeframe, bars["open_time"][0]), features, [0, 10, 37], rows, timeframe, peek_each=1)
    check(bars, features, [1, 50], rows, timeframe, peek_each=1)
