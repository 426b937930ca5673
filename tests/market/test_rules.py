"""The rules of rows: each broken by one thing alone, in their order, and what they let through."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdplatform.market.bars import AMOUNT_COLUMNS, PRICE_COLUMNS, RAW_SCHEMA
from mdplatform.market.rules import RULES, sift
from mdplatform.market.timeframe import Timeframe

from .rows import LATER, MINUTE, NOON, raw, raw_row

SECOND = timedelta(seconds=1)
INFINITY = math.inf
BREAKS: dict[str, list[dict[str, Any]]] = {
    "time_missing": [{"open_time": None}],
    "off_grid": [
        {"open_time": NOON + SECOND, "close_time": NOON + SECOND + MINUTE},
        {"open_time": NOON + timedelta(microseconds=1), "close_time": None},
    ],
    "early_close": [{"close_time": NOON + MINUTE - SECOND}, {"close_time": NOON + 2 * MINUTE}, {"close_time": NOON}],
    "not_closed": [{"open_time": LATER, "close_time": LATER + MINUTE}, {"open_time": LATER, "close_time": None}],
    "price_missing": [{name: empty} for name in PRICE_COLUMNS for empty in (None, math.nan)],
    "price_not_positive": [
        *({name: value} for name in PRICE_COLUMNS for value in (0.0, -1.0, -INFINITY)),
        {"high": INFINITY},
        {"open": INFINITY, "high": INFINITY},
    ],
    "high_low": [{"high": 10.5}, {"low": 10.5}, {"open": 12.5}, {"close": 8.5}, {"high": 8.0}, {"low": 13.0}],
    "amount_invalid": [
        *({name: -1} for name in AMOUNT_COLUMNS),
        *({name: INFINITY} for name in AMOUNT_COLUMNS if name != "trade_count"),
    ],
    "taker_exceeds_volume": [{"taker_buy_volume": 5.1}, {"taker_buy_quote_volume": 52.6}, {"volume": 0.0}],
}


def rule_of(**values: Any) -> str | None:
    kept, broken = sift(raw([raw_row(**values)]), Timeframe.M1, LATER)
    assert len(kept) + len(broken) == 1
    return None if len(kept) else str(broken["rule"][0])


def test_every_rule_is_broken_by_some_row_here() -> None:
    assert list(BREAKS) == list(RULES)


@pytest.mark.parametrize(("rule", "values"), [(rule, each) for rule, rows in BREAKS.items() for each in rows])
def test_a_row_is_named_by_the_rule_it_breaks(rule: str, values: dict[str, Any]) -> None:
    assert rule_of(**values) == rule


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"close_time": None},
        {"open_time": LATER - MINUTE, "close_time": LATER},
        dict.fromkeys(AMOUNT_COLUMNS),
        {"volume": math.nan},
        {"volume": 0.0, "quote_volume": 0.0, "trade_count": 0, "taker_buy_volume": 0.0, "taker_buy_quote_volume": 0.0},
        dict.fromkeys(PRICE_COLUMNS, 1e-12),
        {"taker_buy_volume": 5.0, "taker_buy_quote_volume": 52.5},
        {"taker_buy_volume": 5.0 * (1 + 1e-12)},
        {"volume": None, "taker_buy_volume": 9.0},
    ],
)  # fmt: skip
def test_a_good_row_is_kept(values: dict[str, Any]) -> None:
    assert rule_of(**values) is None


@pytest.mark.parametrize(("first", "second"), list(pairwise(RULES)))
def test_a_row_that_breaks_two_rules_is_named_by_the_first(first: str, second: str) -> None:
    both = BREAKS[second][0] | BREAKS[first][0]
    if (first, second) == ("price_missing", "price_not_positive"):
        both = {"open": None, "close": 0.0}
    if (first, second) == ("off_grid", "early_close"):
        both = {"open_time": NOON + SECOND, "close_time": NOON + MINUTE}
    assert rule_of(**both) == first


def test_weeks_open_on_mondays_alone() -> None:
    monday = datetime(2025, 3, 10, tzinfo=UTC)
    rows = raw([raw_row(monday + timedelta(days=n), timedelta(weeks=1)) for n in range(8)])
    kept, broken = sift(rows, Timeframe.W1, LATER)
    assert kept["open_time"].to_list() == [monday, monday + timedelta(weeks=1)]
    assert set(broken["rule"]) == {"off_grid"}


def test_an_empty_delivery_gives_two_empty_tables() -> None:
    kept, broken = sift(raw([]), Timeframe.M1, LATER)
    assert (len(kept), len(broken)) == (0, 0)
    assert kept.schema == RAW_SCHEMA
    assert broken.columns == [*RAW_SCHEMA, "rule"]


@given(st.lists(st.sampled_from([{}, *(rows[0] for rows in BREAKS.values())]), max_size=12))
def test_every_row_comes_out_once_in_the_order_it_came(changes: list[dict[str, Any]]) -> None:
    rows = raw([raw_row(**change) for change in changes]).with_columns(pl.int_range(pl.len()).alias("quote_volume"))
    rows = rows.with_columns(pl.col("quote_volume") + 100.0)  # a number by which each row is known
    kept, broken = sift(rows, Timeframe.M1, LATER)
    expected_kept = [100.0 + n for n, change in enumerate(changes) if not change]
    assert kept["quote_volume"].to_list() == expected_kept
    assert broken["quote_volume"].to_list() == [100.0 + n for n, change in enumerate(changes) if change]
