"""The newest rows: what is held, and in how much space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.features.live.rows import Rows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["push", "push", "push", "peek", "keep", "copy"]), max_size=200), st.integers(1, 40))
def test_the_newest_rows_are_there_whatever_happened_before(steps: list[str], need: int) -> None:
    rows, pushed = Rows(2, need), list[float]()
    for at, step in enumerate(steps):
        if step == "keep" and len(pushed) <= need:
            need += 5
            rows.keep(need)
        elif step == "copy":
            rows.copy().push((-1.0, -1.0))
        elif step == "peek":
            rows.push((-2.0, -2.0))
            assert rows.last(1).tolist() == [[-2.0], [-2.0]]
            rows.pop()
        else:
            rows.push((float(at), -float(at)))
            pushed.append(float(at))
        expected = pushed[-min(need, len(pushed)) :] if pushed else []
        assert rows.last(need)[0].tolist() == expected
        assert rows.last(need)[1].tolist() == [-each for each in expected]


@pytest.mark.parametrize("history", [0, 3, 500])
def test_space_grows_with_the_rows_that_there_are_and_no_further_than_is_needed(history: int) -> None:
    rows = Rows(1, 100)
    rows.extend([np.arange(float(history))])
    for at in range(history, history + 1000):
        rows.push((float(at),))
        assert rows._space.size <= max(32, 4 * len(rows), 200)
        assert rows.last(100)[0].tolist() == [float(each) for each in range(max(0, at - 99), at + 1)]
    rows.clear()
    assert rows._space.size == len(rows) == 0


def test_much_that_might_be_needed_takes_no_space_before_it_is() -> None:
    rows = Rows(9, 10_000_000)
    rows.push((1.0,) * 9)
    assert rows._space.nbytes < 10_000
