"""The public face: tables in, a table out, and bad bars refused before any work."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mdplatform.errors import InvalidBars, InvalidFeature, UnknownFeature, UnknownTimeframe
from mdplatform.features import TableData, compute, evaluate, frame, parse_feature
from mdplatform.market.bars import BAR_SCHEMA, empty_bars

HOURS = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=each) for each in range(6)]
BARS = pl.DataFrame({"open_time": HOURS, "close": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]})


def test_the_table_has_the_time_and_a_float_column_for_each_output() -> None:
    table = compute(BARS, ["SMA(2)", {"name": "BBANDS", "parameters": {"period": 3}}])
    assert table.schema == pa.schema(
        [
            ("open_time", pa.timestamp("us", tz="UTC")),
            ("SMA(timeperiod=2)", pa.float64()),
            ("BBANDS(timeperiod=3,nbdevup=2,nbdevdn=2,matype=0).upperband", pa.float64()),
            ("BBANDS(timeperiod=3,nbdevup=2,nbdevdn=2,matype=0).middleband", pa.float64()),
            ("BBANDS(timeperiod=3,nbdevup=2,nbdevdn=2,matype=0).lowerband", pa.float64()),
        ]
    )
    assert table.column("open_time").to_pylist() == HOURS
    assert table.column("SMA(timeperiod=2)").to_pylist() == [None, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert table.column(1).null_count == 1
    table.validate(full=True)


def test_the_frame_carries_a_status_for_each_feature() -> None:
    frame = evaluate(BARS, ["SMA(2)", "MACD_HISTOGRAM"]).frame()
    histogram = "MACD(fastperiod=12,slowperiod=26,signalperiod=9).macdhist"
    assert frame.schema == {
        "open_time": pl.Datetime("us", "UTC"),
        "SMA(timeperiod=2)": pl.Float64,
        histogram: pl.Float64,
        "SMA(timeperiod=2).status": pl.String,
        f"{histogram}.status": pl.String,
    }
    assert frame["SMA(timeperiod=2)"].to_list() == [None, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert frame["SMA(timeperiod=2).status"].to_list() == ["insufficient_history"] + ["settled"] * 5
    assert frame[f"{histogram}.status"].to_list() == ["insufficient_history"] * 6


def test_the_table_outlives_the_evaluation() -> None:
    table = compute(BARS, ["SMA(2)"])
    for _ in range(3):
        compute(BARS.with_columns(close=pl.lit(9.0)), ["SMA(2)"] * 3)
    assert table.column(1).to_pylist()[1:] == [1.5, 2.5, 3.5, 4.5, 5.5]


def test_one_feature_needs_no_list_and_the_same_feature_comes_once() -> None:
    assert compute(BARS, "SMA(2)").equals(compute(BARS, ["SMA(2)", "sma(period=2)", parse_feature("SMA(2)")]))
    assert compute(BARS, {"name": "SMA", "parameters": {"period": 2}}).equals(compute(BARS, "SMA(2)"))


def test_an_output_that_is_asked_for_twice_comes_once() -> None:
    result = evaluate(BARS, ["MACD(2,3,2)", "MACD_HISTOGRAM(2,3,2)", "MACD(2,3,2).macd"])
    names = [f"MACD(fastperiod=2,slowperiod=3,signalperiod=2).{each}" for each in ("macd", "macdsignal", "macdhist")]
    assert result.table().column_names == ["open_time", *names]
    assert result.frame().columns[:4] == ["open_time", *names]
    assert result.table().column(names[2]).to_pylist() == result.frame()[names[2]].to_list()


def test_no_bars_give_no_rows() -> None:
    table = compute(empty_bars(), ["RSI", "MACD", "OBV", "VWAP(anchor=day)"])
    assert table.num_rows == 0
    assert table.column_names[:2] == ["open_time", "RSI(timeperiod=14)"]
    assert evaluate(empty_bars(), "RSI").frame().height == 0


def test_one_bar_is_enough_for_what_looks_at_one() -> None:
    assert compute(BARS.head(1), ["LN"]).column(1).to_pylist() == [0.0]


def test_no_features_give_the_times_alone() -> None:
    assert compute(BARS, []).column_names == ["open_time"]


def test_times_of_other_units_and_without_a_zone_are_utc() -> None:
    expected = compute(BARS, "SMA(2)")
    for kind in (pl.Datetime("ms", "UTC"), pl.Datetime("ns", "UTC"), pl.Datetime("us")):
        times = BARS["open_time"].cast(kind) if kind.time_zone else BARS["open_time"].dt.replace_time_zone(None)
        assert compute(BARS.with_columns(open_time=times), "SMA(2)").equals(expected)
    elsewhere = BARS.with_columns(pl.col("open_time").dt.convert_time_zone("Asia/Tokyo"))
    assert compute(elsewhere, "SMA(2)").equals(expected)
    assert compute(BARS.to_pandas().set_index("open_time"), "SMA(2)").equals(expected)


def test_integers_and_decimals_are_taken_as_numbers() -> None:
    expected = compute(BARS, "SMA(2)")
    for kind in (pl.Int64, pl.Float32, pl.Decimal(10, 2)):
        assert compute(BARS.with_columns(pl.col("close").cast(kind)), "SMA(2)").equals(expected)


def test_the_timeframe_comes_from_the_column_then_from_the_smallest_step() -> None:
    sparse = BARS[[0, 2, 4, 5]]
    assert compute(sparse, "SMA(2)").column(1).to_pylist() == [None, None, None, 5.5]
    two_hours = sparse.head(3)
    assert compute(two_hours, "SMA(2)").column(1).to_pylist() == [None, 2.0, 4.0]
    assert compute(two_hours, "SMA(2)", "1h").column(1).to_pylist() == [None, None, None]
    told = two_hours.with_columns(timeframe=pl.lit("1h"))
    assert compute(told, "SMA(2)").column(1).to_pylist() == [None, None, None]


@pytest.mark.parametrize(
    ("bars", "says"),
    [
        (BARS.drop("close"), "close"),
        (BARS.drop("open_time"), "open_time"),
        (BARS.reverse(), "out of order"),
        (pl.concat([BARS.head(3), BARS.head(3).tail(1), BARS.tail(3)]), "twice"),
        (BARS.with_columns(pl.col("open_time").to_physical()), "Cast it to Datetime"),
        (BARS.with_columns(open_time=pl.when(pl.col("close") != 3).then("open_time")), "null"),
        (BARS.with_columns(close=pl.lit("dear")), "not numbers"),
        (BARS.with_columns(symbol=pl.Series(list("AAABBB"))), "more than one symbol"),
        (BARS.with_columns(timeframe=pl.Series(["1h"] * 3 + ["2h"] * 3)), "more than one timeframe"),
        (BARS.with_columns(timeframe=pl.lit("2h")), "closer"),
        ([1, 2, 3], "frame of polars or pandas"),
        (None, "frame of polars or pandas"),
    ],
)
def test_bars_that_cannot_be_computed_on_are_refused(bars: object, says: str) -> None:
    with pytest.raises(InvalidBars, match=says):
        evaluate(bars, "SMA(2)")


def test_a_missing_periods_column_is_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidBars, match=r"MAVP\(close,trade_count\)"):
        evaluate(BARS, "MAVP")


def test_a_feature_in_the_timeframe_of_the_bars_is_one_without() -> None:
    hourly = parse_feature("SMA(2)").at("1h")
    assert compute(BARS, [hourly]).equals(compute(BARS, "SMA(2)"))
    assert compute(BARS[[0, 2, 4]], [hourly], "1h").column(1).to_pylist() == [None, None, None]


@pytest.mark.parametrize("columns", [["open_time", "close"], ["open_time", "close", "timeframe"]])
def test_a_feature_in_a_longer_timeframe_is_computed_on_bars_built_of_these(columns: list[str]) -> None:
    hours = 40
    opens = pl.datetime_range(
        HOURS[0], HOURS[0] + timedelta(hours=hours), "15m", closed="left", time_zone="UTC", eager=True
    )
    close = np.random.default_rng(3).normal(100, 1, len(opens))
    bars = pl.DataFrame({"open_time": opens, "close": close, "timeframe": "15m"}).select(columns)
    alone = compute(bars, ["RSI@1h"])
    assert alone.column_names == ["open_time", "RSI(timeperiod=14)@1h"]
    assert alone.column(1).equals(compute(bars, ["RSI@1h", "close*2"]).column(1))
    both = compute(bars, ["RSI@1h", "RSI@4h", "RSI"])
    assert both.column_names[2:] == ["RSI(timeperiod=14)@4h", "RSI(timeperiod=14)"]
    assert both.column(1).equals(alone.column(1))
    by_hour = compute(bars.filter(pl.col("open_time").dt.minute() == 45).select("open_time", "close"), "RSI", "1h")
    for hour in (20, 39):
        assert alone.column(1)[hour * 4 + 3].as_py() == pytest.approx(by_hour.column(1)[hour].as_py(), rel=1e-9)


@pytest.mark.parametrize("features", [["RSI@1h"], ["RSI@1h", "close*2"], ["RSI@1h*2"], ["(close-open)@1h"], ["RSI@6h"]])
@pytest.mark.parametrize("is_told", [True, False])
def test_a_timeframe_that_the_bars_do_not_divide_is_refused(features: list[str], is_told: bool) -> None:
    opens = pl.datetime_range(HOURS[0], HOURS[0] + timedelta(hours=400), "4h", time_zone="UTC", eager=True)
    bars = pl.DataFrame({"open_time": opens, "close": 1.0, "open": 1.0})
    bars = bars.with_columns(timeframe=pl.lit("4h")) if is_told else bars
    with pytest.raises(InvalidFeature, match="cannot be built of these bars of 4h"):
        compute(bars, features)


@pytest.mark.parametrize("rows", [0, 1])
def test_no_bars_and_one_are_alike(rows: int) -> None:
    bare = BARS.head(rows)
    for features in ("RSI", "close*2", "RSI*2", ["RSI", "close*2", "mean(close,3)"]):
        assert compute(bare, features).num_rows == rows
        assert compute(bare, features, "15m").equals(compute(bare, features))
    for features in (["RSI@1h"], ["RSI@1h", "close*2"], ["RSI@1h*2"]):
        assert compute(bare, features, "15m").num_rows == rows
        with pytest.raises(InvalidBars, match="timeframe of the bars is not known"):
            compute(bare, features)
        with pytest.raises(InvalidFeature, match="cannot be built"):
            compute(bare, features, "4h")


@pytest.mark.parametrize("features", [None, 3, 1.5, [None], [3], {}, [[]]])
def test_what_is_no_feature_is_an_invalid_one(features: object) -> None:
    with pytest.raises(InvalidFeature):
        compute(BARS, features)  # type: ignore[arg-type]
    with pytest.raises(InvalidFeature):
        frame("BTCUSDT", features, "15m", data=TableData())  # type: ignore[arg-type]


@pytest.mark.parametrize("features", ["RSI@1h", "close*2", "mean(close,3)@1d"])
def test_stray_times_do_not_fill_a_grid(features: str) -> None:
    times = [datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)]
    bars = pl.DataFrame({"open_time": times, "close": [1.0, 2.0]})
    with pytest.raises(InvalidBars, match="span too many rows of 1m"):
        compute(bars, features, "1m")


def test_other_timeframes_are_refused() -> None:
    with pytest.raises(InvalidBars, match="another timeframe"):
        compute(BARS.with_columns(timeframe=pl.lit("1h")), ["SMA(2)"], "1d")
    with pytest.raises(UnknownTimeframe):
        compute(BARS, ["SMA(2)"], "1H")


def test_bad_features_are_refused_before_bars_are_looked_at() -> None:
    with pytest.raises(UnknownFeature):
        evaluate("no bars at all", ["SMA(2)", "SMB(2)"])


def test_the_status_of_a_feature_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(UnknownFeature, match=r"SMA\(timeperiod=2\)"):
        evaluate(BARS, "SMA(2)").status("SMA(3)")


def test_bars_of_the_platforms_schema_are_taken_as_they_are() -> None:
    rows = len(HOURS)
    columns = {
        **{name: [1.0 + each for each in range(rows)] for name in ("open", "high", "low", "close", "volume")},
        "symbol": ["BTCUSDT"] * rows,
        "timeframe": ["1h"] * rows,
        "open_time": HOURS,
        "state": ["observed"] * 3 + ["gap"] + ["observed"] * 2,
    }
    bars = pl.DataFrame({name: columns.get(name, [None] * rows) for name in BAR_SCHEMA}, schema=BAR_SCHEMA)
    assert compute(bars, "SMA(2)").column(1).to_pylist() == [None, 1.5, 2.5, None, None, 5.5]


def test_pandas_frames_are_not_written_to() -> None:
    frame = pd.DataFrame({"open_time": HOURS, "close": [1.0, 2.0, np.nan, 4.0, 5.0, 6.0]})
    kept = frame.copy(deep=True)
    assert compute(frame, "SMA(2)").column(1).to_pylist() == [None, 1.5, None, None, 4.5, 5.5]
    pd.testing.assert_frame_equal(frame, kept)


@pytest.mark.parametrize("close", [[True, False, True], [datetime(2025, 1, day, tzinfo=UTC) for day in (1, 2, 3)]])
def test_times_and_truth_values_are_no_prices(close: list[object]) -> None:
    bars = pl.DataFrame({"open_time": [datetime(2025, 1, 1, hour, tzinfo=UTC) for hour in range(3)], "close": close})
    with pytest.raises(InvalidBars, match="close is not numbers"):
        compute(bars, ["SMA(2)"])
