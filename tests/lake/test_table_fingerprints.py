"""What a table's rows were by a month's end: a fingerprint that only those rows change."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from mdplatform.lake import Lake
from mdplatform.market.macro import MACRO
from mdplatform.market.time import month_range, to_us

MONTHS = ["2025-01", "2025-02", "2025-03"]


def vintage(day: datetime, value: float) -> pl.DataFrame:
    """One observation as it was published on that day."""
    period = datetime(2024, 12, 1, tzinfo=UTC)
    row = ("CPI", period, value, day, day, day)
    names = ("series_id", "ref_period", "value", "published_at", "vintage", "available_at")
    return pl.DataFrame([dict(zip(names, row, strict=True))], schema=MACRO.delivered)


def test_a_release_changes_the_fingerprints_of_the_months_that_end_after_it_and_no_other(tmp_path: Path) -> None:
    store = Lake(tmp_path).table("macro")
    ends = [month_range(month)[1] for month in MONTHS]
    assert [store.fingerprint("CPI", end) for end in ends] == ["", "", ""]
    seen = []
    for number, day in enumerate((datetime(2025, 1, 15, tzinfo=UTC), datetime(2025, 3, 15, tzinfo=UTC))):
        store.stage(vintage(day, 300.0 + number), "test", day)
        store.merge("CPI")
        seen.append([store.fingerprint("CPI", end) for end in ends])
    first, second = seen
    assert first[0] == first[1] == first[2] != ""
    assert second[:2] == first[:2]
    assert second[2] != first[2]


def test_a_correction_changes_the_fingerprint_of_its_month(tmp_path: Path) -> None:
    store = Lake(tmp_path).table("macro")
    day = datetime(2025, 1, 15, tzinfo=UTC)
    found = []
    for value in (300.0, 301.0):
        store.stage(vintage(day, value), "test", datetime(2025, 4, 1, tzinfo=UTC))
        store.merge("CPI")
        found.append([store.fingerprint("CPI", end) for end in (to_us(day), month_range("2025-01")[1])])
    assert found[0][1] != found[1][1]
