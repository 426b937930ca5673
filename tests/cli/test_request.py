"""`mdplatform request` and `mdplatform requests`, with a worker as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mdplatform.cli.frame import app
from mdplatform.cli.request import _fields
from mdplatform.errors import PlatformError
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.redis.keys import queue_key
from mdplatform.processes import running
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect


@pytest.fixture
def worker(settings: Settings, market: Any) -> Iterator[None]:
    market.walk("BTCUSDT", 400, seed=1)
    market.walk("ETHUSDT", 400, seed=2)
    with running(settings, workers=1):
        yield


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def refusal(*words: str) -> PlatformError:
    found = run(*words)
    assert isinstance(found.exception, PlatformError), found.output
    return found.exception


@pytest.mark.parametrize("value", ["mean,score", '["mean", "score"]'])
def test_what_takes_a_list_is_given_one(value: str) -> None:
    assert _fields("sentiment", "BTCUSDT", ["news"], "1h", [], [f"measures={value}"])["measures"] == ["mean", "score"]


@pytest.mark.usefixtures("worker")
def test_an_answer_is_shown_as_a_table_with_its_stages_and_as_json() -> None:
    shown = run("request", "BTCUSDT", "RSI(14)", "MACD", "--latest", "3", "--priority", "HIGH", "--timeframe", "15m,1h")
    assert shown.exit_code == 0, shown.output
    assert "BTCUSDT 1h RSI(timeperiod=14)" in shown.output
    assert "macdhist" in shown.output
    assert "queue" in shown.output
    told = json.loads(run("request", "btcusdt", "RSI", "--json", "--id", "mine").output)
    assert (told["status"], told["request_id"], len(told["results"])) == ("ok", "mine", 1)
    found = run("requests", "show", "mine")
    assert "command_line" in found.output
    assert "RSI(timeperiod=14)" in found.output
    assert json.loads(run("requests", "show", "mine", "--json").output)["stage"] == "settled"
    formula = run("request", "BTCUSDT", "(RSI - 50) * 0.6", "--type", "formula", "--input", "RSI(21)", "--json")
    assert json.loads(formula.output)["status"] == "ok", formula.output
    matrix = run("request", "BTCUSDT,ETHUSDT", "--type", "correlation", "--set", "window=50")
    assert matrix.exit_code == 0, matrix.output
    assert "ETHUSDT" in matrix.output
    end = time.monotonic() + 5
    while True:  # workers tell their counters every second
        seen = json.loads(run("requests", "--json").output)
        assert (seen["in_flight"], len(seen["workers"])) == (0, 1)
        if seen["workers"][0]["counts"]["answered_ok"] == 4 or time.monotonic() > end:
            break
        time.sleep(0.1)
    assert seen["workers"][0]["counts"]["answered_ok"] == 4


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["BTCUSDT", "RSY"], "Unknown feature"),
        (["BTC/USDT!", "RSI"], "symbols"),
        (["BTCUSDT", "RSI", "--timeframe", "7m"], "timeframes"),
        (["BTCUSDT", "RSI", "--priority", "URGENT"], "priority"),
        (["BTCUSDT", "RSI", "--latest", "0"], "latest"),
        (["BTCUSDT", "RSI", "--deadline", "-1"], "deadline"),
        (["BTCUSDT", "RSI", "--start", "yesterday"], "start"),
        (["BTCUSDT"], "indicators"),
        (["BTCUSDT", "RSI", "--set", "window=3"], "window"),
        (["BTCUSDT", "__import__('os')", "--type", "formula"], "formula"),
        (["BTCUSDT", "--type", "correlation"], "symbols"),
        (["-", "--type", "macro"], "series"),
    ],
)
def test_bad_input_is_refused_with_its_field_before_anything_is_sent(words: list[str], told: str) -> None:
    assert told in str(refusal("request", *words))


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(
    "words",
    [
        ["BTCUSDT", "RSI", "--type", "oracle"],
        ["BTCUSDT", "RSI", "--input", "MACD"],
        ["BTCUSDT", "RSI", "--set", "window"],
        ["BTCUSDT", "--type", "formula"],
        ["BTCUSDT", "RSI", "--type", "profile"],
    ],
)
def test_words_that_do_not_fit_together_are_a_usage_error(words: list[str]) -> None:
    assert run("request", *words).exit_code == 2


@pytest.mark.usefixtures("worker")
def test_the_exit_status_tells_the_answers_status() -> None:
    unknown = run("request", "NOSUCHUSDT", "RSI", "--deadline", "2")
    assert unknown.exit_code in (3, 4, 5), unknown.output


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mdplatform", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def test_what_no_worker_takes_is_seen_in_flight_and_cancelled_by_ctrl_c(settings: Settings) -> None:
    asking = start("request", "BTCUSDT", "RSI", "--id", "waiting", "--priority", "CRITICAL")
    try:
        with connect(settings) as connection:
            end = time.monotonic() + 20
            while not connection.xlen(queue_key(DataPriority.CRITICAL)) and time.monotonic() < end:
                time.sleep(0.05)
        seen = json.loads(run("requests", "--json").output)
        assert [each["id"] for each in seen["requests"]] == ["waiting"]
        assert (seen["classes"]["CRITICAL"]["queued"], seen["workers"]) == (1, [])
        shown = run("requests").output
        assert "1 in flight" in shown
        assert "No worker lives" in shown
        asking.send_signal(signal.SIGINT)
        _, told = asking.communicate(timeout=10)
    finally:
        asking.kill()
        asking.communicate()
    assert asking.returncode == 130, told
    assert "Cancelled waiting" in told
    settled = json.loads(run("requests", "show", "waiting", "--json").output)
    assert settled["stage"] == "settled"
    assert settled["answer"]["status"] == "failed"


def test_a_request_of_which_nothing_is_known_is_told_so(settings: Settings) -> None:
    assert "Nothing is known" in str(refusal("requests", "show", "never"))


def test_a_poison_message_is_counted_with_its_reason(settings: Settings) -> None:
    with running(settings, workers=1), connect(settings) as connection:
        connection.xadd(queue_key(DataPriority.HIGH), {"junk": b"\xff[bold]\x00"})
        end = time.monotonic() + 10
        while not (seen := json.loads(run("requests", "--json").output))["dead"] and time.monotonic() < end:
            time.sleep(0.05)
    assert seen["dead"] == 1
    assert list(seen["dead_reasons"].values()) == [1]
    assert "1 dead letters" in run("requests").output
