"""The same value comes out in whatever partition it is computed, if `load_from` says how far back bars reach."""

from collections.abc import Callable

import numpy as np
import polars as pl

from mdplatform.features import FeatureSpec, evaluate, load_from
from mdplatform.features.guard import SETTLED, UNSETTLED

Same = Callable[[np.ndarray, np.ndarray], np.ndarray]


def check(feature: FeatureSpec, bars: pl.DataFrame, same: Same, start_row: int) -> None:
    start = int(bars["open_time"].to_physical()[start_row])
    first = load_from([feature], "15m", start)
    part = evaluate(bars.filter(pl.col("open_time").to_physical() >= first), [feature])
    whole = evaluate(bars, [feature])
    assert first >= whole.open_time[0], "the history of this test is too short for the feature"
    asked = part.open_time >= start
    statuses = part.statuses[str(feature)][asked]
    np.testing.assert_array_equal(statuses, whole.statuses[str(feature)][start_row:])
    assert not (statuses == UNSETTLED).any()
    assert (statuses == SETTLED).any() or feature.name in ("ACOS", "ASIN")  # of numbers beyond 1 there is none
    for column in feature.columns:
        agree = same(part.values[column][asked], whole.values[column][start_row:])
        assert agree.all(), f"{column}: {int((~agree).sum())} of {len(agree)} rows differ"


def test_a_partition_by_itself_equals_the_whole_history(feature: FeatureSpec, market: pl.DataFrame, same: Same) -> None:
    check(feature, market, same, 7500)


def test_a_partition_by_itself_equals_the_whole_history_with_other_parameters(
    variant: FeatureSpec, market: pl.DataFrame, same: Same
) -> None:
    check(variant, market, same, 8000)


def test_a_partition_of_a_market_that_often_rests_equals_the_whole_history(
    feature: FeatureSpec, quiet_market: pl.DataFrame, same: Same
) -> None:
    check(feature, quiet_market, same, 7400)


def test_a_partition_of_real_bars_equals_the_whole_history(
    feature: FeatureSpec, real_bars: Callable[[str], pl.DataFrame], same: Same
) -> None:
    check(feature, real_bars("ADAUSDT"), same, 11_000)
