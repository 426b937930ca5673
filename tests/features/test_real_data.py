"""On an exchange's own bars: any month by itself equals all of history, in every value, and both equal TA-Lib."""

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
import talib

from mdplatform.features import evaluate, load_from

SYMBOLS = ["BTCUSDT", "ETHUSDT", "ADAUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT"]
FEATURES = ["RSI", "MACD", "BBANDS", "ATR", "ADX", "STDDEV(20)", "EMA(200)", "OBV", "VWAP(anchor=day)"]
Read = Callable[[str], pl.DataFrame]


def instant(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("feature", FEATURES)
def test_every_month_by_itself_equals_all_of_history_in_every_value(symbol: str, feature: str, real_bars: Read) -> None:
    bars = real_bars(symbol)
    times = bars["open_time"].to_physical()
    whole = evaluate(bars, [feature])
    for month in (6, 3, 5, 2, 4):
        start, end = instant(2025, month), instant(2025, month + 1)
        loaded = bars.filter(times.is_between(load_from([feature], "15m", start), end, closed="left"))
        part = evaluate(loaded, [feature])
        asked = part.open_time >= start
        inside = (whole.open_time >= start) & (whole.open_time < end)
        for column, values in part.values.items():
            np.testing.assert_allclose(values[asked], whole.values[column][inside], rtol=1e-9, atol=0)
        assert set(part.status(feature).filter(asked)) == {"settled"}


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_values_are_talibs_on_the_whole_series(symbol: str, real_bars: Read) -> None:
    bars = real_bars(symbol)
    high, low, close = (bars[name].to_numpy() for name in ("high", "low", "close"))
    expected = {
        "RSI": [talib.RSI(close, timeperiod=14)],
        "MACD": talib.MACD(close, fastperiod=12, slowperiod=26, signalperiod=9),
        "BBANDS": talib.BBANDS(close, timeperiod=20, nbdevup=2.0, nbdevdn=2.0, matype=talib.MA_Type.SMA),
        "ATR": [talib.ATR(high, low, close, timeperiod=14)],
        "ADX": [talib.ADX(high, low, close, timeperiod=14)],
        "STDDEV(20)": [talib.STDDEV(close, timeperiod=20, nbdev=1.0)],
    }
    for feature, arrays in expected.items():
        for ours, theirs in zip(evaluate(bars, [feature]).values.values(), arrays, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_symbols_do_not_influence_one_another(real_bars: Read) -> None:
    alone = evaluate(real_bars("ADAUSDT"), FEATURES)
    evaluate(real_bars("BTCUSDT"), FEATURES)
    again = evaluate(real_bars("ADAUSDT"), list(reversed(FEATURES)))
    for column, values in alone.values.items():
        np.testing.assert_array_equal(again.values[column], values)
