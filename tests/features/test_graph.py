"""How far back bars must reach, and which features share a computation."""

from datetime import UTC, datetime

import polars as pl
import pytest
import talib

from mdplatform.features import computations, evaluate, extra_rows, inputs_of, load_from

MINUTE = 60_000_000


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("features", "timeframe", "start", "expected"),
    [
        (["SMA(20)"], "1h", "2025-03-01T00:00", "2025-02-28T05:00"),
        (["SMA(20)", "SMA(50)"], "1d", "2025-03-01T00:00", "2025-01-11T00:00"),
        (["TYPPRICE"], "15m", "2025-03-01T00:00", "2025-03-01T00:00"),
        (["TYPPRICE"], "15m", "2025-03-01T00:07", "2025-03-01T00:00"),
        (["OBV"], "15m", "2025-03-17T12:00", "2025-03-01T00:00"),
        (["OBV(anchor=day)"], "15m", "2025-03-17T12:00", "2025-03-17T00:00"),
        (["OBV(anchor=week)"], "15m", "2025-03-16T12:00", "2025-03-10T00:00"),
        (["OBV(anchor=year)"], "15m", "2025-03-17T12:00", "2025-01-01T00:00"),
        (["OBV"], "1w", "2025-03-17T00:00", "2025-03-03T00:00"),
        (["OBV(anchor=day)", "SMA(3)"], "1h", "2025-03-17T12:00", "2025-03-17T00:00"),
        ([], "1h", "2025-03-17T12:00", "2025-03-17T12:00"),
    ],
)
def test_bars_are_loaded_from_as_far_back_as_the_slowest_feature_needs(
    features: list[str], timeframe: str, start: str, expected: str
) -> None:
    assert load_from(features, timeframe, instant(start)) == instant(expected)


def test_recursive_features_bring_the_rows_in_which_they_forget() -> None:
    alpha, rows = 1 / 14, 0
    left = 1.0
    while left > 1e-12:
        left *= 1 - alpha
        rows += 1
    assert extra_rows(["RSI"], "15m") == 14 + rows
    start = instant("2025-03-01T00:00")
    assert load_from(["RSI", "SMA(20)"], "15m", start) == start - (14 + rows) * 15 * MINUTE


def test_extra_rows_are_those_of_the_slowest() -> None:
    assert extra_rows(["SMA(20)", "SMA(200)", "TRANGE"], "1h") == 199
    assert extra_rows(["OBV"], "1h") == 31 * 24
    assert extra_rows([], "1h") == 0


def test_features_that_share_a_computation_are_one_group() -> None:
    groups = computations(["MACD", "MACD_HISTOGRAM", "MACD(12,26,9).macd", "RSI", "rsi(14)"])
    assert [str(whole) for whole in groups] == [
        "MACD(fastperiod=12,slowperiod=26,signalperiod=9)",
        "RSI(timeperiod=14)",
    ]
    assert [len(wanted) for wanted in groups.values()] == [3, 1]


def test_a_shared_computation_is_made_once(market: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    from mdplatform.features import talib_functions

    made = []
    plain = talib_functions.run
    monkeypatch.setattr(talib_functions, "run", lambda spec, columns: made.append(spec.name) or plain(spec, columns))
    result = evaluate(market.head(100), ["MACD", "MACD_HISTOGRAM", "MACD.macdsignal", "EMA(5)"])
    assert made == ["MACD", "EMA"]
    line, signal, histogram = talib.MACD(market["close"].head(100).to_numpy(), 12, 26, 9)
    name = "MACD(fastperiod=12,slowperiod=26,signalperiod=9)"
    assert result.values[f"{name}.macdhist"][40] == histogram[40]
    assert result.values[f"{name}.macdsignal"][40] == signal[40]
    assert result.values[f"{name}.macd"][40] == line[40]


def test_inputs_are_told_once_each() -> None:
    assert inputs_of(["ATR", "RSI", "MFI"]) == ("close", "high", "low", "volume")
