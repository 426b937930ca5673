"""What is given is not written to, whatever kind of table it is, and every kind gives the same values."""

import numpy as np
import polars as pl

from mdplatform.features import FeatureSpec, compute, evaluate


def test_the_arrays_behind_the_bars_are_not_written_to(feature: FeatureSpec, market: pl.DataFrame) -> None:
    columns = {name: market[name].head(500).to_numpy().copy() for name in market.columns if name != "open_time"}
    kept = {name: values.copy() for name, values in columns.items()}
    frame = pl.DataFrame({"open_time": market["open_time"].head(500), **columns})
    evaluate(frame, [feature])
    for name, values in kept.items():
        np.testing.assert_array_equal(columns[name], values)
        np.testing.assert_array_equal(frame[name].to_numpy(), values)


def test_results_do_not_share_memory_with_the_bars(feature: FeatureSpec, market: pl.DataFrame) -> None:
    bars = market.head(300)
    result = evaluate(bars, [feature])
    for column in feature.columns:
        for name in bars.columns[1:]:
            assert not np.shares_memory(result.values[column], bars[name].to_numpy())


def test_polars_pandas_and_arrow_give_one_table(feature: FeatureSpec, market: pl.DataFrame) -> None:
    bars = market.head(300)
    expected = compute(bars, [feature])
    assert compute(bars.to_pandas(), [feature]).equals(expected)
    assert compute(bars.to_arrow(), [feature]).equals(expected)
