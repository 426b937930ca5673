"""The components of quality: each by its count, the score the lowest of those that were assessed."""

from __future__ import annotations

import pytest

from mdplatform.market.quality import Tally, assess, bars_behind, tally


@pytest.mark.parametrize(
    ("counts", "behind", "expected"),
    [
        (Tally(10, settled=10, wanted=10), 0, (1.0, 1.0, 1.0, 1.0)),
        (Tally(10, settled=10, wanted=20), 0, (0.5, 1.0, 1.0, 0.5)),
        (Tally(10, absent=4, settled=3, warming=3, wanted=10), 1, (0.6, 0.5, 0.5, 0.5)),
        (Tally(10, absent=10, wanted=10), None, (0.0, None, None, 0.0)),
        (Tally(4, settled=1, warming=3), 9, (1.0, 0.1, 0.25, 0.1)),
        (Tally(5, wanted=5), None, (1.0, None, None, 1.0)),
        (Tally(0), 3, (None, None, None, None)),
        (Tally(0, wanted=2), 3, (0.0, None, None, 0.0)),
    ],
)
def test_components_and_score(counts, behind, expected):
    found = assess(counts, behind)
    told = (found.completeness, found.timeliness, found.warmth, found.score)
    assert told == tuple(each if each is None else pytest.approx(each) for each in expected)


def test_a_reason_for_each_component_below_one_and_for_no_other():
    found = assess(Tally(10, absent=4, settled=3, warming=3, wanted=12), 2)
    assert [each.partition(":")[0] for each in found.reasons] == [
        "completeness",
        "completeness",
        "warmth",
        "timeliness",
    ]
    assert assess(Tally(3, settled=3, wanted=3), 0).reasons == ()


def test_every_status_is_counted_for_what_it_is():
    statuses = ["settled", "unsettled", "insufficient_history", "gap", "stale", "degenerate", None]
    assert tally(statuses) == Tally(7, absent=1, settled=1, warming=2)
    assert tally([]) == Tally(0)


@pytest.mark.parametrize(("close", "due", "behind"), [(900, 900, 0), (600, 900, 1), (0, 900, 3), (1200, 900, 0)])
def test_how_many_bars_are_due(close, due, behind):
    assert bars_behind(close, due, 300) == behind
