"""The logs of feeds: what was acknowledged is read, whatever befell the one who wrote it; and merged once."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mdplatform.errors import CorruptPartition
from mdplatform.lake import Lake
from mdplatform.lake.feed_log import FeedLog
from mdplatform.lake.inbox import Batch
from mdplatform.lake.segment import Logged, Row, Step, encode_step
from mdplatform.market.bars import RAW_SCHEMA
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import MINUTE_US, Timeframe

START = to_us(datetime(2025, 1, 31, 23, 58, tzinfo=UTC))  # two bars before a month's end
NOW = START + 86_400_000_000
NAN = float("nan")
WRITER = """
    import sys
    from pathlib import Path
    from mdplatform.lake import Lake
    from tests.lake.test_feed_log import START, MINUTE_US, row, step

    log, number = Lake(Path(sys.argv[1])).inbox.open_log(), 0
    while True:
        log.append(step([row(number)], number))
        number += 1
        print(number, flush=True)
"""


def row(number: int, volume: float = 5.0) -> Row:
    opens = START + number * MINUTE_US
    return (opens, opens + MINUTE_US, 10.0, 12.0, 9.0, 11.0, volume, NAN, 7.0, NAN, NAN)


def step(rows: list[Row], number: int = 0, *symbols: str) -> Step:
    return Step("venue", [Logged(symbol, NOW + number, rows) for symbol in symbols or ("AUSDT",)])


def volumes(batches: list[Batch]) -> list[float]:
    return [volume for batch in batches for volume in batch.rows["volume"].to_list()]


def segment_of(lake: Lake) -> Path:
    (path,) = (lake.folder / "inbox" / "_live").glob("*.log")
    return path


def test_steps_come_back_as_raw_bars_of_their_months_once_the_feed_lets_go(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    log = lake.inbox.open_log()
    for number in range(4):
        log.append(step([row(number, float(number))], number, "AUSDT", "BUSDT"))
    assert lake.inbox.symbols() == []
    assert lake.inbox.pending("AUSDT", "2025-01") == []
    log.rotate()
    assert lake.inbox.symbols() == ["AUSDT", "BUSDT"]
    assert lake.inbox.months("BUSDT") == ["2025-01", "2025-02"]
    (first,), (second,) = (lake.inbox.pending("AUSDT", month) for month in ("2025-01", "2025-02"))
    assert first.rows.schema == RAW_SCHEMA
    assert (volumes([first]), volumes([second])) == ([0.0, 1.0], [2.0, 3.0])
    assert first.rows["quote_volume"].null_count() == 2
    assert first.rows["trade_count"].to_list() == [7, 7]
    assert (first.source, first.staged_at) == ("venue", from_us(NOW + 1))
    assert first.key == second.key


def test_a_segment_goes_when_the_last_part_of_it_is_merged(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    log = lake.inbox.open_log()
    log.append(step([row(number) for number in range(4)], 0, "AUSDT", "BUSDT"))
    log.rotate()
    for symbol, month in (("AUSDT", "2025-01"), ("AUSDT", "2025-02"), ("BUSDT", "2025-01")):
        (batch,) = lake.inbox.pending(symbol, month)
        Lake(tmp_path).inbox.clear(batch)  # whoever merged it
    assert lake.inbox.symbols() == ["BUSDT"]
    assert lake.inbox.months("BUSDT") == ["2025-02"]
    (last,) = lake.inbox.pending("BUSDT", "2025-02")
    lake.inbox.clear(last)
    lake.inbox.clear(last)
    assert lake.inbox.symbols() == []
    assert list((tmp_path / "inbox" / "_live").iterdir()) == []


def test_a_torn_end_is_left_out_wherever_it_is_torn(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    log = lake.inbox.open_log()
    for number in range(3):
        log.append(step([row(number % 2, float(number))], number))
    log.rotate()
    path = segment_of(lake)
    whole = path.read_bytes()
    length = len(encode_step(step([row(0)])))
    for cut in (*range(len(whole) - length, len(whole), 9), len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert volumes(Lake(tmp_path).inbox.pending("AUSDT", "2025-01")) == [0.0, 1.0]
        path.write_bytes(whole[:cut] + bytes(len(whole) - cut))  # as after a power cut
        kept = volumes(Lake(tmp_path).inbox.pending("AUSDT", "2025-01"))
        assert kept in ([0.0, 1.0], [0.0, 1.0, 2.0])  # the very last bytes may be zero anyway


@pytest.mark.parametrize("place", [0, 5, 9, 13, 40, 100, 190])
def test_damage_before_the_end_is_said_the_file_set_aside_and_what_is_whole_of_it_read(
    tmp_path: Path, place: int
) -> None:
    lake = Lake(tmp_path)
    log = lake.inbox.open_log()
    for number in range(3):
        log.append(step([row(number % 2, float(number))], number))
    log.rotate()
    path = segment_of(lake)
    length = path.stat().st_size // 3
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 0x55
    path.write_bytes(damaged)
    log.append(step([row(0, 9.0)], 9))
    log.rotate()
    with pytest.raises(CorruptPartition, match="set aside") as raised:
        lake.inbox.pending("AUSDT", "2025-01")
    assert raised.value.value == str(path.with_suffix(".damaged"))
    assert path.with_suffix(".damaged").read_bytes() == damaged
    assert lake.inbox.damaged() == [path.with_suffix(".damaged")]
    left = [float(number) for number in range(3) if number != place // length]
    for inbox in (lake.inbox, Lake(tmp_path).inbox):
        assert volumes(inbox.pending("AUSDT", "2025-01")) == [*left, 9.0]


def test_what_another_version_wrote_is_no_torn_end(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    log = lake.inbox.open_log()
    log.append(step([row(0)]))
    log.rotate()
    path = segment_of(lake)
    path.write_bytes(b"another format")
    with pytest.raises(CorruptPartition):
        lake.inbox.symbols()
    assert lake.inbox.symbols() == []


def test_a_killed_feed_strands_nothing_that_it_was_told_is_safe(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    code = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True, cwd=root) as writer:
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < 20:
            pass
        assert lake.inbox.symbols() == []  # it is alive
        writer.kill()
        acknowledged = [20, *map(int, writer.stdout)][-1]
    waiting = [batch for month in lake.inbox.months("AUSDT") for batch in lake.inbox.pending("AUSDT", month)]
    opens = [to_us(opened) for batch in waiting for opened in batch.rows["open_time"]]
    assert len(opens) >= acknowledged
    assert opens == [START + number * MINUTE_US for number in range(len(opens))]


def test_what_was_staged_between_two_steps_is_merged_between_them_and_all_of_it_once(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    log = lake.inbox.open_log()
    log.append(step([row(0, 1.0), row(1)], 0))
    log.append(step([row(0, 2.0)], 10))
    between = Lake(tmp_path / "other")
    log.append(step([row(0, 4.0)], 30))
    log.rotate()
    other = between.inbox.open_log()
    other.append(step([row(0, 3.0)]))
    other.rotate()
    (delivered,) = between.inbox.pending("AUSDT", "2025-01")
    without = lake.inbox.pending("AUSDT", "2025-01")  # seen by one who merges it late
    lake.inbox.stage("AUSDT", Timeframe.M1, "file", "f" * 32, delivered.rows, from_us(NOW + 20))
    waiting = lake.inbox.pending("AUSDT", "2025-01")
    assert [batch.source for batch in waiting] == ["venue", "file", "venue"]
    assert volumes(waiting) == [1.0, 5.0, 2.0, 3.0, 4.0]
    lake.bars.merge("AUSDT", "2025-01", waiting)
    revisions = lake.bars.revisions("AUSDT", "2025-01", Timeframe.M1)
    assert revisions["volume"].to_list() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert revisions["ingested_at"].dt.epoch("us").to_list() == [NOW + each for each in (10, 10, 20, 30, 10)]
    for late in (without, waiting):
        assert not lake.bars.merge("AUSDT", "2025-01", late).changed
    for batch in waiting:
        lake.inbox.clear(batch)
    assert lake.inbox.symbols() == []


def test_parts_of_a_segment_that_was_merged_whole_are_not_merged_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    log = lake.inbox.open_log()
    log.append(step([row(0, 1.0)], 0))
    log.append(step([row(0, 2.0)], 20))
    log.rotate()
    (whole,) = lake.inbox.pending("AUSDT", "2025-01")
    lake.bars.merge("AUSDT", "2025-01", [whole])  # and killed before it is cleared
    rows = whole.rows.head(1)
    lake.inbox.stage("AUSDT", Timeframe.M1, "file", "f" * 32, rows, from_us(NOW + 10))
    report = lake.bars.merge("AUSDT", "2025-01", lake.inbox.pending("AUSDT", "2025-01"))
    assert (report.unchanged, report.corrected) == (2, 1)  # the file's alone
    assert lake.bars.revisions("AUSDT", "2025-01", Timeframe.M1)["volume"].to_list() == [1.0, 2.0, 1.0]


def test_segments_of_two_feeds_wait_in_the_order_of_their_steps(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    first, second = lake.inbox.open_log(), lake.inbox.open_log()
    for number in range(4):
        (first, second)[number % 2].append(step([row(0, float(number))], number))
    first.rotate()
    assert volumes(lake.inbox.pending("AUSDT", "2025-01")) == [0.0, 2.0]
    second.rotate()
    waiting = lake.inbox.pending("AUSDT", "2025-01")
    assert volumes(waiting) == [0.0, 1.0, 2.0, 3.0]
    assert len({batch.key for batch in waiting}) == 4


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond `size`, as on a disk that is full: what fits is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_step_that_does_not_fit_on_the_disk_leaves_nothing_and_may_come_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    log = lake.inbox.open_log()
    log.append(step([row(0)], 0))
    size = segment_of(lake).stat().st_size
    with full_disk(size + 20):
        with pytest.raises(OSError, match="File too large"):
            log.append(step([row(1)], 1))
        assert segment_of(lake).stat().st_size == size
    with full_disk(20), pytest.raises(OSError, match="File too large"):
        log.append(step([row(1)], 1))
    assert len(list((tmp_path / "inbox" / "_live").iterdir())) == 1
    log.append(step([row(1, 8.0)], 1))
    log.rotate()
    assert volumes(lake.inbox.pending("AUSDT", "2025-01")) == [5.0, 8.0]


def test_what_killed_feeds_began_and_never_finished_is_cleaned_up(tmp_path: Path) -> None:
    folder = tmp_path / "inbox" / "_live"
    folder.mkdir(parents=True)
    (folder / ".00-01-ab.log.tmp").write_bytes(b"half")
    (folder / "00-01-cd.cleared").write_text("AUSDT/2025-01\n")
    log = FeedLog(folder)
    log.append(step([row(0)]))
    assert [path.suffix for path in folder.iterdir()] == [".log"]
    log.rotate()


def test_a_segment_is_free_once_it_is_let_go_of_also_where_a_fork_still_has_it_open(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    log = lake.inbox.open_log()
    log.append(step([row(0)]))
    reading, writing = os.pipe()
    forked = os.fork()
    if forked == 0:  # as a process that is being started is for a moment
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        log.rotate()
        assert lake.inbox.logged() == {"AUSDT"}
    finally:
        os.close(reading)
        os.close(writing)
        os.waitpid(forked, 0)
