"""Shrinkage, repair, lead and lag, beta, clusters, trees: against other libraries, brute force, published figures."""

from __future__ import annotations

from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.covariance import ledoit_wolf

from mdplatform.errors import ParameterOutOfRange, UnknownSymbol
from mdplatform.features import (
    Correlations,
    beta_to,
    clusters,
    correlation_matrix,
    lead_lag,
    repaired,
    spanning_tree,
)
from mdplatform.features.correlation.nearest_psd import nearest_correlation
from mdplatform.features.correlation.shrinkage import constant_correlation

from . import oracles

NAN = float("nan")
NUMBERS = st.one_of(st.just(NAN), st.integers(-1000, 1000).map(lambda each: each / 128))
PANELS = arrays.arrays(np.float64, st.tuples(st.integers(3, 14), st.integers(2, 3)), elements=NUMBERS)


def names(count: int) -> list[str]:
    return [chr(ord("A") + each) for each in range(count)]


def correlations(matrix: list[list[float]] | np.ndarray, symbols: list[str] | None = None) -> Correlations:
    """A matrix as if it had been estimated."""
    held = np.array(matrix, np.float64)
    counts = np.full(held.shape, 100)
    return Correlations(tuple(symbols or names(len(held))), held, counts, "pearson", "pairwise", 3, 100)


def market(rows: int, columns: int, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, 1)) * 0.7 + random.normal(size=(rows, columns)) * random.uniform(0.5, 2, columns)


@pytest.mark.parametrize(("rows", "columns"), [(20, 50), (100, 10), (5, 3), (1000, 40)])
def test_shrinkage_to_the_scaled_identity_equals_scikit_learns(rows: int, columns: int) -> None:
    values = market(rows, columns) + 5
    covariance, intensity = ledoit_wolf(values)
    scale = np.sqrt(np.diagonal(covariance))
    answer = correlation_matrix(values, symbols=[f"S{each}" for each in range(columns)], shrinkage="ledoit_wolf")
    np.testing.assert_allclose(answer.matrix, covariance / np.outer(scale, scale), atol=1e-12)
    assert answer.shrinkage_intensity == pytest.approx(intensity, abs=1e-12)
    assert answer.estimator == f"pearson, pairwise, ledoit_wolf(intensity={intensity:.6g})"
    np.testing.assert_array_equal(answer.matrix, answer.matrix.T)
    assert answer.is_psd is True


def test_shrinkage_to_a_constant_correlation_equals_the_papers_sums() -> None:
    values = market(25, 6, seed=2) * [1, 1, 2, 2, 3, 3]
    values[:, 1] += values[:, 0]
    values[:, 3] -= values[:, 2]
    rows, columns = values.shape
    y = (values - values.mean(axis=0)).tolist()
    ns = range(columns)
    s = [[sum(r[i] * r[j] for r in y) / rows for j in ns] for i in ns]
    mean = sum(s[i][j] / (s[i][i] * s[j][j]) ** 0.5 for i, j in combinations(ns, 2)) * 2 / (columns * (columns - 1))
    target = [[s[i][i] if i == j else mean * (s[i][i] * s[j][j]) ** 0.5 for j in ns] for i in ns]
    pi = [[sum((r[i] * r[j] - s[i][j]) ** 2 for r in y) / rows for j in ns] for i in ns]
    rho = sum(pi[i][i] for i in ns)
    for i, j in permutations(ns, 2):
        of_i = sum((r[i] ** 2 - s[i][i]) * (r[i] * r[j] - s[i][j]) for r in y) / rows
        of_j = sum((r[j] ** 2 - s[j][j]) * (r[i] * r[j] - s[i][j]) for r in y) / rows
        rho += mean / 2 * ((s[j][j] / s[i][i]) ** 0.5 * of_i + (s[i][i] / s[j][j]) ** 0.5 * of_j)
    gamma = sum((target[i][j] - s[i][j]) ** 2 for i in ns for j in ns)
    wanted = max(0.0, min(1.0, (sum(map(sum, pi)) - rho) / gamma / rows))
    assert 0.05 < wanted < 0.95
    covariance, intensity = constant_correlation(values)
    assert intensity == pytest.approx(wanted, rel=1e-10)
    expected = wanted * np.array(target) + (1 - wanted) * np.array(s)
    np.testing.assert_allclose(covariance, expected, atol=1e-12)
    answer = correlation_matrix(values, symbols=names(6), shrinkage="constant_correlation")
    assert answer.shrinkage_intensity == intensity


def test_shrinkage_needs_a_sample_without_holes_and_leaves_out_constant_series() -> None:
    values = market(40, 4)
    values[3, 1] = NAN
    with pytest.raises(ParameterOutOfRange, match='sample="common"'):
        correlation_matrix(values, symbols=names(4), shrinkage="ledoit_wolf")
    values[:, 2] = 1.0
    answer = correlation_matrix(values, symbols=names(4), shrinkage="ledoit_wolf", sample="common")
    whole = np.delete(values[~np.isnan(values).any(axis=1)], 2, axis=1)
    assert answer.shrinkage_intensity == pytest.approx(ledoit_wolf(whole)[1], abs=1e-12)
    assert np.isnan(answer.matrix[2]).all()
    assert np.isnan(answer.matrix).sum() == 7


def test_the_nearest_correlation_matrix_is_the_one_that_its_paper_prints() -> None:
    found = nearest_correlation(np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]]))
    expected = [[1, 0.7607, 0.1573], [0.7607, 1, 0.7607], [0.1573, 0.7607, 1]]
    np.testing.assert_allclose(found, expected, atol=5e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(0, 10_000))
def test_a_repaired_matrix_is_positive_semi_definite_and_no_farther_than_others(size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    broken = random.uniform(-1, 1, (size, size))
    broken = np.tril(broken, -1) + np.tril(broken, -1).T + np.eye(size)
    answer = repaired(correlations(broken))
    assert answer.is_psd is True
    np.testing.assert_array_equal(answer.matrix, answer.matrix.T)
    assert (np.diagonal(answer.matrix) == 1).all()
    assert (np.abs(answer.matrix) <= 1).all()
    distance = np.linalg.norm(answer.matrix - broken)
    for _ in range(20):  # other correlation matrices, and such on the way to it
        other = np.corrcoef(random.normal(size=(size, size + 2)))
        for share in (1.0, 0.1, 0.001):
            assert np.linalg.norm(share * other + (1 - share) * answer.matrix - broken) >= distance - 1e-6
    assert answer.repaired == (np.linalg.eigvalsh(broken)[0] < -1e-9)


def test_repair_is_named_where_it_was_needed_and_refused_where_pairs_are_null() -> None:
    random = np.random.default_rng(3)
    values = random.normal(size=(30, 20))
    values[random.random(values.shape) < 0.4] = NAN
    symbols = [f"S{each}" for each in range(20)]
    answer = correlation_matrix(values, symbols=symbols, repair="nearest_psd")
    assert (answer.repaired, answer.is_psd, answer.estimator) == (True, True, "pearson, pairwise, nearest_psd")
    fine = correlation_matrix(market(50, 4), symbols=names(4), repair="nearest_psd")
    assert (fine.repaired, fine.estimator) == (False, "pearson, pairwise")
    values[:15, 0], values[15:, 1] = NAN, NAN
    with pytest.raises(ParameterOutOfRange, match="'S0 and S1'"):
        correlation_matrix(values, symbols=symbols, repair="nearest_psd")


def test_a_series_that_is_null_throughout_stays_so_when_the_others_are_repaired() -> None:
    broken = np.array([[1, 0.9, 0.9, NAN], [0.9, 1, -0.9, NAN], [0.9, -0.9, 1, NAN], [NAN] * 4])
    answer = repaired(correlations(broken))
    assert answer.is_psd is True
    assert np.isnan(answer.matrix[3]).all()
    assert np.isnan(answer.matrix).sum() == 7


@settings(max_examples=60, deadline=None)
@given(PANELS, st.integers(1, 4))
def test_the_best_lag_is_the_one_that_trying_all_finds(values: np.ndarray, max_lag: int) -> None:
    answer = lead_lag(values, max_lag, symbols=names(values.shape[1]))
    for i, j in permutations(range(values.shape[1]), 2):
        tried = {}
        for lag in range(-max_lag, max_lag + 1):
            late, early = values[max(lag, 0) :, i], values[max(-lag, 0) :, j]
            rows = max(0, min(len(late), len(early), len(values) - abs(lag)))
            found = oracles.pearson(late[:rows].tolist(), early[:rows].tolist(), 3)
            got = answer.profile[lag + max_lag, i, j]
            assert np.isnan(got) == (found is None)
            if found is not None:
                assert got == pytest.approx(found, abs=1e-11)
                tried[lag] = abs(found)
        if tried:
            assert tried[int(answer.lags[i, j])] == pytest.approx(max(tried.values()), abs=1e-9)
            nearer = [each for each in tried if abs(each) < abs(answer.lags[i, j])]
            assert all(tried[each] < tried[int(answer.lags[i, j])] + 1e-13 for each in nearer)
        else:
            assert np.isnan(answer.correlations[i, j])


def test_a_series_that_follows_another_by_three_bars_is_led_by_it() -> None:
    random = np.random.default_rng(4)
    leader = random.normal(size=400)
    follower = np.append(np.full(3, NAN), leader[:-3]) + random.normal(0, 0.3, 400)
    answer = lead_lag(np.column_stack([follower, leader]), 5, symbols=["F", "L"])
    assert answer.lags.tolist() == [[0, 3], [-3, 0]]
    row = answer.pairs().row(0, named=True)
    assert (row["symbol"], row["reference"], row["lag"]) == ("F", "L", 3)
    assert row["correlation"] > 0.9 > 0.2 > abs(row["at_zero"])
    for wrong in (0, -1, 1.5, 1001, True):
        with pytest.raises(ParameterOutOfRange, match="max_lag"):
            lead_lag(np.ones((5, 2)), wrong, symbols=["A", "B"])  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(PANELS)
def test_beta_equals_a_plain_slope(values: np.ndarray) -> None:
    symbols = names(values.shape[1])
    answer = beta_to(values, "B", symbols=symbols)
    for row in answer.iter_rows(named=True):
        x, y = values[:, symbols.index(row["symbol"])].tolist(), values[:, 1].tolist()
        expected = oracles.beta(x, y, 3)
        assert (row["beta"] is None) == (expected is None) == (row["reason"] is not None)
        if expected is not None:
            assert row["beta"] == pytest.approx(expected, rel=1e-9, abs=1e-11)
        assert row["observations"] == len(oracles.common(x, y))
    with pytest.raises(UnknownSymbol, match="'X'"):
        beta_to(values, "X", symbols=symbols)


def brute_force_tree(matrix: np.ndarray) -> float:
    """The least total distance of any tree over all symbols, by trying every set of edges."""
    size = len(matrix)
    edges = list(combinations(range(size), 2))
    best = np.inf
    for chosen in combinations(edges, size - 1):
        reached = {0}
        for _ in range(size):
            reached |= {b for a, b in chosen if a in reached} | {a for a, b in chosen if b in reached}
        if len(reached) == size:
            best = min(best, sum(np.sqrt(2 * (1 - matrix[a, b])) for a, b in chosen))
    return best


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(0, 1000))
def test_the_spanning_tree_is_the_shortest_of_all(size: int, seed: int) -> None:
    answer = correlation_matrix(market(20, size, seed), symbols=names(size))
    tree = spanning_tree(answer)
    assert tree.edges.height == size - 1
    assert tree.edges["distance"].is_sorted()
    assert tree.edges["distance"].sum() == pytest.approx(brute_force_tree(answer.matrix), abs=1e-9)
    assert sorted(tree.order) == names(size)


@pytest.mark.parametrize("linkage", ["average", "single", "complete", "ward"])
def test_neither_the_order_of_symbols_nor_ties_change_clusters_or_trees(linkage: str) -> None:
    tied = [[1, 0.5, 0.5, 0.2], [0.5, 1, 0.5, 0.2], [0.5, 0.5, 1, 0.2], [0.2, 0.2, 0.2, 1]]
    seen_trees, seen_clusters = set(), set()
    for order in permutations(range(4)):
        held = correlations(np.array(tied)[np.ix_(order, order)], [names(4)[each] for each in order])
        tree, found = spanning_tree(held), clusters(held, count=2, linkage=linkage)
        seen_trees.add((tuple(tree.edges.rows()), tree.order))
        seen_clusters.add((found.order, tuple(sorted(found.labels.items()))))
    assert len(seen_trees) == len(seen_clusters) == 1


def test_clusters_are_the_groups_that_the_data_was_made_of() -> None:
    random = np.random.default_rng(5)
    factors = random.normal(size=(300, 3))
    values = np.repeat(factors, 4, axis=1) + random.normal(0, 0.4, (300, 12))
    shuffled = random.permutation(12)
    symbols = [f"{'XYZ'[each // 4]}{each % 4}" for each in shuffled]
    answer = correlation_matrix(values[:, shuffled], symbols=symbols)
    for found in (clusters(answer, count=3), clusters(answer, distance=1.0)):
        groups = {label: {name[0] for name in symbols if found.labels[name] == label} for label in (0, 1, 2)}
        assert sorted(map(len, groups.values())) == [1, 1, 1]
        assert [found.labels[name] for name in found.order] == sorted(found.labels.values())
    letters = "".join(each[0] for each in spanning_tree(answer).order)
    assert sum(a != b for a, b in pairwise(letters)) == 2
    alone = clusters(answer)
    assert sorted(alone.labels.values()) == list(range(12))


def test_clusters_refuse_null_pairs_and_options_that_make_no_sense() -> None:
    with pytest.raises(ParameterOutOfRange, match=r"'A and B'.*whole"):
        clusters(correlations([[1, NAN], [NAN, 1]]))
    fine = correlations([[1, 0.5], [0.5, 1]])
    for options in (
        {"linkage": "median"},
        {"count": 0},
        {"count": 1, "distance": 1.0},
        {"distance": 3},
        {"count": 1.5},
    ):
        with pytest.raises(ParameterOutOfRange):
            clusters(fine, **options)  # type: ignore[arg-type]
    one = correlations([[1.0]])
    assert clusters(one).order == spanning_tree(one).order == ("A",)
