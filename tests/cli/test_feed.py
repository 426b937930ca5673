"""`mdplatform feed`: what it refuses, what it tells, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mdplatform.cli.frame import app
from mdplatform.errors import FeedBusy, InvalidSetting, InvalidSymbol, PlatformError, UnknownSource, UnknownTimeframe
from mdplatform.lake import Lake
from mdplatform.market.timeframe import Timeframe
from mdplatform.processes import platform_program
from mdplatform.settings import Settings
from mdplatform.streaming.lease import leased
from mdplatform.tuning import ONE_THREAD


@pytest.fixture
def refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PlatformError]:
    for variable in ONE_THREAD:
        monkeypatch.setenv(variable, "1")

    def call(*words: str) -> PlatformError:
        found = CliRunner().invoke(app, ["feed", *words])
        assert isinstance(found.exception, PlatformError), found.output
        return found.exception

    return call


def test_wrong_input_is_refused_before_anything_is_followed(
    refused: Callable[..., PlatformError], settings: Settings, tmp_path: Path
) -> None:
    assert isinstance(refused(), InvalidSetting)
    assert isinstance(refused("nowhere", "BTCUSDT"), UnknownSource)
    assert isinstance(refused("nowhere"), UnknownSource)
    assert isinstance(refused("simulated", "not a symbol"), InvalidSymbol)
    assert "mdplatform feed simulated BTCUSDT" in str(refused("simulated"))
    assert isinstance(refused("simulated", "BTCUSDT", "--timeframes", "5m,7m"), UnknownTimeframe)
    assert "speed" in str(refused("simulated", "BTCUSDT", "--speed", "-1"))
    assert str(tmp_path / "none.gz") in str(refused(f"recording:{tmp_path / 'none.gz'}"))
    assert not settings.lake_dir.exists()
    for words in (
        ["simulated", "--from", "yesterday"], ["simulated", "--from", "1999-01-01"],
        ["simulated", "--from", "2099-01-01"], ["simulated", "--timeframes", ""], ["binance", "--speed", "2"],
    ):  # fmt: skip
        found = CliRunner().invoke(app, ["feed", *words, "BTCUSDT"])
        assert found.exit_code == 2
        assert words[1] in found.output or "yesterday" in found.output


def test_a_feed_that_is_followed_already_is_refused_by_the_name_of_its_holder(
    refused: Callable[..., PlatformError], settings: Settings
) -> None:
    with leased(settings.home / "feeds", "simulated"):
        busy = refused("simulated", "BTCUSDT")
    assert isinstance(busy, FeedBusy)
    assert "process " in busy.cause
    with leased(settings.home / "feeds", "simulated"):
        pass  # it is free again


@contextmanager
def following(settings: Settings, *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    program = platform_program(settings, "feed", "feed", *words)
    process = subprocess.Popen(
        program.command, env=dict(program.environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline() or "{}")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.usefixtures("processes")
def test_it_says_when_it_is_ready_and_leaves_all_in_the_lake_at_a_sigterm(settings: Settings) -> None:
    words = ("simulated:BTCUSDT,ETHUSDT", "--speed", "3600", "--from", "2026-03-02", "--timeframes", "1m,5m", "--stats")
    with following(settings, *words) as (process, told):
        assert told == {"ready": True, "feed": words[0], "symbols": ["BTCUSDT", "ETHUSDT"], "pid": process.pid}
        inbox = settings.lake_dir / "inbox"
        deadline = time.monotonic() + 30
        while not any(inbox.glob("_live/*.log")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    counts = json.loads(out.splitlines()[-1])
    lake = Lake(settings.lake_dir)
    assert lake.inbox.symbols() == []
    rows = {symbol: lake.bars.read(symbol, Timeframe.M1).height for symbol in ("BTCUSDT", "ETHUSDT")}
    assert counts["bars"] == counts["staged"] == sum(rows.values()) > 0
    assert (counts["waiting"], counts["lost"], counts["let_go"]) == (0, 0, 0)
    assert {symbol: each.source for symbol, each in lake.universe.members().items()} == dict.fromkeys(rows, "simulated")
    assert "bars" in err
    assert "Traceback" not in err
