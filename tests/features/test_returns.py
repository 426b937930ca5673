"""How returns go along with another series in a sliding window, against numpy over each window by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.features.guard import DEGENERATE, INSUFFICIENT_HISTORY, SETTLED
from mdplatform.features.returns import correlated

NUMBERS = st.lists(st.none() | st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(NUMBERS, st.integers(3, 12), st.integers(3, 12), st.integers(0, 5))
def test_the_rolling_correlation_is_numpys_over_each_window(
    left: list[float | None], window: int, least: int, seed: int
) -> None:
    x = np.array([math.nan if each is None else each for each in left])
    y = np.random.default_rng(seed).normal(size=len(x))
    y[seed::7] = math.nan
    values, statuses = correlated(x, y, window, least)
    for row in range(len(x)):
        first = max(0, row - window + 1)
        both = np.isfinite(x[first : row + 1]) & np.isfinite(y[first : row + 1])
        a, b = x[first : row + 1][both], y[first : row + 1][both]
        if len(a) < least:
            assert statuses[row] == INSUFFICIENT_HISTORY
        elif np.ptp(a) == 0:
            assert statuses[row] == DEGENERATE
        else:
            assert statuses[row] == SETTLED
            assert values[row] == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-7, abs=1e-9)
        assert math.isnan(values[row]) == (statuses[row] != SETTLED)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-6, 1e6), st.floats(-10, 10))
def test_a_correlation_is_bounded_symmetric_and_blind_to_scale(seed: int, scale: float, shift: float) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=60), generator.normal(size=60)
    y = 0.999 * x + 0.001 * y if seed % 2 else y
    values, _ = correlated(x, y, 20, 5)
    swapped, _ = correlated(y, x, 20, 5)
    scaled, _ = correlated(x * scale + shift * scale, y, 20, 5)
    assert np.nanmax(np.abs(values)) <= 1
    assert np.array_equal(values, swapped, equal_nan=True)
    assert np.allclose(values, scaled, rtol=1e-6, atol=1e-9, equal_nan=True)


def test_a_constant_with_rounding_in_its_mean_is_degenerate_and_not_noise() -> None:
    values, statuses = correlated(np.full(30, 0.1), np.random.default_rng(1).normal(size=30), 10, 5)
    assert np.isnan(values).all()
    assert set(statuses[9:].tolist()) == {DEGENERATE}
