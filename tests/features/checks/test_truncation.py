"""A value at T comes from bars up to T: bars that come later change nothing."""

import numpy as np
import polars as pl
import pytest

from mdplatform.features import FeatureSpec, evaluate


@pytest.mark.parametrize("cut", [601, 1500])
@pytest.mark.parametrize("which", ["market", "quiet_market"])
def test_later_bars_change_no_value_and_no_status(
    feature: FeatureSpec, which: str, cut: int, request: pytest.FixtureRequest
) -> None:
    bars = request.getfixturevalue(which)
    whole, short = evaluate(bars.head(2000), [feature]), evaluate(bars.head(cut), [feature])
    for column in feature.columns:
        np.testing.assert_array_equal(short.values[column], whole.values[column][:cut])
    np.testing.assert_array_equal(short.statuses[str(feature)], whole.statuses[str(feature)][:cut])


def test_wild_later_bars_change_no_value(feature: FeatureSpec, market: pl.DataFrame) -> None:
    calm = market.head(800)
    prices = [pl.col(name) * 40 for name in ("open", "high", "low", "close", "volume")]
    wild = pl.concat([calm.head(700), calm.tail(100).with_columns(prices)])
    for column in feature.columns:
        expected = evaluate(calm, [feature]).values[column][:700]
        np.testing.assert_array_equal(evaluate(wild, [feature]).values[column][:700], expected)
