"""The battery's laws of time where bars come with a delay, and one comes hours late: of every kind alike.

T of a row is the instant at which its own bar was available, and nothing in the row may be known later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest

from mdplatform.features import FeatureSpec, Grid, TableData, Truncated, Values, check_lookahead
from mdplatform.features.data import grid_of
from mdplatform.features.guard import UNSETTLED
from mdplatform.features.panel import evaluate_on, frame
from mdplatform.market.timeframe import Timeframe

from . import tried, world
from .test_battery import expect_same

PRESENT = [each for each in tried.features() if not tried.is_hindsight(each)]


@cache
def late(name: str) -> tuple[TableData, Grid]:
    """Give the world with bars that come late, and its last four days: with delays of 2 s, or more of the others."""
    held = world.data()
    delays = {
        "all alike": dict.fromkeys(world.SYMBOLS, 2),
        "others later": {"ADAUSDT": 1, "BTCUSDT": 0, "ETHUSDT": 3},
    }[name]
    bars = {symbol: world.delayed(rows, delays[symbol]) for symbol, rows in held.bars_of.items()}
    data = replace(held, bars_of=bars)
    rows = data.bars(world.SYMBOL, Timeframe.M15, world.END - 4 * 86_400_000_000, world.END)
    return data, grid_of(rows)


def whole(feature: FeatureSpec, name: str) -> Values:
    return _whole(feature.definition.kind, name)[feature]


@cache
def _whole(kind: str, name: str) -> Mapping[FeatureSpec, Values]:
    data, grid = late(name)
    return evaluate_on(grid, tried.company(kind, PRESENT), data)


@cache
def known_then(kind: str, name: str, cut: int) -> tuple[Mapping[FeatureSpec, Values], Mapping[FeatureSpec, Values]]:
    """Give all of a kind from what was known at a row's instant: in all rows up to it, and in that row by itself.

    They are computed together; that each gives the same bits by itself is a law of its own.
    """
    data, grid = late(name)
    known = Truncated(data, int(grid.known_at[cut]))
    company = tried.company(kind, PRESENT)
    upto, one = (evaluate_on(part(grid, first, cut + 1), company, known) for first in (0, cut))
    return upto, one


def part(grid: Grid, first: int, after: int) -> Grid:
    return Grid(grid.symbol, grid.timeframe, grid.open_time[first:after], grid.known_at[first:after])


def cuts(name: str) -> list[int]:
    """Rows at which data is cut off: about the late bar, while it is missing, when it comes, and far from it."""
    at = int(np.searchsorted(late(name)[1].open_time, world.LATE))
    return [at + each for each in {"all alike": (0, 7, 20), "others later": (-1, 0, 20, 60)}[name]]


@pytest.mark.parametrize("name", ["all alike", "others later"])
@pytest.mark.parametrize("feature", PRESENT, ids=str)
def test_no_row_has_what_was_not_available_at_its_instant(feature: FeatureSpec, name: str) -> None:
    for cut in cuts(name):
        upto, one = known_then(feature.definition.kind, name, cut)
        expect_same(upto[feature], whole(feature, name), slice(0, cut + 1))
        expect_same(one[feature], whole(feature, name), slice(cut, cut + 1))


@pytest.mark.parametrize("feature", PRESENT, ids=str)
def test_a_delay_takes_values_from_no_kind(feature: FeatureSpec) -> None:
    delayed = whole(feature, "all alike").statuses <= UNSETTLED
    prompt = evaluate_on(world.grid(), [feature], world.data())[feature].statuses <= UNSETTLED
    before = np.searchsorted(world.grid().open_time, world.LATE)
    np.testing.assert_array_equal(delayed[:before], prompt[:before])


@pytest.mark.parametrize("name", ["all alike", "others later"])
def test_the_instants_of_rows_come_with_the_frame_and_ascend(name: str) -> None:
    data, grid = late(name)
    made = frame(world.SYMBOL, ["close"], "15m", "2025-02-04", data=data)
    assert made.columns[:4] == ["symbol", "open_time", "close_time", "available_at"]
    np.testing.assert_array_equal(made["available_at"].to_physical().to_numpy(), grid.known_at)
    assert (np.diff(grid.known_at) >= 0).all()
    assert made.filter(pl.col("close").is_null())["available_at"].null_count() == 0


def test_the_detector_finds_nothing_where_bars_come_late() -> None:
    data, _ = late("others later")
    given = ["mean(close,3)", "RSI", "close@ETHUSDT", "CORRELATION(reference=ETHUSDT,window=20)"]
    assert check_lookahead([*given, lambda bars: bars["close"].shift(1)], data, world.SYMBOL, rows=384).passed
