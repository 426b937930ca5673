"""The kind `flow` where trades cover a part of the time: what nobody recorded is null, with a reason, and never 0."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.features import Grid, TableData, Truncated, evaluate_on, parse_feature
from mdplatform.features.guard import STATUSES
from mdplatform.market.bars import INSTANT
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import DAY_US, Timeframe
from mdplatform.market.trades import TRADES
from mdplatform.sources.recording import read_recording
from mdplatform.sources.table_delivery import TableOptions

from ..flow.tape import stored
from . import world
from .test_flow import DAY, OF_TRADES, SYMBOL, grid, of_trades, tape, value

HOUR = world.HOUR_US
DELTA, CVD = "DELTA(method=trades)", "CVD(method=trades)"
LARGE = "LARGE_TRADE_VOLUME(quantile=0.9)"


def fragment(first: int, last: int) -> pl.DataFrame:
    """Give the trades of three days, of which the second was recorded from hour `first` to `last` alone."""
    at = pl.col("time").dt.epoch("us") - DAY - DAY_US
    trades = tape(each=2000)
    return trades.filter((at < 0) | (at >= DAY_US) | at.is_between(first * HOUR, last * HOUR - 1))


def beside_bars(trades: pl.DataFrame, delays: np.ndarray | None = None) -> TableData:
    """Give trades beside bars that know of all of them."""
    bars = world._bars(SYMBOL, stored(tape(each=2000)))
    at = pl.col("open_time").dt.epoch("us")
    bars = bars.filter((at >= DAY) & (at < DAY + 3 * DAY_US))
    return TableData(bars_of={SYMBOL: bars}, trades_of={SYMBOL: stored(trades, delays)})


def test_beside_bars_only_rows_with_all_of_their_volume_have_a_value() -> None:
    data = beside_bars(fragment(9, 12))
    wanted = ["settled"] * 24 + ["gap"] * 9 + ["settled"] * 3 + ["gap"] * 12 + ["settled"] * 24
    assert value(DELTA, data, grid())[1] == wanted
    assert value("TRADE_FLOW", data, grid())[1] == wanted
    assert value("TAKER_IMBALANCE(2,method=trades)", data, grid())[1][33:37] == ["gap", "settled", "settled", "gap"]


def test_what_adds_up_over_a_hole_is_null_up_to_its_end() -> None:
    for data in (beside_bars(fragment(9, 12)), of_trades(fragment(9, 12))):
        assert value(CVD, data, grid())[1][36 + 1 : 72] == ["gap"] * 11 + ["settled"] * 24
        assert set(value("VPIN(buckets=5)", data, grid())[1][37:]) == {"gap"}
        told = value(LARGE, data, grid())[1]
        assert told[34:36] == ["settled"] * 2  # the day before is whole
        assert set(told[48:]) == {"gap"}
    assert set(value(CVD, beside_bars(fragment(9, 12)), grid())[1][24:48]) == {"gap"}


def test_without_bars_silence_means_no_trade_for_an_hour() -> None:
    data = of_trades(fragment(9, 12))
    told = value(DELTA, data, grid(Timeframe.M15))[1]
    assert told[:96] == ["settled"] * 96
    assert told[96:99] == ["settled"] * 3  # the last trade of the day before is less than an hour ago
    assert set(told[100 : 96 + 36]) == {"gap"}
    assert told[96 + 36 : 96 + 51] == ["gap", *["settled"] * 14]  # the first begins before the first trade
    assert set(told[96 + 52 : 192]) == {"gap"}
    assert told[192:] == ["settled"] * 96


def test_before_the_first_trade_of_a_run_of_days_nothing_is_available() -> None:
    late = fragment(9, 12).filter(pl.col("time").dt.epoch("us") >= DAY + DAY_US)
    told = value(DELTA, of_trades(late), grid())[1]
    assert told[:34] == ["not_available_yet"] * 33 + ["insufficient_history"]
    assert told[34:36] == ["settled"] * 2
    assert set(value(CVD, of_trades(late), grid())[1][33:36]) == {"unsettled"}
    assert set(value("VPIN(buckets=5)", of_trades(late), grid())[1][48:]) == {"gap"}


def test_a_quiet_market_is_covered_where_bars_say_so() -> None:
    trades = tape(each=2000)
    at = pl.col("time").dt.epoch("us") - DAY
    trades = trades.filter(~at.is_between(5 * HOUR, 10 * HOUR - 1))
    bars = world._bars(SYMBOL, stored(trades)).filter(
        pl.col("open_time").dt.epoch("us").is_between(DAY, DAY + DAY_US - 1)
    )
    data = TableData(bars_of={SYMBOL: bars}, trades_of={SYMBOL: stored(trades)})
    rows = grid(days=1)
    assert set(value(DELTA, data, rows)[1]) == {"settled"}
    assert value(DELTA, data, rows)[0][0][5:10] == [0] * 5
    unknown = bars.with_columns(pl.lit(None, dtype=pl.Float64).alias("volume"))
    assert value(DELTA, replace(data, bars_of={SYMBOL: unknown}), rows)[1][6:9] == ["gap"] * 3


def test_a_late_trade_leaves_its_bar_uncovered_until_it_comes() -> None:
    trades = tape(each=2000)
    delays = np.zeros(len(trades), np.int64)
    times = trades["time"].dt.epoch("us").to_numpy()
    delays[np.searchsorted(times, DAY + 5 * HOUR) - 1] = HOUR // 2
    data = beside_bars(trades, delays)
    assert [at for at, each in enumerate(value(DELTA, data, grid(days=1))[1]) if each != "settled"] == [4]
    assert [at for at, each in enumerate(value(CVD, data, grid(days=1))[1]) if each != "settled"] == [4]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 23), st.integers(1, 24), st.booleans(), st.integers(0, 2**16), st.integers(1, 287))
def test_no_status_knows_what_came_later(first: int, hours: int, bars: bool, seed: int, at: int) -> None:
    random = np.random.default_rng(seed)
    trades = fragment(first, min(first + hours, 24))
    delays = np.where(random.random(len(trades)) < 0.01, random.integers(0, 4_000_000_000, len(trades)), 0)
    data = beside_bars(trades, delays) if bars else of_trades(trades, delays)
    rows = grid(Timeframe.M15)
    row = Grid(SYMBOL, Timeframe.M15, rows.open_time[at : at + 1])
    specs = [parse_feature(each) for each in (*OF_TRADES, "CVD(method=trades,anchor=week)")]
    whole, alone = (
        evaluate_on(rows, specs, data),
        evaluate_on(row, specs[::-1], Truncated(data, int(row.close_time[0]))),
    )
    for spec in specs:
        assert alone[spec].statuses[0] == whole[spec].statuses[at], spec
        for found, wanted in zip(alone[spec].outputs, whole[spec].outputs, strict=True):
            np.testing.assert_allclose(found[0], wanted[at], rtol=1e-9, atol=1e-9, err_msg=str(spec))


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> pl.DataFrame:
    """The trades of a real recording of two days, in order."""
    folder = shared_data / "live" / "nkaz001__hftbacktest" / "examples" / "spot"
    trades = pl.concat(
        each.rows
        for day in ("20240808", "20240809")
        for each in read_recording(folder / f"btcusdt_{day}.gz", TableOptions(symbol=SYMBOL))
        if each.dataset is TRADES
    )
    trades = trades.with_columns(
        pl.lit("test").alias("source"), pl.lit(0).alias("revision"), pl.col("available_at").alias("ingested_at")
    ).select(pl.col(name).cast(kind) for name, kind in TRADES.schema.items())
    return trades.sort("time")


@pytest.mark.parametrize("with_bars", [False, True])
def test_the_rest_of_the_days_of_a_real_recording_is_not_known(recorded: pl.DataFrame, with_bars: bool) -> None:
    trades = recorded
    begin = to_us(trades["time"][0]) // DAY_US * DAY_US
    rows = grid(first=begin, days=2)
    data = TableData(trades_of={SYMBOL: trades})
    if with_bars:
        opens = pl.Series(rows.open_time).cast(INSTANT)
        made = world._bars(SYMBOL, stored(tape(each=2000)))[: len(rows)].with_columns(
            open_time=opens, close_time=opens.dt.offset_by("1h"), available_at=opens.dt.offset_by("1h"),
            timeframe=pl.lit("1h"), state=pl.lit("observed"), volume=1000.0, open=1.0, high=1.0, low=1.0, close=1.0,
        )  # fmt: skip
        data = replace(data, bars_of={SYMBOL: made})
    held = [int(hour) for hour in np.unique((trades["time"].dt.epoch("us").to_numpy() - begin) // HOUR)]
    for feature in (DELTA, CVD, "TRADE_FLOW", "VPIN", "LARGE_TRADE_VOLUME"):
        (output, *_), told = value(feature, data, rows)
        empty = [at for at in range(48) if at not in held]
        assert np.isnan(np.array(output)[empty]).all(), feature
        if feature in ("VPIN", "LARGE_TRADE_VOLUME"):
            assert np.isnan(output).all(), feature
    told = [STATUSES.index(each) for each in value(DELTA, data, rows)[1]]
    assert min(told[: held[0]]) >= 3
    if with_bars:
        first = ["not_available_yet"] * held[0]  # no trade has been seen on that day or the one before
        assert [STATUSES[each] for each in told] == [*first, *["gap"] * (48 - held[0])]
