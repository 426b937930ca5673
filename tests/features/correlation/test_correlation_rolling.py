"""Rolling correlation: equal to each window by itself, over any length, through outliers, holes and flat stretches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mdplatform.errors import ParameterOutOfRange, UnknownSymbol
from mdplatform.features import correlation_matrix, rolling_correlation
from mdplatform.features.correlation.pair_kernels import roll_pair
from mdplatform.features.guard import DEGENERATE

from . import oracles

NAN = float("nan")
NUMBERS = st.one_of(
    st.just(NAN), st.sampled_from([0.0, 1.0, 2.0]), st.integers(-1000, 1000).map(lambda each: each / 128), st.just(1e8)
)
PANELS = arrays.arrays(np.float64, st.tuples(st.integers(1, 40), st.just(2)), elements=NUMBERS)


def expected(values: np.ndarray, row: int, window: int, least: int, method: str = "pearson") -> float | None:
    part = values[max(0, row + 1 - window) : row + 1]
    of = oracles.pearson if method == "pearson" else oracles.spearman
    return of(part[:, 0].tolist(), part[:, 1].tolist(), least)


def expect(got: float, wanted: float | None, tolerance: float) -> None:
    assert np.isnan(got) == (wanted is None), (got, wanted)
    if wanted is not None:
        assert got == pytest.approx(wanted, abs=tolerance)


@settings(max_examples=150, deadline=None)
@given(PANELS, st.integers(2, 12), st.sampled_from(["pearson", "spearman"]))
def test_each_row_equals_its_window_by_itself(values: np.ndarray, window: int, method: str) -> None:
    answer = rolling_correlation(values, window, symbols=["A", "B"], method=method, min_periods=2)
    for row in range(len(values)):
        expect(answer.values[row, 0], expected(values, row, window, 2, method), 1e-11)
        part = values[max(0, row + 1 - window) : row + 1]
        assert answer.observations[row, 0] == (~np.isnan(part).any(axis=1)).sum()


@settings(max_examples=50, deadline=None)
@given(PANELS, st.integers(2, 12), st.integers(1, 7))
def test_a_step_chooses_rows_and_the_last_is_among_them(values: np.ndarray, window: int, step: int) -> None:
    every = rolling_correlation(values, window, symbols=["A", "B"], min_periods=2)
    some = rolling_correlation(values, window, step, symbols=["A", "B"], min_periods=2)
    assert some.rows[-1] == len(values) - 1
    assert (np.diff(some.rows) == step).all()
    np.testing.assert_allclose(some.values, every.values[some.rows], atol=1e-12, equal_nan=True)
    np.testing.assert_array_equal(some.statuses, every.statuses[some.rows])


@pytest.mark.parametrize("window", [20, 500])
def test_drift_stays_under_a_trillionth_over_100_000_rows_with_outliers_and_flat_stretches(window: int) -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=(100_000, 2))
    values[:, 1] += 0.5 * values[:, 0]
    values[50_007, 0], values[70_013, 1], values[20_003, 0] = 1e10, -1e8, 1e6
    values[30_000:31_000, 0] = 3.0
    values[40_000:60_000, 1] += 1e5  # another level
    values[random.random(100_000) < 0.05, 0] = NAN
    answer = rolling_correlation(values, window, symbols=["A", "B"], min_periods=10)
    near = [at + each for at in (20_003, 50_007, 70_013, 31_000) for each in (0, 1, window - 1, window, window + 1)]
    for row in [*near, *random.integers(window, 100_000, 250).tolist(), 99_999]:
        expect(answer.values[row, 0], expected(values, row, window, 10), 1e-12)
    assert (answer.statuses[30_000 + window : 31_000] == DEGENERATE).all()


def test_without_being_computed_anew_it_would_drift() -> None:
    """The test above would find a kernel that only adds and takes away."""
    random = np.random.default_rng(1)
    values = random.normal(size=(3000, 2))
    values[1030, 0] = 1e10
    x, y = np.ascontiguousarray(values.T)
    anew, *_ = roll_pair(x, y, 100, 10, 0, 1, 1e-13)
    never, *_ = roll_pair(x, y, 100, 10, 0, 1, np.inf)
    assert np.nanmax(np.abs(anew - never)) > 1e-6


@pytest.mark.parametrize("holes", [0.0, 0.2])
def test_matrices_of_few_rows_equal_pairs_that_slide(holes: float) -> None:
    random = np.random.default_rng(2)
    values = random.normal(size=(400, 5))
    values[random.random(values.shape) < holes] = NAN
    symbols = list("ABCDE")
    slid = rolling_correlation(values, 60, 1, symbols=symbols, min_periods=5)
    jumped = rolling_correlation(values, 60, 50, symbols=symbols, min_periods=5)
    np.testing.assert_allclose(jumped.values, slid.values[jumped.rows], atol=1e-12, equal_nan=True)
    np.testing.assert_array_equal(jumped.observations, slid.observations[jumped.rows])
    last = correlation_matrix(values[-60:], symbols=symbols, min_periods=5)
    np.testing.assert_allclose(slid.matrix(len(slid.rows) - 1).matrix, last.matrix, atol=1e-12, equal_nan=True)


def test_a_series_that_begins_later_has_the_same_bits_if_it_begins_a_window_before_a_row_that_is_computed_anew() -> (
    None
):
    random = np.random.default_rng(3)
    x, y = random.normal(size=(2, 5000))
    x[700] = 1e9
    whole, *_ = roll_pair(x, y, 50, 5, 0, 1, 1e-13)
    part, *_ = roll_pair(x[1000:], y[1000:], 50, 5, 0, 1, 1e-13)
    np.testing.assert_array_equal(part[50:], whole[1050:])


def test_pairs_are_named_and_told_as_a_long_frame() -> None:
    values = np.random.default_rng(4).normal(size=(30, 3))
    answer = rolling_correlation(values, 10, 10, symbols=["A", "B", "C"], pairs=[("A", "C"), ("C", "B")])
    frame = answer.frame()
    assert frame.columns == ["row", "symbol_a", "symbol_b", "correlation", "observations", "reason"]
    assert frame["row"].to_list() == [9, 9, 19, 19, 29, 29]
    assert answer.series("C", "A").tolist() == answer.series("A", "C").tolist()
    assert answer.matrix(0).value("A", "B") is None


@pytest.mark.parametrize(
    ("window", "options", "told"),
    [
        (1, {}, "from 2"),
        (0, {}, "from 2"),
        (True, {}, "from 2"),
        (10.5, {}, "from 2"),
        (10, {"step": 0}, "from 1"),
        (10, {"min_periods": 11}, "from 2 to 10"),
        (10, {"method": "exponential"}, "pearson, spearman"),
    ],
)
def test_windows_that_make_no_sense_are_refused(window: object, options: dict[str, object], told: str) -> None:
    with pytest.raises(ParameterOutOfRange, match=told):
        rolling_correlation(np.ones((5, 2)), window, symbols=["A", "B"], **options)  # type: ignore[arg-type]


def test_pairs_that_are_none_are_refused() -> None:
    with pytest.raises(UnknownSymbol, match="'X'"):
        rolling_correlation(np.ones((5, 2)), 5, symbols=["A", "B"], pairs=[("A", "X")])
    with pytest.raises(ParameterOutOfRange, match="Not a pair"):
        rolling_correlation(np.ones((5, 2)), 5, symbols=["A", "B"], pairs=["AB"])  # type: ignore[list-item]
    answer = rolling_correlation(np.ones((5, 2)), 2, symbols=["A", "B"])
    assert answer.min_periods == 2
    with pytest.raises(UnknownSymbol, match="'A, X'"):
        answer.series("A", "X")
    with pytest.raises(ParameterOutOfRange, match="Too many values"):
        rolling_correlation(np.ones((6_000, 200)), 500, symbols=[f"S{each}" for each in range(200)])


def test_no_rows_and_one_row_give_nothing_but_reasons() -> None:
    none = rolling_correlation(np.empty((0, 2)), 5, symbols=["A", "B"])
    assert none.values.shape == (0, 1)
    assert none.frame().height == 0
    one = rolling_correlation(np.ones((1, 2)), 5, symbols=["A", "B"])
    assert one.frame()["reason"].to_list() == ["insufficient_history"]
