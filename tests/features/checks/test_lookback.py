"""The declared lookback is exact: no value before it, a value from it on."""

import numpy as np
import polars as pl
import pytest
from talib import abstract

from mdplatform.features import FeatureSpec, definition, evaluate, parse_feature
from mdplatform.features.guard import INSUFFICIENT_HISTORY
from mdplatform.features.registry import indicator_names


def test_the_first_value_stands_in_the_row_of_the_lookback(feature: FeatureSpec, market: pl.DataFrame) -> None:
    statuses = evaluate(market.head(700), [feature]).statuses[str(feature)]
    np.testing.assert_array_equal(statuses == INSUFFICIENT_HISTORY, np.arange(700) < feature.lookback)


def test_as_many_bars_as_the_lookback_give_no_value_and_one_more_gives_one(
    variant: FeatureSpec, market: pl.DataFrame
) -> None:
    short = evaluate(market.head(variant.lookback), [variant])
    enough = evaluate(market.head(variant.lookback + 1), [variant])
    for column in variant.columns:
        assert np.isnan(short.values[column]).all()
        assert np.isfinite(enough.values[column]).tolist() == [False] * variant.lookback + [True]


@pytest.mark.parametrize("name", indicator_names())
def test_the_declared_lookback_is_the_librarys_for_any_parameters(name: str) -> None:
    random = np.random.default_rng(11)
    parameters = [each for each in definition(name).parameters if each.name != "anchor"]
    library = abstract.Function(name)
    for trial in range(40 if parameters else 1):
        given = {}
        for each in parameters:
            if each.kind == "choice":
                given[each.name] = each.choices[random.integers(len(each.choices))]
            elif each.kind == "integer":
                largest = 4 if trial < 15 else 300
                given[each.name] = int(random.integers(int(each.minimum), largest))
            else:
                given[each.name] = float(each.default)
        if name == "MAVP" and given["minperiod"] > given["maxperiod"]:
            continue
        library.parameters = given
        assert parse_feature({"name": name, "parameters": given}).lookback == library.lookback, given
