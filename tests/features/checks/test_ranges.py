"""Values stay within what their formulas allow, on quiet, wild and flat markets."""

import numpy as np
import polars as pl
import pytest

from mdplatform.features import FeatureSpec, definition, evaluate

PERCENT = {
    "ADX", "ADXR", "AROON", "DX", "IMI", "MFI", "MINUS_DI", "PERCENTRANK", "PLUS_DI", "RSI", "RVI", "STOCH",
    "STOCHF", "STOCHRSI", "ULTOSC", "KDJ.k", "KDJ.d",
}  # fmt: skip
BOUNDS = {
    **dict.fromkeys(PERCENT, (0, 100)),
    **dict.fromkeys(("AROONOSC", "CMO", "CMOU", "SMI", "TSI"), (-100, 100)),
    **dict.fromkeys(("BOP", "CMF", "CORREL"), (-1, 1)),
    **dict.fromkeys(("ER", "VHF", "HT_TRENDMODE"), (0, 1)),
    **dict.fromkeys(("ADR", "ATR", "AVGDEV", "NATR", "STDDEV", "TRANGE", "VAR", "RVOL", "VORTEX"), (0, np.inf)),
    "FRACTAL": (0, 100),
    "HT_DCPERIOD": (6, 50),
    "HT_SINE": (-1, 1),
    "MAXINDEX": (0, 29),
    "MININDEX": (0, 29),
    "MINMAXINDEX": (0, 29),
    "SUPERTREND.trend": (-1, 1),
    "WILLR": (-100, 0),
}
WITHIN_THE_BARS = ("MAX", "MIDPOINT", "MIN", "PERCENTILE", "SMA", "TRIMA", "VWAP", "VWMA", "WMA", "EMA", "RMA", "KAMA")


@pytest.fixture(scope="module")
def markets(market: pl.DataFrame) -> list[pl.DataFrame]:
    """A market as it is, one with all moves fifty times as large, and one that stops moving and starts again."""
    prices = pl.col("open", "high", "low", "close")
    wild = market.head(1500).with_columns(((prices / 250) ** 50 * 250).name.keep())
    flat = market.head(1500).with_columns(
        pl.when(pl.int_range(pl.len()).is_between(600, 1100)).then(251.37).otherwise(prices).name.keep(),
        volume=pl.when(pl.int_range(pl.len()).is_between(700, 900)).then(0.0).otherwise("volume"),
    )
    return [market.head(1500), wild, flat]


def test_values_stay_within_their_bounds(feature: FeatureSpec, markets: list[pl.DataFrame]) -> None:
    candle = definition(feature.name).group == "Pattern Recognition"
    for bars in markets:
        result = evaluate(bars, [feature])
        for output, column in zip(feature.outputs, feature.columns, strict=True):
            lowest, highest = BOUNDS.get(f"{feature.name}.{output}", BOUNDS.get(feature.name, (-np.inf, np.inf)))
            if candle:
                lowest, highest = -200, 200
            values = result.values[column][np.isfinite(result.values[column])]
            slack = 1e-9 * max(abs(lowest), abs(highest)) if np.isfinite(highest) else 0
            assert ((values >= lowest - slack) & (values <= highest + slack)).all(), (
                column,
                values.min(),
                values.max(),
            )


def test_bands_keep_their_order(feature: FeatureSpec, markets: list[pl.DataFrame]) -> None:
    if feature.outputs != ("upperband", "middleband", "lowerband"):
        return
    for bars in markets:
        upper, middle, lower = (evaluate(bars, [feature]).values[column] for column in feature.columns)
        has_value = np.isfinite(upper)
        assert has_value.any()
        slack = 1e-9 * np.abs(middle[has_value])  # of a flat market the three are one, but for the last bit
        assert (upper[has_value] >= middle[has_value] - slack).all()
        assert (middle[has_value] >= lower[has_value] - slack).all()


@pytest.mark.parametrize("name", WITHIN_THE_BARS)
def test_averages_lie_within_the_prices_seen(name: str, markets: list[pl.DataFrame]) -> None:
    for bars in markets:
        values = next(iter(evaluate(bars, [name]).values.values()))
        lowest = np.minimum.accumulate(bars["low"].to_numpy()) * (1 - 1e-9)
        highest = np.maximum.accumulate(bars["high"].to_numpy()) * (1 + 1e-9)
        has_value = np.isfinite(values)
        assert has_value.any()
        assert ((values >= lowest) & (values <= highest))[has_value].all()
