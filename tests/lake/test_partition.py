"""A partition's file: whole or not there, found broken when it is broken, read in part as in whole."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pyarrow.parquet
import pytest

from mdplatform.errors import CorruptPartition
from mdplatform.lake.partition import Partition, content_hash, write_partition

INSTANT = pl.Datetime("us", "UTC")
STEP = 60_000_000


def frame(rows: int, first: int = 0) -> pl.DataFrame:
    times = pl.Series("open_time", range(first * STEP, (first + rows) * STEP, STEP), dtype=pl.Int64).cast(INSTANT)
    return pl.DataFrame(
        {
            "open_time": times,
            "close": [n / 8 if n % 5 else None for n in range(rows)],
            "count": range(rows),
            "state": ["gap" if n % 7 == 0 else "observed" for n in range(rows)],
            "is_closed": [n % 2 == 0 for n in range(rows)],
        },
        schema_overrides={"close": pl.Float64, "count": pl.Int64, "state": pl.String, "is_closed": pl.Boolean},
    )


def opened(path: Path) -> Partition:
    partition = Partition.open(path)
    assert partition is not None
    return partition


def test_what_is_written_is_read_group_by_group(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "2025-01.parquet"
    header = write_partition(path, {"1m": frame(50_000), "1h": frame(70), "1d": frame(0)}, {"month": "2025-01"})
    partition = opened(path)
    assert partition.header == header
    assert partition.header.notes == {"month": "2025-01"}
    assert list(partition.header.groups) == ["1m", "1h"]
    assert partition.read("1m").equals(frame(50_000))
    assert partition.read("1h").equals(frame(70))
    assert partition.read("1d").equals(frame(0))
    assert partition.read("1h", ["count", "open_time"]).columns == ["count", "open_time"]
    assert [each.name for each in path.parent.iterdir()] == ["2025-01.parquet"]


def test_there_is_no_partition_where_there_is_no_file(tmp_path: Path) -> None:
    assert Partition.open(tmp_path / "none.parquet") is None


def test_a_partition_of_no_rows_can_be_written_and_read(tmp_path: Path) -> None:
    write_partition(tmp_path / "p.parquet", {"1m": frame(0)}, {"why": "all set aside"})
    partition = opened(tmp_path / "p.parquet")
    assert partition.header.groups == {}
    assert partition.read("1m").equals(frame(0))


def test_a_range_gives_what_a_full_read_gives(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    whole = frame(40_000, first=100)
    write_partition(path, {"1m": whole, "5m": frame(10, first=7)})
    chance = random.Random(7)
    partition = opened(path)
    touched = set()
    edges = [edge + by for edge in (100, 15_100, 30_100, 40_100) for by in (-1, 0, 1)]  # of the row groups
    ranges = [(start, end) for start in edges for end in edges if start <= end]
    for start, end in ranges + [tuple(sorted(chance.sample(range(90, 40_110), 2))) for _ in range(20)]:
        inside = (pl.col("open_time").dt.epoch("us") >= start * STEP) & (
            pl.col("open_time").dt.epoch("us") < end * STEP
        )
        part = partition.read("1m", start=start * STEP, end=end * STEP)
        assert part.filter(inside).equals(whole.filter(inside))
        touched.add(len(part))
    assert min(touched) < len(whole)  # or nothing was left out


def test_equal_content_has_one_version_however_it_lies_in_memory() -> None:
    plain = frame(1000)
    version = content_hash({"1m": plain})
    chunked = pl.concat([plain[:3], plain[3:700], plain[700:]], rechunk=False)
    longer = frame(1003)
    sliced = pl.concat([longer[1000:], plain])[3:]
    rebuilt = pl.DataFrame(plain.to_dicts(), schema=plain.schema)
    masked = plain.with_columns(close=pl.when(pl.col("close").is_null()).then(None).otherwise(pl.col("close") + 0.0))
    hidden = plain.with_columns(close=pl.col("count") / 8).with_columns(
        close=pl.when(pl.col("count") % 5 != 0).then("close")
    )
    for other in (chunked, sliced, rebuilt, masked, hidden):
        assert other.equals(plain)
        assert content_hash({"1m": other}) == version


def test_a_version_is_the_same_from_process_to_process_and_after_a_read(tmp_path: Path) -> None:
    header = write_partition(tmp_path / "p.parquet", {"1m": frame(20_000)})
    assert content_hash({"1m": opened(tmp_path / "p.parquet").read("1m")}) == header.data_version
    assert content_hash({"1m": frame(3)}) == "2169c7545b97c7fb7d0ba66d10395a3b"


def test_any_difference_makes_another_version() -> None:
    plain = frame(20)
    variants = [
        {"1m": plain},
        {"5m": plain},
        {"1m": plain, "5m": plain},
        {"1m": plain[:-1]},
        {"1m": plain.reverse()},
        {"1m": plain.rename({"close": "open"})},
        {"1m": plain.cast({"count": pl.Int32})},
        {"1m": plain.with_columns(close=pl.col("close").fill_null(0.0))},
        {"1m": plain.with_columns(close=pl.col("close").fill_null(float("nan")))},
        {"1m": plain.with_columns(state=pl.col("state").replace("gap", ""))},
        {"1m": plain.with_columns(state=pl.when(pl.col("state") != "gap").then("state"))},
        {"1m": plain.with_columns(state=pl.lit("observedobserved"))},
        {"1m": plain.with_columns(state=pl.lit("observed"))},
        {"1m": plain.with_columns(is_closed=~pl.col("is_closed"))},
        {"1m": plain.with_columns(open_time=pl.col("open_time").dt.offset_by("1us"))},
    ]
    assert len({content_hash(each) for each in variants}) == len(variants)


def test_a_cut_file_is_corrupt_wherever_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_partition(path, {"1m": frame(200)})
    good = path.read_bytes()
    for length in [*range(0, len(good), len(good) // 40), len(good) - 1]:
        path.write_bytes(good[:length])
        with pytest.raises(CorruptPartition):
            opened(path).read("1m")


def test_a_flipped_bit_never_gives_other_values(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_partition(path, {"1m": frame(500)})
    good, whole = path.read_bytes(), frame(500)
    footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    chance, found = random.Random(3), 0
    for _ in range(300):
        bad = bytearray(good)
        bad[chance.randrange(footer)] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        try:
            assert opened(path).read("1m").equals(whole)
        except CorruptPartition:
            found += 1
    assert found > 150


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"open_time,close\n1,2\n", b"PAR1" * 100, random.Random(5).randbytes(5000)],
    ids=["empty", "magic alone", "text", "magic often", "noise"],
)
def test_a_foreign_file_is_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.parquet").write_bytes(content)
    with pytest.raises(CorruptPartition, match="Move it away"):
        Partition.open(tmp_path / "p.parquet")


def test_a_parquet_file_of_another_writer_is_corrupt(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "p.parquet")
    (tmp_path / "folder.parquet").mkdir()
    for name in ("p.parquet", "folder.parquet"):
        with pytest.raises(CorruptPartition):
            Partition.open(tmp_path / name)


def test_left_overs_of_the_killed_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    old, young, other = (tmp_path / f".{name}.tmp" for name in ("p.parquet.aa", "p.parquet.bb", "q.parquet.aa"))
    for each in (old, young, other):
        each.write_bytes(b"half")
    for each in (old, other):
        os.utime(each, (1_700_000_000, 1_700_000_000))
    write_partition(tmp_path / "p.parquet", {"1m": frame(3)})
    assert sorted(each.name for each in tmp_path.iterdir()) == [young.name, other.name, "p.parquet"]


def test_a_failed_write_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_partition(path, {"1m": frame(3)})
    with pytest.raises(ValueError, match="schema"):
        write_partition(path, {"1m": frame(9), "5m": frame(9).drop("close")})
    assert opened(path).read("1m").equals(frame(3))
    assert [each.name for each in tmp_path.iterdir()] == ["p.parquet"]


def test_writers_of_one_path_do_not_harm_each_other(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(write_partition, path, {"1m": frame(50 + n)}) for n in range(60)]:
            done.result()
    assert 50 <= len(opened(path).read("1m")) < 110
    assert [each.name for each in tmp_path.iterdir()] == ["p.parquet"]


def test_a_reader_keeps_its_file_while_a_writer_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_partition(path, {"1m": frame(30_000)})
    before = opened(path)
    write_partition(path, {"1m": frame(10)})
    assert before.read("1m").equals(frame(30_000))
    assert opened(path).read("1m").equals(frame(10))


WRITER = """
    import sys
    from datetime import UTC, datetime
    from pathlib import Path
    import polars as pl
    from mdplatform.lake.partition import write_partition

    opens = pl.datetime_range(datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 15, tzinfo=UTC), "1m", eager=True)
    for n in range(1_000_000):
        frame = pl.DataFrame({"open_time": opens}).cast(pl.Datetime("us", "UTC")).with_columns(
            pl.lit(n).alias("n"), (pl.int_range(pl.len()) * (n + 1)).alias("product")
        )
        write_partition(Path(sys.argv[1]), {"1m": frame}, {"n": n})
        if n == 0:
            print("writing", flush=True)
"""


def test_a_writer_killed_at_any_instant_leaves_a_whole_file(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}" / "p.parquet" for n in range(4)]
    arguments = [[sys.executable, "-c", textwrap.dedent(WRITER), str(path)] for path in paths]
    writers = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in arguments]
    chance = random.Random()
    halves = 0
    for path, writer in zip(paths, writers, strict=True):
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        select.select([], [], [], chance.uniform(0.0, 0.15))
        writer.kill()
        writer.communicate()
        partition = opened(path)
        rows = partition.read("1m")
        n = partition.header.notes["n"]
        assert rows["n"].unique().to_list() == [n]
        assert rows["product"].to_list() == [each * (n + 1) for each in range(14 * 1440 + 1)]
        assert content_hash({"1m": rows}) == partition.header.data_version
        left = [each for each in path.parent.iterdir() if each != path]
        halves += len(left)
        for each in left:
            os.utime(each, (0, 0))
        write_partition(path, {"1m": frame(3)})
        assert list(path.parent.iterdir()) == [path]
    assert halves <= len(paths)
