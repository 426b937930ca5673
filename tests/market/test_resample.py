"""Resampling and the complete grid, held to plain Python over exact decimals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mdplatform.market.bars import BAR_SCHEMA, VALUE_COLUMNS
from mdplatform.market.resample import complete_grid, resample
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import Timeframe

from .rows import EPOCH, LATER, NOON, bar_row, bars

SUMMED = ("volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")
LENGTHS = {"5m": 5, "15m": 15, "30m": 30, "1h": 60, "4h": 240, "1w": 7 * 1440}

prices = st.integers(1, 9_999_999).map(lambda cents: cents / 100)
amounts = st.one_of(st.none(), st.decimals(0, 10**9, places=8).map(float), st.decimals(0, 10**4, places=2).map(float))


@st.composite
def children(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of 1m on a few stretches of a day or so, some of them missing, gaps or idle."""
    start = NOON + timedelta(minutes=draw(st.integers(-90, 90)))
    with_nulls = draw(st.booleans())
    rows = []
    for n in range(draw(st.integers(1, 130))):
        kind = draw(st.sampled_from(["bar"] * 30 + ["idle"] * 3 + ["gap", "missing"]))
        opened, closed, high, low = (draw(prices) for _ in range(4))
        values = {"open": opened, "high": max(opened, closed, high), "low": min(opened, closed, low), "close": closed}
        values |= {name: draw(amounts) for name in SUMMED if name != "trade_count"}
        values["trade_count"] = draw(st.one_of(st.none(), st.integers(0, 10**6)))
        if not with_nulls:
            values |= {name: 1 for name in SUMMED if values[name] is None}
        row = bar_row(start + timedelta(minutes=n), **values, ingested_at=LATER + timedelta(seconds=n % 7))
        if kind == "gap":
            row |= dict.fromkeys(VALUE_COLUMNS) | {"state": "gap"}
        if kind == "idle":
            row["state"] = "no_trade"
        rows += [] if kind == "missing" else [row]
    return rows


def parents_of(rows: Sequence[dict[str, Any]], minutes: int) -> list[dict[str, Any]]:
    """Build the complete parents, a row at a time, amounts as exact sums of the decimals written."""
    length = timedelta(minutes=minutes)
    origin = EPOCH + timedelta(days=4)  # a Monday
    parents: dict[datetime, list[dict[str, Any]]] = {}
    for row in rows:
        if row["state"] != "gap":
            parents.setdefault(row["open_time"] - (row["open_time"] - origin) % length, []).append(row)
    built = []
    for opened, group in parents.items():
        if len(group) == minutes:
            parent = {
                "open_time": opened,
                "close_time": opened + length,
                "open": group[0]["open"],
                "high": max(row["high"] for row in group),
                "low": min(row["low"] for row in group),
                "close": group[-1]["close"],
                "state": "no_trade" if all(row["state"] == "no_trade" for row in group) else "observed",
                "available_at": opened + length,
                "ingested_at": max(row["ingested_at"] for row in group),
            }
            for name in SUMMED:
                values = [row[name] for row in group]
                parent[name] = None if None in values else float(sum(Decimal(repr(each)) for each in values))
            built.append(parent)
    return built


@hypothesis_settings(max_examples=40, deadline=None)
@given(children(), st.sampled_from([Timeframe.M5, Timeframe.M15, Timeframe.M30, Timeframe.H1]))
def test_longer_bars_are_those_of_plain_arithmetic(rows: list[dict[str, Any]], timeframe: Timeframe) -> None:
    built = resample(bars(rows), timeframe)
    expected = parents_of(rows, LENGTHS[timeframe])
    assert built.schema == BAR_SCHEMA
    assert built["open_time"].to_list() == [parent["open_time"] for parent in expected]
    for row, parent in zip(built.iter_rows(named=True), expected, strict=True):
        for name, value in parent.items():
            if name in SUMMED and value is not None:
                assert row[name] == pytest.approx(value, rel=2e-15, abs=0), name
            else:
                assert row[name] == value, name
        assert (row["symbol"], row["timeframe"], row["source"]) == ("AUSDT", timeframe.value, "resampled:1m")
        assert (row["is_closed"], row["revision"]) == (True, 0)


@given(st.lists(st.decimals(0, 10**4, places=8), min_size=15, max_size=15))
def test_sums_of_exchange_decimals_are_the_very_number(given_amounts: list[Decimal]) -> None:
    rows = [bar_row(NOON + timedelta(minutes=n), volume=float(each)) for n, each in enumerate(given_amounts)]
    assert resample(bars(rows), Timeframe.M15)["volume"].item() == float(sum(given_amounts))


def test_a_tenth_and_two_tenths_are_three_tenths() -> None:
    volumes = [0.1, 0.2, 0.0, 0.0, 0.0]
    rows = [bar_row(NOON + timedelta(minutes=n), volume=volume) for n, volume in enumerate(volumes)]
    assert resample(bars(rows), Timeframe.M5)["volume"].item() == 0.3


@pytest.mark.parametrize("absent", range(5))
@pytest.mark.parametrize("how", ["missing", "gap"])
def test_a_partial_bar_is_never_given(absent: int, how: str) -> None:
    rows = [bar_row(NOON + timedelta(minutes=n)) for n in range(10)]
    if how == "gap":
        rows[absent] |= dict.fromkeys(VALUE_COLUMNS) | {"state": "gap"}
    else:
        del rows[absent]
    assert resample(bars(rows), Timeframe.M5)["open_time"].to_list() == [NOON + timedelta(minutes=5)]


def test_a_week_is_built_from_monday_to_sunday() -> None:
    first = NOON.replace(hour=0) - timedelta(days=3)  # a Friday
    days = [bar_row(first + timedelta(days=n), Timeframe.D1, high=20.0 + n) for n in range(12)]
    built = resample(bars(days), Timeframe.W1)
    assert built["open_time"].to_list() == [NOON.replace(hour=0)]
    assert built["high"].to_list() == [29.0]
    assert built["trade_count"].to_list() == [49]


def test_what_became_known_late_makes_the_longer_bar_late() -> None:
    rows = [bar_row(NOON + timedelta(minutes=n)) for n in range(5)]
    rows[2]["available_at"] = LATER
    assert resample(bars(rows), Timeframe.M5)["available_at"].to_list() == [LATER]


@pytest.mark.parametrize(("child", "parent"), [("15m", "5m"), ("15m", "15m"), ("8h", "12h"), ("1w", "1d")])
def test_what_does_not_divide_is_refused(child: str, parent: str) -> None:
    with pytest.raises(ValueError, match="cannot be built"):
        resample(bars([bar_row(NOON, Timeframe.parse(child))]), Timeframe.parse(parent))


def test_nothing_is_built_from_nothing() -> None:
    assert resample(bars([]), Timeframe.H1).is_empty()


@given(st.sets(st.integers(0, 40), max_size=30), st.integers(0, 10), st.integers(31, 45), st.booleans())
def test_a_complete_grid_has_a_row_for_every_open_time(there: set[int], low: int, high: int, bounded: bool) -> None:
    numbers = sorted(n for n in there if low <= n < high)
    rows = bars([bar_row(NOON + timedelta(minutes=n), open=10.0 + n / 100) for n in numbers])
    if bounded:
        start = to_us(NOON) + low * 60_000_000
        grid = complete_grid(rows, Timeframe.M1, "AUSDT", start, to_us(NOON) + high * 60_000_000)
        expected = list(range(low, high))
    else:
        grid = complete_grid(rows, Timeframe.M1)
        expected = list(range(numbers[0], numbers[-1] + 1)) if numbers else []
    assert grid.schema == BAR_SCHEMA
    assert grid["open_time"].to_list() == [NOON + timedelta(minutes=n) for n in expected]
    assert grid.filter(pl.col("state") != "gap").equals(rows)
    for row in grid.filter(pl.col("state") == "gap").iter_rows(named=True):
        assert all(row[name] is None for name in VALUE_COLUMNS)
        assert row["available_at"] == row["close_time"] == row["open_time"] + timedelta(minutes=1)
        assert (row["symbol"], row["timeframe"], row["is_closed"], row["revision"]) == ("AUSDT", "1m", True, 0)
        assert (row["source"], row["ingested_at"]) == (None, None)


def test_a_longer_bar_is_the_same_whatever_else_is_in_the_table() -> None:
    quotes = [83_441_780.0, 63_714_099.9, 89_824_385.9, 69_248_728.7, 92_691_629.4] + [0.12345678] * 5
    rows = [bar_row(NOON + timedelta(minutes=n), quote_volume=each) for n, each in enumerate(quotes)]
    alone = resample(bars(rows[:5]), Timeframe.M5)
    assert resample(bars(rows), Timeframe.M5).head(1).equals(alone)
    assert alone["quote_volume"].item() == 398_920_623.9
