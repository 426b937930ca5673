"""The features that strategies lean on most, against their published formulas written out in plain Python.

Wilder, *New Concepts in Technical Trading Systems* (1978): RSI, ATR, ADX. Appel: MACD. Bollinger: bands. Each is
written from its definition and shares nothing with what it tests.
"""

import itertools
import math
from statistics import fmean, pstdev

import polars as pl
import pytest

from mdplatform.features import compute


@pytest.fixture(scope="module")
def bars(market: pl.DataFrame) -> pl.DataFrame:
    return market.head(600)


def expect(bars: pl.DataFrame, feature: str, expected: list[float | None], column: str | None = None) -> None:
    got = compute(bars, [feature]).column(column or feature).to_pylist()
    assert [value is None for value in got] == [value is None for value in expected]
    for value, wanted in zip(got, expected, strict=True):
        assert value is None or math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-9)


def exponential(values: list[float | None], period: int, start: int) -> list[float | None]:
    """Exponential average seeded by the mean of the `period` values that end at row `start`."""
    average = fmean(values[start - period + 1 : start + 1])
    out: list[float | None] = [None] * start + [average]
    for value in values[start + 1 :]:
        average += 2 / (period + 1) * (value - average)
        out.append(average)
    return out


def wilder(values: list[float], period: int, start: int) -> list[float | None]:
    """Wilder's average, seeded by the mean of the `period` values that end at row `start`."""
    average = fmean(values[start - period + 1 : start + 1])
    out: list[float | None] = [None] * start + [average]
    for value in values[start + 1 :]:
        average = (average * (period - 1) + value) / period
        out.append(average)
    return out


def true_range(bars: pl.DataFrame) -> list[float]:
    high, low, close = (bars[name].to_list() for name in ("high", "low", "close"))
    before = [close[0], *close[:-1]]
    return [max(h, c) - min(lo, c) for h, lo, c in zip(high, low, before, strict=True)]


def test_ema_is_the_exponential_average(bars: pl.DataFrame) -> None:
    expect(bars, "EMA(timeperiod=20)", exponential(bars["close"].to_list(), 20, 19))


def test_ema_of_another_column(bars: pl.DataFrame) -> None:
    expect(bars, "EMA(volume,timeperiod=9)", exponential(bars["volume"].to_list(), 9, 8))


def test_rsi_is_wilders(bars: pl.DataFrame) -> None:
    close = bars["close"].to_list()
    changes = [0.0] + [after - before for before, after in itertools.pairwise(close)]
    gains = wilder([max(change, 0) for change in changes], 14, 14)
    losses = wilder([max(-change, 0) for change in changes], 14, 14)
    expected = [
        None if gain is None or loss is None else 100 * gain / (gain + loss)
        for gain, loss in zip(gains, losses, strict=True)
    ]
    expect(bars, "RSI(timeperiod=14)", expected)


def test_macd_is_the_difference_of_two_averages_and_its_signal_their_average(bars: pl.DataFrame) -> None:
    close = bars["close"].to_list()
    fast, slow = exponential(close, 12, 25), exponential(close, 26, 25)  # both are seeded so that they begin together
    line = [None if s is None else f - s for f, s in zip(fast, slow, strict=True)]
    signal = [None] * 25 + exponential(line[25:], 9, 8)
    name = "MACD(fastperiod=12,slowperiod=26,signalperiod=9)"
    expect(bars, name, [None] * 33 + line[33:], f"{name}.macd")
    expect(bars, name, signal, f"{name}.macdsignal")
    histogram = [None if s is None else value - s for value, s in zip(line, signal, strict=True)]
    expect(bars, "MACD_HISTOGRAM", histogram, f"{name}.macdhist")


def test_bands_are_two_deviations_of_the_population_around_the_mean(bars: pl.DataFrame) -> None:
    close = bars["close"].to_list()
    windows = [close[row - 19 : row + 1] for row in range(19, len(close))]
    name = "BBANDS(timeperiod=20,nbdevup=2,nbdevdn=2,matype=0)"
    for output, side in {"upperband": 2, "middleband": 0, "lowerband": -2}.items():
        expected = [None] * 19 + [fmean(window) + side * pstdev(window) for window in windows]
        expect(bars, name, expected, f"{name}.{output}")


def test_stddev_is_the_populations(bars: pl.DataFrame) -> None:
    close = bars["close"].to_list()
    expected = [None] * 19 + [pstdev(close[row - 19 : row + 1]) for row in range(19, len(close))]
    expect(bars, "STDDEV(timeperiod=20,nbdev=1)", expected)
    expect(bars, "PRICE_STD(period=20)", expected, "STDDEV(timeperiod=20,nbdev=1)")


def test_atr_is_wilders_average_of_the_true_range(bars: pl.DataFrame) -> None:
    expect(bars, "ATR(timeperiod=14)", wilder(true_range(bars), 14, 14))


def test_adx_is_wilders_once_its_seed_is_forgotten(bars: pl.DataFrame) -> None:
    high, low = bars["high"].to_list(), bars["low"].to_list()
    up = [0.0] + [after - before for before, after in itertools.pairwise(high)]
    down = [0.0] + [before - after for before, after in itertools.pairwise(low)]
    plus = wilder([u if u > d and u > 0 else 0.0 for u, d in zip(up, down, strict=True)], 14, 14)
    minus = wilder([d if d > u and d > 0 else 0.0 for u, d in zip(up, down, strict=True)], 14, 14)
    index = [0.0 if p is None else 100 * abs(p - m) / (p + m) for p, m in zip(plus, minus, strict=True)]
    expected = wilder(index, 14, 27)
    got = compute(bars, ["ADX(timeperiod=14)"]).column(1).to_pylist()
    assert [each is None for each in got[:28]] == [True] * 27 + [False]
    for value, wanted in zip(got[500:], expected[500:], strict=True):
        assert math.isclose(value, wanted, rel_tol=1e-9)


def test_obv_starts_anew_each_month() -> None:
    times = pl.Series(["2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02"]).str.to_datetime(
        time_unit="us", time_zone="UTC"
    )
    bars = pl.DataFrame({"open_time": times, "close": [10.0, 11.0, 12.0, 11.0], "volume": [5.0, 7.0, 2.0, 3.0]})
    assert compute(bars, ["OBV"]).column("OBV(anchor=month)").to_pylist() == [5.0, 12.0, 2.0, -1.0]
    assert compute(bars, ["OBV(anchor=year)"]).column(1).to_pylist() == [5.0, 12.0, 14.0, 11.0]


def test_index_functions_say_how_many_rows_ago() -> None:
    times = pl.Series(range(6)).cast(pl.Int64) * 60_000_000
    bars = pl.DataFrame({"open_time": times.cast(pl.Datetime("us", "UTC")), "close": [1.0, 5.0, 2.0, 3.0, 4.0, 0.0]})
    assert compute(bars, ["MAXINDEX(4)"]).column(1).to_pylist() == [None, None, None, 2.0, 3.0, 1.0]
    ties = bars.with_columns(close=pl.Series([7.0, 7.0, 1.0, 7.0, 1.0, 2.0]))
    assert compute(ties, ["MAXINDEX(4)"]).column(1).to_pylist() == [None, None, None, 0.0, 1.0, 2.0]
    assert compute(ties, ["MININDEX(4)"]).column(1).to_pylist() == [None, None, None, 1.0, 0.0, 1.0]
    assert compute(bars, ["MININDEX(4)"]).column(1).to_pylist() == [None, None, None, 3.0, 2.0, 0.0]
