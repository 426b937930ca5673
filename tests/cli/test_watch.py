"""`mdplatform watch`: lines where nobody looks at a terminal, with a feed as a process."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from mdplatform.cli.frame import app
from mdplatform.cli.watch import _table
from mdplatform.errors import PlatformError
from mdplatform.processes import running
from mdplatform.settings import Settings
from mdplatform.streaming.assembler import Assembler
from mdplatform.streaming.shape import Shape

from ..streaming.packets import LAYOUT, NOON, packet


def test_frames_of_a_feed_are_shown_as_lines_and_it_ends_after_so_many(settings: Settings, processes: Any) -> None:
    with running(settings, workers=0, feed="simulated BTCUSDT --speed 600 --from 2026-11-01"):
        found = CliRunner().invoke(app, ["watch", "BTCUSDT", "--timeframes", "5m,15m", "--frames", "2"])
    assert found.exit_code == 0, found.output
    lines = [line.split() for line in found.stdout.splitlines()]
    assert [(line[1], line[2]) for line in lines] == [("BTCUSDT", "5m"), ("BTCUSDT", "15m")] * 2
    assert lines[0][0] < lines[2][0]
    assert {line[3] for line in lines} <= {"fresh", "stale", "missing"}


def test_it_ends_cleanly_when_it_is_interrupted(settings: Settings, processes: Any) -> None:
    words = [sys.executable, "-m", "mdplatform", "--home", str(settings.home), "watch", "BTCUSDT"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "start a feed with `mdplatform feed`" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in "".join(rest)


@pytest.mark.parametrize(
    ("words", "field"),
    [(["a b"], "symbols[0]"), (["BTCUSDT", "--timeframes", "5x"], "timeframes[0]"),
     (["BTCUSDT", "--indicators", "RSJ"], "indicators[0]")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_its_field(settings: Settings, words: list[str], field: str) -> None:
    found = CliRunner().invoke(app, ["watch", *words])
    assert isinstance(found.exception, PlatformError)
    assert found.exception.field == field


def test_a_terminal_gets_a_table_with_a_row_for_each_cell() -> None:
    shape = Shape.of(["BTCUSDT"], ["5m", "1h"], ["price", "volume", "indicators"], ["RSI(timeperiod=14)"])
    [frame] = Assembler(shape, {LAYOUT.id: LAYOUT}).take(packet("BTCUSDT", NOON))
    shown = {}
    for width in (140, 80, 60):
        console = Console(width=width)
        with console.capture() as captured:
            console.print(_table(frame, width))
        shown[width] = captured.get()
    assert [word in shown[140] for word in ("fresh", "missing", "RSI(timeperiod=14)", "open", "101", "50")] == [
        True
    ] * 6
    assert [word in shown[80] for word in ("fresh", "RSI(timeperiod=14)", "open", "06-15")] == [True, True, False, True]
    assert [word in shown[60] for word in ("BTCUSDT", "5m", "fresh", "close", "100", "RSI(14)", "50", "…")] == [
        True
    ] * 7 + [False]
