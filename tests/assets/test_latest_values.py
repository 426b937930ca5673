"""Latest values of macro series and their vintages: what goes into one series, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from mdplatform.errors import InvalidTable
from mdplatform.ingest import Wanted, ingest
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData
from mdplatform.settings import Settings

VINTAGES_OF_GDP = """series_id,realtime_start,realtime_end,date,value
GDP,2025-04-30,2025-05-28,2025-01-01,29977.6
GDP,2025-05-29,9999-12-31,2025-01-01,29976.6
GDP,2025-07-30,9999-12-31,2025-04-01,30331.1
"""


def known(settings: Settings, at: datetime | None = None) -> list[tuple[str, float]]:
    """Give what is known of GDP at an instant: each period's newest vintage that was available by then."""
    rows = Lake(settings.lake_dir).table("macro").read(["GDP"])
    rows = rows if at is None else rows.filter(pl.col("available_at") <= at)
    newest = rows.sort("vintage").unique("ref_period", keep="last").sort("ref_period")
    return [(f"{period:%Y-%m}", value) for period, value in newest.select("ref_period", "value").iter_rows()]


def test_latest_values_undo_no_revision_unless_it_is_said_on_what_day_they_were_known(
    settings: Settings, tmp_path: Path
) -> None:
    vintages, latest, as_macro = tmp_path / "vintages.csv", tmp_path / "GDP.csv", Wanted(taken_as="macro")
    vintages.write_text(VINTAGES_OF_GDP)
    latest.write_text("date,value\n2024-10-01,29825.2\n2025-01-01,29977.6\n")  # as they stood in May
    ingest([str(vintages)], as_macro, settings)
    before = known(settings)
    with pytest.raises(InvalidTable, match=r"GDP are vintages, and latest values would undo .* --observed DAY"):
        ingest([str(latest)], as_macro, settings)
    with pytest.raises(InvalidTable, match="without --lag-days"):
        ingest([str(latest)], replace(as_macro, lag_days=30, observed=datetime(2025, 5, 10, tzinfo=UTC)), settings)
    assert known(settings) == before
    report = ingest([str(latest)], replace(as_macro, observed=datetime(2025, 5, 10, tzinfo=UTC)), settings)
    assert (report.taken, report.corrected, report.unchanged) == (1, 0, 1)  # the other was published in April
    assert known(settings) == [("2024-10", 29825.2), *before]
    assert known(settings, datetime(2025, 5, 9, tzinfo=UTC)) == [("2025-01", 29977.6)]


def test_a_file_seen_on_the_day_of_a_release_leaves_its_hour_alone(settings: Settings, tmp_path: Path) -> None:
    vintages, latest = tmp_path / "vintages.csv", tmp_path / "GDP.csv"
    vintages.write_text(VINTAGES_OF_GDP)
    latest.write_text("date,value\n2025-01-01,29976.6\n2025-04-01,30331.1\n")
    ingest([str(vintages)], Wanted(taken_as="macro"), settings)
    report = ingest([str(latest)], Wanted(taken_as="macro", observed=datetime(2025, 7, 31, tzinfo=UTC)), settings)
    assert (report.taken, report.corrected, report.unchanged) == (0, 0, 2)
    assert known(settings, datetime(2025, 7, 30, 12, 30, tzinfo=UTC))[-1] == ("2025-04", 30331.1)


def test_latest_values_follow_one_another_and_the_same_again_changes_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    path, as_macro = tmp_path / "GDP.csv", Wanted(taken_as="macro")
    path.write_text("date,value\n2025-01-01,29977.6\n2025-04-01,30331.1\n")
    assert ingest([str(path)], as_macro, settings).taken == 2
    between = datetime.now(UTC)
    again = ingest([str(path)], as_macro, settings)
    assert (again.taken, again.corrected, again.unchanged, again.partitions) == (0, 0, 2, [])
    path.write_text("date,value\n2025-01-01,29977.6\n2025-04-01,30354.0\n2025-07-01,30485.7\n")
    newer = ingest([str(path)], as_macro, settings)
    assert newer.unchanged == 1
    assert known(settings) == [("2025-01", 29977.6), ("2025-04", 30354.0), ("2025-07", 30485.7)]
    assert LakeData(Lake(settings.lake_dir), as_of=between).macro("GDP")["value"].to_list() == [29977.6, 30331.1]


def test_vintages_beside_latest_values_are_refused_with_the_way_to_begin_anew(
    settings: Settings, tmp_path: Path
) -> None:
    vintages, latest, as_macro = tmp_path / "vintages.csv", tmp_path / "GDP.csv", Wanted(taken_as="macro")
    vintages.write_text(VINTAGES_OF_GDP)
    latest.write_text("date,value\n2025-01-01,29977.6\n")
    ingest([str(latest)], as_macro, settings)
    with pytest.raises(InvalidTable, match="GDP are latest values") as refused:
        ingest([str(vintages)], as_macro, settings)
    path = Lake(settings.lake_dir).table("macro").path("GDP")
    assert f"delete {path}" in str(refused.value)
    path.unlink()
    assert ingest([str(vintages)], as_macro, settings).taken == 3
    assert known(settings) == [("2025-01", 29976.6), ("2025-04", 30331.1)]


def test_real_latest_values_are_refused_beside_real_vintages(settings: Settings, shared_data: Path) -> None:
    ingest([str(shared_data / "ready" / "macro" / "vintages_yuenan142.csv.gz")], Wanted(taken_as="macro"), settings)
    latest = shared_data / "macro" / "sivamsapingali__Codex_Macro-Monitor" / "data" / "CPIAUCSL.csv"
    before = LakeData(Lake(settings.lake_dir)).macro("CPIAUCSL")
    with pytest.raises(InvalidTable, match="--observed DAY"):
        ingest([str(latest)], Wanted(taken_as="macro"), settings)
    assert LakeData(Lake(settings.lake_dir)).macro("CPIAUCSL").equals(before)
