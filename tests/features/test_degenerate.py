"""Where a formula divides nothing by nothing, there is no value; the library's made-up number does not get out."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from mdplatform.features import evaluate

FLAT = [
    "RSI", "CMO", "CMOU", "CCI", "WILLR", "STOCH", "STOCHF", "STOCHRSI", "KDJ", "SMI", "TSI", "ER", "VHF", "BOP",
    "IMI", "MFI", "ULTOSC", "VORTEX", "BETA", "CORREL", "ADX", "ADXR", "DX", "PLUS_DI", "MINUS_DI", "RVI", "CVI",
    "MASSI", "HT_DCPERIOD", "HT_DCPHASE", "HT_SINE", "HT_TRENDMODE",
]  # fmt: skip
STILL_DEFINED = ["SMA", "EMA", "BBANDS", "MACD", "ATR", "NATR", "STDDEV", "ROC", "MOM", "AROON", "OBV", "VWAP", "SAR"]
WITHOUT_VOLUME = ["CMF", "VWMA", "VWAP(anchor=day)", "RVOL", "MARKETFI", "PVO"]


def flatten(bars: pl.DataFrame, first: int, last: int) -> pl.DataFrame:
    """Let the market stand still at its close from row `first` to row `last`."""
    inside = pl.int_range(pl.len()).is_between(first, last)
    level = bars["close"][first - 1] if first else 250.0
    return bars.with_columns(pl.when(inside).then(level).otherwise(pl.col("open", "high", "low", "close")).name.keep())


@pytest.mark.parametrize("feature", FLAT)
def test_a_market_that_never_moved_has_no_value(feature: str, market: pl.DataFrame) -> None:
    result = evaluate(flatten(market.head(400), 0, 399), feature)
    spec = result.features[0]
    expected = ["insufficient_history"] * spec.lookback + ["degenerate"] * (400 - spec.lookback)
    assert result.status(feature).to_list() == expected
    assert all(np.isnan(values).all() for values in result.values.values())


@pytest.mark.parametrize("feature", STILL_DEFINED)
def test_what_is_defined_on_a_flat_market_keeps_its_value(feature: str, market: pl.DataFrame) -> None:
    result = evaluate(flatten(market.head(400), 0, 399), feature)
    assert set(result.status(feature)) <= {"insufficient_history", "unsettled", "settled"}


@pytest.mark.parametrize("feature", FLAT)
def test_a_moving_market_is_never_degenerate(feature: str, real_bars: Callable[[str], pl.DataFrame]) -> None:
    statuses = evaluate(real_bars("BTCUSDT"), feature).status(feature)
    assert "degenerate" not in set(statuses)


def test_a_window_is_degenerate_just_as_long_as_it_is_flat(market: pl.DataFrame) -> None:
    bars = flatten(market.head(400), 200, 240)  # with row 199 these are 42 closes in a row
    statuses = evaluate(bars, "WILLR(10)").status("WILLR(10)").to_list()
    rows = [row for row, status in enumerate(statuses) if status == "degenerate"]
    assert rows == list(range(209, 241))


def test_an_average_is_degenerate_while_it_holds_an_undefined_row(market: pl.DataFrame) -> None:
    bars = flatten(market.head(400), 200, 240)
    statuses = evaluate(bars, "STOCH(10,3,0,3,0)").status("STOCH(10,3,0,3,0)").to_list()
    rows = [row for row, status in enumerate(statuses) if status == "degenerate"]
    assert rows == list(range(209, 245))


def test_wilders_ratio_outlives_a_short_rest_and_not_a_long_one(market: pl.DataFrame) -> None:
    result = evaluate(flatten(market.head(900), 200, 600), "RSI")
    statuses = result.status("RSI").to_list()
    values = result.values["RSI(timeperiod=14)"]
    rest = result.features[0].settle // 4
    assert values[230] == pytest.approx(values[199], rel=1e-9)
    assert statuses[199 + rest - 2] != "degenerate"
    assert set(statuses[199 + rest : 601]) == {"degenerate"}
    assert statuses[601] != "degenerate"


@pytest.mark.parametrize("rows_before", [387, 500, 2000])
def test_a_value_after_a_rest_is_the_same_from_any_history(market: pl.DataFrame, rows_before: int) -> None:
    bars = flatten(market.head(3100), 2700, 2780)
    whole = evaluate(bars, "RSI").values["RSI(timeperiod=14)"]
    for row in (2750, 2775, 2790, 3000):
        part = evaluate(bars[row - rows_before : row + 1], "RSI").values["RSI(timeperiod=14)"]
        np.testing.assert_allclose(part[-1], whole[row], rtol=1e-9)


@pytest.mark.parametrize("feature", WITHOUT_VOLUME)
def test_without_any_volume_what_divides_by_it_has_no_value(feature: str, market: pl.DataFrame) -> None:
    bars = market.head(300).with_columns(volume=pl.lit(0.0))
    assert set(evaluate(bars, feature).status(feature)) <= {"insufficient_history", "degenerate", "division_by_zero"}


@pytest.mark.parametrize("feature", ["VWMA(10)", "CMF(10)", "RVOL(10)"])
def test_what_rounding_leaves_of_a_sum_is_not_taken_for_volume(feature: str, market: pl.DataFrame) -> None:
    none = pl.int_range(pl.len()).is_between(200, 240)
    bars = market.head(400).with_columns(volume=pl.when(none).then(0.0).otherwise("volume"))
    result = evaluate(bars, feature)
    values = next(iter(result.values.values()))
    assert result.status(feature)[230] in ("degenerate", "division_by_zero")
    finite = values[np.isfinite(values)]
    assert np.abs(finite).max() < 10_000
