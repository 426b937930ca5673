"""`mdplatform bench fanout`: real processes, every frame to every subscription once."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mdplatform.bench.latencies import Counts, Latencies, together
from mdplatform.bench.metronome import Beat
from mdplatform.cli.frame import app
from mdplatform.errors import InvalidSetting
from mdplatform.market.timeframe import MINUTE_US


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["bench", "fanout", *words])


def test_it_runs_by_itself_and_every_subscription_has_each_frame_once() -> None:
    load = ["--rate", "400", "--seconds", "1", "--symbols", "4", "--shapes", "2", "--subscriptions", "20"]
    found = run(*load, "--processes", "2", "--json")
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert report["sent"] == report["delivered"] == 20 * 10
    assert (report["lost"], report["duplicated"], report["incomplete"]) == (0, 0, 0)
    assert 0 < report["p50_ms"] <= report["p99_ms"]
    assert report["messages"] == 400
    assert report["bare"]["p50_ms"] > 0
    assert {"metronome", "ears-0", "ears-1", "redis"} <= set(report["memory"])  # the lake's part may come after it all
    assert all(each["max_mb"] > 1 for each in report["memory"].values())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--subscriptions", "1", "--processes", "2"], "--processes 2"),
        (["--symbols", "3", "--shapes", "4"], "--shapes 4"),
        (["--rate", "10", "--seconds", "1"], "1000 messages"),
        (["--plot", "plot.txt"], ".png"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(words: list[str], told: str) -> None:
    error = run(*words).exception
    assert isinstance(error, InvalidSetting)
    assert told in str(error)


def test_the_message_by_which_a_frame_is_complete_is_the_last_closing_one_of_its_symbols() -> None:
    beat = Beat(("A", "B", "C"), 0, rate=30.0, seconds=10.0, per_bar=10, go="")
    assert beat.minutes == 10
    assert beat.closing(MINUTE_US, ["A"]) == 27
    assert beat.closing(2 * MINUTE_US, ["A", "C"]) == 59
    assert beat.due(59) == 1_966_667


def test_percentiles_of_counted_latencies_are_right_to_a_hundredth() -> None:
    taken = np.random.default_rng(7).lognormal(8, 1.5, 120_000).astype(np.int64) + 1
    latencies = Latencies(stretch_seconds=1.0)
    for number, each in enumerate(taken.tolist()):
        latencies.note(each, number * 20)  # two and a half stretches
    course = latencies.count()
    assert [each.total for each in course] == [50_000, 50_000, 20_000]
    every = together(course)
    for share in (0.0, 0.5, 0.99, 0.9999, 1.0):
        exact = float(np.quantile(taken, share, method="inverted_cdf")) / 1000
        assert exact <= every.percentile_ms(share) <= max(exact * 1.011, exact + 0.001)
    assert Counts().percentile_ms(0.5) == 0.0
