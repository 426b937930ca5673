"""`mdplatform formula`, and formulas where other commands name features."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from mdplatform.cli import frame, main
from mdplatform.features import parse_feature
from mdplatform.ingest import Wanted, ingest
from mdplatform.market.timeframe import Timeframe
from mdplatform.settings import Settings


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process, on a fresh home."""
    monkeypatch.setattr(frame.out, "_width", 200)

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["mdplatform", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        return Ended(status, *capsys.readouterr())

    return call


def test_check_says_what_each_name_stands_for(run: Run) -> None:
    text = "(RSI - 50) * 0.6 + (MACD_HISTOGRAM / PRICE_STD) * 0.4"
    ended = run("formula", "check", text, "--input", "RSI(period=21)", "--input", "MACD=MACD(fast=8)")
    assert ended.status == 0
    assert "RSI(timeperiod=21)" in ended.out
    assert "MACD_MACDHIST(fastperiod=8,slowperiod=26,signalperiod=9)" in ended.out
    assert "canonical: (RSI(timeperiod=21)-50)*0.6+" in ended.out
    assert "lookback 33 rows, settle 555 rows" in ended.out
    assert ended.err == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("RSI - RSY", "Unknown name 'RSY', at column 7. Nearest known: RSI\n  RSI - RSY\n        ^"),
        ("__import__('os').system('true')", "\n                  ^"),
        ("9**9**9", "at column 2"),
        ("lag(close, -1)", "shift into the future, at column 1"),
        ("", "at column 1"),
        ("[bold]close[/bold]", "'[' is not part of a formula, at column 1"),
    ],
)
def test_check_of_what_is_no_formula_ends_with_1_and_points_at_the_place(run: Run, text: str, says: str) -> None:
    ended = run("formula", "check", text)
    assert ended.status == 1
    assert ended.out == ""
    assert says in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("text", ["max(close, 30)", "MAX(close, 30)", "LOG(close)", "sqrt(close)", "RSI*1"])
def test_check_shows_what_the_text_means_where_a_feature_is_named(run: Run, text: str) -> None:
    ended = run("formula", "check", text)
    assert ended.status == 0
    assert f"canonical: {parse_feature(text)}\n" in ended.out
    assert f"id {parse_feature(text).id}" in ended.out
    assert ended.err == ""


@pytest.mark.parametrize("text", ["-RSI", "-close + open", "-(close)", "--close"])
def test_check_takes_a_formula_that_begins_with_a_sign(run: Run, text: str) -> None:
    assert f"canonical: {parse_feature(text)}\n" in run("formula", "check", text).out
    assert f"canonical: {parse_feature(text)}\n" in run("formula", "check", "--", text).out
    assert run("formula", "register", "SIGNED", text).status == 0


def test_what_is_registered_is_listed_and_can_be_named(run: Run) -> None:
    done = run(
        "formula", "register", "my_gap", "FAST / EMA(close, 30) - 1", "--input", "FAST=EMA(close, 10)", "--version", 3
    )
    assert done.status == 0
    assert "MY_GAP:3 is EMA(timeperiod=10)/EMA(timeperiod=30)-1" in done.out
    listed = run("formula", "list").out
    assert "MY_GAP" in listed
    assert "EMA_SPREAD" in listed
    assert "canonical: (EMA(timeperiod=10)/EMA(timeperiod=30)-1)*2" in run("formula", "check", "MY_GAP:3 * 2").out
    again = run("formula", "register", "MY_GAP", "close", "--version", 3)
    assert again.status == 1
    assert "registered already" in again.err
    assert "version 4" in again.err


def test_a_file_of_composites_is_registered_whole_or_not_at_all(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "composites.yaml"
    path.write_text(
        "composites:\n"
        "  - {name: UPPER, formula: 'LOWER * 2'}\n"
        "  - {name: LOWER, formula: 'R - 50', input_indicators: [{name: RSI, as: R, timeframe: 1h}]}\n"
    )
    done = run("formula", "register", "--file", path)
    assert "UPPER:1 is (RSI(timeperiod=14)@1h-50)*2" in done.out
    path.write_text("composites:\n  - {name: NEXT, formula: close}\n  - {name: LOOP, formula: 'LOOP + 1'}\n")
    refused = run("formula", "register", "--file", path)
    assert refused.status == 1
    assert "LOOP:1 → LOOP:1" in refused.err
    assert "NEXT" not in run("formula", "list").out


@pytest.mark.parametrize("given", [(), ("NAME",), ("NAME", "close", "--file", "x.yaml")])
def test_register_needs_a_formula_or_a_file(run: Run, given: tuple[str, ...]) -> None:
    ended = run("formula", "register", *given)
    assert ended.status == 2
    assert "--file" in ended.err


def test_a_formula_is_read_like_any_feature(run: Run, settings: Settings) -> None:
    ingest(
        ["simulated:BTCUSDT"], Wanted(timeframe=Timeframe.M15, first_month="2025-01", last_month="2025-01"), settings
    )
    texts = ["EMA(close, 20) / EMA(close, 50) - 1", "EMA_SPREAD", "RSI@1h - RSI"]
    for text in texts:
        ended = run("read", "BTCUSDT", text, "--timeframe", "15m", "--last", 2, "--json")
        assert ended.status == 0, ended.err
        told = json.loads(ended.out)
        assert len(told["rows"]) == 2
        assert all(isinstance(row["formula"], float) for row in told["rows"])
    refused = run("read", "BTCUSDT", "RSI - RSY")
    assert refused.status == 1
    assert "at column 7" in refused.err
