"""Formulas on data: other timeframes and symbols, gaps, history, partitions, and what is computed how often."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mdplatform.errors import InvalidBars, InvalidFeature, InvalidFormula, UnknownSymbol
from mdplatform.features import (
    TableData,
    Truncated,
    compute,
    evaluate,
    extra_rows,
    frame,
    load_from,
    parse_feature,
    talib_functions,
)
from mdplatform.features.data import grid_of
from mdplatform.features.formula.program import compiled
from mdplatform.features.guard import GAP
from mdplatform.features.kinds import Need
from mdplatform.features.panel import evaluate_on, reads
from mdplatform.market.bars import BAR_SCHEMA
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import Timeframe

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
ROWS = 1_200
FORMULAS = [
    "(RSI - 50) * 0.6 + (MACD_HISTOGRAM / PRICE_STD) * 0.4",
    "EMA(close, 20) / EMA(close, 50) - 1",
    "RSI@1h - RSI",
    "close@ETHUSDT / close",
    "zscore(log(close / lag(close, 1)), 30)",
    "rank(volume, 60) - mean(rank(volume, 20)@1h, 5)",
    "where(close > mean(close, 50), VWAP(anchor=day), EMA(low, 10)) - close",
    "std(EMA(close, 10) - EMA(close, 11), 10)",
    "(close / lag(close, 1) - 1)@ETHUSDT@1h",
    "diff(OBV(anchor=week), 7)",
    "BAND_POSITION - 0.5",
]


def bars_of(symbol: str, seed: int, rows: int = ROWS) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(random.normal(0, 0.002, rows))), 3)
    opens = [BEGIN + timedelta(minutes=15 * row) for row in range(rows)]
    usual = {
        "symbol": [symbol] * rows,
        "timeframe": ["15m"] * rows,
        "open_time": opens,
        "close_time": [each + timedelta(minutes=15) for each in opens],
        "open": np.roll(close, 1),
        "high": close * 1.002,
        "low": close * 0.998,
        "close": close,
        "volume": np.round(random.lognormal(0, 1, rows), 4),
        "is_closed": [True] * rows,
        "state": ["observed"] * rows,
        "revision": [0] * rows,
    }
    frame = pl.DataFrame(usual).with_columns(available_at="close_time", ingested_at="close_time")
    missing = [pl.lit(None).alias(name) for name in BAR_SCHEMA if name not in frame.columns]
    return frame.with_columns(missing).select(pl.col(name).cast(kind) for name, kind in BAR_SCHEMA.items())


def with_gap(bars: pl.DataFrame, first: int, after: int) -> pl.DataFrame:
    inside = pl.int_range(pl.len()).is_between(first, after - 1)
    values = ["open", "high", "low", "close", "volume"]
    return bars.with_columns(
        pl.when(inside).then(pl.lit("gap")).otherwise("state").alias("state"),
        *(pl.when(~inside).then(name).alias(name) for name in values),
    )


DATA = TableData({"BTCUSDT": with_gap(bars_of("BTCUSDT", 1), 700, 707), "ETHUSDT": bars_of("ETHUSDT", 2)})
WHOLE = frame("BTCUSDT", FORMULAS, "15m", data=DATA, statuses=True)
VALUES = [name for name, kind in WHOLE.schema.items() if kind == pl.Float64]
STATUSES = [name for name in WHOLE.columns if name.endswith(".status")]


def expect_part(part: pl.DataFrame, first: int) -> None:
    wanted = WHOLE.slice(first, part.height)
    assert part["open_time"].equals(wanted["open_time"])
    for name in STATUSES:
        assert part[name].equals(wanted[name]), name
    for name in VALUES:
        size = float(wanted[name].abs().median() or 0.0)  # type: ignore[arg-type]
        np.testing.assert_allclose(part[name], wanted[name], rtol=1e-9, atol=1e-9 * size, err_msg=name)


@given(st.integers(0, ROWS - 1), st.integers(1, 300))
@settings(max_examples=12, deadline=None)
def test_any_part_of_the_rows_has_the_values_of_the_whole(first: int, rows: int) -> None:
    start = BEGIN + timedelta(minutes=15 * first)
    end = start + timedelta(minutes=15 * rows)
    expect_part(frame("BTCUSDT", FORMULAS, "15m", start, end, data=DATA, statuses=True), first)


@given(st.integers(1, ROWS))
@settings(max_examples=12, deadline=None)
def test_what_comes_later_changes_nothing(rows: int) -> None:
    known = Truncated(DATA, to_us(BEGIN) + rows * Timeframe.M15.microseconds)
    part = frame(
        "BTCUSDT", FORMULAS, "15m", BEGIN + timedelta(minutes=15 * max(0, rows - 60)), data=known, statuses=True
    )
    assert part.height == min(rows, 60)
    expect_part(part, max(0, rows - 60))


def test_every_null_has_a_reason_and_every_value_none() -> None:
    for spec in map(parse_feature, FORMULAS):
        name = f"{spec}{spec.place}"
        is_null = ~WHOLE[f"{name}.status"].is_in(["settled", "unsettled"])
        assert (WHOLE[name].is_null() == is_null).all(), name
        assert not WHOLE[name].is_nan().any()


def test_another_timeframe_and_symbol_are_joined_as_of_the_rows_close() -> None:
    hours = frame("ETHUSDT", "mean(close,3)", "1h", data=DATA)
    closes = hours["close_time"].dt.epoch("us").to_numpy()
    rows = frame("BTCUSDT", "mean(close,3)@ETHUSDT@1h - 0", "15m", data=DATA)
    at = np.searchsorted(closes, rows["close_time"].dt.epoch("us").to_numpy(), side="right") - 1
    wanted = np.where(at >= 0, hours.to_series(4).to_numpy()[np.maximum(at, 0)], np.nan)
    np.testing.assert_array_equal(rows.to_series(4).to_numpy(), wanted)


def test_rows_of_windows_are_those_of_the_place_that_is_named() -> None:
    both = frame("BTCUSDT", ["mean(close, 4)@1h", "mean(close@1h, 4)"], "15m", "2025-01-03", "2025-01-04", data=DATA)
    first, second = both.columns[4:]
    assert first == "mean(close,4)@1h"
    assert (both[first] - both[second]).abs().max() > 0  # type: ignore[operator]


def test_a_gap_and_the_windows_that_reach_into_it_say_so() -> None:
    statuses = frame("BTCUSDT", ["mean(close,5)", "lag(close,3)", "close"], "15m", data=DATA, statuses=True)
    assert (statuses["mean(close,5).status"] == "gap").arg_true().to_list() == list(range(700, 711))
    assert (statuses["lag(close,3).status"] == "gap").arg_true().to_list() == list(range(703, 710))
    assert (statuses["close.status"] == "gap").arg_true().to_list() == list(range(700, 707))
    assert (statuses["mean(close,5).status"] == "insufficient_history").arg_true().to_list() == [0, 1, 2, 3]


def test_a_null_volume_says_that_the_volume_is_missing() -> None:
    bars = bars_of("BTCUSDT", 1, 20).with_columns(pl.when(pl.int_range(pl.len()) != 9).then("volume").alias("volume"))
    table = evaluate(bars, "mean(volume,2)/close").frame()
    assert (table.to_series(2) == "missing_volume").arg_true().to_list() == [9, 10]


def test_features_that_have_not_settled_leave_their_mark() -> None:
    spec = parse_feature("EMA(close,20)*1")
    statuses = frame("BTCUSDT", spec, "15m", data=DATA, statuses=True)[f"{spec}.status"]
    assert spec.lookback == 19
    assert statuses[18] == "insufficient_history"
    assert set(statuses[19 : 19 + spec.settle]) == {"unsettled"}
    assert statuses[19 + spec.settle] == "settled"


def test_values_are_those_of_the_features_worked_out_by_hand() -> None:
    close = DATA.bars_of["ETHUSDT"]["close"].to_numpy().copy()
    import talib

    wanted = (talib.RSI(close, 14) - 50) * 0.6 + talib.MACD(close, 12, 26, 9)[2] / talib.STDDEV(close, 20, 1) * 0.4
    given = {
        "formula": "(RSI - 50) * 0.6 + (MACD_HISTOGRAM / PRICE_STD) * 0.4",
        "input_indicators": [
            {"name": "RSI", "parameters": {"period": 14}},
            {"name": "MACD", "parameters": {"fast": 12, "slow": 26}},
            {"name": "PRICE_STD", "parameters": {"period": 20}},
        ],
    }
    got = compute(DATA.bars_of["ETHUSDT"], given).column(1).to_numpy(zero_copy_only=False)
    np.testing.assert_allclose(got, wanted, rtol=1e-12)
    assert np.isnan(got).sum() == 33


def test_two_formulas_that_share_a_feature_compute_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    run = talib_functions.run

    def counted(spec, columns):  # type: ignore[no-untyped-def]
        ran.append(str(spec))
        return run(spec, columns)

    monkeypatch.setattr(talib_functions, "run", counted)
    bars = bars_of("BTCUSDT", 1, 100)
    evaluate(
        bars, ["RSI - 50", "( RSI(period=14)*2 ) + MACD_HISTOGRAM", "MACD_MACD/RSI", "MACD_MACDSIGNAL + lag(RSI, 9)"]
    )
    assert sorted(ran) == ["MACD(fastperiod=12,slowperiod=26,signalperiod=9)", "RSI(timeperiod=14)"]


def test_the_same_bits_come_alone_and_in_company() -> None:
    grid = grid_of(DATA.bars("BTCUSDT", Timeframe.M15, to_us(BEGIN) + 86_400_000_000 * 5, None))
    specs = [parse_feature(each) for each in FORMULAS]
    together = evaluate_on(grid, specs, DATA)
    for spec in specs:
        alone = evaluate_on(grid, [spec], DATA)[spec]
        np.testing.assert_array_equal(alone.outputs[0], together[spec].outputs[0])
        np.testing.assert_array_equal(alone.statuses, together[spec].statuses)


def test_a_formula_depends_on_what_its_features_do() -> None:
    def needs(text: str) -> set[Need]:
        return set(reads([parse_feature(text)], "BTCUSDT", Timeframe.M15))

    assert needs("close*2") == {Need("bars", "BTCUSDT")}
    assert needs("RSI@ETHUSDT*2") == {Need("bars", "BTCUSDT"), Need("bars", "ETHUSDT")}
    assert needs("(close@ADAUSDT - low)@ETHUSDT*2") == {
        Need("bars", each) for each in ("BTCUSDT", "ETHUSDT", "ADAUSDT")
    }
    assert Need("macro", "CPIAUCSL") in needs("MACRO(series=CPIAUCSL)*2")


def test_a_symbol_that_nobody_has_is_an_error_before_any_value() -> None:
    with pytest.raises(UnknownSymbol, match="NOSUCH"):
        frame("BTCUSDT", "close@NOSUCH/close", "15m", data=DATA)


def test_what_reaches_back_beyond_history_costs_no_more_than_history() -> None:
    texts = [
        "lag(" * 9 + "close" + ",100000)" * 9,
        "mean(close,100000)+RSI",
        "+".join(f"mean(close,{n})" for n in (3, 90_000)),
    ]
    tracemalloc.start()
    got = frame("BTCUSDT", texts, "15m", "2025-01-04", "2025-01-05", data=DATA, statuses=True)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 30_000_000
    for name in got.columns:
        if name.endswith(".status"):
            assert got[name].unique().to_list() == ["insufficient_history"]


@pytest.mark.parametrize("text", ["mean(close,1000)", "lag(RSI,1100)+close", "rank(volume,400)*lag(close,900)"])
def test_a_grid_cut_at_the_first_bar_has_the_values_of_one_that_goes_on(text: str) -> None:
    parts = [text, f"{text}+0*close@BTCUSDT"]  # the second is of another place, and its grid is whole
    first, second = evaluate_on(
        grid_of(DATA.bars_of["ETHUSDT"][1_000:]), [parse_feature(each) for each in parts], DATA
    ).values()
    settled = first.statuses <= 1
    gap = second.statuses == GAP
    np.testing.assert_array_equal(first.statuses[~gap], second.statuses[~gap])
    np.testing.assert_array_equal(first.outputs[0][settled & ~gap], second.outputs[0][settled & ~gap])


class TestBarsAlone:
    """`compute` and `evaluate`, which have one table of bars and nothing else."""

    BARE = DATA.bars_of["BTCUSDT"].select("open_time", "close", "volume", "open")

    def test_formulas_are_computed_from_a_bare_table_as_from_data(self) -> None:
        texts = ["zscore(close,30)*2", "RSI - 50", "RSI@1h - RSI", "close"]
        got = evaluate(bars_of("BTCUSDT", 2).drop("symbol", "timeframe", "state", "available_at"), texts).frame()
        wanted = frame("ETHUSDT", texts, "15m", data=DATA, statuses=True)
        for name in got.columns[1:]:
            assert got[name].equals(wanted[name].alias(name)) or np.allclose(
                got[name], wanted[name], rtol=1e-9, atol=1e-9, equal_nan=True
            ), name

    def test_features_and_formulas_come_in_the_order_asked_for(self) -> None:
        table = compute(bars_of("BTCUSDT", 1, 60), ["close-open", "MACD", "RSI*2", "RSI"])
        assert table.column_names == [
            "open_time",
            "close-open",
            *parse_feature("MACD").columns,
            "RSI(timeperiod=14)*2",
            "RSI(timeperiod=14)",
        ]
        table.validate(full=True)

    def test_rows_that_are_missing_are_gaps(self) -> None:
        bars = bars_of("BTCUSDT", 1, 30)
        holed = bars.filter(~pl.int_range(pl.len()).is_between(10, 12))
        got = evaluate(holed.drop("state"), "mean(close,3)").frame()
        assert got.height == 27
        assert (got["mean(close,3).status"] == "gap").arg_true().to_list() == [10, 11]

    def test_status_can_be_asked_by_any_way_of_writing(self) -> None:
        found = evaluate(bars_of("BTCUSDT", 1, 60), ["open + close", "RSI@1h"])
        assert found.status(" close+open ").to_list() == ["settled"] * 60
        assert len(found.status("RSI@1h")) == 60

    def test_an_empty_table_gives_an_empty_answer(self) -> None:
        assert compute(bars_of("BTCUSDT", 1, 1).clear(), "mean(close, 3)*2", timeframe="15m").num_rows == 0

    def test_one_row_is_enough_for_what_looks_at_one(self) -> None:
        assert compute(bars_of("BTCUSDT", 1, 1), "close/open").column(1).null_count == 0
        assert compute(bars_of("BTCUSDT", 1, 1), "close/lag(open,1)").column(1).null_count == 1

    @pytest.mark.parametrize("text", ["close@ETHUSDT/close", "MACRO(series=CPIAUCSL)*1", "(RSI@ETHUSDT)*2"])
    def test_what_needs_more_than_the_bars_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidFeature, match="needs more than these bars"):
            compute(bars_of("BTCUSDT", 1, 30), text)

    def test_the_bars_own_symbol_may_be_named(self) -> None:
        assert compute(bars_of("BTCUSDT", 1, 30), "close@BTCUSDT-close").column(1).to_pylist() == [0.0] * 30

    def test_bars_that_lack_a_column_or_a_timeframe_are_refused(self) -> None:
        with pytest.raises(InvalidBars, match="high"):
            compute(self.BARE, "ATR*2")
        with pytest.raises(InvalidBars, match="timeframe"):
            compute(self.BARE.head(1), "close@1h*2")
        uneven = (
            bars_of("BTCUSDT", 1, 3)
            .drop("timeframe")
            .with_columns(
                open_time=pl.Series([BEGIN, BEGIN + timedelta(minutes=15), BEGIN + timedelta(minutes=37)]).cast(
                    BAR_SCHEMA["open_time"]
                )
            )
        )
        with pytest.raises(InvalidBars, match="grid"):
            compute(uneven, "close*2")

    def test_a_formula_is_refused_before_any_work(self) -> None:
        with pytest.raises(InvalidFormula):
            compute(None, "close*")  # type: ignore[arg-type]


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_scale_of_prices_does_not_matter_to_what_has_no_unit(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([FORMULAS[1], FORMULAS[4], FORMULAS[5], "zscore(close,20)", "BAND_POSITION*1"]))
    factor = data.draw(st.sampled_from([2.0**-7, 2.0**9]))
    assume(compiled(str(parse_feature(text))).rows < 400)
    bars = bars_of("BTCUSDT", 3, 300)
    scaled = bars.with_columns(pl.col("open", "high", "low", "close") * factor)
    one, other = (compute(each, text).column(1).to_numpy(zero_copy_only=False) for each in (bars, scaled))
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


def test_what_is_loaded_for_a_formula_is_enough_for_the_same_values() -> None:
    for text in (
        "RSI@1h - RSI",
        "lag(EMA(close,5)@4h, 3)",
        "zscore(RSI, 30)",
        "VWAP(anchor=day)*1",
        "(close-lag(close,2))@1h",
    ):
        spec = parse_feature(text)
        first = 1_100
        start = to_us(BEGIN) + first * Timeframe.M15.microseconds
        begins = load_from([spec.at(None)], spec.timeframe or "15m", start)
        begins = begins if spec.timeframe is None else begins - spec.timeframe.microseconds
        cut = DATA.bars_of["ETHUSDT"].filter(pl.col("open_time").dt.epoch("us") >= begins)
        part = frame("ETHUSDT", spec, "15m", from_us(start), data=TableData({"ETHUSDT": cut})).to_series(4)
        whole = frame("ETHUSDT", spec, "15m", from_us(start), data=DATA).to_series(4)
        np.testing.assert_allclose(part, whole, rtol=1e-9, atol=1e-9, err_msg=text)
        assert part.null_count() == 0


def test_extra_rows_count_rows_of_the_timeframe_asked_for() -> None:
    rsi = parse_feature("RSI")
    assert extra_rows(["lag(RSI, 5)*1"], "15m") == 5 + rsi.lookback + rsi.settle
    assert extra_rows(["RSI@1h*1"], "15m") == 4 * (rsi.lookback + rsi.settle) + 4
    assert extra_rows(["VWAP(anchor=day)*1"], "1h") == 24


def test_the_short_way_over_whole_bars_gives_what_the_kinds_give() -> None:
    random = np.random.default_rng(9)
    bars = DATA.bars_of["BTCUSDT"].with_columns(
        pl.when(pl.Series(random.random(ROWS) > 0.01)).then("volume").alias("volume")
    )
    texts = [
        "RSI",
        "zscore(volume, 5) + RSI",
        "MACD_HISTOGRAM / PRICE_STD",
        "lag(volume, 2) * close",
        "close",
        "volume",
    ]
    got = evaluate(bars, texts).frame()
    wanted = frame("BTCUSDT", texts, "15m", data=TableData({"BTCUSDT": bars}), statuses=True)
    for name in got.columns[1:]:
        if name.endswith(".status"):
            assert got[name].equals(wanted[name]), name
        else:
            np.testing.assert_allclose(got[name], wanted[name], rtol=1e-9, atol=1e-9, err_msg=name)
