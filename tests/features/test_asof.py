"""The as-of join against a plain loop, polars and pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mdplatform.features.asof import as_of, newest_rows
from mdplatform.features.guard import NOT_AVAILABLE_YET, SETTLED, STALE

INSTANTS = st.lists(st.integers(0, 60), max_size=40).map(lambda each: np.array(sorted(each), np.int64))


def brute(available_at: NDArray[np.int64], at: NDArray[np.int64]) -> list[int]:
    """Look at every row for every instant."""
    newest = []
    for instant in at.tolist():
        found = -1
        for row, available in enumerate(available_at.tolist()):
            if available <= instant and (found < 0 or available >= available_at[found]):
                found = row
        newest.append(found)
    return newest


@settings(max_examples=150, deadline=None)
@given(available_at=INSTANTS, at=INSTANTS, limit=st.none() | st.integers(0, 30))
def test_the_newest_available_row_is_the_one_that_a_plain_loop_finds(
    available_at: NDArray[np.int64], at: NDArray[np.int64], limit: int | None
) -> None:
    joined = as_of(available_at, at, limit)
    expected = brute(available_at, at)
    assert joined.rows.tolist() == expected
    for place, row in enumerate(expected):
        age = int(at[place] - available_at[row]) if row >= 0 else -1
        assert joined.ages[place] == age
        too_old = limit is not None and age > limit
        assert joined.statuses[place] == (NOT_AVAILABLE_YET if row < 0 else STALE if too_old else SETTLED)
    taken = joined.take(np.arange(len(available_at), dtype=np.float64))
    assert np.array_equal(np.isnan(taken), joined.statuses != SETTLED)
    assert taken[joined.statuses == SETTLED].tolist() == [
        row for row, s in zip(expected, joined.statuses, strict=True) if s == 0
    ]


@settings(max_examples=80, deadline=None)
@given(available_at=INSTANTS, at=INSTANTS, cut=st.integers(0, 60))
def test_rows_that_become_available_later_change_nothing(
    available_at: NDArray[np.int64], at: NDArray[np.int64], cut: int
) -> None:
    early = at[at <= cut]
    assert newest_rows(available_at[available_at <= cut], early).tolist() == newest_rows(available_at, early).tolist()


@settings(max_examples=80, deadline=None)
@given(available_at=INSTANTS, at=st.permutations(list(range(0, 60, 3))))
def test_the_order_of_the_instants_does_not_matter(available_at: NDArray[np.int64], at: list[int]) -> None:
    instants = np.array(at)
    order = np.argsort(instants)
    assert newest_rows(available_at, instants)[order].tolist() == newest_rows(available_at, instants[order]).tolist()


@pytest.mark.parametrize(("rows", "instants"), [(1_000, 50), (50, 1_000)])
def test_polars_and_pandas_find_the_same_rows(rows: int, instants: int) -> None:
    generator = np.random.default_rng(7)
    available_at = np.sort(generator.integers(0, 500, rows))
    at = np.sort(generator.integers(0, 500, instants))
    ours = newest_rows(available_at, at)
    left, right = pl.DataFrame({"at": at}), pl.DataFrame({"at": available_at, "row": np.arange(rows)})
    by_polars = left.join_asof(right, on="at", strategy="backward")["row"].fill_null(-1).to_list()
    by_pandas = pd.merge_asof(left.to_pandas(), right.to_pandas(), on="at")["row"].fillna(-1).astype(int).tolist()
    assert ours.tolist() == by_polars == by_pandas


def test_the_last_of_rows_with_one_instant_wins() -> None:
    assert newest_rows(np.array([5, 5, 5]), np.array([5])).tolist() == [2]
    assert newest_rows(np.array([5]), np.array([4, 5, 5])).tolist() == [-1, 0, 0]


def test_a_value_is_stale_only_when_it_is_older_than_allowed() -> None:
    joined = as_of(np.array([100]), np.array([99, 100, 110, 111]), max_staleness=10)
    assert joined.statuses.tolist() == [NOT_AVAILABLE_YET, SETTLED, SETTLED, STALE]
    assert joined.ages.tolist() == [-1, 0, 10, 11]


def test_nothing_joined_with_nothing_is_nothing() -> None:
    none = np.array([], np.int64)
    assert as_of(none, none).rows.tolist() == []
    joined = as_of(none, np.array([1, 2]))
    assert joined.statuses.tolist() == [NOT_AVAILABLE_YET] * 2
    assert np.isnan(joined.take(np.array([]))).all()
