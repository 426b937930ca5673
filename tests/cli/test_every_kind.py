"""The commands that name features, for features of every kind: list, tell, read, check for look-ahead."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from mdplatform.cli import frame, main
from mdplatform.features.kinds import KINDS
from mdplatform.features.registry import function_names
from mdplatform.settings import Settings

from ..features.kinds import tried, world


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setattr(frame.out, "_width", 400)

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["mdplatform", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        return Ended(status, *capsys.readouterr())

    return call


@pytest.fixture
def filled(settings: Settings) -> None:
    world.lake_in(settings.lake_dir)


def test_features_are_listed_by_kind(run: Run) -> None:
    every = run("features").out
    assert [name for name in function_names() if f"│ {name} " not in every] == []
    assert [kind for kind in KINDS if f"\n{kind} " not in f"\n{every}"] == []
    macro = run("features", "--kind", "macro").out
    assert "MACRO_YOY" in macro
    assert "series=…" in macro
    assert "RSI" not in macro


def test_one_feature_is_told_with_what_must_be_given(run: Run) -> None:
    told = run("features", "macro")
    assert told.status == 0
    assert "must be given" in told.out
    assert "written as MACRO(series=…" in told.out
    assert "reads macro of CPIAUCSL" in run("features", "MACRO(series=CPIAUCSL)").out
    assert "reads close; gives rsi; written as RSI(timeperiod=14)" in run("features", "RSI").out
    assert "such as `(RSI - 50) * 0.6`" in run("features", "FORMULA").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("features", "MACROO"), "MACRO"),
        (("features", "--kind", "prices"), "indicators"),
        (("features", "MACRO(serie=X)"), "series"),
        (("read", "BTCUSDT", "MACRO"), "series"),
        (("read", "BTCUSDT", "RSI +"), "column"),
        (("check-lookahead", "RSJ"), "RSI"),
        (("check-lookahead", "no_such_module:function"), "no_such_module"),
        (("check-lookahead", "json:nothing"), "nothing"),
        (("check-lookahead", "RSI", "--rows", "1"), "rows"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run: Run, arguments: tuple[str, ...], said: str) -> None:
    ended = run(*arguments)
    assert ended.status == 1
    assert said in ended.err
    assert "Traceback" not in ended.err + ended.out
    assert ended.err.startswith("error: ")


def test_every_kind_is_read_like_any_other(run: Run, filled: None) -> None:
    firsts = {each.definition.kind: each for each in tried.features()}
    for feature in [*firsts.values(), "VOLUME_PROFILE(row_size=50)"]:
        ended = run("read", "BTCUSDT", feature, "--timeframe", "1h", "--last", "2", "--json")
        answer = json.loads(ended.out)
        assert answer["feature"].startswith(str(feature).partition("=")[0])
        assert [row["open_time"] for row in answer["rows"]] == ["2025-02-07T22:00:00Z", "2025-02-07T23:00:00Z"]


def test_rows_with_and_without_a_value_stand_under_their_names(run: Run, filled: None) -> None:
    shown = run("read", "BTCUSDT", "BOOK_MID", "--timeframe", "1h", "--last", "12")
    assert shown.status == 0
    header = next(line for line in shown.out.splitlines() if "open_time" in line)
    assert "reason" in header
    assert {line.count("│") for line in shown.out.splitlines() if line.startswith("│")} == {header.count("┃")}


def test_look_ahead_ends_with_1_and_shows_rows(run: Run, filled: None, tmp_path: Path, monkeypatch) -> None:
    clean = run("check-lookahead", "RSI", "SENTIMENT_MEAN(provider=news)", "--rows", "200", "--samples", "3")
    assert clean.status == 0
    assert clean.out.count("no look-ahead") == 2
    (tmp_path / "features_of_mine.py").write_text(
        "def centred(bars):\n    return bars['close'].rolling_mean(5, center=True)\n"
    )
    monkeypatch.chdir(tmp_path)
    found = run("check-lookahead", "features_of_mine:centred", "--rows", "200")
    assert found.status == 1
    assert "use what came later" in found.out
    told = run("check-lookahead", "MACRO(series=CPIAUCSL,mode=latest)", "--rows", "400", "--json")
    assert told.status == 1
    assert json.loads(told.out)["passed"] is False
    nothing = run("check-lookahead", "MACRO_ZSCORE(series=CPIAUCSL,periods=500)", "--rows", "50")
    assert (nothing.status, "nothing can be told" in nothing.err) == (1, True)
