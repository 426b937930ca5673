"""The store of bars: merging as often as one likes, reading any range, timeframe and instant of knowledge."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mdplatform.errors import CorruptPartition
from mdplatform.lake import Lake
from mdplatform.lake.partition import Partition
from mdplatform.market.bars import BAR_SCHEMA
from mdplatform.market.resample import resample
from mdplatform.market.time import from_us
from mdplatform.market.timeframe import Timeframe

from .deliveries import DAY, FEBRUARY, HOUR, JANUARY, LATER, MARCH, MINUTE, grid, opens, row, states, table, take

M1, M5, M15, M30, H1, H2, H4, H8, D1, W1 = map(
    Timeframe.parse, ["1m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "1d", "1w"]
)
M3, H6, H12 = Timeframe.M3, Timeframe.H6, Timeframe.H12


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


# -- merging ----------------------------------------------------------------------------------------------------------


def test_what_was_taken_is_read_back(lake: Lake) -> None:
    (report,) = take(lake, grid(JANUARY, 100))
    assert (report.taken, report.unchanged, report.corrected, report.changed) == (100, 0, 0, True)
    bars = lake.bars.read("AUSDT", M1)
    assert bars.schema == BAR_SCHEMA
    assert bars.select(grid(JANUARY, 100).columns).equals(grid(JANUARY, 100))
    assert set(bars["source"]) == {"test:k1"}
    assert bars["available_at"].to_list() == bars["close_time"].to_list()
    assert set(bars["ingested_at"]) == {LATER}
    assert bars["is_closed"].all()
    assert (lake.bars.symbols(), lake.bars.months("AUSDT")) == (["AUSDT"], ["2025-01"])
    assert Lake(lake.folder).bars.read("AUSDT", M1).equals(bars)


def test_the_same_delivery_again_changes_nothing_at_all(lake: Lake) -> None:
    (first,) = take(lake, grid(JANUARY, 100))
    path = lake.bars.path("AUSDT", "2025-01")
    before = path.stat()
    (again,) = take(lake, grid(JANUARY, 100), staged_at=LATER + timedelta(days=1))
    assert (again.taken, again.unchanged, again.corrected, again.changed) == (0, 100, 0, False)
    assert again.data_version == first.data_version
    after = path.stat()  # when it was last read is no change
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)


def test_the_same_rows_from_another_file_change_no_version(lake: Lake) -> None:
    (first,) = take(lake, grid(JANUARY, 100))
    before = lake.bars.read("AUSDT", M1)
    (again,) = take(lake, grid(JANUARY, 100), key="k2", staged_at=LATER + timedelta(days=1))
    assert (again.unchanged, again.changed, again.data_version) == (100, False, first.data_version)
    assert lake.bars.read("AUSDT", M1).equals(before)


def test_an_old_delivery_does_not_undo_a_correction(lake: Lake) -> None:
    take(lake, grid(JANUARY, 3), key="old")
    take(lake, grid(JANUARY, 3, volume=5e5), key="new")
    (again,) = take(lake, grid(JANUARY, 3), key="old")
    assert (again.unchanged, again.corrected) == (3, 0)
    assert lake.bars.read("AUSDT", M1)["volume"].to_list() == [5e5] * 3


def test_an_old_delivery_does_not_undo_a_correction_beside_a_new_one(lake: Lake) -> None:
    take(lake, grid(JANUARY, 3), key="old")
    take(lake, grid(JANUARY, 3, volume=5e5), key="new")
    lake.inbox.stage("AUSDT", M1, "x", "old", grid(JANUARY, 3), LATER)
    (report,) = take(lake, grid(JANUARY + 3 * MINUTE, 1), key="newest")
    assert (report.taken, report.unchanged, report.corrected) == (1, 3, 0)
    assert lake.bars.read("AUSDT", M1)["volume"].to_list()[:3] == [5e5] * 3


def test_a_correction_is_a_revision_and_so_is_what_was_built_from_it(lake: Lake) -> None:
    take(lake, grid(JANUARY, 15))
    fixed = table([row(JANUARY + 7 * MINUTE, high=500.0)])
    later = LATER + timedelta(days=1)
    (report,) = take(lake, fixed, key="k2", staged_at=later)
    assert (report.taken, report.unchanged, report.corrected) == (0, 0, 1)
    assert lake.bars.revisions("AUSDT", "2025-01", M1).height == 16
    for timeframe, number in ((M1, 7), (M5, 1), (M15, 0)):
        now, then = (lake.bars.read("AUSDT", timeframe, as_of=instant) for instant in (None, LATER))
        assert (now["high"][number], now["revision"][number], now["ingested_at"][number]) == (500.0, 1, later)
        assert (then["high"][number] < 120, then["revision"][number]) == (True, 0)
        assert now["revision"].sum() == 1


def test_rows_that_break_a_rule_are_kept_in_quarantine_by_name(lake: Lake) -> None:
    rows = [row(JANUARY + n * MINUTE) for n in range(6)]
    rows[1] |= {"high": 1.0}
    rows[2] |= {"close_time": JANUARY + 3 * MINUTE - 1}
    rows[3] |= {"open_time": JANUARY + 3 * MINUTE + 7, "close_time": None}
    (report,) = take(lake, table(rows))
    assert dict(report.quarantined) == {"high_low": 1, "early_close": 1, "off_grid": 1}
    assert report.taken == 3
    assert states(lake.bars.read("AUSDT", M1)) == "ogggoo"
    (path,) = (lake.folder / "quarantine").rglob("*.parquet")
    partition = Partition.open(path)
    assert partition is not None
    kept = partition.read("1m")
    assert kept["rule"].to_list() == ["high_low", "early_close", "off_grid"]
    assert kept["open_time"].dt.epoch("us").to_list() == [
        JANUARY + MINUTE,
        JANUARY + 2 * MINUTE,
        JANUARY + 3 * MINUTE + 7,
    ]
    assert kept["high"][0] == 1.0
    assert set(kept["source"]) == {"test:k1"}


def test_a_delivery_of_broken_rows_alone_makes_no_partition(lake: Lake) -> None:
    for _ in range(2):
        (report,) = take(lake, grid(JANUARY, 3, high=0.5))
        assert (report.taken, report.quarantined.total(), report.changed, report.data_version) == (0, 3, False, "")
        assert lake.bars.symbols() == lake.bars.months("AUSDT") == []


def test_a_forming_bar_is_not_taken_until_it_closed(lake: Lake) -> None:
    start = JANUARY + 10 * MINUTE
    now = LATER.replace(year=2025, minute=12, second=30)
    (report,) = take(lake, grid(start, 3), staged_at=now)
    assert (report.taken, dict(report.quarantined)) == (2, {"not_closed": 1})
    (report,) = take(lake, grid(start, 3, volume=7e5), key="k2", staged_at=now + timedelta(minutes=1))
    assert (report.taken, report.corrected) == (1, 2)


def test_a_bar_that_the_venue_delivered_stands_and_the_differing_sum_is_counted(lake: Lake) -> None:
    take(lake, grid(JANUARY, 8, M15), M15)
    hours = lake.bars.read("AUSDT", H1).select(grid(0, 1).columns)
    delivered = hours.with_columns(volume=pl.col("volume") + pl.Series([0.0, 3.0]))
    (report,) = take(lake, delivered, H1, key="hours")
    assert (report.unchanged, report.corrected, report.disagreements) == (1, 1, 1)
    (report,) = take(lake, grid(JANUARY + 2 * HOUR, 4, M15), M15, key="more")
    assert report.disagreements == 1
    assert lake.bars.read("AUSDT", H1)["volume"].to_list()[:2] == delivered["volume"].to_list()
    (report,) = take(lake, delivered, H1, key="hours")
    assert (report.disagreements, report.changed) == (1, False)


@pytest.mark.parametrize("first", ["15m", "1h"])
def test_which_of_two_timeframes_comes_first_does_not_matter(lake: Lake, first: str) -> None:
    quarters = grid(JANUARY, 96, M15)
    hours = resample(_as_stored(quarters, lake), H1).select(quarters.columns).with_columns(volume=5e6)
    deliveries = [(quarters, M15), (hours, H1)]
    for rows, timeframe in deliveries if first == "15m" else reversed(deliveries):
        take(lake, rows, timeframe, key=timeframe.value)
    assert lake.bars.read("AUSDT", H1)["volume"].to_list() == [5e6] * 24
    assert lake.bars.read("AUSDT", D1)["volume"].item() == 24 * 5e6
    assert lake.bars.read("AUSDT", M30)["volume"].sum() == pytest.approx(quarters["volume"].sum(), rel=1e-12)


def _as_stored(rows: pl.DataFrame, lake: Lake) -> pl.DataFrame:
    take(scratch := Lake(lake.folder.parent / "scratch"), rows, M15)
    return scratch.bars.read("AUSDT", M15)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12), st.sampled_from([1e5, 2e5])), min_size=1, max_size=4))
@hypothesis_settings(max_examples=12, deadline=None)
def test_derived_bars_are_what_the_stored_ones_give(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, int, float]]
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    for key, (start, count, volume) in enumerate(pieces):
        take(lake, grid(JANUARY + start * 5 * MINUTE, count * 5, volume=volume), key=f"k{key}")
    minutes = lake.bars.read("AUSDT", M1)
    for timeframe in (M5, M15, M30, H1):
        expected = resample(minutes, timeframe).select(
            "open_time", "open", "close", "high", "low", "volume", "trade_count"
        )
        stored = lake.bars.read("AUSDT", timeframe)
        assert stored.filter(pl.col("state") != "gap").select(expected.columns).equals(expected)


# -- reading ----------------------------------------------------------------------------------------------------------


def test_nothing_is_read_from_an_empty_lake(lake: Lake) -> None:
    assert lake.bars.read("AUSDT", M1).schema == BAR_SCHEMA
    assert lake.bars.read("AUSDT", M1).is_empty()
    assert lake.bars.tail("AUSDT", M1, 10).is_empty()
    assert lake.bars.symbols() == lake.bars.months("AUSDT") == lake.bars.timeframes("AUSDT") == []


def test_a_range_is_half_open_and_need_not_lie_on_the_grid(lake: Lake) -> None:
    take(lake, grid(JANUARY, 10))
    for start, end, numbers in [
        (0, 10, range(10)), (3, 5, (3, 4)), (3, 3, ()), (5, 3, ()), (-9, 2, (0, 1)), (8, 99, (8, 9)), (50, 60, ()),
        (-5, 0, ()), (2.5, 4.5, (3, 4)), (2.1, 2.9, ()), (9, 9.1, (9,)),
    ]:  # fmt: skip
        given_ = (JANUARY + int(each * MINUTE) for each in (start, end))
        assert opens(lake.bars.read("AUSDT", M1, *given_)) == [JANUARY + n * MINUTE for n in numbers]
    assert opens(lake.bars.read("AUSDT", M1, start=JANUARY + 8 * MINUTE)) == [JANUARY + n * MINUTE for n in (8, 9)]
    assert opens(lake.bars.read("AUSDT", M1, end=JANUARY + MINUTE)) == [JANUARY]


def test_holes_are_gaps_inside_months_at_their_edges_and_over_whole_months(lake: Lake) -> None:
    take(lake, grid(FEBRUARY - 5 * HOUR, 3, H1), H1, key="a")
    take(lake, grid(MARCH + 2 * HOUR, 2, H1), H1, key="b")
    bars = lake.bars.read("AUSDT", H1)
    missing = 2 + 28 * 24 + 2
    assert states(bars) == "ooo" + "g" * missing + "oo"
    assert lake.bars.months("AUSDT") == ["2025-01", "2025-03"]
    assert opens(bars) == [FEBRUARY - 5 * HOUR + n * HOUR for n in range(3 + missing + 2)]
    assert states(lake.bars.read("AUSDT", H1, FEBRUARY, FEBRUARY + 3 * HOUR)) == "ggg"
    assert lake.bars.read("AUSDT", D1).is_empty()


def test_a_bar_is_read_across_the_edge_of_months(lake: Lake) -> None:
    first = JANUARY + 26 * DAY  # Monday, 27 January; the week ends on 2 February
    take(lake, grid(first, 14, D1), D1)
    weeks = lake.bars.read("AUSDT", W1)
    assert opens(weeks) == [first, first + 7 * DAY]
    assert weeks["volume"].sum() == pytest.approx(grid(first, 14, D1)["volume"].sum(), rel=1e-12)
    assert weeks["open"][1] == row(first + 7 * DAY)["open"]


def test_timeframes_that_are_not_stored_are_built_when_read(lake: Lake) -> None:
    take(lake, grid(JANUARY, 3 * 1440))
    minutes = lake.bars.read("AUSDT", M1)
    assert lake.bars.timeframes("AUSDT") == list(Timeframe)
    for timeframe in (M3, H2, H6, H8, H12):
        built, expected = lake.bars.read("AUSDT", timeframe), resample(minutes, timeframe)
        assert opens(built) == opens(expected)
        for name in ("open", "high", "low", "close", "trade_count"):
            assert built[name].equals(expected[name])
        for name in ("volume", "quote_volume"):
            assert built[name].to_list() == pytest.approx(expected[name].to_list(), rel=1e-15)
    assert lake.bars.read("AUSDT", W1).is_empty()  # no week is whole


def test_shorter_timeframes_than_were_delivered_cannot_be_read(lake: Lake) -> None:
    take(lake, grid(JANUARY, 96, M15), M15)
    assert lake.bars.read("AUSDT", M5).is_empty()
    assert M5 not in lake.bars.timeframes("AUSDT")
    assert lake.bars.timeframes("AUSDT") == [M15, M30, H1, H2, H4, H6, H8, H12, D1, W1]


def test_months_of_different_timeframes_are_read_as_one_history(lake: Lake) -> None:
    take(lake, grid(JANUARY, 31 * 96, M15), M15, key="quarters")
    take(lake, grid(FEBRUARY, 11), M1, key="minutes")
    quarters = lake.bars.read("AUSDT", M15)
    assert states(quarters) == "o" * (31 * 96)
    assert set(quarters["source"]) == {"test:quarters"}
    assert opens(lake.bars.read("AUSDT", D1)) == [JANUARY + n * DAY for n in range(31)]
    assert opens(lake.bars.read("AUSDT", H2)) == [JANUARY + n * 2 * HOUR for n in range(31 * 12)]
    assert len(lake.bars.tail("AUSDT", M15, 5)) == 5
    assert opens(lake.bars.read("AUSDT", M5)) == [FEBRUARY, FEBRUARY + 5 * MINUTE]


def test_delivered_bars_of_a_timeframe_that_is_not_kept_complete_those_that_are_built(lake: Lake) -> None:
    take(lake, grid(JANUARY, 6, H2), H2, key="two")
    take(lake, grid(JANUARY + 12 * HOUR, 12, H1), H1, key="one")
    bars = lake.bars.read("AUSDT", H2)
    assert states(bars) == "o" * 12
    assert bars["source"].to_list() == ["test:two"] * 6 + ["resampled:1h"] * 6
    assert states(lake.bars.read("AUSDT", H4)) == "o" * 6
    assert states(lake.bars.read("AUSDT", H6)) == "o" * 4
    assert states(lake.bars.read("AUSDT", D1)) == "o"


def test_a_tail_is_the_end_of_a_full_read(lake: Lake) -> None:
    take(lake, grid(FEBRUARY - 30 * HOUR, 60, H1), H1, key="a")
    take(lake, grid(MARCH, 5, H1), H1, key="b")
    for timeframe in (H1, H2, H4, D1):
        whole = lake.bars.read("AUSDT", timeframe)
        for rows in (0, 1, 7, len(whole) - 1, len(whole), len(whole) + 500):
            assert lake.bars.tail("AUSDT", timeframe, rows).equals(whole.tail(rows))


@given(
    st.lists(st.tuples(st.integers(0, 60 * 24 - 1), st.integers(1, 60)), min_size=1, max_size=4),
    st.integers(-50, 60 * 24 + 50),
    st.integers(0, 500),
    st.sampled_from([H1, H2, H4, D1]),
)
@hypothesis_settings(max_examples=15, deadline=None)
def test_any_range_is_cut_out_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int, int]], start: int, length: int, timeframe: Timeframe
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    for key, (first, count) in enumerate(runs):
        take(lake, grid(JANUARY + first * HOUR, count, H1), H1, key=f"k{key}")
    whole = lake.bars.read("AUSDT", timeframe)
    low, high = JANUARY + start * HOUR, JANUARY + (start + length) * HOUR
    expected = whole.filter(pl.col("open_time").dt.epoch("us").is_between(low, high, closed="left"))
    assert lake.bars.read("AUSDT", timeframe, low, high).equals(expected)
    assert lake.bars.read("AUSDT", timeframe, low, high, as_of=LATER).equals(expected)


def test_as_of_shows_what_had_happened_then_and_the_corrections_that_were_stored_then(lake: Lake) -> None:
    hours = [LATER + timedelta(hours=n) for n in range(4)]
    take(lake, pl.concat([grid(JANUARY, 3), grid(JANUARY + 5 * MINUTE, 3)]), key="a", staged_at=hours[1])
    take(lake, grid(JANUARY + 3 * MINUTE, 1, volume=3e5), key="b", staged_at=hours[2])
    take(lake, grid(JANUARY, 8, volume=4e5), key="c", staged_at=hours[3])
    first, _, before, now = (lake.bars.read("AUSDT", M1, as_of=each) for each in hours)
    assert states(first) == states(before) == states(now) == "oooooooo"
    assert first["volume"].to_list() == before["volume"].to_list()
    assert before["volume"][3] == 3e5
    assert now["volume"].to_list() == [4e5] * 8
    assert now.equals(lake.bars.read("AUSDT", M1))
    in_time = lake.bars.read("AUSDT", M1, as_of=from_us(JANUARY + 3 * MINUTE))
    assert opens(in_time) == [JANUARY, JANUARY + MINUTE, JANUARY + 2 * MINUTE], "what had closed by then"
    assert lake.bars.read("AUSDT", M1, as_of=from_us(JANUARY)).is_empty()


def test_a_merge_is_seen_by_a_reader_that_was_there_before(lake: Lake) -> None:
    take(lake, grid(JANUARY, 3))
    reader = Lake(lake.folder).bars
    assert len(reader.read("AUSDT", M1)) == 3
    for n in range(4, 12):
        take(lake, grid(JANUARY, n), key=f"k{n}")
        assert len(reader.read("AUSDT", M1)) == n
        assert len(reader.tail("AUSDT", M1, 100)) == n


def test_folders_without_bars_are_no_symbols(lake: Lake) -> None:
    take(lake, grid(JANUARY, 3))
    (lake.folder / "bars" / "BUSDT").mkdir()
    (lake.folder / "bars" / "CUSDT").mkdir()
    (lake.folder / "bars" / "CUSDT" / ".2025-01.parquet.aa.tmp").write_bytes(b"half")
    (lake.folder / "bars" / ".DS_Store").write_bytes(b"")
    assert lake.bars.symbols() == ["AUSDT"]
    assert lake.bars.months("CUSDT") == []


def test_a_broken_partition_is_named_by_reading_and_by_merging(lake: Lake) -> None:
    take(lake, grid(JANUARY, 300))
    path = lake.bars.path("AUSDT", "2025-01")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CorruptPartition, match="2025-01"):
        lake.bars.read("AUSDT", M1)
    with pytest.raises(CorruptPartition, match="2025-01"):
        take(lake, grid(JANUARY, 300), key="k2")
    assert len(lake.inbox.pending("AUSDT", "2025-01")) == 1
