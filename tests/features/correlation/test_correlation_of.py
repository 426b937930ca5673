"""`correlation_of`: from bars, as known at an instant, on the real ones of six symbols and of 482 shares too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from mdplatform.errors import InvalidSymbol, NoData, ParameterOutOfRange, UnknownTimeframe
from mdplatform.features import (
    TableData,
    Truncated,
    correlation_matrix,
    correlation_of,
    log_returns,
    repaired,
    spanning_tree,
)
from mdplatform.market.bars import BAR_SCHEMA
from mdplatform.market.resample import complete_grid
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import Timeframe

SYMBOLS = ["BTCUSDT", "ETHUSDT", "ADAUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT"]
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def bars_of(symbol: str, closes: list[float | None], begin: datetime = BEGIN) -> pl.DataFrame:
    """Hourly bars of these closes; None is a gap."""
    opens = [begin + number * HOUR for number in range(len(closes))]
    rows = [
        {"symbol": symbol, "timeframe": "1h", "open_time": at, "close_time": at + HOUR, "close": close,
         "state": "gap" if close is None else "observed", "available_at": at + HOUR}
        for at, close in zip(opens, closes, strict=True)
    ]  # fmt: skip
    frame = pl.DataFrame(rows, schema_overrides={name: BAR_SCHEMA[name] for name in rows[0]})
    absent = [pl.lit(None, kind).alias(name) for name, kind in BAR_SCHEMA.items() if name not in frame.columns]
    return frame.with_columns(absent).select(list(BAR_SCHEMA))


@pytest.fixture
def data() -> TableData:
    random = np.random.default_rng(1)
    paths = (100 * np.exp(np.cumsum(random.normal(0, 0.01, (3, 200)), axis=1))).tolist()
    paths[1][150:153] = [None] * 3
    return TableData({name: bars_of(name, path) for name, path in zip("ABC", paths, strict=True)})


def expected(data: TableData, names: str, first: int, after: int) -> pd.DataFrame:
    closes = pd.DataFrame({name: data.bars_of[name]["close"].to_numpy() for name in names})
    return np.log(closes / closes.shift()).iloc[first:after].corr()


def test_the_newest_window_is_the_default_and_gaps_are_left_out(data: TableData) -> None:
    answer = correlation_of(["A", "B", "C"], 60, "1h", data=data)
    np.testing.assert_allclose(answer.matrix, expected(data, "ABC", 140, 200).to_numpy(), atol=1e-12)
    assert answer.observations[0].tolist() == [60, 56, 60]  # three gaps take four returns
    assert answer.available_at == BEGIN + 200 * HOUR
    assert answer.open_time == BEGIN + 199 * HOUR
    assert (answer.timeframe, answer.rows) == ("1h", 60)


def test_the_answer_at_an_instant_is_that_of_data_which_ends_there(data: TableData) -> None:
    for row in (70, 121, 152, 153, 198):
        closed = BEGIN + (row + 1) * HOUR
        answer = correlation_of(["A", "B"], 50, "1h", end=closed, data=data)
        then = correlation_of(["A", "B"], 50, "1h", end=closed, data=Truncated(data, to_us(closed)))
        np.testing.assert_array_equal(answer.matrix, then.matrix)
        np.testing.assert_allclose(answer.matrix, expected(data, "AB", row - 49, row + 1).to_numpy(), atol=1e-12)
        assert answer.available_at == closed
        just_before = correlation_of(["A", "B"], 50, "1h", end=closed - timedelta(microseconds=1), data=data)
        assert just_before.available_at == closed - HOUR


def test_levels_on_request_and_options_reach_the_estimator(data: TableData) -> None:
    answer = correlation_of("A", 50, "1h", data=data)
    assert answer.matrix.tolist() == [[1.0]]
    levels = correlation_of(["A", "C"], 50, "1h", of="levels", method="spearman", data=data)
    closes = pd.DataFrame({name: data.bars_of[name]["close"].to_numpy()[-50:] for name in "AC"})
    assert levels.value("A", "C") == pytest.approx(closes.corr("spearman").iloc[0, 1], abs=1e-12)
    assert levels.estimator == "spearman, pairwise"


def test_a_symbol_whose_bars_end_early_or_are_absent_has_fewer_observations_or_none(data: TableData) -> None:
    held = {**data.bars_of, "B": data.bars_of["B"][:170]}
    for order in (["A", "B"], ["B", "A"]):
        answer = correlation_of([*order, "NONE"], 60, "1h", data=TableData(held))
        assert answer.available_at == BEGIN + 200 * HOUR
        assert answer.observations[0, 1] == 26
        assert answer.pairs()["reason"].to_list() == [None, "insufficient_history", "insufficient_history"]


def test_bad_questions_are_refused_before_anything_is_read(data: TableData) -> None:
    for symbols, window, timeframe, options, error in (
        ([], 50, "1h", {}, ParameterOutOfRange),
        (["a b"], 50, "1h", {}, InvalidSymbol),
        (["A"], 1, "1h", {}, ParameterOutOfRange),
        (["A"], 50, "7m", {}, UnknownTimeframe),
        (["A"], 50, "1h", {"of": "prices"}, ParameterOutOfRange),
        (["A"], 50, "1h", {"end": "yesterday"}, ParameterOutOfRange),
        (["A"], 50, "1h", {"as_of": "2025-01-01"}, ParameterOutOfRange),
        (["A"], 50, "1h", {"method": "tau"}, ParameterOutOfRange),
        (["X"], 50, "1h", {}, NoData),
        (["A"], 50, "1h", {"end": "2024-01-01"}, NoData),
    ):
        with pytest.raises(error):
            correlation_of(symbols, window, timeframe, data=data, **options)  # type: ignore[arg-type]


def test_six_real_symbols_equal_pandas_in_each_timeframe(real_bars: Callable[[str], pl.DataFrame]) -> None:
    tables, closes = {}, {}
    for symbol in SYMBOLS:
        close = real_bars(symbol)
        closes[symbol] = close["close"].to_numpy()
        rows = bars_of(symbol, close["close"].to_list(), close["open_time"][0]).with_columns(
            close["open_time"],
            timeframe=pl.lit("15m"),
            close_time=close["open_time"].dt.offset_by("15m"),
            available_at=close["open_time"].dt.offset_by("15m"),
            volume=pl.lit(1.0),
            **dict.fromkeys(("open", "high", "low"), close["close"]),
        )
        tables[symbol] = complete_grid(rows.select(list(BAR_SCHEMA)), Timeframe.M15)
    prices = pd.DataFrame(closes)
    returns = np.log(prices / prices.shift())  # a difference of logarithms would break ties by rounding
    for method in ("pearson", "spearman"):
        answer = correlation_of(SYMBOLS, 2688, "15m", method=method, data=TableData(tables))
        np.testing.assert_allclose(answer.matrix, returns.tail(2688).corr(method).to_numpy(), atol=1e-12)
        assert answer.matrix.min() > 0.3
        assert answer.is_psd is True
    hourly = np.log(prices.iloc[3::4].reset_index(drop=True)).diff()
    answer = correlation_of(SYMBOLS, 672, "1h", data=TableData(tables))
    np.testing.assert_allclose(answer.matrix, hourly.tail(672).corr().to_numpy(), atol=1e-12)
    levels = correlation_of(SYMBOLS, 672, "1h", of="levels", data=TableData(tables))
    assert not np.allclose(levels.matrix, answer.matrix, atol=0.05)


def test_482_real_shares_with_holes_and_a_day_priced_zero_equal_pandas(shared_data: Path) -> None:
    table = pl.read_parquet(shared_data / "ready" / "panels" / "sp500_482sym_daily_2018-2020.parquet")
    prices = table.rename({"date": "open_time"})
    panel = log_returns(prices)  # CBS has 40.77 and 0 on one day: zero is no price, so 40.77 it is
    assert len(panel.symbols) == 482
    assert panel.values.shape == (510, 482)
    cbs = prices.filter((pl.col("symbol") == "CBS") & (pl.col("close") > 0)).sort("open_time")
    held = panel.values[:, panel.index("CBS")]
    np.testing.assert_allclose(held[~np.isnan(held)], np.diff(np.log(cbs["close"].to_numpy())), atol=1e-12)

    answer = correlation_matrix(panel, min_periods=100)
    expected = panel.frame().to_pandas().drop(columns="open_time").corr(min_periods=100).to_numpy()
    np.testing.assert_allclose(answer.matrix, expected, atol=1e-12, equal_nan=True)
    np.testing.assert_array_equal(answer.matrix, answer.matrix.T)
    complete = (answer.observations == 509).sum(axis=1)
    assert np.count_nonzero(complete >= 458) == 458
    tree = spanning_tree(answer.whole())
    edges = {frozenset(pair) for pair in tree.edges.select("symbol_a", "symbol_b").iter_rows()}
    assert {frozenset(pair) for pair in (("GOOG", "GOOGL"), ("CVX", "XOM"), ("JPM", "BAC"))} <= edges


def test_a_part_of_the_real_shares_with_holes_is_mended(shared_data: Path) -> None:
    table = pl.read_parquet(shared_data / "ready" / "panels" / "sp500_482sym_daily_2018-2020.parquet")
    panel = log_returns(table.rename({"date": "open_time"}))
    counts = np.count_nonzero(~np.isnan(panel.values), axis=0)
    some = [panel.symbols[at] for at in np.argsort(counts, kind="stable") if counts[at] >= 100][:60]
    answer = correlation_matrix(panel, symbols=some, min_periods=20).whole()
    assert answer.is_psd is False
    mended = repaired(answer)
    assert mended.is_psd is True
    assert 0 < np.abs(mended.matrix - answer.matrix).max() < 0.3
