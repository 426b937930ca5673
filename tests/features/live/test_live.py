"""What a stream of features refuses, promises about its state, and says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan

import numpy as np
import polars as pl
import pytest

from mdplatform.errors import InvalidBars, InvalidFeature, ParameterOutOfRange, UnknownFeature
from mdplatform.features import evaluate, standing_catalogue
from mdplatform.features.live import LiveFeatures, can_be_live, load_live_from
from mdplatform.market.bars import VALUE_COLUMNS, empty_bars
from mdplatform.market.timeframe import Timeframe

from .bars import batch, differences, market, rows_of

BARS = market(500)
ROWS = rows_of(BARS)
FEATURES = ["RSI", "SMA(200)", "OBV", "CVD", "close / lag(close, 3) - 1", "ROLLING_VOLUME_PROFILE(hours=2)"]
STEP = Timeframe.M15.microseconds


def changed(**values: float) -> tuple[float, ...]:
    """The bar of row 300 with other values."""
    return tuple(values.get(name, each) for name, each in zip(VALUE_COLUMNS, ROWS[300][1], strict=True))


@pytest.mark.parametrize(
    ("open_time", "values", "state"),
    [
        (ROWS[299][0], ROWS[300][1], "observed"),
        (ROWS[0][0], ROWS[300][1], "observed"),
        (ROWS[300][0] + 1, ROWS[300][1], "observed"),
        (ROWS[300][0] + STEP // 2, ROWS[300][1], "observed"),
        ("now", ROWS[300][1], "observed"),
        (None, ROWS[300][1], "observed"),
        (ROWS[300][0], ROWS[300][1][:8], "observed"),
        (ROWS[300][0], (), "observed"),
        (ROWS[300][0], [*ROWS[300][1], 1.0], "observed"),
        (ROWS[300][0], ["a"] * 9, "observed"),
        (ROWS[300][0], None, "observed"),
        (ROWS[300][0], ROWS[300][1], "closed"),
        (ROWS[300][0], changed(high=1.0), "observed"),
        (ROWS[300][0], changed(low=1e9), "observed"),
        (ROWS[300][0], changed(close=0.0), "observed"),
        (ROWS[300][0], changed(close=-5.0, low=-6.0), "observed"),
        (ROWS[300][0], changed(high=inf), "observed"),
        (ROWS[300][0], changed(volume=-1.0), "observed"),
        (ROWS[300][0], changed(volume=nan, trade_count=-1.0), "observed"),
        (ROWS[300][0], changed(quote_volume=inf), "no_trade"),
    ],
)
def test_what_is_no_next_bar_is_refused_and_changes_nothing(
    open_time: int, values: Sequence[float], state: str
) -> None:
    live = LiveFeatures(FEATURES, Timeframe.M15, BARS.head(300))
    expected = batch(BARS, FEATURES, live)
    with pytest.raises(InvalidBars):
        live.update(open_time, values, state)
    if state == "observed":
        with pytest.raises(InvalidBars):
            live.peek(open_time, values)
    for row in range(300, 305):
        assert not differences(live, live.update(*ROWS[row]), expected[row], nearly=True)


def test_a_peek_commits_nothing_however_often_it_is_asked_for() -> None:
    live = LiveFeatures(FEATURES, Timeframe.M15, BARS.head(300))
    expected = batch(BARS, FEATURES, live)
    for row in range(300, 330):
        for far in (0, 1, 7, 500):
            live.peek(ROWS[row][0] + far * STEP, changed(high=1e5, low=1.0))
        assert live.next_open == ROWS[row][0]
        assert not differences(live, live.peek(*ROWS[row][:2]), expected[row], nearly=True)
        assert not differences(live, live.update(*ROWS[row]), expected[row], nearly=True)


def test_what_was_given_stays_as_it_was() -> None:
    live = LiveFeatures(FEATURES, Timeframe.M15, BARS.head(300))
    expected = batch(BARS, FEATURES, live)
    kept = []
    for row in range(300, 320):
        given = live.update(*ROWS[row])
        kept.append((given, given.numbers.tobytes(), given.statuses.tobytes()))
        live.peek(*ROWS[row + 1][:2])
        assert not given.numbers.flags.writeable
    for row, (given, numbers, statuses) in enumerate(kept, 300):
        assert (given.numbers.tobytes(), given.statuses.tobytes()) == (numbers, statuses)
        assert not differences(live, given, expected[row], nearly=True)
        assert given.numbers.dtype == np.float64
        assert given.statuses.dtype == np.int8


def test_no_more_rows_are_kept_than_somebody_looks_at() -> None:
    live = LiveFeatures(["RSI", "SMA(200)", "OBV", "MACD"], Timeframe.M15, BARS.head(300))
    assert len(live._indicators._rows) == 0
    windowed = LiveFeatures(["MAXINDEX(30)", "lag(RSI, 50)", "ROLLING_VOLUME_PROFILE(hours=2)"], Timeframe.M15, BARS)
    last = ROWS[-1][1]
    for at in range(1, 400):
        windowed.update(ROWS[-1][0] + at * STEP, last)
    assert windowed._profiles is not None
    assert windowed._formulas[0]._held is not None
    for held in (windowed._indicators._rows, windowed._profiles.held, windowed._formulas[0]._held):
        assert len(held) <= 120


@pytest.mark.parametrize(
    ("feature", "why"),
    [
        ("RSI@1h", "it is of 1h"),
        ("RSI@ETHUSDT", "another symbol"),
        ("CORRELATION(reference=ETHUSDT)", "more than bars"),
        ("MACRO(series=CPIAUCSL)", "more than bars"),
        ("SENTIMENT(provider=news)", "more than bars"),
        ("VPIN", "made of trades"),
        ("DELTA(method=trades)", "made of trades"),
        ("MICROPRICE", "more than bars"),
        ("MAVP", "no column periods"),
        ("RSI@1h - RSI", "it is of 1h"),
        ("close / close@ETHUSDT", "another symbol"),
    ],
)
def test_what_needs_more_than_these_bars_is_refused_by_name(feature: str, why: str) -> None:
    assert not can_be_live(feature, Timeframe.M15, "BTCUSDT")
    with pytest.raises(InvalidFeature, match=why) as caught:
        LiveFeatures(["RSI", feature], Timeframe.M15, BARS)
    assert "VOLUME_PROFILE" in caught.value.remedy


def test_numbers_of_numpy_are_numbers() -> None:
    live = LiveFeatures(FEATURES, Timeframe.M15, BARS.head(300))
    expected = batch(BARS, FEATURES, live)
    for row in range(300, 304):
        given = live.update(np.int64(ROWS[row][0]), np.array(ROWS[row][1]))  # type: ignore[arg-type]
        assert not differences(live, given, expected[row], nearly=True)
    assert type(live.next_open) is int


def test_a_place_that_is_the_streams_own_is_taken() -> None:
    features = ["RSI@15m", "RSI@BTCUSDT", "RSI"]
    live = LiveFeatures(features, Timeframe.M15, BARS.head(100))
    given = live.update(*ROWS[100])
    assert (given.numbers == evaluate(BARS.head(101), "RSI").values["RSI(timeperiod=14)"][-1]).all()


def test_what_can_be_live_is_told_and_how() -> None:
    assert all(can_be_live(each, Timeframe.H4) for each in standing_catalogue().features)
    assert not can_be_live("NO_SUCH", Timeframe.H1)
    live = LiveFeatures(
        ["RSI", "MAXINDEX", "RSI - 50", "lag(RSI, 1) + 0", "CVD", "VOLUME_PROFILE"], Timeframe.M15, BARS
    )
    assert list(live.ways.values()) == [
        "incremental", "recomputed", "incremental", "recomputed", "incremental", "recomputed",
    ]  # fmt: skip


def test_history_reaches_as_far_back_as_settled_values_need() -> None:
    features = [
        "EMA(9)",
        "OBV(anchor=day)",
        "VOLUME_PROFILE(session_hours=8)",
        "ROLLING_VOLUME_PROFILE_POC - lag(RSI(2), 9)",
    ]
    bars = market(1000)
    opens = bars["open_time"].dt.epoch("us")
    for at in (500, 523, 700):
        first = load_live_from(features, Timeframe.M15, int(opens[at]))
        history = bars.filter((opens >= first) & (opens < opens[at]))
        live = LiveFeatures(features, Timeframe.M15, history)
        assert at - 400 < at - len(history) < at - 95
        assert live.update(*rows_of(bars)[at]).statuses.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("features", "history", "error"),
    [
        (["NO_SUCH"], BARS, UnknownFeature),
        (["RSI"], BARS.reverse(), InvalidBars),
        (["RSI"], BARS.drop("close"), InvalidBars),
        (["RSI"], pl.concat([BARS, BARS.tail(1)]), InvalidBars),
        (["RSI"], market(50, timeframe=Timeframe.H1), InvalidBars),
        (["RSI"], BARS.with_columns(pl.col("open_time") + pl.duration(minutes=1)), InvalidBars),
        (["VOLUME_PROFILE(row_size=1e-200)"], BARS, ParameterOutOfRange),
    ],
)
def test_bad_features_and_history_are_refused(features: list[str], history: pl.DataFrame, error: type) -> None:
    with pytest.raises(error):
        LiveFeatures(features, Timeframe.M15, history)


def test_no_features_and_no_history_are_no_error() -> None:
    none = LiveFeatures([], Timeframe.M15, BARS)
    assert none.update(ROWS[-1][0] + STEP, ROWS[-1][1]).numbers.shape == (0,)
    anew = LiveFeatures("SMA(2)", Timeframe.M15, empty_bars())
    assert anew.next_open is None
    for nothing in (None, 1.5, True, ROWS[5][0] + 1):
        with pytest.raises(InvalidBars):
            anew.update(nothing, ROWS[5][1])  # type: ignore[arg-type]
    assert anew.peek(*ROWS[5][:2]).statuses.tolist() == [2]
    assert [anew.update(*ROWS[row]).statuses.tolist() for row in (5, 6, 8)] == [[2], [0], [3]]
