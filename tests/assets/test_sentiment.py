"""The assets of sentiment on a real Dagster instance: what they merge, compute, record and check."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from mdplatform.assets.sentiment import check_sentiment
from mdplatform.assets.sentiment_features import FEATURES, MONTHS_BEFORE, broken_rows, hourly, inputs_of
from mdplatform.errors import MaterializationFailed
from mdplatform.features import parse_feature
from mdplatform.features.data import Grid
from mdplatform.features.guard import STATUSES
from mdplatform.features.panel import evaluate_on
from mdplatform.ingest import Report, Wanted, ingest
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData
from mdplatform.lake.partition import write_partition
from mdplatform.market.time import month_range
from mdplatform.market.timeframe import Timeframe
from mdplatform.runs import Runs
from mdplatform.settings import Settings

NEWS = """id,time,score,label,title,symbols
1,2025-01-30 10:20:00,0.5,good,Up,
2,2025-01-31,-0.5,bad,Down,
3,2025-02-10 08:00:00,0.9,good,up,
4,2025-02-10 09:30:00,0.25,good,Coin,BTCUSDT
5,2025-02-20 12:00:00,-1.0,bad,Crash,
6,2025-03-02 00:30:00,0.1,meh,Calm,"ADAUSDT,BTCUSDT"
7,2025-03-02 06:10:00,3.0,meh,Wrong,
"""
MONTHS = ["2025-01", "2025-02", "2025-03"]


def take(text: str, settings: Settings, folder: Path) -> Report:
    path = folder / "news.csv"
    path.write_text(text, encoding="utf-8")
    return ingest([str(path)], Wanted(taken_as="sentiment", provider="news"), settings)


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Report]]:
    """A home with the news, for all tests that change nothing in it."""
    folder = tmp_path_factory.mktemp("sentiment")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MDPLATFORM_HOME", str(folder / "home"))
        settings = Settings.load()
        yield settings, take(NEWS, settings, folder)


@pytest.fixture(scope="module")
def lake(taken: tuple[Settings, Report]) -> Lake:
    return Lake(taken[0].lake_dir)


def test_documents_are_filed_by_the_month_in_which_they_became_available(
    taken: tuple[Settings, Report], lake: Lake
) -> None:
    report = taken[1]
    assert (report.taken, report.corrected, dict(report.quarantined)) == (6, 0, {"score_invalid": 1})
    assert report.partitions == [f"sentiment:{month}" for month in MONTHS]
    ids = [lake.table("sentiment").read([month])["doc_id"].to_list() for month in MONTHS]
    assert ids == [["1"], ["2", "3", "4:BTCUSDT", "5"], ["6:ADAUSDT,BTCUSDT"]]


def test_the_hours_are_those_that_closed_by_the_newest_document(lake: Lake) -> None:
    rows = hourly(lake, "2025-03")
    assert rows["available_at"].max() == datetime(2025, 3, 2, 0, tzinfo=UTC)
    assert hourly(lake, "2025-02")["available_at"].max() == datetime(2025, 3, 1, tzinfo=UTC)
    assert hourly(lake, "2024-12").is_empty()
    assert hourly(lake, "2025-04").is_empty()


def test_each_hour_has_the_values_of_the_features(lake: Lake) -> None:
    rows = hourly(lake, "2025-02")
    assert rows.select("provider", "symbol").unique(maintain_order=True).rows() == [("news", ""), ("news", "BTCUSDT")]
    start, end = month_range("2025-02")
    for symbol in ("", "BTCUSDT"):
        part = rows.filter(pl.col("symbol") == symbol)
        opens = part["open_time"].dt.epoch("us").to_numpy()
        assert (opens[0], opens[-1] + Timeframe.H1.microseconds, len(opens)) == (start, end, 28 * 24)
        grid = Grid(symbol or "ETHUSDT", Timeframe.H1, opens)
        for name, text in FEATURES.items():
            spec = parse_feature(text.format("news", "symbol" if symbol else "market"))
            values = evaluate_on(grid, [spec], LakeData(lake))[spec]
            assert part[name].equals(pl.Series(name, values.outputs[0], nan_to_null=True))
            assert part[f"{name}.status"].to_list() == [STATUSES[each] for each in values.statuses]


def test_a_copy_does_not_count_in_the_next_month_either(lake: Lake) -> None:
    rows = hourly(lake, "2025-02").filter(pl.col("symbol") == "")
    at = rows.filter(pl.col("available_at") == datetime(2025, 2, 10, 9, tzinfo=UTC)).to_dicts()[0]
    assert (at["count"], at["age_hours"], at["score.status"]) == (0, 9 * 24 + 9, "stale")


def test_a_run_records_a_picture_and_what_it_holds(taken: tuple[Settings, Report], lake: Lake) -> None:
    with Runs(taken[0]) as runs:
        done = {each.partition: each.metadata for each in runs.materialize(["sentiment", "sentiment_features"], MONTHS)}
        done |= {f"merged {each.partition}": each.metadata for each in runs.materialize(["sentiment"], ["2025-02"])}
    assert done["2025-02"]["dagster/row_count"] == 2 * 28 * 24
    assert (done["2025-02"]["providers"], done["2025-02"]["symbols"]) == (1, 1)
    assert "data:image/svg+xml;base64," in done["2025-02"]["plot"]
    merged = done["merged 2025-02"]
    assert (merged["taken"], merged["dagster/row_count"], merged["about_the_market"]) == (0, 4, 3)
    assert "| news: good | 2 |" in merged["rows_by_label"]
    assert "data:image/svg+xml;base64," in merged["plot"]
    assert [broken_rows(lake, month) for month in MONTHS] == [0, 0, 0]
    assert all(each.passed for each in check_sentiment(lake, MONTHS))


def test_the_same_documents_again_change_nothing_and_other_scores_are_corrections(
    settings: Settings, tmp_path: Path
) -> None:
    two = "\n".join(NEWS.splitlines()[:3]) + "\n"
    take(two, settings, tmp_path)
    lake = Lake(settings.lake_dir)
    before = inputs_of(lake, "2025-02")
    assert take(two, settings, tmp_path).unchanged == 2
    assert inputs_of(lake, "2025-02") == before
    report = take(two.replace("0.5,good", "0.4,good"), settings, tmp_path)
    assert (report.taken, report.corrected) == (0, 1)
    assert inputs_of(lake, "2025-02") != before
    assert hourly(lake, "2025-01").filter(pl.col("score").is_not_null())["score"].unique().to_list() == [0.4]
    known = LakeData(lake, datetime(2025, 1, 31, tzinfo=UTC)).sentiment(None, None)
    assert known["score"].to_list() == [0.5]


def test_months_depend_on_their_documents_and_on_those_that_reach_into_them(lake: Lake) -> None:
    assert MONTHS_BEFORE == 3
    told = [inputs_of(lake, month) for month in ("2024-12", "2025-01", "2025-02", "2025-03")]
    assert told[0] == ""
    assert len(set(told)) == 4


def test_nothing_to_compute_from_is_one_clear_error(settings: Settings) -> None:
    with Runs(settings) as runs, pytest.raises(MaterializationFailed, match="No documents for any of the 1 months"):
        runs.materialize(["sentiment_features"], ["2025-01"])


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (pl.lit(1.5).alias("score"), "score_range"),
        (pl.lit(None, dtype=pl.Float64).alias("score"), "score_range"),
        (pl.lit(2.0).alias("confidence"), "score_range"),
        ((pl.col("available_at") + pl.duration(days=1)).alias("seen_at"), "available_after"),
        ((pl.col("available_at") + pl.duration(days=40)).alias("available_at"), "available_after"),
        (pl.lit(1, dtype=pl.Int32).alias("revision"), "duplicates"),
        (pl.lit("x").alias("extra"), "schema"),
    ],
)
def test_each_check_finds_what_it_is_for(lake: Lake, tmp_path: Path, broken: pl.Expr, check: str) -> None:
    spoiled = Lake(tmp_path)
    rows = lake.table("sentiment").read(["2025-02"])
    path = spoiled.table("sentiment").path("2025-02")
    write_partition(path, {"rows": rows}, {}, "available_at")
    assert all(each.passed for each in check_sentiment(spoiled, ["2025-02"]))
    write_partition(path, {"rows": rows.with_columns(broken)}, {}, "available_at")
    failed = {each.check_name for each in check_sentiment(spoiled, ["2025-02"]) if not each.passed}
    assert failed == {check}
