"""The replay of macro series: what it says of an instant is what one would have worked out from scratch at it."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.features.asof import newest_rows
from mdplatform.features.guard import STATUSES
from mdplatform.features.macro import MODES, TRANSFORMS, Steps, releases, steps
from mdplatform.market.time import to_us
from mdplatform.sources.macro_files import read_macro
from mdplatform.sources.table_delivery import TableOptions

from .vintages import BEGIN, Vintage, instants, known_at, month, table, transformed, vintages

PRESENT = tuple(mode for mode in MODES if mode != "latest")


def at(made: Steps, instant: int) -> tuple[float | None, str]:
    row = int(newest_rows(made.available_at, np.array([instant]))[0])
    if row < 0:
        return None, "not_available_yet"
    value = float(made.values[row])
    return None if math.isnan(value) else value, STATUSES[made.statuses[row]]


def expect(got: tuple[float | None, str], wanted: tuple[float | None, str]) -> None:
    assert got[1] == wanted[1]
    assert (got[0] is None) == (wanted[0] is None)
    if got[0] is not None:
        assert got[0] == pytest.approx(wanted[0], rel=1e-9, abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(vintages(), st.sampled_from(MODES), st.sampled_from(TRANSFORMS), st.integers(2, 4), st.booleans())
def test_each_instant_has_what_one_works_out_from_what_was_known_then(
    told: list[Vintage], mode: str, transform: str, periods: int, skip: bool
) -> None:
    rows = table(told)
    made = steps(releases(rows, mode), transform, periods, skip=skip)
    for instant in instants(rows):
        expect(at(made, instant), transformed(known_at(rows, instant, mode), transform, periods, skip=skip))


@settings(max_examples=30, deadline=None)
@given(vintages(), st.sampled_from(PRESENT), st.sampled_from(TRANSFORMS), st.integers(0, 1300))
def test_what_comes_later_changes_nothing(told: list[Vintage], mode: str, transform: str, day: int) -> None:
    rows = table(told)
    cut = BEGIN + timedelta(days=day)
    whole = steps(releases(rows, mode), transform, 2)
    short = steps(releases(rows.filter(pl.col("available_at") <= cut), mode), transform, 2)
    count = len(short.values)
    assert count == np.searchsorted(whole.available_at, to_us(cut), side="right")
    for name in ("available_at", "values", "statuses", "periods", "vintages", "since"):
        np.testing.assert_array_equal(getattr(short, name), getattr(whole, name)[:count])


@settings(max_examples=20, deadline=None)
@given(vintages(), st.randoms(use_true_random=False), st.sampled_from(MODES))
def test_the_order_of_rows_does_not_matter(told: list[Vintage], random: object, mode: str) -> None:
    turned = sorted(told, key=lambda row: random.random())  # type: ignore[attr-defined]
    forth, back = (steps(releases(table(each), mode), "zscore", 3) for each in (told, turned))
    np.testing.assert_array_equal(forth.values, back.values)
    np.testing.assert_array_equal(forth.since, back.since)


@settings(max_examples=20, deadline=None)
@given(vintages(), st.sampled_from([0.25, 8.0]))
def test_scale_goes_through_changes_and_leaves_ratios_alone(told: list[Vintage], scale: float) -> None:
    scaled = [(period, day, late, None if value is None else value * scale) for period, day, late, value in told]
    events, others = releases(table(told)), releases(table(scaled))
    for transform in TRANSFORMS:
        one, other = steps(events, transform, 2), steps(others, transform, 2)
        factor = scale if transform in ("value", "diff") else 1.0
        np.testing.assert_allclose(one.values * factor, other.values, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(one.statuses, other.statuses)


@settings(max_examples=30, deadline=None)
@given(vintages())
def test_a_value_is_as_old_as_the_release_that_it_came_with(told: list[Vintage]) -> None:
    rows = table(told)
    made = steps(releases(rows))
    known = sorted({to_us(each) for each in rows["available_at"].to_list()})
    for number, instant in enumerate(known):
        period = int(made.periods[number])
        value, since = known_at(rows, instant)[period], instant
        for before in reversed(known[:number]):
            held = known_at(rows, before)
            if period not in held or not (held[period] == value or (math.isnan(held[period]) and math.isnan(value))):
                break
            since = before
        assert int(made.since[number]) == since


def test_a_revision_of_an_old_period_leaves_the_newest_in_force() -> None:
    rows = table([(month(0), 40, 0, 1.0), (month(1), 70, 0, 2.0), (month(0), 80, 0, 1.5)])
    made = steps(releases(rows))
    assert made.values.tolist() == [1.0, 2.0, 2.0]
    assert made.since[2] == made.available_at[1]
    assert steps(releases(rows), "diff").values[1:].tolist() == [1.0, 0.5]


def test_an_old_vintage_that_comes_late_changes_nothing() -> None:
    rows = table([(month(0), 50, 0, 2.0), (month(0), 40, 20, 1.0)])
    assert steps(releases(rows)).values.tolist() == [2.0, 2.0]


def test_the_same_value_in_a_later_vintage_is_no_new_release() -> None:
    rows = table([(month(0), 40, 0, 1.0), (month(0), 60, 0, 1.0), (month(0), 50, 12, 9.0)])
    made = steps(releases(rows))
    assert made.values.tolist() == [1.0, 1.0, 1.0]  # the vintage of day 50 was overtaken by that of day 60
    assert set(made.since.tolist()) == {int(made.available_at[0])}


def test_first_release_waits_for_a_value_where_the_first_word_was_that_there_is_none() -> None:
    rows = table([(month(0), 40, 0, None), (month(0), 50, 0, 1.0), (month(0), 60, 0, 2.0)])
    made = steps(releases(rows, "first_release"))
    assert [STATUSES[each] for each in made.statuses] == ["gap", "settled"]
    assert made.values[1] == 1.0


@pytest.mark.parametrize("skip", [False, True])
def test_first_release_takes_the_first_value_though_word_of_none_came_earlier_with_a_later_vintage(skip: bool) -> None:
    told = table([(month(0), 40, 20, 1.0), (month(0), 50, 0, None), (month(0), 55, 10, 3.0)])
    first = steps(releases(told, "first_release"), skip=skip)
    assert [None if math.isnan(each) else each for each in first.values] == [None, 1.0]
    assert first.vintages[-1] == to_us(BEGIN + timedelta(days=40))
    assert [None if math.isnan(each) else each for each in steps(releases(told)).values] == [None, None, 3.0]


def test_latest_gives_the_newest_vintage_from_the_first_publication_on() -> None:
    rows = table([(month(0), 40, 0, 1.0), (month(0), 60, 0, 2.0)])
    made = steps(releases(rows, "latest"))
    assert made.values.tolist() == [2.0]
    assert made.available_at.tolist() == [to_us(BEGIN + timedelta(days=40))]


def test_a_leap_day_is_compared_with_the_last_of_february() -> None:
    days = [datetime(2023, 2, 28, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC)]
    made = steps(releases(table([(days[0], 1155, 0, 4.0), (days[1], 1521, 0, 5.0)])), "yoy")
    assert made.values[1] == pytest.approx(0.25)


def test_an_empty_series_has_no_steps() -> None:
    for transform in TRANSFORMS:
        made = steps(releases(table([])), transform)
        assert len(made.available_at) == len(made.values) == len(made.since) == 0


def test_numbers_too_large_to_subtract_are_degenerate_and_never_infinite() -> None:
    rows = table([(month(0), 40, 0, -1.7e308), (month(1), 70, 0, 1.7e308)])
    for transform in ("diff", "pct", "zscore"):
        made = steps(releases(rows), transform, 2 if transform == "zscore" else 1)
        assert not np.isinf(made.values).any()
        assert np.isnan(made.values[1]) == (STATUSES[made.statuses[1]] not in ("settled",))


@pytest.fixture(scope="module")
def revised(shared_data: Path) -> dict[str, pl.DataFrame]:
    path = shared_data / "ready" / "macro" / "vintages_yuenan142.csv.gz"
    return {each.rows["series_id"][0]: each.rows for each in read_macro(path, TableOptions())}


def from_file(shared_data: Path, series: str, day: str) -> tuple[str, float | None]:
    """Give the newest observation that stood on a day, by the file's own intervals."""
    raw = pl.read_csv(shared_data / "ready" / "macro" / "vintages_yuenan142.csv.gz", infer_schema=False)
    stood = raw.filter(
        (pl.col("series_id") == series) & (pl.col("realtime_start") <= day) & (pl.col("realtime_end") >= day)
    ).sort("date")
    value = stood["value"][-1]
    return stood["date"][-1], float(value) if value else None


@pytest.mark.parametrize("series", ["CPIAUCSL", "FEDFUNDS", "M2SL"])
def test_real_series_are_known_as_their_files_say(
    shared_data: Path, revised: dict[str, pl.DataFrame], series: str
) -> None:
    made = steps(releases(revised[series]))
    for day in ("2025-09-30", "2025-12-31", "2026-01-15", "2026-02-20", "2026-04-01", "2026-07-30", "2026-08-20"):
        evening = datetime.fromisoformat(day).replace(hour=23, tzinfo=UTC)
        row = int(newest_rows(made.available_at, np.array([to_us(evening)]))[0])
        period, value = from_file(shared_data, series, day)
        assert f"{datetime.fromtimestamp(made.periods[row] / 1e6, UTC):%Y-%m-%d}" == period
        assert made.values[row] == value


def test_first_and_latest_vintages_of_real_series_differ_where_they_were_revised(
    revised: dict[str, pl.DataFrame],
) -> None:
    for series, wanted in (("M2SL", 565), ("CPIAUCSL", 59), ("FEDFUNDS", 0)):
        first, latest = (releases(revised[series], mode) for mode in ("first_release", "latest"))
        had = dict(zip(first.periods[first.places].tolist(), first.values.tolist(), strict=True))
        has = dict(zip(latest.periods[latest.places].tolist(), latest.values.tolist(), strict=True))
        told = revised[series].group_by("ref_period").agg(pl.col("value").n_unique()).filter(pl.col("value") > 1)
        assert told.height == wanted
        differ = {period for period in had if not (had[period] == has[period] or math.isnan(had[period]))}
        assert differ <= {to_us(each) for each in told["ref_period"].to_list()}
        assert len(differ) >= wanted * 0.95  # some came back to what they were at first


def test_the_month_that_was_never_published_is_a_gap_and_what_is_made_of_it_too(
    revised: dict[str, pl.DataFrame],
) -> None:
    made = steps(releases(revised["CPIAUCSL"]), "diff")
    row = int(newest_rows(made.available_at, np.array([to_us(datetime(2026, 1, 1, tzinfo=UTC))]))[0])
    assert STATUSES[made.statuses[row]] == "gap"  # November's change from an October that there is not
    passed_over = steps(releases(revised["CPIAUCSL"]), "diff", skip=True)
    assert passed_over.values[row] == pytest.approx(325.031 - 324.368)
