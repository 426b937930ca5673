"""Profiles of windows that move: each is that of its own items alone."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.errors import ParameterOutOfRange
from mdplatform.features.profile.developing import Items, Windows, profiles, rolling_windows, session_windows
from mdplatform.features.profile.volume_profile import automatic_row_size, volume_profile, volume_profile_of_bars
from mdplatform.market.timeframe import DAY_US

ITEMS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1000, 1100), st.integers(0, 30), st.sampled_from([1, 2, 5, 10**4, 10**7])),
    max_size=40,
)
STEPS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=12)


def made(items: list[tuple[int, int, int, int]], spread: bool) -> Items:
    """Items from (time since the one before, price, rows that it spreads over, quantity)."""
    time = np.cumsum([each[0] for each in items], dtype=np.int64)
    low = np.array([each[1] / 10 for each in items])
    high = np.array([(each[1] + each[2]) / 10 for each in items]) if spread else low
    volume = np.array([each[3] / 10 for each in items])
    return Items(time, low, low, high, volume, "bars:1m" if spread else "trades")


def ascending(steps: list[tuple[int, int]]) -> Windows:
    starts = np.cumsum([each[0] for each in steps])
    ends = np.maximum.accumulate(starts + np.array([each[1] for each in steps]))
    return Windows(starts, ends)


@settings(max_examples=150, deadline=None)
@given(ITEMS, STEPS, st.booleans(), st.sampled_from([0.0, 0.1, 0.5]))
def test_each_window_has_the_profile_of_its_own_items(
    items: list[tuple[int, int, int, int]], steps: list[tuple[int, int]], spread: bool, size: float
) -> None:
    all_items, windows = made(items, spread), ascending(steps)
    found = profiles(all_items, windows, size, 0.7, 2)
    for at, (start, end) in enumerate(zip(windows.start, windows.end, strict=True)):
        inside = all_items[(all_items.time >= start) & (all_items.time < end)]
        if not len(inside.time):
            assert np.isnan(found[:, at]).all()
            continue
        own = size or automatic_row_size(inside.first[0])
        table = pl.DataFrame({"low": inside.low, "high": inside.high, "price": inside.low, "volume": inside.volume})
        alone = (
            volume_profile_of_bars(table, own) if spread else volume_profile(table.rename({"volume": "quantity"}), own)
        )
        assert found[:3, at].tolist() == [alone.poc, alone.vah, alone.val]
        assert found[3, at] == pytest.approx(alone.volume, rel=1e-12)
        assert found[4, at] == own


def test_a_close_at_a_session_s_end_belongs_to_it() -> None:
    eight = 8 * 3_600_000_000
    closes = DAY_US + np.array([1, eight, eight + 1, DAY_US])
    assert (session_windows(closes, eight).start - DAY_US).tolist() == [0, 0, eight, 2 * eight]
    assert (closes - rolling_windows(closes, eight).start).tolist() == [eight] * 4


def test_a_row_size_that_makes_too_many_rows_is_refused() -> None:
    items = made([(0, 1000, 0, 1), (1, 1100, 0, 1)], spread=False)
    with pytest.raises(ParameterOutOfRange, match="rows of these prices"):
        profiles(items, Windows(np.array([0]), np.array([5])), 1e-6, 0.7, 2)


def test_prices_thousands_of_times_as_high_cost_no_other_window_its_profile() -> None:
    items = made([(0, 1, 0, 1), (1, 10_000_000, 0, 1), (1, 1, 0, 1)], spread=False)
    windows = Windows(np.array([0, 0, 2]), np.array([1, 2, 3]))
    found = profiles(items, windows, 0, 0.7, 2)
    assert np.isnan(found[0]).tolist() == [False, True, False]
    assert found[0, 0] == found[0, 2]
    with pytest.raises(ParameterOutOfRange, match="rows of these prices"):
        profiles(items, windows, 0.0001, 0.7, 2)
