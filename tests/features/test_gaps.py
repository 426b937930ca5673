"""Holes in bars: what is cut where, and which reason each row gets."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from mdplatform.features import compute, evaluate

START = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000


def hourly(close: list[float | None], hours: list[int] | None = None, **columns: list[object]) -> pl.DataFrame:
    times = pl.Series([START + hour * 3_600_000_000 for hour in hours or range(len(close))])
    return pl.DataFrame({"open_time": times.cast(pl.Datetime("us", "UTC")), "close": close, **columns})


def test_a_null_inside_gives_gap_until_the_window_is_full_again() -> None:
    result = evaluate(hourly([1.0, 2.0, 3.0, None, 5.0, 6.0, 7.0]), "SMA(3)")
    early, gap, good = "insufficient_history", "gap", "settled"
    assert result.status("SMA(3)").to_list() == [early, early, good, gap, gap, gap, good]
    assert result.table().column(1).to_pylist() == [None, None, 2.0, None, None, None, 6.0]


def test_a_missing_row_is_a_gap() -> None:
    result = evaluate(hourly([1.0, 2.0, 3.0, 5.0, 6.0, 7.0], [0, 1, 2, 4, 5, 6]), "SMA(2)")
    assert result.status("SMA(2)").to_list() == [
        "insufficient_history",
        "settled",
        "settled",
        "gap",
        "settled",
        "settled",
    ]


def test_a_gap_at_the_very_start_is_a_gap() -> None:
    result = evaluate(hourly([None, 2.0, 3.0, 4.0]), "SMA(2)")
    assert result.status("SMA(2)").to_list() == ["gap", "gap", "settled", "settled"]


def test_a_row_of_state_gap_is_never_fed_even_with_prices() -> None:
    bars = hourly([1.0, 2.0, 99.0, 3.0, 5.0], state=["observed", "no_trade", "gap", "observed", "observed"])
    assert compute(bars, "SMA(2)").column(1).to_pylist() == [None, 1.5, None, None, 4.0]


def test_bars_without_trades_are_fed() -> None:
    bars = hourly([2.0, 2.0, 4.0], state=["observed", "no_trade", "no_trade"])
    assert compute(bars, "SMA(2)").column(1).to_pylist() == [None, 2.0, 3.0]


def test_a_gap_in_a_column_that_is_not_read_is_no_gap() -> None:
    bars = hourly([1.0, 2.0, 3.0], high=[None, float("nan"), float("inf")])
    assert compute(bars, ["SMA(2)"]).column(1).to_pylist() == [None, 1.5, 2.5]


def test_missing_volume_is_told_apart_from_a_gap() -> None:
    bars = hourly([1.0, 2.0, None, 4.0, 5.0], volume=[1.0, None, None, 1.0, 1.0])
    result = evaluate(bars, ["VWMA(2)", "SMA(2)"])
    early, gap, volume = "insufficient_history", "gap", "missing_volume"
    assert result.status("VWMA(2)").to_list() == [early, volume, gap, gap, "settled"]
    assert result.status("SMA(2)").to_list() == [early, "settled", gap, gap, "settled"]


def test_only_gaps_give_only_nulls() -> None:
    result = evaluate(hourly([None, None, None]), "RSI")
    assert result.status("RSI").to_list() == ["gap"] * 3


def test_values_before_they_are_settled_are_given_and_marked() -> None:
    bars = hourly([float(1 + each % 7) for each in range(60)])
    result = evaluate(bars, "EMA(5)")
    settle = 69
    assert result.status("EMA(5)").to_list() == ["insufficient_history"] * 4 + ["unsettled"] * 56
    assert result.features[0].settle == settle
    assert np.isfinite(result.values["EMA(timeperiod=5)"][4:]).all()
    longer = evaluate(hourly([float(1 + each % 7) for each in range(200)]), "EMA(5)")
    assert longer.status("EMA(5)").to_list()[4 + settle - 1 : 4 + settle + 1] == ["unsettled", "settled"]


def test_a_cumulative_value_is_settled_once_its_period_was_seen_from_its_start() -> None:
    hours = list(range(-5, 30))
    bars = hourly([1.0] * 35, hours, volume=[1.0] * 35)
    result = evaluate(bars, "OBV(anchor=day)")
    assert result.status("OBV(anchor=day)").to_list() == ["unsettled"] * 5 + ["settled"] * 30
    assert evaluate(bars, "OBV(anchor=month)").status("OBV").to_list() == ["unsettled"] * 5 + ["settled"] * 30


def test_after_a_gap_a_cumulative_value_is_unsettled_until_its_next_period() -> None:
    hours = [*range(10), *range(12, 30)]
    bars = hourly([1.0] * 28, hours, volume=[1.0] * 28)
    statuses = evaluate(bars, "OBV(anchor=day)").status("OBV(anchor=day)").to_list()
    assert statuses == ["settled"] * 10 + ["unsettled"] * 12 + ["settled"] * 6


def test_division_by_zero_has_its_reason() -> None:
    result = evaluate(hourly([1.0, 0.0, 2.0], volume=[1.0, 1.0, 0.0]), ["DIV(close,volume)", "LN", "ROC(1)"])
    zero = "division_by_zero"
    assert result.status("DIV(close,volume)").to_list() == ["settled", "settled", zero]
    assert result.status("LN").to_list() == ["settled", "degenerate", "settled"]
    assert result.status("ROC(1)").to_list() == ["insufficient_history", "settled", zero]
    assert result.table().column(1).to_pylist() == [1.0, 0.0, None]


@pytest.mark.parametrize("column", ["close", "volume"])
def test_a_hole_in_a_copy_does_not_reach_the_original(column: str) -> None:
    bars = hourly([1.0, 2.0, 3.0], volume=[1.0, 1.0, 1.0])
    kept = bars.clone()
    evaluate(bars.with_columns(pl.lit(None, pl.Float64).alias(column)), "VWMA(2)")
    assert bars.equals(kept)
