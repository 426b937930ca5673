"""What happens to a value when all prices, or all volumes, are four times as large (which is exact in binary)."""

import numpy as np
import polars as pl

from mdplatform.features import FeatureSpec, definition, evaluate

IN_PRICE = {
    "AC", "ACCBANDS", "ADD", "ADR", "AO", "APO", "ATR", "AVGDEV", "AVGPRICE", "BBANDS", "CUMSUM", "DEMA",
    "DONCHIAN", "DPO", "EFI", "EMA", "ERI", "HA", "HMA", "HT_PHASOR", "HT_TRENDLINE", "KAMA", "KC", "LINEARREG",
    "LINEARREG_INTERCEPT", "LINEARREG_SLOPE", "MA", "MACD", "MACDEXT", "MACDFIX", "MAMA", "MARKETFI", "MAVP", "MAX",
    "MEDPRICE", "MIDPOINT", "MIDPRICE", "MIN", "MINMAX", "MINUS_DM", "MOM", "PERCENTILE", "PLUS_DM", "QSTICK",
    "RMA", "SAR", "SAREXT", "SMA", "STDDEV", "SUB", "SUM", "SUPERTREND.supertrend", "T3", "TEMA", "TRANGE", "TRIMA",
    "TSF", "TYPPRICE", "VWAP", "VWMA", "WAD", "WCLPRICE", "WMA", "ZLEMA",
}  # fmt: skip
IN_PRICE_SQUARED = {"MULT", "VAR"}
IN_VOLUME = {"AD", "ADOSC", "EFI", "OBV", "PVT"}
PER_VOLUME = {"MARKETFI"}
LAWLESS = {"LINEARREG_ANGLE"}  # an angle in a chart whose axes are bars and price


def degree(feature: FeatureSpec, output: str, laws: dict[int, set[str]]) -> int:
    names = {feature.name, f"{feature.name}.{output}"}
    return next((power for power, members in laws.items() if names & members), 0)


def check(feature: FeatureSpec, bars: pl.DataFrame, columns: list[str], laws: dict[int, set[str]]) -> None:
    before = evaluate(bars, [feature])
    after = evaluate(bars.with_columns(pl.col(columns) * 4.0), [feature])
    for output, column in zip(feature.outputs, feature.columns, strict=True):
        expected = before.values[column] * 4.0 ** degree(feature, output, laws)
        usual = float(np.nanmedian(np.abs(expected)))
        np.testing.assert_allclose(after.values[column], expected, rtol=1e-9, atol=1e-9 * usual)


def test_values_in_units_of_price_scale_with_price_and_ratios_do_not(
    feature: FeatureSpec, market: pl.DataFrame
) -> None:
    if feature.name in LAWLESS or definition(feature.name).group == "Math Transform":
        return
    laws = {1: IN_PRICE, 2: IN_PRICE_SQUARED}
    check(feature, market.head(1500), ["open", "high", "low", "close"], laws)


def test_values_in_units_of_volume_scale_with_volume_and_no_others_do(
    feature: FeatureSpec, market: pl.DataFrame
) -> None:
    if feature.name not in ("ACOS", "ASIN"):  # which have no value at such prices
        check(feature, market.head(1500), ["volume"], {1: IN_VOLUME, -1: PER_VOLUME})
