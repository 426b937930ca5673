"""The panel: features of any kind and place in the rows of a grid, each cell known at its row's close."""

from __future__ import annotations

import subprocess
import sys
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.errors import (
    InvalidBars,
    InvalidSymbol,
    NoData,
    ParameterOutOfRange,
    UnknownFeature,
    UnknownSymbol,
    UnknownTimeframe,
)
from mdplatform.features import Grid, TableData, Truncated, compute, evaluate_on, frame, parse_feature
from mdplatform.features.data import within
from mdplatform.features.guard import GAP, NOT_AVAILABLE_YET, SETTLED, STALE, STATUSES
from mdplatform.features.panel import reads
from mdplatform.market.bars import BAR_SCHEMA, empty_bars
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import MINUTE_US, Timeframe

from .kinds import world

BEGIN = to_us(datetime(2025, 3, 3, tzinfo=UTC))
HOUR_US = 60 * MINUTE_US


def bars(
    closes: list[float | None],
    symbol: str = "AUSDT",
    timeframe: str = "15m",
    delay: int | list[int] = 0,
    first: int = 0,
) -> pl.DataFrame:
    """Bars from `BEGIN` on (or that many rows later); None is a gap, `delay` how late (µs) each was available."""
    step = Timeframe.parse(timeframe).microseconds
    opens = BEGIN + (first + np.arange(len(closes))) * step
    late = np.broadcast_to(np.array(delay), len(closes))
    made = pl.DataFrame({"open_time": opens, "close": pl.Series(closes, dtype=pl.Float64), "late": late}).with_columns(
        symbol=pl.lit(symbol),
        timeframe=pl.lit(timeframe),
        close_time=pl.col("open_time") + step,
        available_at=pl.col("open_time") + step + pl.col("late"),
        state=pl.when(pl.col("close").is_null()).then(pl.lit("gap")).otherwise(pl.lit("observed")),
        is_closed=True,
        revision=0,
        **{name: pl.col("close") for name in ("open", "high", "low")},
    )
    lacking = [pl.lit(None).alias(name) for name in BAR_SCHEMA if name not in made.columns]
    return made.with_columns(lacking).select(list(BAR_SCHEMA)).cast(dict(BAR_SCHEMA))


def grid(rows: int, timeframe: str = "15m", first: int = 0, symbol: str = "AUSDT") -> Grid:
    step = Timeframe.parse(timeframe).microseconds
    return Grid(symbol, Timeframe.parse(timeframe), BEGIN + (first + np.arange(rows)) * step)


def answer(feature: object, on: Grid, data: TableData) -> tuple[list[float | None], list[str], list[float | None]]:
    """Give values, statuses and ages in minutes."""
    spec = parse_feature(feature)  # type: ignore[arg-type]
    found = evaluate_on(on, [spec], data)[spec]
    assert found.ages is not None
    return (
        [None if np.isnan(each) else float(each) for each in found.outputs[0]],
        [STATUSES[each] for each in found.statuses],
        [None if each < 0 else each / MINUTE_US for each in found.ages],
    )


HOURLY = {"name": "SMA", "parameters": {"timeperiod": 2}, "timeframe": "1h"}
OTHER = {"name": "SMA", "parameters": {"timeperiod": 2}, "symbol": "BUSDT"}


def test_an_hours_value_is_known_from_the_hours_close_on() -> None:
    data = TableData({"AUSDT": bars([float(each) for each in range(16)])})
    values, statuses, ages = answer(HOURLY, grid(16), data)
    assert values == [None] * 7 + [5.0] * 4 + [9.0] * 4 + [13.0]
    assert statuses[:3] == ["not_available_yet"] * 3
    assert statuses[3:7] == ["insufficient_history"] * 4
    assert ages == [None] * 3 + [0, 15, 30, 45] * 3 + [0]


def test_a_shorter_timeframe_gives_its_newest_row() -> None:
    data = TableData({"AUSDT": bars([float(each) for each in range(16)])})
    quarter = {"name": "SMA", "parameters": {"timeperiod": 2}, "timeframe": "15m"}
    assert answer(quarter, grid(4, "1h"), data)[0] == [2.5, 6.5, 10.5, 14.5]


def test_another_symbol_that_ended_is_stale_and_a_gap_in_it_is_a_gap() -> None:
    data = TableData({"AUSDT": bars([1.0] * 9), "BUSDT": bars([1.0, 2.0, 3.0, None, 5.0, 6.0], "BUSDT", first=1)})
    values, statuses, _ = answer(OTHER, grid(9), data)
    assert values == [None, None, 1.5, 2.5, None, None, 5.5, None, None]
    assert statuses[0] == "not_available_yet"
    assert statuses[1] == "insufficient_history"
    assert statuses[4:] == ["gap", "gap", "settled", "stale", "stale"]


def test_what_was_available_late_is_joined_when_it_was_available() -> None:
    late = bars([10.0, 20.0, 30.0, 40.0, 50.0], "BUSDT", delay=5 * MINUTE_US)
    data = TableData({"AUSDT": bars([1.0] * 5), "BUSDT": late})
    values, statuses, ages = answer({**OTHER, "parameters": {"timeperiod": 2}}, grid(5), data)
    assert values == [None, None, 15.0, 25.0, 35.0], "that of the row before, whose successor comes five minutes later"
    assert statuses[2:] == ["settled"] * 3
    assert ages[2:] == [15.0] * 3


def test_a_bar_that_came_more_than_its_length_late_is_a_gap() -> None:
    delay = [0, 0, 0, 35 * MINUTE_US, 0, 0, 0, 0]
    data = TableData(
        {"AUSDT": bars([1.0] * 8), "BUSDT": bars([float(each) for each in range(8)], "BUSDT", delay=delay)}
    )
    values, statuses, _ = answer(OTHER, grid(8), data)
    assert values == [None, 0.5, 1.5, None, None, 4.5, 5.5, 6.5]
    assert statuses[3:5] == ["stale", "gap"]


@settings(max_examples=40, deadline=None)
@given(
    first=st.integers(-4, 6),
    delay=st.integers(0, 100),
    rows=st.integers(1, 20),
    start=st.integers(0, 10),
    timeframe=st.sampled_from(["5m", "15m", "1h"]),
)
def test_the_join_is_that_of_a_plain_loop(first: int, delay: int, rows: int, start: int, timeframe: str) -> None:
    """An oracle: for each row look through all bars of the other for the last one that was available by its close."""
    step = Timeframe.parse(timeframe).microseconds
    late = min(delay * MINUTE_US, step)
    other = bars([float(each) for each in range(rows)], "BUSDT", timeframe, late, first)
    data = TableData({"AUSDT": bars([1.0] * 40), "BUSDT": other})
    spec = parse_feature({"name": "SMA", "parameters": {"timeperiod": 2}, "symbol": "BUSDT", "timeframe": timeframe})
    on = grid(12, first=start)
    found = evaluate_on(on, [spec], data)[spec]
    known = [to_us(each) for each in other["available_at"]]
    for row, close in enumerate(on.close_time.tolist()):
        at = bisect_right(known, close) - 1
        if at < 0:
            assert found.statuses[row] == NOT_AVAILABLE_YET
        elif close - known[at] >= step:
            assert found.statuses[row] == STALE
        elif at >= 1:
            assert (found.statuses[row], found.outputs[0][row]) == (SETTLED, at - 0.5)
            assert found.ages is not None
            assert found.ages[row] == close - known[at] + late
        assert np.isnan(found.outputs[0][row]) == (found.statuses[row] > 1)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 23), min_size=1, max_size=4, unique=True), delay=st.integers(0, 50))
def test_pieces_of_the_grid_give_the_same_join(cuts: list[int], delay: int) -> None:
    late = delay * MINUTE_US
    data = TableData(
        {"AUSDT": bars([1.0] * 24), "BUSDT": bars([float(each) for each in range(22)], "BUSDT", delay=late)}
    )
    specs = [parse_feature(each) for each in (OTHER, HOURLY, {**OTHER, "timeframe": "1h"})]
    whole = evaluate_on(grid(24), specs, data)
    edges = [0, *sorted(cuts), 24]
    for first, after in pairwise(edges):
        piece = evaluate_on(grid(after - first, first=first), specs, data)
        for spec in specs:
            np.testing.assert_array_equal(piece[spec].statuses, whole[spec].statuses[first:after])
            np.testing.assert_allclose(piece[spec].outputs[0], whole[spec].outputs[0][first:after], equal_nan=True)


def test_features_that_share_a_computation_each_get_their_output() -> None:
    data = TableData({"AUSDT": bars([float(each % 7) for each in range(80)])})
    made = frame("AUSDT", ["MACD", "MACD_HISTOGRAM", "MACD.macd"], "15m", data=data, statuses=True)
    names = [f"MACD(fastperiod=12,slowperiod=26,signalperiod=9).{each}" for each in ("macd", "macdsignal", "macdhist")]
    assert [each for each in made.columns if "." in each and "status" not in each] == names
    assert made[f"{names[2]}.status"][-1] == "unsettled"
    plain = pl.DataFrame(pl.from_arrow(compute(data.bars_of["AUSDT"], "MACD")))
    assert made.select(names).equals(plain.select(names))


def test_a_frame_has_rows_symbol_by_symbol_and_gaps_as_nulls_with_a_reason() -> None:
    data = TableData({"AUSDT": bars([1.0, None, 3.0, 4.0]), "BUSDT": bars([5.0, 6.0], "BUSDT")})
    made = frame(["busdt", "AUSDT", "BUSDT"], ["SMA(2)", OTHER], "15m", data=data, statuses=True, ages=True)
    assert made["symbol"].to_list() == ["BUSDT"] * 2 + ["AUSDT"] * 4
    assert made.columns == [
        "symbol", "open_time", "close_time", "available_at",
        "SMA(timeperiod=2)", "SMA(timeperiod=2).status", "SMA(timeperiod=2).age",
        "SMA(timeperiod=2)@BUSDT", "SMA(timeperiod=2)@BUSDT.status", "SMA(timeperiod=2)@BUSDT.age",
    ]  # fmt: skip
    assert made["SMA(timeperiod=2)"].to_list() == [None, 5.5, None, None, None, 3.5]
    assert made["SMA(timeperiod=2).status"][3] == STATUSES[GAP]
    assert made["SMA(timeperiod=2).age"].null_count() == 6
    assert made["SMA(timeperiod=2)@BUSDT"].to_list() == [None, 5.5, None, 5.5, None, None]
    assert made["SMA(timeperiod=2)@BUSDT.age"].to_list()[2:] == [timedelta(minutes=each) for each in (0, 0, 15, 30)]
    assert made["close_time"][-1] == from_us(BEGIN + HOUR_US)


def test_no_features_and_one_row_make_a_frame() -> None:
    data = TableData({"AUSDT": bars([1.0])})
    assert frame("AUSDT", [], "15m", data=data).columns == ["symbol", "open_time", "close_time", "available_at"]
    assert frame("AUSDT", ["SMA(2)", HOURLY], "15m", data=data).height == 1


def test_no_rows_give_no_values() -> None:
    spec = parse_feature("RSI")
    found = evaluate_on(Grid("AUSDT", Timeframe.M15, np.empty(0, np.int64)), [spec], TableData())
    assert len(found[spec].outputs[0]) == len(found[spec].statuses) == 0


DATA = TableData({"AUSDT": bars([1.0] * 4)})


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"symbols": "NOPE"}, UnknownSymbol, "AUSDT"),
        ({"symbols": "a/b"}, InvalidSymbol, "a/b"),
        ({"symbols": []}, ParameterOutOfRange, "symbol"),
        ({"features": "RSJ"}, UnknownFeature, "RSI"),
        ({"features": {"name": "RSI", "symbol": "NOPE"}}, UnknownSymbol, "AUSDT"),
        ({"timeframe": "15M"}, UnknownTimeframe, "15m"),
        ({"timeframe": "1m"}, NoData, "1m bars of AUSDT"),
        ({"start": "2025-03-04"}, NoData, "2025-03-04T00:00:00Z to the last"),
        ({"start": "tomorrow"}, ParameterOutOfRange, "Not a time"),
        ({"end": 12}, ParameterOutOfRange, "Not a time"),
        ({"as_of": "2025-03-04"}, ParameterOutOfRange, "as_of"),
    ],
)
def test_what_a_frame_cannot_be_made_of_is_one_clear_error(wrong, error, said: str) -> None:
    with pytest.raises(error, match=said):
        frame(**{"symbols": "AUSDT", "features": "RSI", "timeframe": "15m", "data": DATA, **wrong})


def test_reads_are_those_of_the_place_that_a_feature_names() -> None:
    specs = [parse_feature(each) for each in ("RSI", OTHER)]
    assert {need.key for need in reads(specs, "AUSDT", Timeframe.M15)} == {"AUSDT", "BUSDT"}


# -- tables in memory -------------------------------------------------------------------------------------------------


def test_tables_put_bars_on_a_whole_grid_and_build_longer_ones() -> None:
    holed = bars([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).filter(pl.col("close") != 6.0)
    data = TableData({"AUSDT": holed})
    assert (
        data.bars("AUSDT", Timeframe.M15, None, None)["state"].to_list()
        == ["observed"] * 5 + ["gap"] + ["observed"] * 2
    )
    hours = data.bars("AUSDT", Timeframe.H1, None, None)
    assert hours["close"].to_list() == [4.0]
    assert data.bars("AUSDT", Timeframe.M1, None, None).equals(empty_bars())
    assert data.bars("AUSDT", Timeframe.M15, BEGIN + HOUR_US, BEGIN + HOUR_US + 1).height == 1


def test_tables_are_read_anew_when_they_are_replaced() -> None:
    tables = {"AUSDT": bars([1.0] * 8)}
    data = TableData(tables)
    assert data.bars("AUSDT", Timeframe.H1, None, None)["close"].to_list() == [1.0] * 2
    tables["AUSDT"] = bars([2.0] * 8)
    assert data.bars("AUSDT", Timeframe.H1, None, None)["close"].to_list() == [2.0] * 2


@pytest.mark.parametrize(
    "wrong",
    [
        bars([1.0, 2.0]).drop("available_at", "close_time"),
        bars([1.0, 2.0]).reverse(),
        pl.concat([bars([1.0]), bars([1.0])]),
        pl.concat([bars([1.0]), bars([1.0], timeframe="1h", first=1)]),
    ],
)
def test_bars_that_are_none_are_refused(wrong: pl.DataFrame) -> None:
    with pytest.raises(InvalidBars, match="AUSDT"):
        frame("AUSDT", "SMA(2)", "15m", data=TableData({"AUSDT": wrong}))


def test_rows_in_another_order_are_put_in_order() -> None:
    held = world.data()
    shuffled = TableData(
        trades_of={each: rows.sample(fraction=1.0, shuffle=True, seed=1) for each, rows in held.trades_of.items()},
        macro_of={each: rows.reverse() for each, rows in held.macro_of.items()},
    )
    assert shuffled.trades(world.SYMBOL, None, None)["time"].is_sorted()
    assert shuffled.macro("CPIAUCSL")["available_at"].is_sorted()
    assert shuffled.trade_days(world.SYMBOL) == held.trade_days(world.SYMBOL)
    assert len(held.trade_days(world.SYMBOL)) == world.DAYS
    assert TableData().trade_days("AUSDT") == []


@settings(max_examples=30, deadline=None)
@given(
    times=st.lists(st.integers(0, 50), max_size=30),
    start=st.none() | st.integers(-1, 51),
    end=st.none() | st.integers(-1, 51),
)
def test_within_is_a_filter(times: list[int], start: int | None, end: int | None) -> None:
    rows = pl.DataFrame({"time": pl.Series(sorted(times), dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))})
    at = rows["time"].to_physical()
    expected = [each for each in at if (start is None or each >= start) and (end is None or each < end)]
    assert within(rows, "time", start, end)["time"].to_physical().to_list() == expected


def test_cut_off_at_an_instant_nothing_later_is_there_and_the_grid_stays_whole() -> None:
    late = bars([1.0, 2.0, 3.0, 4.0], delay=[0, 40 * MINUTE_US, 0, 0])
    known = Truncated(TableData({"AUSDT": late}), BEGIN + HOUR_US)
    assert known.bars("AUSDT", Timeframe.M15, None, None)["state"].to_list() == [
        "observed",
        "gap",
        "observed",
        "observed",
    ]
    at = world.BEGIN + 10 * 24 * HOUR_US
    cut = Truncated(world.data(), at)
    for rows in (cut.trades(world.SYMBOL, None, None), cut.sentiment(None, None), cut.macro("DGS10")):
        assert rows.height
        assert rows["available_at"].max() <= from_us(at)
    assert cut.depth(world.SYMBOL, None, None).is_empty()
    assert cut.trade_days(world.SYMBOL)[-1] == "2025-02-05"
    assert cut.symbols() == list(world.SYMBOLS)


def test_importing_features_brings_in_no_library_of_kernels() -> None:
    program = (
        "import sys, mdplatform.features, mdplatform.features.registry as r; r.function_names(); print(*sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(ran.stdout.split())
    assert not loaded & {"numba", "scipy", "talib", "sklearn", "pandas", "numexpr", "redis", "dagster"}


def test_reading_any_text_of_a_feature_brings_in_none_either() -> None:
    program = """
import sys
from mdplatform.features import parse_feature
for text in ("RSI", "VOLUME_PROFILE(row_size=5)", "VPIN", "MACRO(series=X)", "RSI@1h - CORRELATION(reference=ETHUSDT)"):
    parse_feature(text)
print(*sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert not set(ran.stdout.split()) & {"numba", "scipy", "talib", "sklearn"}
