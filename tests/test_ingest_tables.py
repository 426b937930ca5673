"""Taking tables in, end to end: files and remotes through the command line, and what is told of them."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import dagster as dg
import pytest

from mdplatform.cli import frame, main
from mdplatform.ingest import Wanted, ingest
from mdplatform.lake import Lake
from mdplatform.lake.partition import Partition
from mdplatform.runs import Runs
from mdplatform.settings import Settings
from mdplatform.sources.table_delivery import TableOptions
from mdplatform.sources.trade_files import read_trades
from tests.sources.archive_server import ArchiveServer

AT = 1_735_689_600_000
"""2025-01-01 in milliseconds."""
DAY = 86_400_000


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


def row(number: int, at: int | None = None, price: float = 100.5, quantity: float = 0.25) -> str:
    return f"{number},{price},{quantity},1,1,{AT + number if at is None else at},true,true"


def dump(folder: Path, rows: list[str], name: str = "BTCUSDT-aggTrades-2025-01-01.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n".join(rows) + "\n")
    return path


def files(settings: Settings) -> list[Path]:
    return sorted(settings.lake_dir.rglob("*.parquet"))


def report(ended: Ended) -> dict[str, object]:
    assert ended.status == 0, ended.err
    told: dict[str, object] = json.loads(ended.out)
    return told


def test_trades_are_taken_in_and_the_same_again_changes_nothing(run: Run, settings: Settings, tmp_path: Path) -> None:
    path = dump(tmp_path, [*(row(number) for number in range(50)), row(60, AT + DAY), row(70, price=-1)])
    told = report(run("ingest", path, "--as", "trades", "--json"))
    assert (told["taken"], told["unchanged"], told["corrected"]) == (51, 0, 0)
    assert told["quarantined"] == {"price_not_positive": 1}
    assert told["partitions"] == ["trades:2025-01-01|BTCUSDT", "trades:2025-01-02|BTCUSDT"]
    assert told["assets"] == ["trades"]
    before = {each: each.stat().st_mtime_ns for each in files(settings)}
    again = report(run("ingest", path, "--as", "trades", "--json"))
    assert (again["taken"], again["unchanged"], again["partitions"], again["run_ids"]) == (0, 51, [], [])
    assert {each: each.stat().st_mtime_ns for each in files(settings)} == before
    answer = json.loads(run("sql", "select dataset, rule, row, source from quarantine", "--json").out)
    assert [(each["dataset"], each["rule"], each["source"]) for each in answer] == [
        ("trades", "price_not_positive", f"file:{path.name}")
    ]
    assert '"1":"-1"' in answer[0]["row"]


def test_a_corrected_file_makes_revisions_and_says_so(run: Run, tmp_path: Path) -> None:
    run("ingest", dump(tmp_path, [row(number) for number in range(5)]), "--as", "trades")
    again = [row(number, quantity=9.0 if number == 3 else 0.25) for number in range(4)]
    ended = run("ingest", dump(tmp_path / "again", again), "--as", "trades")
    assert "0 rows taken, 3 unchanged, 1 corrected, 0 quarantined in 1 partitions" in ended.out
    rows = json.loads(run("sql", "select trade_id, quantity from trades order by all", "--json").out)
    assert [each["quantity"] for each in rows] == [0.25, 0.25, 0.25, 9.0, 0.25]


@pytest.mark.parametrize("bad", ["", "1,2,3,4,5", "\n".join(row(number, price=-1) for number in range(3))])
def test_one_refused_target_leaves_nothing_behind(run: Run, settings: Settings, tmp_path: Path, bad: str) -> None:
    good = dump(tmp_path, [row(1), row(2, price=0)])
    refused = dump(tmp_path, [bad], "ETHUSDT-aggTrades-2025-01-01.csv")
    ended = run("ingest", good, refused, "--as", "trades")
    assert ended.status == 1
    assert "ETHUSDT-aggTrades-2025-01-01.csv" in ended.err
    assert files(settings) == []
    assert not list(settings.lake_dir.rglob("quarantine/**/*.parquet"))


def test_what_an_earlier_call_staged_stays_when_a_later_one_is_refused(
    run: Run, settings: Settings, tmp_path: Path
) -> None:
    good = dump(tmp_path, [row(1)])
    store = Lake(settings.lake_dir).table("trades")
    [delivery] = read_trades(good, TableOptions())
    store.deliver(delivery.rows, delivery.source, datetime(2025, 2, 1, tzinfo=UTC))
    refused = dump(tmp_path, [""], "ETHUSDT-aggTrades-2025-01-01.csv")
    assert run("ingest", good, refused, "--as", "trades").status == 1
    assert store.waiting() == ["BTCUSDT/2025-01-01"]


def test_a_folder_is_taken_whole_and_empty_files_in_it_are_told(run: Run, tmp_path: Path) -> None:
    dump(tmp_path / "in", [row(1)])
    dump(tmp_path / "in/deep", [row(1)], "ETHUSDT-aggTrades-2025-01-01.csv")
    (tmp_path / "in/XRPUSDT-aggTrades-2025-01-01.csv").write_text("")
    ended = run("ingest", tmp_path / "in", "--as", "trades")
    assert "2 rows taken" in ended.out
    assert "XRPUSDT-aggTrades-2025-01-01.csv" in ended.err


def test_days_bound_what_is_taken_of_a_file(run: Run, tmp_path: Path) -> None:
    path = dump(tmp_path, [row(number, AT + number * DAY // 4) for number in range(40)])
    told = report(run("ingest", path, "--as", "trades", "--from", "2025-01-03", "--to", "2025-01-04", "--json"))
    assert told["partitions"] == ["trades:2025-01-03|BTCUSDT", "trades:2025-01-04|BTCUSDT"]
    assert told["taken"] == 8
    assert report(run("ingest", path, "--as", "trades", "--from", "2025-02", "--json"))["taken"] == 0


def test_times_outside_what_the_platform_keeps_are_set_aside_and_a_whole_file_of_them_is_refused(
    run: Run, tmp_path: Path
) -> None:
    future = int((datetime.now(UTC) + timedelta(hours=1)).timestamp()) * 1000
    path = dump(tmp_path, [row(1), row(2, future), row(3, 1_300_000_000_000)])
    told = report(run("ingest", path, "--as", "trades", "--json"))
    assert (told["taken"], told["quarantined"]) == (1, {"time_outside": 2})
    ended = run("ingest", dump(tmp_path / "f", [row(2, future)]), "--as", "trades")
    assert ended.status == 1
    assert "MDPLATFORM_FIRST_MONTH" in ended.err


def test_a_recording_gives_trades_and_depth(run: Run, tmp_path: Path) -> None:
    trade = {"e": "trade", "E": AT, "s": "BTCUSDT", "t": 1, "p": "5", "q": "2", "T": AT, "m": True}
    diff = {"e": "depthUpdate", "E": AT, "s": "BTCUSDT", "U": 1, "u": 2, "b": [["4", "1"]], "a": [["6", "0"]]}
    path = tmp_path / "btcusdt.log"
    path.write_text("".join(f"{AT * 1000} {json.dumps({'data': each})}\n" for each in (trade, diff)) + "17")
    told = report(run("ingest", path, "--as", "recording", "--json"))
    assert told["partitions"] == ["depth:2025-01-01|BTCUSDT", "trades:2025-01-01|BTCUSDT"]
    assert told["assets"] == ["depth", "trades"]
    assert (told["taken"], told["quarantined"]) == (3, {"cut_line": 1})
    assert json.loads(run("sql", "select is_bid, price from depth order by all", "--json").out) == [
        {"is_bid": False, "price": 6.0},
        {"is_bid": True, "price": 4.0},
    ]


def test_what_a_file_lacks_is_told(run: Run, tmp_path: Path) -> None:
    ended = run("ingest", dump(tmp_path, ["1735689600,1.0,2.0"], "BCHEUR.csv"), "--as", "trades")
    assert "which side took" in ended.err
    assert "numbered by time and order" in ended.err


def test_single_and_aggregated_trades_are_not_mixed(run: Run, settings: Settings, tmp_path: Path) -> None:
    run("ingest", dump(tmp_path, [row(1)]), "--as", "trades")
    single = dump(tmp_path, [f"1,5.0,1.0,5.0,{AT},true,true"], "BTCUSDT-trades-2025-01-01.csv")
    ended = run("ingest", single, "--as", "trades")
    assert ended.status == 1
    assert "counted twice" in ended.err
    assert run("ingest", single, "--as", "trades", "--symbol", "BTCUSDT-SINGLE").status == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trades.csv", "--as", "trade"], "Known: bars"),
        (["nowhere.csv", "--as", "trades"], "nowhere.csv does not exist"),
        (["fred:CPIAUCSL", "--as", "trades"], "fred has no trades"),
        (["simulated:BTCUSDT", "--as", "trades"], "simulated has no trades"),
        (["binance:BTCUSDT", "--as", "trades"], "--from"),
        (["binance:BTC/USDT", "--as", "trades", "--from", "2025-01-01"], "Not a symbol"),
        (["binance:BTCUSDT", "--as", "trades", "--symbol", "ETHUSDT", "--from", "2025-01-01"], "Leave --symbol out"),
        (["GOOD", "--as", "trades", "--from", "2025-01-05", "--to", "2025-01-04"], "not after --to"),
        (["GOOD", "--as", "trades", "--from", "2025-02-30"], "YYYY-MM-DD"),
        (["GOOD", "--as", "trades", "--column", "price"], "OURS=THEIRS"),
        (["GOOD", "--as", "trades", "--column", "price=0", "--column", "price=1"], "given twice"),
        (["GOOD", "--as", "trades", "--column", "cost=1"], "cost"),
        (["GOOD", "--as", "trades", "--column", "time=99"], "no column 99"),
        (["GOOD", "--as", "recording"], "no trades and no depth"),
        (["GOOD", "fred:CPIAUCSL"], "one after the other"),
        (["GOOD"], "trades"),
        (["GOOD", "--as", "trades", "--provider", "me"], "does not use --provider"),
        (["GOOD", "--as", "trades", "--timeframe", "1h"], "it is for bars"),
        (["GOOD", "--as", "trades", "--scorer", "vader"], "it is for files --as sentiment"),
        (["GOOD", "--as", "sentiment", "--provider", "n", "--scorer", "vadr"], "Unknown scorer: 'vadr'. Known: vader"),
        (["GOOD", "--as", "recording", "--column", "price=px"], "A file of recording does not use --column"),
        (["GOOD", "--provider", "me"], "A file of bars does not use --provider"),
        (["fear_greed:", "--provider", "me"], "A remote of sentiment does not use --provider"),
        (["fear_greed:", "--symbol", "BTCUSDT"], "--symbol"),
        (["fred:CPIAUCSL", "--observed", "2025-01-31"], "A remote of macro does not use --observed"),
        (["fred:CPIAUCSL", "--lag-days", "3"], "does not use --lag-days"),
        (["binance:BTCUSDT", "--column", "a=b", "--from", "2025-01"], "A remote of bars does not use --column"),
    ],
)
def test_wrong_input_is_one_clear_line(
    run: Run, settings: Settings, tmp_path: Path, arguments: list[str], said: str
) -> None:
    good = dump(tmp_path, [row(1)])
    ended = run("ingest", *(str(good) if each == "GOOD" else each for each in arguments))
    assert ended.status != 0
    assert said in " ".join(re.sub(r"[│╭╮╰╯─]", " ", ended.err).split())
    assert "Traceback" not in ended.err
    assert files(settings) == []


# -- remotes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive() -> Iterator[ArchiveServer]:
    with ArchiveServer().running() as server:
        yield server


def zipped(name: str, rows: list[str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr(name, "\n".join(rows))
    return buffer.getvalue()


def put_day(server: ArchiveServer, day: int, rows: list[str], checksum: str | None = None) -> str:
    name = f"BTCUSDT-aggTrades-2025-01-{day:02d}"
    path = f"/data/spot/daily/aggTrades/BTCUSDT/{name}.zip"
    server.put(path, zipped(f"{name}.csv", rows), checksum)
    return path


def test_the_archive_gives_trades_by_day_verified_and_kept(
    run: Run, archive: ArchiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MDPLATFORM_ARCHIVE_URL", archive.url)
    paths = [put_day(archive, day, [row(day, (AT + (day - 1) * DAY) * 1000)]) for day in (1, 2, 4)]
    archive.fault(paths[1], "503", "cut 50")
    monkeypatch.setattr("mdplatform.sources.download._FIRST_DELAY", 0.001)
    asked = ("ingest", "binance:BTCUSDT", "--as", "trades", "--from", "2025-01-01", "--to", "2025-01-04", "--json")
    told = report(run(*asked))
    assert told["taken"] == 3
    assert told["absent"] == ["BTCUSDT-aggTrades-2025-01-03.zip"]
    assert told["partitions"] == ["trades:2025-01-01|BTCUSDT", "trades:2025-01-02|BTCUSDT", "trades:2025-01-04|BTCUSDT"]
    sources = json.loads(run("sql", "select source from trades order by time", "--json").out)
    assert sources[0]["source"] == "binance_archive:BTCUSDT-aggTrades-2025-01-01.zip"
    bodies = archive.asked("01.zip")
    assert report(run(*asked))["unchanged"] == 3
    assert archive.asked("01.zip") == bodies  # what is here, and has the stated sum, is not fetched again


def test_a_day_with_a_wrong_checksum_or_an_archive_without_the_symbol_stores_nothing(
    run: Run, settings: Settings, archive: ArchiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MDPLATFORM_ARCHIVE_URL", archive.url)
    monkeypatch.setenv("MDPLATFORM_ARCHIVE_RETRIES", "0")
    put_day(archive, 1, [row(1, AT)])
    put_day(archive, 2, [row(2, AT + DAY)], hashlib.sha256(b"other").hexdigest())
    ended = run("ingest", "binance:BTCUSDT", "--as", "trades", "--from", "2025-01-01", "--to", "2025-01-02")
    assert ended.status == 1
    assert "differs from its checksum" in ended.err
    ended = run("ingest", "binance:ETHUSDT", "--as", "trades", "--from", "2025-01-01", "--to", "2025-01-02")
    assert ended.status == 1
    assert "has no spot trades of ETHUSDT" in ended.err
    assert files(settings) == []


# -- killed -----------------------------------------------------------------------------------------------------------

INGEST = "from mdplatform.cli import main; main()"


@pytest.mark.parametrize("moment", ["staged", "merged"])
def test_an_ingest_that_is_killed_leaves_whole_files_and_the_next_one_completes(
    settings: Settings, tmp_path: Path, moment: str
) -> None:
    days, per_day = 12, 3_000
    rows = [row(n, AT + n * DAY // per_day) for n in range(days * per_day)]
    path = dump(tmp_path, rows)
    command = [sys.executable, "-c", INGEST, "ingest", str(path), "--as", "trades"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    place = settings.lake_dir / ("inbox/_trades" if moment == "staged" else "trades")
    deadline = time.monotonic() + 60
    while len(list(place.rglob("*.parquet"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.001)  # what is awaited is a file of another process
    process.kill()
    process.wait()
    for each in files(settings):
        opened = Partition.open(each)
        assert opened is not None
        assert opened.read("rows").height == per_day
    store = Lake(settings.lake_dir).table("trades")
    done = ingest([str(path)], Wanted(taken_as="trades"), settings)
    assert done.taken + done.unchanged == days * per_day
    with Runs(settings) as runs:  # what waited, and nobody asked for
        if waiting := store.waiting():
            runs.materialize(["trades"], waiting)
    found = store.read(store.keys())
    assert found["trade_id"].to_list() == list(range(days * per_day))
    assert found["revision"].max() == 0
    assert store.waiting() == []


# -- materialize ------------------------------------------------------------------------------------------------------


def test_materialize_takes_days_months_symbols_and_series_and_defaults_to_what_has_inputs(
    run: Run, tmp_path: Path
) -> None:
    run("ingest", dump(tmp_path, [row(number, AT + number * DAY) for number in range(4)]), "--as", "trades")
    assert "trades: 4 partitions, 4 rows" in run("materialize", "trades").out
    assert "trades: 2 partitions" in run("materialize", "trades", "--from", "2025-01-02", "--to", "2025-01-03").out
    assert "trades: 1 partitions" in run("materialize", "trades", "--from", "2025-01-04", "--to", "2025-01").out
    ended = run("materialize", "trades", "bars", "--symbols", "BTCUSDT")
    assert "trades: 4 partitions" in ended.out
    assert "nothing to materialize bars from" in ended.err


def bars_of(folder: Path, symbol: str, days: int = 2) -> Path:
    rows = [
        f"{at},100.0,101.0,99.0,100.0,10.0,{at + DAY // 24 - 1},1000.0,7,4.0,400.0,0"
        for at in range(AT, AT + days * DAY, DAY // 24)
    ]
    return dump(folder, rows, f"{symbol}-1h-2025-01.csv")


def test_symbols_without_trades_do_not_keep_order_flow_from_being_made_of_the_others(
    run: Run, settings: Settings, tmp_path: Path
) -> None:
    run("ingest", dump(tmp_path, [row(1), row(2, AT + DAY)]), "--as", "trades")
    assert run("ingest", bars_of(tmp_path, "ETHUSDT")).status == 0
    ended = run("materialize", "order_flow")
    assert (ended.status, "order_flow: 2 partitions" in ended.out) == (0, True), ended.err
    assert "order_flow has no inputs of ETHUSDT" in ended.err
    ended = run("materialize", "order_flow", "--symbols", "ETHUSDT")
    assert (ended.status, "nothing to materialize order_flow from" in ended.err) == (1, True)
    with Runs(settings) as runs:
        failed = runs._instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert failed == []


def test_bars_alone_are_enough_for_profiles_and_panels_even_in_the_command_that_makes_them(
    run: Run, tmp_path: Path
) -> None:
    assert run("ingest", bars_of(tmp_path, "ETHUSDT")).status == 0
    ended = run("materialize", "correlation_matrix")
    assert (ended.status, "nothing to materialize correlation_matrix from" in ended.err) == (1, True)
    ended = run("materialize", "returns_panel", "correlation_matrix", "volume_profile", "--to", "2025-01-02")
    assert ended.status == 0, ended.err
    assert "correlation_matrix: 1 partitions" in ended.out
    assert "volume_profile: 2 partitions" in ended.out


def test_a_run_that_fails_does_not_keep_the_others_from_being_made_but_what_follows_from_it(
    run: Run, settings: Settings, tmp_path: Path
) -> None:
    for symbol in ("AAA", "BBB"):
        rows = dump(tmp_path, [row(1), row(2, AT + DAY)], f"{symbol}-aggTrades-2025-01-01.csv")
        assert run("ingest", rows, "--as", "trades").status == 0
        assert run("ingest", bars_of(tmp_path, symbol)).status == 0
    Lake(settings.lake_dir).table("trades").path("AAA/2025-01-01").write_bytes(b"PAR1")
    ended = run("materialize", "trades", "volume_profile")
    assert ended.status == 1
    said = " ".join(ended.err.split())
    assert "1 of 4 runs failed, 1 that follow from them were left out" in said
    assert "trades AAA" in said
    frames = Lake(settings.lake_dir).frames("volume_profile")
    assert {key.partition("/")[0] for key in frames.all_keys()} == {"BBB"}


WRONG_WISHES = [
    (["trades", "--from", "2025-02"], "nothing to materialize trades from"),
    (["depth"], "nothing to materialize depth from"),
    (["trades", "--from", "2025-01-04", "--to", "2025-01-03"], "is after"),
    (["trades", "--from", "2025-01-04", "--to", "2024-12"], "is after"),
    (["trades", "--from", "2025-01-32"], "YYYY-MM-DD"),
    (["trades", "--symbols", "BTCUSD"], "Known: BTCUSDT"),
    (["macro_series", "--series", "CPIAUCSL"], "No series is known yet"),
    (["tradess"], "trades"),
]


def test_a_wrong_wish_to_materialize_is_one_clear_line(run: Run, tmp_path: Path) -> None:
    run("ingest", dump(tmp_path, [row(1)]), "--as", "trades")
    for arguments, said in WRONG_WISHES:
        ended = run("materialize", *arguments)
        assert ended.status != 0
        assert said in " ".join(re.sub(r"[│╭╮╰╯─]", " ", ended.err).split())
        assert "Traceback" not in ended.err
