"""Tables in memory: what converts is converted, and what does not is refused by its column."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from mdplatform.errors import InvalidBars, InvalidFeature, InvalidTable, PlatformError
from mdplatform.features import TableData, Truncated, check_lookahead, frame, parse_feature
from mdplatform.market.time import to_us

from .kinds import world

FEATURES = ["RSI", "CVD", "CVD(method=trades)", "VOLUME_PROFILE.poc"]
FORMS = {
    "ms": lambda rows: rows.with_columns(pl.col(pl.Datetime).dt.cast_time_unit("ms")),
    "ns": lambda rows: rows.with_columns(pl.col(pl.Datetime).dt.cast_time_unit("ns")),
    "naive": lambda rows: rows.with_columns(pl.col(pl.Datetime).dt.replace_time_zone(None)),
    "another zone": lambda rows: rows.with_columns(pl.col(pl.Datetime).dt.convert_time_zone("Asia/Tokyo")),
    "pandas": lambda rows: rows.to_pandas(),
    "Arrow": lambda rows: rows.to_arrow(),
    "lazy": lambda rows: rows.lazy(),
}


def of_a_day() -> TableData:
    first, after = world.BEGIN + 4 * 86_400_000_000, world.BEGIN + 6 * 86_400_000_000
    held = world.since(first)
    bars = held.bars_of[world.SYMBOL].filter(pl.col("open_time").dt.epoch("us") < after)
    trades = held.trades_of[world.SYMBOL].filter(pl.col("time").dt.epoch("us") < after)
    trades = trades.with_columns(pl.col("time").dt.truncate("1ms"), pl.col("available_at").dt.truncate("1ms"))
    return TableData({world.SYMBOL: bars}, {world.SYMBOL: trades})


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_of_a_table_give_the_same_frame(form: str) -> None:
    plain = of_a_day()
    bars, trades = plain.bars_of[world.SYMBOL], plain.trades_of[world.SYMBOL]
    data: Any = TableData({world.SYMBOL: FORMS[form](bars)}, {world.SYMBOL: FORMS[form](trades)})
    made = frame(world.SYMBOL, FEATURES, "15m", data=data, statuses=True)
    assert made.equals(frame(world.SYMBOL, FEATURES, "15m", data=plain, statuses=True))
    assert made.select(pl.col(parse_feature("CVD").columns[0]).abs().sum()).item() > 0


def test_without_available_at_a_bar_is_known_at_its_close_and_a_trade_at_its_time() -> None:
    plain = of_a_day()
    trades = plain.trades_of[world.SYMBOL].with_columns(available_at="time")
    wanted = frame(world.SYMBOL, FEATURES, "15m", data=replace(plain, trades_of={world.SYMBOL: trades}))
    bare = TableData(
        {world.SYMBOL: plain.bars_of[world.SYMBOL].drop("available_at")},
        {world.SYMBOL: trades.select("time", "price", "quantity", "is_buyer_maker")},
    )
    assert frame(world.SYMBOL, FEATURES, "15m", data=bare).equals(wanted)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows.drop("price"), "lacks columns: 'price'"),
        (lambda rows: rows.with_columns(pl.col("time").dt.epoch("ms")), "Column time of trades"),
        (lambda rows: rows.with_columns(price=pl.lit("dear")), "Column price of trades"),
        (lambda rows: rows.with_columns(time=pl.lit(None)), "Column time of trades is null"),
        (lambda rows: [1, 2], "No table of trades: 'list'"),
    ],
)
def test_trades_that_do_not_convert_are_refused_by_their_column(change: Any, told: str) -> None:
    plain = of_a_day()
    data = replace(plain, trades_of={world.SYMBOL: change(plain.trades_of[world.SYMBOL])})
    with pytest.raises(InvalidTable) as refused:
        frame(world.SYMBOL, "VPIN", "15m", data=data)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows.drop("open_time"), "open_time"),
        (lambda rows: rows.with_columns(pl.col("open_time").dt.epoch("ms")), "open_time"),
        (lambda rows: rows.with_columns(close=pl.lit("dear")), "close"),
        (lambda rows: {"open": [1.0]}, "dict"),
    ],
)
def test_bars_that_do_not_convert_are_refused_by_their_column(change: Any, told: str) -> None:
    data: Any = TableData({world.SYMBOL: change(of_a_day().bars_of[world.SYMBOL])})
    with pytest.raises(InvalidBars, match=told):
        frame(world.SYMBOL, "RSI", "15m", data=data)


def test_cut_data_tells_of_a_day_once_a_trade_of_it_is_available() -> None:
    held = of_a_day()
    day = datetime(2025, 2, 1, tzinfo=UTC)
    late = pl.when(pl.col("time") >= day).then(pl.col("time") + timedelta(hours=30)).otherwise("available_at")
    data = replace(held, trades_of={world.SYMBOL: held.trades_of[world.SYMBOL].with_columns(available_at=late)})
    for hours, wanted in ((-1, ["2025-01-31"]), (10, ["2025-01-31"]), (31, ["2025-01-31", "2025-02-01"])):
        assert Truncated(data, to_us(day + timedelta(hours=hours))).trade_days(world.SYMBOL) == wanted


@pytest.mark.parametrize(("symbols", "features"), [(None, "RSI"), (world.SYMBOL, None), (3, "RSI"), (world.SYMBOL, 5)])
def test_neither_symbols_nor_features_may_be_nothing(symbols: Any, features: Any) -> None:
    with pytest.raises(PlatformError, match=r"These are no symbols|Not a feature"):
        frame(symbols, features, "15m", data=of_a_day())


def fails(bars: pl.DataFrame) -> pl.Series:
    return bars["no such column"]


def test_a_function_of_ones_own_that_fails_is_named() -> None:
    with pytest.raises(InvalidFeature, match="test_given:fails fails") as refused:
        check_lookahead(fails, of_a_day(), world.SYMBOL)
    assert "no such column" in str(refused.value)
