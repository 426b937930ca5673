"""SQL over the lake: its views say what the stores say, and it reaches nothing else and writes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from mdplatform.errors import CorruptPartition, InvalidQuery
from mdplatform.lake import Lake
from mdplatform.lake.sql import ask
from mdplatform.market.timeframe import Timeframe

from .deliveries import FEBRUARY, HOUR, JANUARY, LATER, MINUTE, grid, take


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of two symbols with holes, revisions and a quarantine, to be copied and never written."""
    lake = Lake(tmp_path_factory.mktemp("taken") / "lake")
    take(lake, pl.concat([grid(FEBRUARY - 60 * MINUTE, 50), grid(FEBRUARY + 5 * MINUTE, 55)]))
    take(lake, grid(FEBRUARY, 1, volume=3e5), key="k2", staged_at=LATER + timedelta(days=1))
    take(lake, grid(FEBRUARY + 5 * MINUTE, 1, volume=3e5), key="k3", staged_at=LATER + timedelta(days=1))
    take(lake, grid(FEBRUARY, 2, Timeframe.H1, high=1.0), Timeframe.H1, symbol="BUSDT")
    take(lake, grid(JANUARY, 3, Timeframe.H1), Timeframe.H1, key="k4", symbol="BUSDT")
    return lake.folder


@pytest.fixture
def lake(taken: Path, tmp_path: Path) -> Lake:
    """A lake of the test's own with the same."""
    return Lake(shutil.copytree(taken, tmp_path / "lake"))


def test_the_view_of_bars_is_what_the_store_reads(lake: Lake) -> None:
    for symbol, timeframe in (("AUSDT", "1m"), ("AUSDT", "15m"), ("BUSDT", "1h")):
        answer = ask(
            lake.folder,
            f"select * from bars where symbol = '{symbol}' and timeframe = '{timeframe}' order by open_time",
        )
        stored = lake.bars.read(symbol, Timeframe(timeframe)).filter(pl.col("state") != "gap")
        assert answer.columns == stored.columns
        assert answer.rows() == stored.rows()
    assert ask(lake.folder, "select count(*) from bar_revisions where revision = 1 and timeframe = '1m'").item() == 1


def test_the_view_of_gaps_names_each_hole(lake: Lake) -> None:
    answer = ask(lake.folder, "select * exclude symbol from gaps where timeframe = '1m' order by gap_start")
    start = LATER.replace(year=2025, month=1, day=31, hour=23, minute=50)
    assert answer.rows() == [
        ("1m", start, start + timedelta(minutes=10), 10),
        ("1m", start + timedelta(minutes=11), start + timedelta(minutes=15), 4),
    ]
    holes = sum(state == "gap" for state in lake.bars.read("AUSDT", Timeframe.M1)["state"])
    assert answer["bars_missing"].sum() == holes


def test_the_view_of_quarantine_names_the_rules(lake: Lake) -> None:
    answer = ask(lake.folder, "select symbol, timeframe, source, rule, high from quarantine")
    assert answer.rows() == [("BUSDT", "1h", "test:k1", "high_low", 1.0)] * 2


def test_each_asset_has_a_view_of_its_own(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.frames("returns").write("2025-01", {Timeframe.D1: grid(JANUARY, 2, Timeframe.D1)}, {})
    lake.frames("returns").write("2025-02", {Timeframe.D1: grid(FEBRUARY, 1, Timeframe.D1).with_columns(more=1)}, {})
    assert ask(lake.folder, "select count(*), count(more) from returns").row(0) == (3, 1)


@pytest.mark.parametrize(
    "query",
    [
        "select * from bars limit 3", "from bars limit 3", "table bars", "describe bars", "show tables",
        "with a as (select 1) select * from a", "values (1)", "summarize bars", "select 1;",
    ],
)  # fmt: skip
def test_what_reads_is_answered(lake: Lake, query: str) -> None:
    assert 0 < len(ask(lake.folder, query, most_rows=2)) <= 2


FORBIDDEN = [
    "select * from read_csv('/etc/passwd')", "select * from read_text('/etc/passwd')", "select * from '/etc/passwd'",
    "select * from read_csv('LAKE/../../../../../../etc/passwd')", "select * from glob('/etc/*')",
    "select * from read_blob('/proc/self/environ')", "select * from sniff_csv('/etc/passwd')",
    "select * from read_parquet('LAKE/bars/AUSDT/2025-02.parquet')",
    "copy (select 1) to 'LAKE/out.csv'", "copy bars to '/tmp/out.csv'", "export database 'LAKE/out'",
    "with x as (copy (select 1) to 'LAKE/out.csv') select * from x",
    "explain analyze copy (select 1) to 'LAKE/out.csv'",
    "attach 'LAKE/out.db'", "install httpfs", "load httpfs", "create table x as select 1", "drop view bars",
    "insert into bar_revisions select * from bar_revisions", "delete from bar_revisions", "pragma version",
    "set enable_external_access = true", "reset lock_configuration", "select 1; select 2", "call pragma_version()",
    "from query('copy (select 1) to ''LAKE/out.csv''')", "select * from lake", "select * from datasets", "checkpoint",
]  # fmt: skip


@pytest.mark.parametrize("query", FORBIDDEN)
def test_what_reaches_outside_or_writes_is_refused(lake: Lake, query: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in lake.folder.rglob("*")}
    with pytest.raises(InvalidQuery):
        ask(lake.folder, query.replace("LAKE", str(lake.folder)))
    assert {path: path.stat().st_mtime_ns for path in lake.folder.rglob("*")} == before
    assert not Path("/tmp/out.csv").exists()


@pytest.mark.parametrize(
    "query", ["", ";", "-- nothing", "selec 1", "select * from nosuch", "select " + "(" * 60, "select 'a"]
)
def test_bad_sql_is_one_clear_error(lake: Lake, query: str) -> None:
    with pytest.raises(InvalidQuery):
        ask(lake.folder, query)


def test_an_unknown_view_is_answered_with_those_that_are_there(lake: Lake) -> None:
    with pytest.raises(InvalidQuery, match="bar_revisions, bars, gaps, quarantine"):
        ask(lake.folder, "select * from nosuch")


def test_an_empty_lake_says_how_to_fill_it(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(InvalidQuery, match="mdplatform ingest"):
            ask(folder, "select * from bars")
        assert ask(folder, "select 1 as one").to_dicts() == [{"one": 1}]


@pytest.mark.parametrize(
    "name", ["o'ne", 'quo"te', "b[x]r", "st*r", "what?", "sp ace", "back\\slash", "{a,b}", "läke", "50%"]
)
def test_any_name_of_the_home_will_do(tmp_path: Path, name: str) -> None:
    lake = Lake(tmp_path / name / "lake")
    take(lake, grid(JANUARY, 3, Timeframe.H1), Timeframe.H1)
    assert ask(lake.folder, "select count(*) from bars where timeframe = '1h'").item() == 3


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    take(lake := Lake(tmp_path), grid(JANUARY, 3, Timeframe.H1), Timeframe.H1)
    lake.bars.path("AUSDT", "2025-01").write_bytes(b"PAR1")
    with pytest.raises(CorruptPartition, match="2025-01"):
        ask(lake.folder, "select count(*) from bars")


def test_left_overs_of_a_killed_writer_are_not_read(tmp_path: Path) -> None:
    take(lake := Lake(tmp_path), grid(JANUARY, 3, Timeframe.H1), Timeframe.H1)
    (lake.folder / "bars" / "AUSDT" / ".2025-02.parquet.aa.tmp").write_bytes(b"half")
    assert ask(lake.folder, "select count(*) from bars").item() == 3


ASKER = """
import sys
from pathlib import Path
from mdplatform.lake.sql import ask
query = "select open_time, open_time::varchar as text, open_time::date as day, hour(open_time) as hour from bars"
print(ask(Path(sys.argv[1]), query + " where timeframe = '1h' order by open_time").write_json())
"""


def test_the_time_zone_of_the_host_does_not_matter(tmp_path: Path) -> None:
    take(Lake(tmp_path), grid(FEBRUARY - HOUR, 2, Timeframe.H1), Timeframe.H1)
    answers = [
        subprocess.run(
            [sys.executable, "-c", ASKER, str(tmp_path)],
            env=os.environ | {"TZ": zone}, capture_output=True, text=True, check=True,
        ).stdout
        for zone in ("UTC", "Asia/Kolkata")
    ]  # fmt: skip
    assert answers[0] == answers[1]
    assert '"text":"2025-01-31 23:00:00+00","day":"2025-01-31","hour":23' in answers[0]
