"""Any month of indicators is the same, materialized alone, together, or in any order, and equal to TA-Lib."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import talib

from mdplatform.ingest import Wanted, ingest
from mdplatform.lake import Lake
from mdplatform.market.time import month_range
from mdplatform.market.timeframe import Timeframe
from mdplatform.runs import Runs
from mdplatform.settings import Settings

SYMBOL = "BTCUSDT"
MONTHS = ["2024-12", "2025-01", "2025-02", "2025-03", "2025-04", "2025-05", "2025-06"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Settings:
    settings = Settings.load(home=tmp_path_factory.mktemp("home"))
    ingest([str(shared_data / "ready/klines/binance_spot_15m/BTCUSDT.parquet")], Wanted(), settings)
    return settings


def months_of(settings: Settings, order: list[list[str]]) -> dict[str, pl.DataFrame]:
    lake = Lake(settings.lake_dir)
    for month in MONTHS:
        lake.frames("technical_indicators").path(f"{SYMBOL}/{month}").unlink(missing_ok=True)
    with Runs(settings) as runs:
        for months in order:
            runs.materialize(["technical_indicators"], {SYMBOL: months})
    start, end = month_range(MONTHS[0])[0], month_range(MONTHS[-1])[1]
    store = lake.frames("technical_indicators")
    return {tf: store.read(f"{SYMBOL}/", Timeframe(tf), start, end) for tf in ("15m", "1h", "4h")}


@pytest.fixture(scope="module")
def together(home: Settings) -> dict[str, pl.DataFrame]:
    """All months as one run makes them."""
    return months_of(home, [MONTHS])


@pytest.fixture(scope="module")
def apart(home: Settings, together: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The months made one by one, some after the month before them, some ahead of it; `together` is read by then."""
    assert together
    return months_of(home, [[MONTHS[each]] for each in (6, 5, 2, 3, 4, 1, 0)])


def test_months_materialized_one_by_one_in_any_order_equal_all_of_them_at_once(
    together: dict[str, pl.DataFrame], apart: dict[str, pl.DataFrame]
) -> None:
    for timeframe, whole in together.items():
        for name in whole.columns:
            given = apart[timeframe][name]
            if whole[name].dtype == pl.Float64:
                np.testing.assert_allclose(given.to_numpy(), whole[name].to_numpy(), rtol=1e-9, atol=0, err_msg=name)
            else:
                assert given.equals(whole[name]), name


def test_indicators_equal_talib_on_the_whole_series(home: Settings, apart: dict[str, pl.DataFrame]) -> None:
    ours = apart["15m"]
    bars = Lake(home.lake_dir).bars.read(SYMBOL, Timeframe.M15)
    high, low, close = (bars[name].to_numpy().copy() for name in ("high", "low", "close"))
    macd = talib.MACD(close, 12, 26, 9)
    bands = talib.BBANDS(close, 20, 2, 2, 0)
    expected = {
        "RSI(timeperiod=14)": talib.RSI(close, 14),
        "MACD(fastperiod=12,slowperiod=26,signalperiod=9).macd": macd[0],
        "MACD(fastperiod=12,slowperiod=26,signalperiod=9).macdsignal": macd[1],
        "MACD(fastperiod=12,slowperiod=26,signalperiod=9).macdhist": macd[2],
        "BBANDS(timeperiod=20,nbdevup=2,nbdevdn=2,matype=0).upperband": bands[0],
        "BBANDS(timeperiod=20,nbdevup=2,nbdevdn=2,matype=0).middleband": bands[1],
        "BBANDS(timeperiod=20,nbdevup=2,nbdevdn=2,matype=0).lowerband": bands[2],
        "ATR(timeperiod=14)": talib.ATR(high, low, close, 14),
        "ADX(timeperiod=14)": talib.ADX(high, low, close, 14),
        "STDDEV(timeperiod=20,nbdev=1)": talib.STDDEV(close, 20, 1),
    }
    assert len(ours) == len(bars) == 17_568
    for name, values in expected.items():
        np.testing.assert_allclose(ours[name].to_numpy(), values, rtol=1e-9, atol=0, err_msg=name)


def test_every_row_says_when_it_could_be_known_and_no_null_lacks_a_reason(together: dict[str, pl.DataFrame]) -> None:
    hourly = together["1h"]
    assert (hourly["available_at"] - hourly["open_time"]).unique().to_list() == [
        pl.Series([3_600_000_000]).cast(pl.Duration("us"))[0]
    ]
    status = hourly["RSI(timeperiod=14).status"]
    is_null = hourly["RSI(timeperiod=14)"].is_null()
    assert status.filter(is_null).unique().to_list() == ["insufficient_history"]
    assert is_null.sum() == 14
    assert set(status.filter(~is_null).unique()) == {"settled", "unsettled"}
