"""The benchmarks' own means: turns, ratios, stages, and the check that what was timed is right."""

from __future__ import annotations

import json
import math
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from benchmarks.bare import check
from benchmarks.measure import Comparison, Stages, WrongResult, compare, in_turns, p99
from benchmarks.place import temporary_settings
from benchmarks.report import duration, machine, save, show
from mdplatform.features import parse_feature

HOUR_US = 3_600_000_000


def test_ours_and_bare_take_turns_and_the_first_turn_does_not_count() -> None:
    order: list[str] = []
    ours, bare = in_turns(
        2,
        ours=lambda: order.append("ours"),
        bare=lambda: order.append("bare"),
        prepare=lambda: order.append("prepare"),
        check=lambda result: order.append(f"check {result}"),
        prepare_bare=lambda: order.append("prepare bare"),
    )
    assert order == ["prepare", "ours", "check None", "prepare bare", "bare"] * 3
    assert len(ours) == len(bare) == 2


def test_the_ratio_is_the_median_of_the_pairs() -> None:
    compared = compare("part", "what", "bare", ([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]))
    assert compared.ratio == 3.0
    assert (compared.ours, compared.bare, compared.turns) == (8.0, 2.0, 3)


def test_the_99th_percentile_leaves_one_in_a_hundred_above() -> None:
    assert p99([float(number) for number in range(200)]) == 198.0
    assert p99([1.0] * 99) is None


class Kitchen:
    def cook(self) -> None:
        self.cut()

    def cut(self) -> None:
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass


def test_a_stage_inside_another_counts_as_the_outer_one() -> None:
    stages = Stages()
    with stages.watching([(Kitchen, "cook", "cooking"), (Kitchen, "cut", "cutting")]):
        Kitchen().cook()
        assert stages.seconds.keys() == {"cooking"}
        Kitchen().cut()
    assert stages.seconds["cooking"] >= 0.002
    assert stages.seconds["cutting"] >= 0.002
    Kitchen().cut()
    assert stages.seconds["cutting"] < 1


@pytest.fixture
def bars() -> pl.DataFrame:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    opens = [start + timedelta(hours=hour) for hour in range(60) if hour not in (30, 31)]
    closes = [100 + 5 * math.sin(number) for number in range(len(opens))]
    return pl.DataFrame({"open_time": opens, "close": closes}).with_columns(
        pl.col("open_time").cast(pl.Datetime("us", "UTC"))
    )


def _means(bars: pl.DataFrame) -> np.ndarray:
    """Work out SMA(3) by hand: none in the first two rows of each of the two stretches."""
    closes = bars["close"].to_list()
    firsts = {0, 1, 30, 31}
    return np.array([np.nan if row in firsts else sum(closes[row - 2 : row + 1]) / 3 for row in range(len(closes))])


def test_right_values_pass_the_check(bars: pl.DataFrame) -> None:
    feature = parse_feature("SMA(timeperiod=3)")
    assert check([feature], bars, HOUR_US, {str(feature): _means(bars)}) == len(bars) - 4


def test_a_value_that_is_off_by_a_millionth_is_found(bars: pl.DataFrame) -> None:
    feature, values = parse_feature("SMA(timeperiod=3)"), _means(bars)
    values[40] *= 1 + 1e-6
    with pytest.raises(WrongResult, match="differs"):
        check([feature], bars, HOUR_US, {str(feature): values})


def test_values_that_are_left_out_are_found(bars: pl.DataFrame) -> None:
    feature, values = parse_feature("SMA(timeperiod=3)"), _means(bars)
    values[40:] = np.nan
    with pytest.raises(WrongResult, match="missing"):
        check([feature], bars, HOUR_US, {str(feature): values})


def test_benchmarks_never_use_the_server_or_the_home_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MDPLATFORM_REDIS_URL", "redis://production:6379/0")
    monkeypatch.setenv("MDPLATFORM_HOME", str(tmp_path))
    with temporary_settings() as settings:
        assert settings.redis_url is None
        assert settings.home != tmp_path
        home = settings.home
    assert not home.exists()
    assert os.environ["MDPLATFORM_REDIS_URL"] == "redis://production:6379/0"


def test_the_report_shows_and_saves_each_comparison(tmp_path: Path) -> None:
    compared = Comparison("reading", "sync hit", "GET", 3, 0.0002, 0.0001, 2.0, stages={"redis": 0.0001})
    about = machine()
    console = Console(width=160, record=True, quiet=True)
    show([compared], about, console)
    saved = json.loads(save([compared], about, short=True, folder=tmp_path).read_text())
    assert saved["comparisons"][0]["ratio"] == 2.0
    assert saved["machine"]["cores"] >= 1
    assert saved["short"] is True


def test_durations_are_written_in_the_unit_that_suits_them() -> None:
    assert [duration(each) for each in (0.0000312, 0.000312, 0.0456, 2.5, None)] == [
        "31.2 µs",
        "312 µs",
        "45.6 ms",
        "2.50 s",
        "",
    ]
