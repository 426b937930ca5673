"""A hole takes the values in it and of the warm-up after it, which is a fresh start, and touches nothing else."""

import numpy as np
import polars as pl
import pytest

from mdplatform.features import FeatureSpec, evaluate
from mdplatform.features.guard import GAP, INSUFFICIENT_HISTORY, MISSING_VOLUME

HOLE, AFTER = 900, 903


def expect_fresh_start(feature: FeatureSpec, holed: pl.DataFrame, after: int, cause: int) -> None:
    """Compare the rows from `after` on with a computation that starts there."""
    whole, fresh = evaluate(holed, [feature], "15m"), evaluate(holed[after:], [feature], "15m")
    expected = fresh.statuses[str(feature)].copy()
    expected[expected == INSUFFICIENT_HISTORY] = cause
    np.testing.assert_array_equal(whole.statuses[str(feature)][after:], expected)
    for column in feature.columns:
        np.testing.assert_array_equal(whole.values[column][after:], fresh.values[column])


def expect_untouched(feature: FeatureSpec, holed: pl.DataFrame, whole: pl.DataFrame, rows: int) -> None:
    left, right = evaluate(holed, [feature], "15m"), evaluate(whole, [feature], "15m")
    np.testing.assert_array_equal(left.statuses[str(feature)][:rows], right.statuses[str(feature)][:rows])
    for column in feature.columns:
        np.testing.assert_array_equal(left.values[column][:rows], right.values[column][:rows])


def is_hole() -> pl.Expr:
    return pl.int_range(pl.len()).is_between(HOLE, AFTER - 1)


@pytest.mark.parametrize("kind", ["null", "infinite", "state"])
def test_a_gap_gives_no_value_and_then_a_fresh_start(feature: FeatureSpec, market: pl.DataFrame, kind: str) -> None:
    bars = market.head(1900)
    if kind == "state":
        holed = bars.with_columns(state=pl.when(is_hole()).then(pl.lit("gap")).otherwise(pl.lit("observed")))
    else:
        bad = {"null": None, "infinite": float("inf")}[kind]
        columns = ["open", "high", "low", "close", "volume", "periods"]
        holed = bars.with_columns(pl.when(is_hole()).then(pl.lit(bad)).otherwise(pl.col(columns)).name.keep())
    result = evaluate(holed, [feature])
    in_hole = result.statuses[str(feature)][HOLE:AFTER]
    only_volume = kind != "state" and set(feature.inputs) <= {"volume"}
    assert (in_hole == (MISSING_VOLUME if only_volume else GAP)).all()
    for column in feature.columns:
        assert np.isnan(result.values[column][HOLE:AFTER]).all()
    expect_untouched(feature, holed, bars, HOLE)
    expect_fresh_start(feature, holed, AFTER, MISSING_VOLUME if only_volume else GAP)


def test_missing_rows_are_a_gap(feature: FeatureSpec, market: pl.DataFrame) -> None:
    bars = market.head(1900)
    holed = pl.concat([bars[:HOLE], bars[AFTER:]])
    expect_untouched(feature, holed, bars, HOLE)
    expect_fresh_start(feature, holed, HOLE, GAP)


def test_missing_volume_concerns_only_what_reads_it(feature: FeatureSpec, market: pl.DataFrame) -> None:
    bars = market.head(1900)
    holed = bars.with_columns(volume=pl.when(is_hole()).then(None).otherwise("volume"))
    if "volume" not in feature.inputs:
        expect_untouched(feature, holed, bars, 1900)
        return
    assert (evaluate(holed, [feature]).statuses[str(feature)][HOLE:AFTER] == MISSING_VOLUME).all()
    expect_fresh_start(feature, holed, AFTER, MISSING_VOLUME)


def test_no_value_is_ever_infinite_or_without_a_status(feature: FeatureSpec, market: pl.DataFrame) -> None:
    still = market.head(800).with_columns(
        pl.when(pl.int_range(pl.len()) > 400).then(100.0).otherwise(pl.col("open", "high", "low", "close")).name.keep(),
        volume=pl.when(pl.int_range(pl.len()) > 400).then(0.0).otherwise("volume"),
    )
    result = evaluate(still, [feature])
    for column in feature.columns:
        assert not np.isinf(result.values[column]).any()
        np.testing.assert_array_equal(np.isnan(result.values[column]), result.statuses[str(feature)] > 1)
