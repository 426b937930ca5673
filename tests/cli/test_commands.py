"""The command line as its users meet it: each command end to end on a small market, and each kind of wrong input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from mdplatform.cli import frame, main
from mdplatform.ingest import Wanted, ingest
from mdplatform.lake import Lake
from mdplatform.settings import Settings

HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
FIRST = 1_735_689_600_000
QUARTER = 900_000


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


def kline(number: int, close: float = 100.0, high: float = 101.0) -> str:
    opens = FIRST + number * QUARTER
    return f"{opens},100.0,{high},99.0,{close},10.0,{opens + QUARTER - 1},1000.0,7,4.0,400.0,0"


def dump(folder: Path, rows: list[str], name: str = "BTCUSDT-15m-2025-01.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def taken_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home into which a day of BTCUSDT was taken, to be copied and never written."""
    folder = tmp_path_factory.mktemp("taken-in")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MDPLATFORM_HOME", str(folder / "home"))
        ingest([str(dump(folder, [kline(number) for number in range(96)]))], Wanted(), Settings.load())
    return folder / "home"


@pytest.fixture
def market(settings: Settings, taken_in: Path) -> Settings:
    """A home of the test's own with that day."""
    shutil.copytree(taken_in, settings.home, ignore=shutil.ignore_patterns("valkey"))
    return settings


def test_taking_a_file_in_materializing_and_reading_it(run: Run, tmp_path: Path) -> None:
    path = dump(tmp_path, [kline(number, close=100 + number % 5 / 10) for number in range(960)])
    assert re.search(
        r"960 rows taken, 0 unchanged, 0 corrected, 0 quarantined in 1 partitions", run("ingest", path).out
    )
    assert "technical_indicators: 1 partitions" in run("materialize", "technical_indicators").out
    answer = json.loads(run("read", "BTCUSDT", "MACD", "--timeframe", "15m", "--last", "2", "--json").out)
    assert {"symbol", "feature", "timeframe", "source", "version", "rows"} <= answer.keys()
    assert answer["feature"] == "MACD(fastperiod=12,slowperiod=26,signalperiod=9)"
    assert [row["open_time"] for row in answer["rows"]] == ["2025-01-10T23:30:00Z", "2025-01-10T23:45:00Z"]
    assert answer["rows"][1]["available_at"] == "2025-01-11T00:00:00Z"
    assert all(isinstance(answer["rows"][1][name], float) for name in ("macd", "macdsignal", "macdhist"))
    table = run("read", "btcusdt", "RSI(timeperiod=14)", "--timeframe", "1h")
    assert table.status == 0
    assert "RSI(timeperiod=14)" in table.out


def test_a_null_comes_with_its_reason(run: Run, tmp_path: Path) -> None:
    run("ingest", dump(tmp_path, [kline(number) for number in range(10)]))
    row = json.loads(run("read", "BTCUSDT", "RSI", "--last", "1", "--json").out)["rows"][0]
    assert row["rsi"] is None
    assert row["reason"] == "insufficient_history"


def test_the_same_file_twice_changes_nothing(run: Run, tmp_path: Path) -> None:
    path = dump(tmp_path, [kline(number) for number in range(96)])
    run("ingest", path)
    files = {each: each.stat().st_mtime_ns for each in (Settings.load().lake_dir).rglob("*.parquet")}
    assert "0 rows taken, 96 unchanged, 0 corrected, 0 quarantined in 0 partitions" in run("ingest", path).out
    assert {each: each.stat().st_mtime_ns for each in (Settings.load().lake_dir).rglob("*.parquet")} == files


@pytest.mark.usefixtures("market")
def test_a_corrected_file_makes_revisions_and_bad_rows_are_set_aside_by_rule(run: Run, tmp_path: Path) -> None:
    again = [kline(number, close=100.5 if number == 3 else 100.0) for number in range(95)] + [kline(96, high=90.0)]
    report = json.loads(run("ingest", dump(tmp_path / "again", again), "--json").out)
    assert (report["taken"], report["unchanged"], report["corrected"]) == (0, 94, 1)
    assert report["quarantined"] == {"high_low": 1}
    rows = json.loads(
        run(
            "sql",
            "select open_time, revision, close from bar_revisions where timeframe='15m' and revision > 0",
            "--json",
        ).out
    )
    assert [(row["revision"], row["close"]) for row in rows] == [(1, 100.5)]
    assert json.loads(run("sql", "select rule, count(*) as n from quarantine group by all", "--json").out) == [
        {"rule": "high_low", "n": 1}
    ]


def test_months_of_files_are_those_asked_for(run: Run, tmp_path: Path) -> None:
    path = dump(tmp_path, [kline(number) for number in range(96 * 40)])
    assert "in 1 partitions" in run("ingest", path, "--from", "2025-02", "--to", "2025-02").out
    months = json.loads(run("sql", "select distinct strftime(open_time, '%Y-%m') as month from bars", "--json").out)
    assert months == [{"month": "2025-02"}]


def test_an_empty_file_in_a_folder_is_skipped_and_told(run: Run, tmp_path: Path) -> None:
    dump(tmp_path, [kline(number) for number in range(96)])
    (tmp_path / "BTCUSDT-15m-2024-12.json").write_text("[]")
    ended = run("ingest", tmp_path)
    assert "96 rows taken" in ended.out
    assert "BTCUSDT-15m-2024-12.json" in ended.err


def test_an_alias_is_told_as_what_it_stands_for(run: Run) -> None:
    assert "MACD(fastperiod=12,slowperiod=26,signalperiod=9).macdhist" in run("features", "MACD_HISTOGRAM").out
    assert "PRICE_STD is STDDEV" in run("features").out


@pytest.mark.usefixtures("market")
def test_the_quarantine_can_be_asked_before_anything_is_in_it(run: Run) -> None:
    assert json.loads(run("sql", "select rule from quarantine", "--json").out) == []


def test_a_file_none_of_whose_rows_could_be_a_bar_is_refused(run: Run, tmp_path: Path) -> None:
    ended = run("ingest", dump(tmp_path, [kline(number, high=50.0) for number in range(96)]))
    assert ended.status == 1
    assert "high_low 96" in ended.err
    assert not list(Settings.load().lake_dir.rglob("*.parquet"))


def test_overlapping_polls_give_the_same_bars_in_whatever_order_they_are_named(run: Run, tmp_path: Path) -> None:
    early = dump(tmp_path / "early", [kline(number, close=99.5 if number == 9 else 100.0) for number in range(10)])
    late = dump(tmp_path / "late", [kline(number) for number in range(5, 15)])
    closes = []
    for paths in ((early, late), (late, early)):
        home = tmp_path / f"home-{paths[0].parent.name}"
        assert run("--home", home, "ingest", *paths).status == 0
        rows = run("--home", home, "sql", "select close from bars where timeframe = '15m' order by open_time", "--json")
        closes.append([row["close"] for row in json.loads(rows.out)])
    assert closes[0] == closes[1] == [100.0] * 15


def test_two_first_commands_at_once_on_a_fresh_home_both_succeed(settings: Settings, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("mdplatform")), "ingest"]
    paths = [
        dump(tmp_path / name, [kline(n) for n in range(96)], f"{name}-15m-2025-01.csv")
        for name in ("ABCUSDT", "XYZUSDT")
    ]
    both = [subprocess.Popen([*command, str(path)], stderr=subprocess.PIPE, text=True) for path in paths]
    ended = [(process.communicate(timeout=100)[1], process.returncode) for process in both]
    assert [status for _, status in ended] == [0, 0], ended
    assert Lake(settings.lake_dir).bars.symbols() == ["ABCUSDT", "XYZUSDT"]


def test_an_answer_of_sql_is_shown_as_it_is_and_its_json_is_valid(run: Run) -> None:
    assert "[/b]" in run("sql", "select '[/b]' as text").out
    assert json.loads(run("sql", "select 'nan'::double as a, 'inf'::double as b", "--json").out) == [
        {"a": None, "b": None}
    ]


@pytest.mark.usefixtures("market")
def test_a_redis_that_is_away_is_told_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDPLATFORM_REDIS_URL", "redis://127.0.0.1:9")
    ended = run("materialize", "technical_indicators")
    assert ended.status == 0
    assert "Redis does not answer" in ended.err


def test_a_refused_file_among_good_ones_stores_nothing(run: Run, tmp_path: Path) -> None:
    good = dump(tmp_path, [kline(number) for number in range(96)])
    bad = tmp_path / "ETHUSDT-15m-2025-01.csv"
    bad.write_text("")
    ended = run("ingest", good, bad)
    assert ended.status == 1
    assert "ETHUSDT-15m-2025-01.csv" in ended.err
    assert not list(Settings.load().lake_dir.rglob("*.parquet"))


def test_a_source_takes_months_and_keeps_the_symbol_for_later(run: Run) -> None:
    ended = run("ingest", "simulated:SOLUSDT", "--timeframe", "15m", "--from", "2025-01", "--to", "2025-02")
    assert ended.status == 0
    assert "in 2 partitions" in ended.out
    assert (
        run("materialize", "bars", "--symbols", "SOLUSDT", "--from", "2025-03", "--to", "2025-03", "--fetch").status
        == 0
    )
    counted = json.loads(run("sql", "select count(*) as n from bars where timeframe = '1d'", "--json").out)
    assert counted[0]["n"] >= 80


@pytest.mark.usefixtures("market")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["read", "BTCUSD", "RSI"], "Known: BTCUSDT"),
        (["read", "BTCUSDT", "RSJ"], "RSI"),
        (["read", "BTCUSDT", "RSI(timeperiodd=14)"], "timeperiod"),
        (["read", "BTCUSDT", "RSI(timeperiod=0)"], "2"),
        (["read", "BTCUSDT", "RSI(timeperiod=14"], "RSI(timeperiod=14"),
        (["read", "BTCUSDT", "MACD.macdhistt"], "macdhist"),
        (["read", "BTCUSDT", "RSI", "--timeframe", "15M"], "1m 3m 5m 15m 30m 1h"),
        (["read", "BTCUSDT", "RSI", "--last", "0"], "0"),
        (["read", "../../etc", "RSI"], "Not a symbol"),
        (["materialize", "technical_indicator"], "technical_indicators"),
        (["materialize", "bars", "--symbols", "BTCUSDTT"], "Known: BTCUSDT"),
        (["materialize", "bars", "--from", "2025-13"], "YYYY-MM"),
        (["materialize", "bars", "--from", "2025-03", "--to", "2025-01"], "is after"),
        (["ingest", "nowhere.csv"], "nowhere.csv"),
        (["ingest", "simulated:BTCUSDT"], "--from"),
        (["ingest", "simulated:BTCUSDT", "--from", "2999-01"], "not in the future"),
        (["ingest", "simulated:BTC/USDT", "--from", "2025-01"], "Not a symbol"),
        (["sql", "select * from nothing"], "bar_revisions"),
        (["sql", "drop table bars"], "bars"),
        (["features", "RSJ"], "RSI"),
    ],
)
def test_wrong_input_is_one_clear_line(run: Run, arguments: list[str], said: str) -> None:
    ended = run(*arguments)
    assert ended.status != 0
    assert said in " ".join(re.sub(r"[│╭╮╰╯─]", " ", ended.err).split())
    assert "Traceback" not in ended.err


def test_bars_of_months_the_platform_does_not_keep_are_refused(run: Run, tmp_path: Path) -> None:
    rows = [kline(number - 350_592) for number in range(5)]
    ended = run("ingest", dump(tmp_path, rows, "BTCUSDT-15m-2015-01.csv"))
    assert ended.status == 1
    assert "MDPLATFORM_FIRST_MONTH" in ended.err


def test_a_home_that_cannot_be_written_is_one_clear_line(run: Run, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    ended = run("--home", blocked, "materialize", "bars")
    assert ended.status == 1
    assert "MDPLATFORM_HOME" in ended.err


def test_a_disk_that_is_full_is_one_clear_line(settings: Settings) -> None:
    words = [sys.executable, "-m", "mdplatform", "--home", str(settings.home), "features"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "Nothing more can be written: No space left on device" in ended.stderr


@pytest.mark.parametrize("command", ["ingest", "materialize", "read", "sql", "ui", "doctor", "features", "demo"])
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    ended = run(command, "--help")
    assert ended.status == 0
    assert "Example" in ended.out
    assert f"mdplatform {command}" in ended.out


def test_doctor_says_what_is_there_and_hides_passwords(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDPLATFORM_REDIS_URL", "redis://:secret-word@127.0.0.1:1/0")
    ended = run("doctor", "--json")
    content = json.loads(ended.out)
    assert ended.status == 0
    assert content["redis"]["reachable"] is False
    assert content["versions"]["dagster"].startswith("1.13")
    assert "secret-word" not in ended.out + ended.err + run("doctor").out


def test_doctor_shows_the_logs_of_feeds_that_were_damaged(run: Run, settings: Settings) -> None:
    assert json.loads(run("doctor", "--json").out)["home"]["damaged_logs"] == []
    logs = settings.lake_dir / "inbox" / "_live"
    logs.mkdir(parents=True)
    (logs / "1.damaged").touch()
    assert json.loads(run("doctor", "--json").out)["home"]["damaged_logs"] == [str(logs / "1.damaged")]


def test_doctor_starts_no_server(run: Run) -> None:
    content = json.loads(run("doctor", "--json").out)
    assert content["redis"]["embedded"] is True
    assert content["redis"]["reachable"] is False


def test_a_wrong_setting_names_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDPLATFORM_WINDOW_ROWS", "many")
    ended = run("doctor")
    assert ended.status == 1
    assert "MDPLATFORM_WINDOW_ROWS" in ended.err


def test_the_ui_serves_the_assets_and_ends_on_a_signal(settings: Settings) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("mdplatform")), "ui", "--port", str(port)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        query = {"query": "{ assetsOrError { ... on AssetConnection { nodes { key { path } } } } }"}
        transport = httpx.HTTPTransport(retries=0)
        with httpx.Client(transport=transport, timeout=20) as client:
            answer = _await_answer(client, f"http://127.0.0.1:{port}/graphql", query, process)
        assert {tuple(node["key"]["path"]) for node in answer["data"]["assetsOrError"]["nodes"]} >= {("bars",)}
        taken = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert taken.returncode == 1
        assert "--port" in taken.stderr
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
    assert process.returncode is not None


def _await_answer(client: httpx.Client, url: str, query: dict[str, str], process: subprocess.Popen[bytes]) -> dict:  # type: ignore[type-arg]
    import time

    deadline = time.monotonic() + 90
    while True:
        assert process.poll() is None
        try:
            answer = client.post(url, json=query).json()
            if answer.get("data", {}).get("assetsOrError", {}).get("nodes"):
                return answer
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.2)  # a server of another process comes up; it tells nobody
