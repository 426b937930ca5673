"""The measurement of requests: its plans, its sums, and one small run of it from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mdplatform.bench import plan
from mdplatform.bench.place import what_can_be_asked
from mdplatform.bench.plan import Planned, Question
from mdplatform.bench.requests import Options, measure
from mdplatform.bench.samples import Sample, Samples, by_class, layers, percentile, summary, timeline
from mdplatform.cli.frame import app
from mdplatform.errors import InvalidSetting, NoData
from mdplatform.features import parse_feature
from mdplatform.messaging.priority import DataPriority
from mdplatform.settings import Settings

ASKED = [Question(f"S{number}", feature, "1h") for number in range(50) for feature in ("RSI", "ATR", "ADX")]


def sample(taken: float, status: str = "ok", answers: int = 1, due: float = 0.0, called: float = 0.0) -> Sample:
    planned = Planned(due, 1, ASKED[0], DataPriority.CRITICAL)
    return Sample(planned, due, called, called + taken if answers else 0.0, answers, status, "near")


def test_a_home_of_its_own_goes_with_a_sigterm() -> None:
    script = (
        "import signal\nfrom mdplatform.bench.place import temporary_home\n"
        "with temporary_home() as home:\n    print(home.home, flush=True)\n    signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        home = Path(process.stdout.readline().strip())
        assert home.is_dir()
        process.terminate()
        assert process.wait(20) == 143
    assert not home.exists()


def test_nothing_is_measured_where_nobody_answers_or_in_a_home_without_symbols(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="Nobody answers"):
        measure(Options(workers=0))
    with pytest.raises(NoData, match="Without symbols"):
        measure(Options(), Settings.load(home=tmp_path))
    assert not (tmp_path / "lake").exists()


def test_a_burst_is_one_request_of_each_strategy_at_the_same_instant_in_the_stated_mix() -> None:
    burst = plan.burst(10_000, ASKED)
    assert {each.due for each in burst} == {0.0}
    assert sorted(each.strategy for each in burst) == list(range(10_000))
    for priority, share in plan.MIX.items():
        assert abs(sum(each.priority is priority for each in burst) / 10_000 - share) < 0.03
    assert burst == plan.burst(10_000, ASKED)


def test_steady_load_has_the_stated_rate_and_popular_symbols() -> None:
    steady = plan.steady(100, 1000.0, 20.0, ASKED)
    assert abs(len(steady) - 20_000) < 600
    assert [each.due for each in steady] == sorted(each.due for each in steady)
    assert max(each.due for each in steady) < 20.0
    first, second = (sum(each.question.symbol == name for each in steady) for name in ("S0", "S1"))
    assert 1.8 < first / second < 2.2


def test_a_flood_adds_low_requests_alone() -> None:
    flood = plan.flood(100, 100.0, 2000.0, 5.0, ASKED)
    counts = {each: sum(one.priority is each for one in flood) for each in DataPriority}
    assert counts[DataPriority.LOW] > 9000
    assert sum(counts.values()) - counts[DataPriority.LOW] < 600
    long = [each for each in flood if each.question.feature.startswith("CORRELATION(")]
    assert {each.priority for each in long} == {DataPriority.LOW}
    assert 90 < len(long) < 120
    assert parse_feature(long[0].question.feature)


def test_latency_counts_from_the_instant_a_request_was_due_even_if_it_was_called_late() -> None:
    found = summary([sample(0.010, due=1.0, called=1.5)])
    assert (found["p50_ms"], found["p50_from_due_ms"]) == (10.0, 510.0)


def test_what_was_lost_answered_twice_or_turned_away_is_counted_and_not_taken_for_fast() -> None:
    found = summary([sample(0.1), sample(0.2, answers=2), sample(0.0, "", answers=0), sample(0.001, "rejected")])
    assert (found["sent"], found["answered"], found["lost"], found["duplicated"]) == (4, 3, 1, 1)
    assert (found["p50_ms"], found["max_ms"], found["rejected_p99_ms"]) == (100.0, 200.0, 1.0)
    assert found["statuses"] == {"ok": 2, "rejected": 1}


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100)])
def test_a_percentile_is_a_value_that_occurred(share: float, value: int) -> None:
    assert percentile([float(each) for each in range(1, 101)], share) == value


def test_sums_by_class_layer_and_time() -> None:
    samples = Samples([sample(0.1, due=0.1, called=0.1), sample(0.3, due=1.2, called=1.2)], 0.0, 2.0)
    assert by_class(samples)["CRITICAL"]["sent"] == 2
    assert by_class(samples)["LOW"]["p50_ms"] is None
    assert layers(samples.every)["hit_share"] == 1.0
    assert [each["max_ms"] for each in timeline(samples.every, 0.0, 1.0)] == [100.0, 300.0]


def test_what_can_be_asked_is_the_catalogue_of_each_symbol() -> None:
    assert len(what_can_be_asked(["A", "B"])) == 80


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["bench", "requests", *words])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--flood", "high"], "flood"),
        (["--flood", "low", "--equal"], "two measurements"),
        (["--plot", "plot.txt"], ".png"),
        (["--plot", "/no/such/folder/plot.png"], "folder"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(words: list[str], told: str) -> None:
    error = run(*words).exception
    assert isinstance(error, InvalidSetting)
    assert told in str(error)


def test_it_runs_by_itself_and_every_request_has_one_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("mdplatform.bench.requests._ALONE_TURNS", 20)
    drawn = tmp_path / "latency.png"
    load = ["--strategies", "60", "--seconds", "1", "--rate", "60", "--symbols", "1", "--workers", "1"]
    found = run(*load, "--plot", str(drawn), "--json")
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    for each in report["priorities"].values():
        assert each["sent"] == each["answered"] > 0
        assert each["p50_ms"] <= each["p99_ms"]
        assert (each["lost"], each["duplicated"]) == (0, 0)
    assert report["totals"]["sent"] > 60
    assert report["baseline"]["p50_ms"] > 0
    assert drawn.stat().st_size > 10_000
    equal = run("--strategies", "40", "--symbols", "1", "--workers", "1", "--equal")
    assert equal.exit_code == 0, equal.output
    assert "1 computations for 40 requests" in equal.output
