"""The laws of time and of partitions at any place: any feature, symbol, timeframe, piece of rows and instant."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.features import FeatureSpec, Grid, Truncated, Values
from mdplatform.features.guard import STATUSES
from mdplatform.features.panel import evaluate_on

from . import tried, world

PRESENT = [each for each in tried.features() if not tried.is_hindsight(each)]


@cache
def whole(feature: FeatureSpec, symbol: str, timeframe: str) -> tuple[Grid, Values]:
    """Give all rows of the last four days, and the values in them."""
    grid = world.grid(timeframe, symbol=symbol)
    return grid, evaluate_on(grid, [feature], world.data())[feature]


@pytest.mark.parametrize("kind", sorted({each.definition.kind for each in PRESENT}))
def test_any_piece_as_known_at_any_later_instant_has_the_same_values(kind: str) -> None:
    features = [each for each in PRESENT if each.definition.kind == kind]

    @settings(max_examples=12, deadline=None)
    @given(
        feature=st.sampled_from(features),
        symbol=st.sampled_from(world.SYMBOLS),
        timeframe=st.sampled_from(["5m", "15m", "1h"]),
        begins=st.floats(0, 0.999),
        length=st.integers(1, 40),
        later=st.integers(0, 3 * world.HOUR_US),
    )
    def hold(feature: FeatureSpec, symbol: str, timeframe: str, begins: float, length: int, later: int) -> None:
        grid, wanted = whole(feature, symbol, timeframe)
        first = int(begins * len(grid))
        piece = Grid(symbol, grid.timeframe, grid.open_time[first : first + length])
        known = Truncated(world.data(), int(piece.close_time[-1]) + later)
        got = evaluate_on(piece, [feature], known)[feature]
        at = slice(first, first + length)
        assert [STATUSES[each] for each in got.statuses] == [STATUSES[each] for each in wanted.statuses[at]]
        for output, other in zip(got.outputs, wanted.outputs, strict=True):
            usual = float(np.median(np.abs(other[np.isfinite(other)]))) if np.isfinite(other).any() else 0.0
            np.testing.assert_allclose(output, other[at], rtol=1e-9, atol=1e-9 * usual)
        if wanted.ages is not None:
            assert got.ages is not None
            np.testing.assert_array_equal(got.ages, wanted.ages[at])

    hold()
