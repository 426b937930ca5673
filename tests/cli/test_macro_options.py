"""What the command line takes of macro files without vintages: when they were seen, and how late values come."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer

from mdplatform.cli import arguments, main
from mdplatform.lake import Lake
from mdplatform.settings import Settings


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2025-01-31", datetime(2025, 2, 1, tzinfo=UTC)),
        ("2025-01-31T12:30", datetime(2025, 1, 31, 12, 30, tzinfo=UTC)),
        ("2025-01-31T12:30:00Z", datetime(2025, 1, 31, 12, 30, tzinfo=UTC)),
        ("2025-01-31T08:30:00-05:00", datetime(2025, 1, 31, 13, 30, tzinfo=UTC)),
        (None, None),
    ],
)
def test_a_day_means_its_end_and_a_time_without_a_zone_is_utc(text: str | None, wanted: datetime | None) -> None:
    assert arguments.instant(text) == wanted


@pytest.mark.parametrize("text", ["", "yesterday", "2025-02-30", "9999-12-31", "1735689600"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="2025-01-31"):
        arguments.instant(text)


def test_a_stated_lag_and_day_are_heeded_from_the_command_line_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "UNRATE.csv"
    path.write_text("observation_date,UNRATE\n2025-05-01,4.2\n2025-06-01,4.1\n")
    options = ["--as", "macro", "--lag-days", "35", "--observed", "2025-07-04", "--json"]
    monkeypatch.setattr(sys, "argv", ["mdplatform", "ingest", str(path), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    told = json.loads(capsys.readouterr().out)
    assert ended.value.code in (None, 0)
    assert (told["taken"], told["partitions"]) == (2, ["macro_series:UNRATE"])
    assert "35 days" in told["notes"][0]
    rows = Lake(settings.lake_dir).table("macro").read(["UNRATE"])
    assert rows["available_at"].to_list() == [
        datetime(2025, 6, 5, 12, 30, tzinfo=UTC),
        datetime(2025, 7, 5, tzinfo=UTC),
    ]
