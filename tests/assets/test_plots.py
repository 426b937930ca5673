"""The pictures of materializations: what of their numbers, names and times can be read in them."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from mdplatform.assets.macro_series import picture
from mdplatform.assets.plots import Panel, heat_map, over_time

MONTHS = [datetime(2022 + at // 12, at % 12 + 1, 1, tzinfo=UTC) for at in range(60)]


def parsed(markdown: str) -> ET.Element:
    found = re.search(r"base64,([^)]*)", markdown)
    assert found is not None
    return ET.fromstring(base64.b64decode(found[1]))


def texts(markdown: str) -> list[str]:
    return [each.text or "" for each in parsed(markdown).iter() if each.tag.endswith("text")]


def paths(markdown: str) -> list[str]:
    return [each.attrib["d"] for each in parsed(markdown).iter() if each.tag.endswith("path")]


def instants(times: list[datetime]) -> pl.Series:
    return pl.Series(times).cast(pl.Datetime("us", "UTC"))


@pytest.mark.parametrize(
    ("count", "named", "numbered"), [(1, 1, True), (12, 12, True), (13, 13, False), (30, 15, False)]
)
def test_a_heat_map_names_both_axes_and_puts_numbers_into_few_cells(count: int, named: int, numbered: bool) -> None:
    names = [f"N{each:02}" for each in range(count)]
    matrix = np.full((count, count), -0.25) + 1.25 * np.eye(count)
    said = texts(heat_map("title", names, matrix))
    assert {name for name in names if said.count(name) == 2} == set(names[:: -(-count // named)])
    assert said.count("1.00") == (count if numbered else 0)
    assert said.count("−0.25") == (count * (count - 1) if numbered else 0)
    assert {"1", "0.5", "0", "−0.5", "−1"} <= set(said)
    assert "no number" not in said


def test_a_heat_map_of_many_symbols_stays_small_and_has_no_names_but_its_scale() -> None:
    drawn = heat_map("many", [f"S{each}" for each in range(500)], np.eye(500))
    assert len(drawn) < 600_000
    assert texts(drawn) == ["many", "1", "0.5", "0", "−0.5", "−1"]
    assert "nothing to draw" in heat_map("none", [], np.empty((0, 0)))


def test_a_heat_map_tells_a_missing_number_from_zero_and_takes_any_name() -> None:
    said = texts(heat_map("a < b & c", ["<&>", "B"], np.array([[1.0, np.nan], [np.nan, 1.0]])))
    assert {"a < b & c", "<&>", "no number"} <= set(said)
    assert said.count("1.00") == 2
    assert "nan" not in said


def test_a_year_without_anything_is_a_hole_of_that_width_and_years_are_told() -> None:
    kept = [
        month for month in MONTHS if not datetime(2024, 6, 1, tzinfo=UTC) < month < datetime(2025, 6, 1, tzinfo=UTC)
    ]
    drawn = over_time("title", instants(kept), [Panel("value", [("", pl.Series(range(len(kept))))])])
    assert {"2022", "2023", "2024", "2025", "2026", "value"} <= set(texts(drawn))
    (path,) = paths(drawn)
    assert path.count("M") == 2
    left, right = (re.findall(r"([\d.]+) [\d.]+", run) for run in path.split("M")[1:])
    whole = float(right[-1]) - float(left[0])
    share = (float(right[0]) - float(left[-1])) / whole
    assert share == pytest.approx(365 / (kept[-1] - kept[0]).days, abs=0.01)


def test_weekends_break_no_line_and_nulls_do() -> None:
    year = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=at) for at in range(366)]
    days = [day for day in year if day.weekday() < 5]
    times = instants(days)
    numbers = pl.Series([float(at) for at in range(len(days))])
    assert paths(over_time("t", times, [Panel("", [("", numbers)])]))[0].count("M") == 1
    broken = numbers.scatter(list(range(100, 120)), None)
    assert paths(over_time("t", times, [Panel("", [("", broken)])]))[0].count("M") == 2


def test_of_more_points_than_can_be_seen_the_extremes_stay() -> None:
    times = instants([datetime(1990, 1, 1, tzinfo=UTC) + timedelta(days=at) for at in range(14_000)])
    numbers = np.zeros(len(times))
    numbers[7_003] = 5.0
    drawn = over_time("t", times, [Panel("", [("", pl.Series(numbers))])])
    assert len(drawn) < 30_000
    heights = {float(each) for each in re.findall(r"[ML][\d.]+ ([\d.]+)", paths(drawn)[0])}
    assert len(heights) == 2


def test_revisions_too_small_for_the_lines_have_bars_of_their_own() -> None:
    first = [20_000.0 + 100 * at for at in range(60)]
    last = [value * (1.001 if at % 2 else 1.0) for at, value in enumerate(first)]
    rows = pl.DataFrame({"ref_period": instants(MONTHS), "first": first, "last": last})
    said = texts(picture("M2SL", rows))
    assert "newest − first, in % of the first release; 30 of 60 differ" in said
    assert "0.1" in said
    assert paths(picture("M2SL", rows))[2].count("V") == 30
    below = rows.with_columns(pl.col("first", "last") - 22_000)
    assert "newest − first, in its units; 30 of 60 differ" in texts(picture("M2SL", below))


def test_a_series_that_was_never_revised_says_so_with_one_line() -> None:
    rows = pl.DataFrame({"ref_period": instants(MONTHS), "first": [1.0] * 60, "last": [1.0] * 60})
    assert "No newest value differs from the first:" in texts(picture("VIXCLS", rows))
    assert len(paths(picture("VIXCLS", rows))) == 1
    assert len(paths(picture("VIXCLS", rows.head(1)))) == 1
    nothing = rows.head(3).with_columns(first=pl.lit(None, pl.Float64), last=pl.lit(None, pl.Float64))
    assert picture("VIXCLS", nothing) == "VIXCLS: nothing to draw"
    assert "nothing to draw" in over_time("t", instants([]), [Panel("", [("", pl.Series([], dtype=pl.Float64))])])
