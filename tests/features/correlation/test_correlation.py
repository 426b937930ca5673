"""The correlation matrix against plain loops and against pandas, and its laws: bounds, symmetry, scale, permutation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mdplatform.errors import InvalidTable, ParameterOutOfRange, UnknownSymbol
from mdplatform.features import Correlations, correlation_matrix, log_returns
from mdplatform.features.correlation.ranks import average_ranks

from . import oracles

NAN = float("nan")
_SIGNS = st.sampled_from([1.0, -1.0])
NUMBERS = st.one_of(
    st.just(NAN),
    st.sampled_from([0.0, 1.0, -1.0, 2.5]),
    st.builds(lambda sign, size: sign * size, _SIGNS, st.floats(1e-12, 1e-6) | st.floats(0.0625, 128, width=32)),
)
PANELS = arrays.arrays(np.float64, st.tuples(st.integers(0, 12), st.integers(1, 5)), elements=NUMBERS)
METHODS = st.sampled_from(["pearson", "spearman", "exponential"])


def names(count: int) -> list[str]:
    return [f"S{each}" for each in range(count)]


def matrix(values: np.ndarray, method: str = "pearson", least: int = 3, **options: object) -> Correlations:
    half_life = 4.0 if method == "exponential" else None
    return correlation_matrix(
        values,
        symbols=names(values.shape[1]),
        method=method,
        half_life=half_life,
        min_periods=least,
        **options,  # type: ignore[arg-type]
    )


def wanted(values: np.ndarray, method: str, least: int, i: int, j: int) -> float | None:
    x, y = values[:, i].tolist(), values[:, j].tolist()
    if method == "spearman":
        return oracles.spearman(x, y, least)
    return oracles.pearson(x, y, least, 4.0 if method == "exponential" else None)


def is_clear(values: np.ndarray) -> bool:
    """Whether no series is near to constant without being it, on any pair's rows: there, few digits mean anything."""
    for x in values.T:
        for y in values.T:
            rows = x[~np.isnan(x) & ~np.isnan(y)]
            if len(rows) and 0 < np.ptp(rows) < 1e-9 * np.abs(rows).max():
                return False
    return True


@settings(max_examples=150, deadline=None)
@given(PANELS, METHODS, st.integers(2, 6))
def test_each_pair_equals_a_plain_loop_over_its_common_rows(values: np.ndarray, method: str, least: int) -> None:
    assume(is_clear(values))
    answer = matrix(values, method, least)
    for i in range(values.shape[1]):
        for j in range(values.shape[1]):
            count = len(oracles.common(values[:, i].tolist(), values[:, j].tolist()))
            assert answer.observations[i, j] == count
            expected = wanted(values, method, least, i, j)
            got = answer.value(f"S{i}", f"S{j}")
            assert (got is None) == (expected is None), (i, j, got, expected)
            assert got is None or got == pytest.approx(expected, abs=1e-11)


@settings(max_examples=150, deadline=None)
@given(PANELS, METHODS)
def test_it_is_symmetric_to_the_last_bit_within_bounds_and_one_on_its_diagonal(values: np.ndarray, method: str) -> None:
    answer = matrix(values, method, 2)
    assert answer.matrix.tobytes() == answer.matrix.T.copy().tobytes() or np.isnan(answer.matrix).any()
    np.testing.assert_array_equal(answer.matrix, answer.matrix.T)
    np.testing.assert_array_equal(answer.observations, answer.observations.T)
    known = answer.matrix[~np.isnan(answer.matrix)]
    assert (np.abs(known) <= 1).all()
    diagonal = np.diagonal(answer.matrix)
    assert (diagonal[~np.isnan(diagonal)] == 1).all()


@settings(max_examples=100, deadline=None)
@given(PANELS, METHODS)
def test_every_null_has_a_reason_and_no_other_pair_has_one(values: np.ndarray, method: str) -> None:
    answer = matrix(values, method, 3)
    pairs = answer.pairs()
    assert pairs["correlation"].is_null().equals(pairs["reason"].is_not_null())
    few = pairs["observations"] < 3
    assert (pairs.filter(few)["reason"] == "insufficient_history").all()
    assert pairs.filter(~few)["reason"].is_in(["degenerate", None], nulls_equal=True).all()


@settings(max_examples=75, deadline=None)
@given(PANELS, METHODS, st.integers(-40, 40), st.randoms(use_true_random=False))
def test_neither_scale_nor_the_order_of_symbols_matters(
    values: np.ndarray, method: str, power: int, random: object
) -> None:
    assume(is_clear(values))
    scaled = matrix(values * 2.0**power, method)
    np.testing.assert_allclose(scaled.matrix, matrix(values, method).matrix, atol=1e-12, equal_nan=True)
    order = list(range(values.shape[1]))
    random.shuffle(order)  # type: ignore[attr-defined]
    turned = matrix(np.ascontiguousarray(values[:, order]), method)
    np.testing.assert_allclose(
        turned.matrix, matrix(values, method).matrix[np.ix_(order, order)], atol=1e-12, equal_nan=True
    )


@settings(max_examples=50, deadline=None)
@given(PANELS, METHODS)
def test_the_input_is_left_as_it_was(values: np.ndarray, method: str) -> None:
    before = values.copy()
    matrix(values, method)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("holes", [0.0, 0.1, 0.5, 0.9])
def test_it_equals_pandas_with_missing_values_and_ties(holes: float) -> None:
    random = np.random.default_rng(1)
    values = (random.normal(size=(150, 25)) @ random.normal(size=(25, 25))).round(1)
    values[random.random(values.shape) < holes] = NAN
    frame = pd.DataFrame(values)
    for method in ("pearson", "spearman"):
        expected = frame.corr(method=method, min_periods=5).to_numpy()
        np.testing.assert_allclose(matrix(values, method, 5).matrix, expected, atol=1e-12, equal_nan=True)


def test_exponential_weights_equal_those_of_pandas() -> None:
    random = np.random.default_rng(2)
    values = random.normal(size=(120, 8)).cumsum(axis=0)
    values[random.random(values.shape) < 0.3] = NAN
    answer = correlation_matrix(values, symbols=names(8), method="exponential", half_life=15)
    expected = pd.DataFrame(values).ewm(halflife=15).corr().loc[119].to_numpy()
    np.testing.assert_allclose(answer.matrix, expected, atol=1e-12)
    assert answer.estimator == "exponential(half_life=15), pairwise"


def test_rows_so_old_that_they_weigh_nothing_still_make_a_correlation() -> None:
    values = np.full((20_000, 3), NAN)
    random = np.random.default_rng(3)
    values[:, 0] = random.normal(size=20_000)
    values[:10, 1:] = random.normal(size=(10, 2))
    answer = correlation_matrix(values, symbols=names(3), method="exponential", half_life=5)
    expected = oracles.pearson(values[:10, 1].tolist(), values[:10, 2].tolist(), 3, 5.0)
    assert answer.value("S1", "S2") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("holes", [0.0, 0.2])
def test_large_levels_and_outliers_elsewhere_cost_no_digits(holes: float) -> None:
    random = np.random.default_rng(4)
    values = random.normal(size=(300, 4)) * [1.0, 1e-6, 1.0, 1.0] + [1e9, 1e3, 0.0, 0.0]
    values[random.random(values.shape) < holes] = NAN
    values[7] = [NAN, NAN, 1e12, NAN] if holes else values[7]  # no pair sees it
    answer = matrix(values)
    for i in range(4):
        for j in range(i):
            expected = oracles.pearson(values[:, i].tolist(), values[:, j].tolist(), 3)
            assert answer.matrix[i, j] == pytest.approx(expected, abs=1e-12)


def test_a_series_that_differs_by_rounding_alone_is_degenerate() -> None:
    random = np.random.default_rng(5)
    values = np.column_stack([random.normal(size=50), np.full(50, 0.1), 0.1 * np.ones(50)])
    values[::2, 2] = np.nextafter(0.1, 1)
    for part in (values, np.where(np.arange(50)[:, None] == 3, [[0.0, NAN, NAN]], values)):
        pairs = matrix(part).pairs()
        assert pairs["correlation"].null_count() == 3
        assert pairs["reason"].to_list() == ["degenerate"] * 3


def test_a_series_that_is_constant_on_a_pairs_rows_alone_is_degenerate_there_alone() -> None:
    random = np.random.default_rng(6)
    values = random.normal(size=(60, 3))
    values[:30, 0] = 5.0
    values[30:, 1] = NAN
    answer = matrix(values)
    assert answer.value("S0", "S1") is None
    assert answer.pairs()["reason"].to_list() == ["degenerate", None, None]
    assert answer.value("S0", "S2") is not None


def test_the_common_sample_is_the_rows_that_all_have() -> None:
    random = np.random.default_rng(7)
    values = random.normal(size=(80, 4))
    values[random.random(values.shape) < 0.1] = NAN
    whole = values[~np.isnan(values).any(axis=1)]
    answer = matrix(values, sample="common")
    np.testing.assert_allclose(answer.matrix, np.corrcoef(whole.T), atol=1e-13)
    assert (answer.observations == len(whole)).all()
    assert (answer.rows, answer.estimator) == (80, "pearson, common")
    aged = matrix(values, "exponential", sample="common")
    blanked = np.where(np.isnan(values).any(axis=1)[:, None], NAN, values)
    np.testing.assert_allclose(aged.matrix, matrix(blanked, "exponential").matrix, atol=1e-13)


def test_symbols_that_never_meet_are_null_and_leave_the_others_alone() -> None:
    values = np.random.default_rng(8).normal(size=(40, 3))
    values[:20, 0], values[20:, 1] = NAN, NAN
    answer = matrix(values)
    assert answer.value("S0", "S1") is None
    assert answer.observations[0, 1] == 0
    assert answer.is_psd is None
    assert answer.whole().symbols == ("S0", "S2")
    assert answer.whole().is_psd is True


def test_a_matrix_of_pairs_may_not_be_positive_semi_definite_and_says_so() -> None:
    random = np.random.default_rng(9)
    values = random.normal(size=(30, 20))
    values[random.random(values.shape) < 0.4] = NAN
    answer = matrix(values)
    expected = float(np.linalg.eigvalsh(pd.DataFrame(values).corr(min_periods=3).to_numpy()).min())
    assert answer.min_eigenvalue == pytest.approx(expected, abs=1e-12)
    assert expected < 0
    assert answer.is_psd is False
    assert matrix(np.nan_to_num(values)).is_psd is True


def test_wide_long_pandas_and_arrays_are_the_same_panel() -> None:
    values = np.random.default_rng(10).normal(size=(20, 2))
    values[3, 1] = NAN
    times = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=each) for each in range(20)]
    wide = pl.DataFrame({"open_time": times, "S0": values[:, 0], "S1": values[:, 1]}, nan_to_null=True)
    long = wide.unpivot(index="open_time", variable_name="symbol", value_name="log_return")
    indexed = pd.DataFrame(values, index=pd.DatetimeIndex(times), columns=["S0", "S1"])
    expected = matrix(values)
    for given_as in (wide, long, long.sample(fraction=1, shuffle=True, seed=1), indexed):
        answer = correlation_matrix(given_as)
        np.testing.assert_array_equal(answer.matrix, expected.matrix)
        assert answer.symbols == ("S0", "S1")
        assert answer.open_time == times[-1]
    turned = correlation_matrix(wide, symbols=["S1", "S0"])
    assert turned.symbols == ("S1", "S0")


def test_answers_are_tables_for_pandas_and_arrow_and_cannot_be_written_to() -> None:
    answer = matrix(np.random.default_rng(11).normal(size=(20, 3)))
    frame = answer.to_pandas()
    assert frame.loc["S0", "S2"] == answer.value("S0", "S2") == answer.value("S2", "S0")
    table = answer.to_arrow()
    assert table.column_names == ["symbol_a", "symbol_b", "correlation", "observations", "reason"]
    assert table.num_rows == 3
    assert table.schema.metadata[b"is_psd"] == b"True"
    with pytest.raises(ValueError, match="read-only"):
        answer.matrix[0, 1] = 0.0


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=st.integers(-3, 3).map(float))
)
def test_average_ranks_equal_counting(values: np.ndarray) -> None:
    for ranked, column in zip(average_ranks(values).T, values.T, strict=True):
        assert ranked.tolist() == oracles.ranks(column.tolist())


@pytest.mark.parametrize("by_symbol", [False, True])
def test_a_row_that_is_a_gap_has_no_return_though_it_has_a_price(by_symbol: bool) -> None:
    rows = pl.DataFrame(
        {
            "open_time": [each * 60_000_000 for each in range(4)],
            "close": [1.0, 50.0, 2.0, 4.0],
            "state": ["observed", "gap", None, "no_trade"],
        }
    )
    given = {"A": rows} if by_symbol else rows.with_columns(symbol=pl.lit("A"))
    assert np.isnan(log_returns(given).values[:, 0]).tolist() == [True, True, True, False]


def test_log_returns_reach_across_no_gap_and_fill_nothing() -> None:
    hour = 3_600_000_000
    prices = pl.DataFrame(
        {
            "symbol": ["A", "A", "A", "A", "B", "B"],
            "open_time": [0, hour, 3 * hour, 4 * hour, 0, hour],
            "close": [1.0, 2.0, 8.0, 4.0, 1.0, 0.0],
        }
    )
    panel = log_returns(prices, "1h")
    assert panel.symbols == ("A", "B")
    np.testing.assert_allclose(panel.values[:, 0], [NAN, np.log(2), NAN, NAN, -np.log(2)])
    assert np.isnan(panel.values[:, 1]).all(), "a price of zero is no price"
    by_rows = log_returns(prices)  # trading days: every time that there is
    np.testing.assert_allclose(by_rows.values[:, 0], [NAN, np.log(2), np.log(4), -np.log(2)])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "kendall"}, "pearson, spearman, exponential"),
        ({"method": "exponential"}, "half_life"),
        ({"method": "exponential", "half_life": 0}, "0.1 to 1e9"),
        ({"method": "exponential", "half_life": NAN}, "0.1 to 1e9"),
        ({"half_life": 5}, "no half_life"),
        ({"sample": "all"}, "pairwise, common"),
        ({"min_periods": 1}, "from 2"),
        ({"min_periods": 2.5}, "from 2"),
        ({"min_periods": True}, "from 2"),
        ({"shrinkage": "oas"}, "ledoit_wolf"),
        ({"shrinkage": "ledoit_wolf", "method": "spearman"}, "Pearson"),
        ({"repair": "clip"}, "nearest_psd"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_what_is_allowed(options: dict[str, object], told: str) -> None:
    with pytest.raises(ParameterOutOfRange, match=told):
        correlation_matrix(np.ones((5, 2)), symbols=["A", "B"], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("panel", "symbols", "told"),
    [
        (np.ones(5), ["A"], "rows × symbols"),
        (np.ones((5, 2)), ["A"], "Name 2 symbols"),
        (np.ones((5, 2)), None, "Name 2 symbols"),
        (np.ones((5, 2)), ["A", "A"], "twice"),
        (np.array([["x", "y"]]), ["A", "B"], "Not a panel"),
        (np.array([[1.0, np.inf], [1.0, 2.0]]), ["A", "B"], "row 0 of B"),
        (np.array([[1.0, 2.0], [-1e101, 2.0]]), ["A", "B"], "row 1 of A"),
        ([[1.0]], ["A"], "Not a panel"),
        (pl.DataFrame({"A": ["x"]}), None, "Not a panel"),
        (pl.DataFrame({"open_time": [1]}), None, "Not a panel"),
        (pl.DataFrame({"open_time": [2, 1], "A": [1.0, 2.0]}), None, "ascend"),
        (pl.DataFrame({"open_time": [1, None], "A": [1.0, 2.0]}), None, "without open time"),
        (pl.DataFrame({"open_time": ["a", "b"], "A": [1.0, 2.0]}), None, "no times"),
        (pl.DataFrame({"symbol": ["A", "A"], "open_time": [1, 1], "log_return": [1.0, 2.0]}), None, "Two returns"),
    ],
)
def test_what_is_no_panel_is_refused_with_the_place(panel: object, symbols: list[str] | None, told: str) -> None:
    with pytest.raises(InvalidTable, match=told):
        correlation_matrix(panel, symbols=symbols)


def test_a_symbol_that_is_not_there_is_refused_with_those_that_are() -> None:
    panel = pl.DataFrame({"A": [1.0, 2.0, 4.0], "B": [1.0, 5.0, 3.0]})
    answer = correlation_matrix(panel)
    for ask in (
        lambda: correlation_matrix(panel, symbols=["A", "C"]),
        lambda: answer.value("A", "C"),
        lambda: answer.of(["C"]),
    ):
        with pytest.raises(UnknownSymbol, match=r"'C'\. Known: A, B"):
            ask()


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"method": "spearman"}, {"sample": "common"}, {"shrinkage": "ledoit_wolf"}])
def test_too_few_rows_give_nulls_with_a_reason(rows: int, options: dict[str, str]) -> None:
    answer = correlation_matrix(np.ones((rows, 2)), symbols=["A", "B"], **options)  # type: ignore[arg-type]
    assert answer.pairs().row(0) == ("A", "B", None, rows, "insufficient_history")
    assert (answer.min_eigenvalue, answer.is_psd) == (None, None)
    assert answer.estimator == f"{options.get('method', 'pearson')}, {options.get('sample', 'pairwise')}"


@pytest.mark.parametrize("size", [1e-200, 1e-6, 1e90])
@pytest.mark.parametrize("holes", [False, True])
def test_numbers_of_any_size_have_the_same_correlation(size: float, holes: bool) -> None:
    values = np.random.default_rng(12).normal(size=(30, 4))
    values[3, 1] = NAN if holes else values[3, 1]
    for options in ({}, {"method": "exponential", "half_life": 9}, {"shrinkage": "ledoit_wolf", "sample": "common"}):
        plain = correlation_matrix(values, symbols=names(4), **options)  # type: ignore[arg-type]
        scaled = correlation_matrix(values * size, symbols=names(4), **options)  # type: ignore[arg-type]
        np.testing.assert_allclose(scaled.matrix, plain.matrix, atol=1e-12)


def test_prices_of_which_none_is_one_make_a_panel_without_returns() -> None:
    zero = pl.DataFrame({"symbol": ["A", "B"], "open_time": [0, 0], "close": [0.0, -1.0]})
    panel = log_returns(zero)
    assert panel.symbols == ("A", "B")
    assert np.isnan(panel.values).all()
    assert len(log_returns(zero.clear())) == 0


def test_two_prices_for_one_time_and_prices_off_the_grid_are_refused() -> None:
    twice = pl.DataFrame({"symbol": ["A", "A"], "open_time": [0, 0], "close": [1.0, 2.0]})
    with pytest.raises(InvalidTable, match="Two prices for one time"):
        log_returns(twice)
    with pytest.raises(InvalidTable, match="grid of 1h"):
        log_returns(twice.head(1).with_columns(open_time=pl.lit(7)), "1h")
    with pytest.raises(InvalidTable, match="needs symbol, open_time and close"):
        log_returns(twice.drop("close"))


def test_stray_times_do_not_fill_a_grid() -> None:
    times = [datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)]
    prices = pl.DataFrame({"symbol": ["A", "A"], "open_time": times, "close": [1.0, 2.0]})
    with pytest.raises(InvalidTable, match="span too many rows of 1m"):
        log_returns(prices, "1m")
    assert len(log_returns(prices)) == 2
