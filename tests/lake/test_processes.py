"""Several processes on one partition: none loses a row, and a reader always sees a whole file."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

import mdplatform.lake.lock
from mdplatform.errors import LakeBusy
from mdplatform.lake import Lake
from mdplatform.lake.lock import locked
from mdplatform.market.timeframe import Timeframe

MERGER = """
    import sys
    from datetime import UTC, datetime, timedelta
    from pathlib import Path
    import polars as pl
    from mdplatform.lake import Lake
    from mdplatform.market.bars import RAW_SCHEMA
    from mdplatform.market.timeframe import Timeframe

    lake, number = Lake(Path(sys.argv[1])), int(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    for hour in range(5):
        opens = [datetime(2025, 1, 1 + number, hour, minute, tzinfo=UTC) for minute in range(60)]
        rows = pl.DataFrame({"open_time": opens}).with_columns(
            close_time=None, open=10.0, high=12.0, low=9.0, close=11.0, volume=float(hour + 1),
            quote_volume=None, trade_count=5, taker_buy_volume=None, taker_buy_quote_volume=None,
        ).cast(RAW_SCHEMA)
        at = datetime(2025, 3, 1, tzinfo=UTC) + timedelta(hours=hour)
        batches = lake.inbox.stage("AUSDT", Timeframe.M1, f"writer {number}", f"{number}h{hour}", rows, at)
        report = lake.bars.merge("AUSDT", "2025-01", batches)
        assert (report.taken, report.corrected) == (60, 0), report
"""
HOLDER = """
    import sys
    from pathlib import Path
    from mdplatform.lake.lock import locked

    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_merges_of_several_processes_lose_nothing_and_readers_see_whole_files(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    writers = [start(MERGER, tmp_path, number) for number in range(3)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    seen, reads = 0, 0
    while any(writer.poll() is None for writer in writers):
        bars = lake.bars.read("AUSDT", Timeframe.M1).filter(pl.col("state") != "gap")
        assert len(bars) >= seen
        assert len(bars) % 60 == 0
        assert (bars["volume"] == bars["open_time"].dt.hour() + 1).all()
        hours = lake.bars.tail("AUSDT", Timeframe.H1, 100).filter(pl.col("state") != "gap")
        assert hours["volume"].to_list() == [60.0 * (opened.hour + 1) for opened in hours["open_time"]]
        seen, reads = len(bars), reads + 1
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert reads > 3
    for timeframe, count in ((Timeframe.M1, 3 * 300), (Timeframe.M5, 3 * 60), (Timeframe.H1, 15), (Timeframe.H4, 3)):
        bars = lake.bars.read("AUSDT", timeframe)
        assert bars.filter(pl.col("state") != "gap").height == count
        assert bars["revision"].sum() == 0
    assert set(lake.bars.read("AUSDT", Timeframe.M1)["source"].drop_nulls()) == {f"writer {n}" for n in range(3)}


def test_a_held_lock_is_waited_for_until_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdplatform.lake.lock, "_DEADLINE_SECONDS", 0.2)
    lock = tmp_path / "locks" / "bars-AUSDT-2025-01.lock"
    holder = start(HOLDER, lock)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LakeBusy, match="AUSDT"):
        Lake(tmp_path).bars.merge("AUSDT", "2025-01", [])
    holder.kill()
    holder.communicate()
    with locked(lock):  # freed by its holder's death
        pass


def test_a_lock_is_freed_by_an_error_and_holds_against_the_same_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mdplatform.lake.lock, "_DEADLINE_SECONDS", 0.1)
    with pytest.raises(KeyError), locked(tmp_path / "a.lock"):
        raise KeyError
    with locked(tmp_path / "a.lock"), locked(tmp_path / "b.lock"), pytest.raises(LakeBusy):
        locked(tmp_path / "a.lock").__enter__()


def test_merging_nothing_into_nothing_makes_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    report = lake.bars.merge("AUSDT", "2025-01", [])
    assert (report.taken, report.changed, report.data_version) == (0, False, "")
    assert lake.bars.symbols() == []
    assert lake.bars.read("AUSDT", Timeframe.M1, as_of=datetime(2026, 1, 1, tzinfo=UTC)).is_empty()
