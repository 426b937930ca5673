"""The inbox: staged whole, once, in the order of delivery, and safe when a run dies between merging and clearing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from mdplatform.errors import CorruptPartition, InvalidBars
from mdplatform.lake import Lake
from mdplatform.lake.partition import Partition
from mdplatform.market.bars import RAW_SCHEMA
from mdplatform.market.timeframe import Timeframe

from .deliveries import DAY, FEBRUARY, JANUARY, LATER, MINUTE, grid, take


def test_a_delivery_waits_in_a_batch_a_month(tmp_path: Path) -> None:
    inbox = Lake(tmp_path).inbox
    rows = grid(FEBRUARY - 3 * MINUTE, 5)
    batches = inbox.stage("AUSDT", Timeframe.M1, "file:x.csv", "abc", rows.reverse(), LATER)
    assert [(each.month, len(each.rows)) for each in batches] == [("2025-01", 3), ("2025-02", 2)]
    assert inbox.months("AUSDT") == ["2025-01", "2025-02"]
    assert inbox.months("BUSDT") == inbox.pending("BUSDT", "2025-01") == []
    for batch in batches:
        (waiting,) = Lake(tmp_path).inbox.pending("AUSDT", batch.month)
        assert waiting.rows.equals(batch.rows)
        assert waiting.rows.schema == RAW_SCHEMA
        assert (waiting.symbol, waiting.timeframe, waiting.source) == ("AUSDT", Timeframe.M1, "file:x.csv")
        assert (waiting.key, waiting.staged_at, waiting.path) == ("abc", LATER, batch.path)
    assert pl.concat(each.rows for each in batches).sort("open_time").equals(rows)


def test_the_order_of_rows_within_a_delivery_is_kept(tmp_path: Path) -> None:
    rows = pl.concat([grid(JANUARY, 3), grid(JANUARY, 3, volume=9.0)]).reverse()
    Lake(tmp_path).inbox.stage("AUSDT", Timeframe.M1, "x", "abc", rows, LATER)
    assert Lake(tmp_path).inbox.pending("AUSDT", "2025-01")[0].rows.equals(rows)


def test_what_two_delivered_at_once_stays_when_one_takes_its_own_back(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    (first,) = lake.inbox.stage("AUSDT", Timeframe.M1, "x", "abc", grid(JANUARY, 3), LATER)
    (again,) = Lake(tmp_path).inbox.stage("AUSDT", Timeframe.M1, "y", "abc", grid(JANUARY, 3), LATER)
    lake.inbox.clear(first)
    assert [each.path for each in lake.inbox.pending("AUSDT", "2025-01")] == [again.path]
    report = lake.bars.merge("AUSDT", "2025-01", lake.inbox.pending("AUSDT", "2025-01"))
    assert (report.taken, report.unchanged) == (3, 0)


def test_what_two_delivered_at_once_is_counted_once_and_cleared_together(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for minutes in range(2):
        lake.inbox.stage("AUSDT", Timeframe.M1, "x", "abc", grid(JANUARY, 3), LATER + timedelta(minutes=minutes))
    waiting = lake.inbox.pending("AUSDT", "2025-01")
    reports = [lake.bars.merge("AUSDT", "2025-01", waiting) for _ in range(2)]
    assert [(each.taken, each.unchanged) for each in reports] == [(3, 0), (0, 3)]
    lake.inbox.clear_merged(waiting[0])
    assert lake.inbox.months("AUSDT") == []


def test_what_is_taken_back_while_it_is_listed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Lake(tmp_path).inbox
    (first,) = inbox.stage("AUSDT", Timeframe.M1, "x", "abc", grid(JANUARY, 3), LATER)
    inbox.stage("AUSDT", Timeframe.M1, "x", "abd", grid(JANUARY, 3), LATER)
    opened = Partition.open

    def taking_back(path: Path) -> Partition | None:
        inbox.clear(first)
        return opened(path)

    monkeypatch.setattr(Partition, "open", taking_back)
    assert [each.key for each in inbox.pending("AUSDT", "2025-01")] == ["abd"]


def test_deliveries_wait_in_the_order_they_came_even_those_of_one_instant(tmp_path: Path) -> None:
    inbox = Lake(tmp_path).inbox
    keys = ["ff", "00", "7a", "a1", "03", "e2", "10", "5c", "44", "91", "2b", "c0"]
    for key in keys:
        inbox.stage("AUSDT", Timeframe.M1, "x", key, grid(JANUARY, 3), LATER)
    inbox.stage("AUSDT", Timeframe.M1, "x", "before", grid(JANUARY, 3), LATER - timedelta(seconds=1))
    assert [each.key for each in inbox.pending("AUSDT", "2025-01")] == ["before", *keys]
    inbox.clear(inbox.pending("AUSDT", "2025-01")[1])
    inbox.stage("AUSDT", Timeframe.M1, "x", "aa", grid(JANUARY, 3), LATER)
    assert [each.key for each in inbox.pending("AUSDT", "2025-01")] == ["before", *keys[1:], "aa"]


def test_the_last_of_overlapping_polls_wins(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for n, key in enumerate(["ff", "00", "7a", "a1", "03", "e2"]):
        lake.inbox.stage("AUSDT", Timeframe.M1, "x", key, grid(JANUARY, 2, volume=500_000.0 + n), LATER)
    report = lake.bars.merge("AUSDT", "2025-01", lake.inbox.pending("AUSDT", "2025-01"))
    assert (report.taken, report.corrected) == (2, 10)
    assert lake.bars.read("AUSDT", Timeframe.M1)["volume"].to_list() == [500_005.0] * 2


def test_a_cleared_batch_is_forgotten_and_clearing_twice_is_fine(tmp_path: Path) -> None:
    inbox = Lake(tmp_path).inbox
    (batch,) = inbox.stage("AUSDT", Timeframe.M1, "x", "abc", grid(JANUARY, 3), LATER)
    inbox.clear(batch)
    inbox.clear(batch)
    assert inbox.months("AUSDT") == inbox.pending("AUSDT", "2025-01") == []


def test_a_run_that_dies_between_merging_and_clearing_harms_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    half_and_final = pl.concat([grid(JANUARY, 5, volume=400_000.0), grid(JANUARY, 5)])
    lake.inbox.stage("AUSDT", Timeframe.M1, "x", "abc", half_and_final, LATER)
    first = lake.bars.merge("AUSDT", "2025-01", lake.inbox.pending("AUSDT", "2025-01"))
    before = lake.bars.path("AUSDT", "2025-01").stat().st_mtime_ns
    again = Lake(tmp_path)
    second = again.bars.merge("AUSDT", "2025-01", again.inbox.pending("AUSDT", "2025-01"))
    assert (first.taken, first.corrected) == (5, 5)
    assert (second.taken, second.corrected, second.unchanged, second.changed) == (0, 0, 10, False)
    assert second.data_version == first.data_version
    assert again.bars.path("AUSDT", "2025-01").stat().st_mtime_ns == before


def test_a_row_without_a_time_is_filed_with_the_others_and_set_aside(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    rows = pl.concat([grid(JANUARY, 2), grid(JANUARY, 1).with_columns(open_time=None)]).cast(RAW_SCHEMA)
    (report,) = take(lake, rows)
    assert (report.taken, dict(report.quarantined)) == (2, {"time_missing": 1})


def test_a_delivery_without_any_time_is_refused(tmp_path: Path) -> None:
    rows = grid(JANUARY, 2).with_columns(open_time=None).cast(RAW_SCHEMA)
    with pytest.raises(InvalidBars):
        Lake(tmp_path).inbox.stage("AUSDT", Timeframe.M1, "x", "abc", rows, LATER)


@pytest.mark.parametrize("change", ["naive times", "milliseconds", "a column less", "a column more", "text"])
def test_what_is_no_table_of_raw_bars_is_refused(tmp_path: Path, change: str) -> None:
    rows = grid(JANUARY, 2)
    wrong = {
        "naive times": rows.with_columns(pl.col("open_time").dt.replace_time_zone(None)),
        "milliseconds": rows.with_columns(pl.col("open_time").dt.cast_time_unit("ms")),
        "a column less": rows.drop("trade_count"),
        "a column more": rows.with_columns(extra=1),
        "text": rows.with_columns(pl.col("close").cast(pl.String)),
    }[change]
    with pytest.raises(InvalidBars):
        Lake(tmp_path).inbox.stage("AUSDT", Timeframe.M1, "x", "abc", wrong, LATER)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_staged_file_is_named(tmp_path: Path) -> None:
    inbox = Lake(tmp_path).inbox
    (batch,) = inbox.stage("AUSDT", Timeframe.M1, "x", "abc", grid(JANUARY, 3), LATER)
    assert batch.path is not None
    batch.path.write_bytes(batch.path.read_bytes()[:100])
    with pytest.raises(CorruptPartition, match="abc"):
        inbox.pending("AUSDT", "2025-01")


def test_instants_at_the_edge_of_a_month_are_filed_by_utc(tmp_path: Path) -> None:
    rows = pl.concat([grid(FEBRUARY - DAY, 3, Timeframe.D1), grid(JANUARY - DAY, 1, Timeframe.D1)])
    batches = Lake(tmp_path).inbox.stage("AUSDT", Timeframe.D1, "x", "abc", rows, LATER)
    assert [(each.month, len(each.rows)) for each in batches] == [("2024-12", 1), ("2025-01", 1), ("2025-02", 2)]
