"""Merging into the part of a month that a delivery touches gives what merging and building the whole month gives."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mdplatform.lake import Lake
from mdplatform.lake.inbox import Batch
from mdplatform.lake.month import CHILDREN, DERIVED
from mdplatform.lake.partition import Partition, write_partition
from mdplatform.market.bars import BAR_SCHEMA, VALUE_COLUMNS, empty_bars
from mdplatform.market.resample import resample
from mdplatform.market.revisions import merge, newest, with_states
from mdplatform.market.rules import sift
from mdplatform.market.timeframe import Timeframe

from .deliveries import DAY, FEBRUARY, JANUARY, LATER, MINUTE, grid, table

M1, M5, M15, H1, H4, H8, D1, W1 = map(Timeframe.parse, ["1m", "5m", "15m", "1h", "4h", "8h", "1d", "1w"])
FLAT = dict.fromkeys(("open", "high", "low", "close"), 100.0)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "corrected": {"volume": 1e6},
    "corrected again": {"volume": 2e6, "trade_count": 7},
    "without counts": {"trade_count": None},
    "idle": FLAT | dict.fromkeys(("volume", "quote_volume", "trade_count"), 0) | {
        "taker_buy_volume": 0.0, "taker_buy_quote_volume": 0.0
    },
    "cut": {"close_time": JANUARY + MINUTE},
}  # fmt: skip
Delivery = tuple[Timeframe, int, int, list[str]]


class Whole:
    """A month that is merged and built as a whole each time."""

    def __init__(self) -> None:
        self.bars: dict[Timeframe, pl.DataFrame] = {}

    def merge(self, batch: Batch) -> tuple[Counter[str], int]:
        kept, broken = sift(batch.rows, batch.timeframe, batch.staged_at)
        close_time = pl.col("open_time") + pl.duration(microseconds=batch.timeframe.microseconds)
        delivered = kept.select(
            pl.lit(batch.symbol).alias("symbol"),
            pl.lit(batch.timeframe.value).alias("timeframe"),
            pl.col("open_time"),
            close_time.alias("close_time"),
            pl.col(VALUE_COLUMNS),
            pl.lit(True).alias("is_closed"),
            pl.lit("observed").alias("state"),
            pl.lit(batch.source).alias("source"),
            pl.lit(0).alias("revision"),
            close_time.alias("available_at"),
            pl.lit(batch.staged_at).alias("ingested_at"),
        ).cast(BAR_SCHEMA)
        merged = merge(self.bars.get(batch.timeframe, empty_bars()), delivered)
        if merged.taken or merged.corrected:
            self.bars[batch.timeframe] = with_states(merged.bars, batch.timeframe)
        counts = Counter(
            taken=merged.taken,
            unchanged=merged.unchanged,
            corrected=merged.corrected,
            quarantined=len(broken),
        )
        return counts, sum(self._derive(timeframe) for timeframe in DERIVED)

    def _derive(self, timeframe: Timeframe) -> int:
        built = empty_bars()
        for child in CHILDREN[timeframe]:
            if child in self.bars:
                more = resample(newest(self.bars[child]), timeframe)
                built = pl.concat([built, more.join(built, on="open_time", how="anti")])
        if built.is_empty():
            return 0
        before = self.bars.get(timeframe, empty_bars())
        delivered = newest(before).filter(~pl.col("source").str.starts_with("resampled:"))
        beside = built.join(delivered, on="open_time", how="semi")
        built = built.join(delivered, on="open_time", how="anti").sort("open_time")
        self.bars[timeframe] = merge(before, built).bars
        return merge(delivered, beside).corrected


def rows_of(delivery: Delivery) -> pl.DataFrame:
    """Give the rows of a delivery: one piece after the other, of a kind each; what is repeated corrects itself."""
    timeframe, first, count, kinds = delivery
    return table(row for kind in kinds for row in grid(first, count, timeframe, **KINDS[kind]).to_dicts())


def merged_into(lake: Lake) -> Partition:
    partition = lake.bars.partition("AUSDT", "2025-01")
    assert partition is not None
    return partition


@st.composite
def deliveries(draw: st.DrawFn) -> Delivery:
    timeframe = draw(st.sampled_from([M1, M1, M1, M5, M15, M15, H1, H4, H8, D1, W1]))
    length, last = timeframe.microseconds, timeframe.floor(FEBRUARY - 1)
    first = timeframe.ceil(JANUARY + draw(st.sampled_from([0, length * 3, DAY, 27 * DAY])))
    first = min(first, last)
    count = min(draw(st.integers(1, 80)), (last - first) // length + 1)
    if draw(st.booleans()):  # at the month's end
        first = last - (count - 1) * length
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=2))
    return timeframe, first, count, kinds


ONE_HOUR = (M1, JANUARY, 60, ["plain"])
ONE_DAY = (M15, JANUARY, 96, ["plain"])


@given(st.lists(deliveries(), min_size=2, max_size=5))
@example([ONE_HOUR, (H1, JANUARY, 1, ["corrected"]), (M1, JANUARY + 5 * MINUTE, 3, ["corrected"]), ONE_HOUR])
@example([ONE_DAY, (D1, JANUARY, 1, ["corrected"]), (H4, JANUARY, 2, ["corrected again"]), (H4, JANUARY, 6, ["plain"])])
@example(
    [(M1, JANUARY, 1, ["idle"]), (M1, JANUARY + 2 * MINUTE, 90, ["idle"]), (M1, JANUARY, 2, ["corrected", "idle"])]
)
@hypothesis_settings(max_examples=4, deadline=None)
def test_what_a_delivery_touches_alone_is_merged_as_the_whole_month_is(
    tmp_path_factory: pytest.TempPathFactory, given: list[Delivery]
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    lake, whole = Lake(folder), Whole()
    for number, delivery in enumerate(given):
        rows = rows_of(delivery)
        batch = Batch("AUSDT", delivery[0], "2025-01", f"test:{number}", f"k{number}", LATER, rows)
        report = lake.bars.merge("AUSDT", "2025-01", [batch])
        counts, disagreements = whole.merge(batch)
        assert (report.taken, report.unchanged, report.corrected) == tuple(
            counts[each] for each in ("taken", "unchanged", "corrected")
        )
        assert report.quarantined.total() == counts["quarantined"]
        assert report.disagreements == disagreements
        if not whole.bars:
            continue
        frames = {each.value: whole.bars[each] for each in Timeframe if each in whole.bars}
        partition = merged_into(lake)
        afresh = write_partition(folder / "afresh", frames, hashed_by_day=(*VALUE_COLUMNS, "revision"))
        assert {name: partition.read(name).equals(frame) for name, frame in frames.items()} == dict.fromkeys(
            frames, True
        )
        assert partition.header.groups == afresh.groups
        assert partition.header.data_version == report.data_version == afresh.data_version


def test_a_file_whose_days_were_not_hashed_is_merged_into(tmp_path: Path) -> None:
    headers = []
    for is_old in (True, False):
        lake = Lake(tmp_path / str(is_old))
        for number, rows in enumerate([grid(JANUARY, 3000), grid(JANUARY + 3000 * MINUTE, 10)]):
            (batch,) = lake.inbox.stage("AUSDT", M1, "test", f"k{number}", rows, LATER)
            lake.bars.merge("AUSDT", "2025-01", [batch])
            partition = merged_into(lake)
            if is_old and not number:
                frames = {name: partition.read(name) for name in partition.header.groups}
                write_partition(partition.path, frames, partition.header.notes)
        headers.append(merged_into(lake).header)
    assert headers[0] == headers[1]
    assert list(headers[0].groups["1m"].days) == ["2025-01-01", "2025-01-02", "2025-01-03"]


def test_a_delivery_that_says_nothing_new_leaves_every_hash_as_it_was(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    headers = []
    for key in ("one", "another"):
        (batch,) = lake.inbox.stage("AUSDT", M1, "test", key, table(grid(JANUARY, 300).to_dicts()), LATER)
        lake.bars.merge("AUSDT", "2025-01", [batch])
        headers.append(merged_into(lake).header)
    assert headers[0].groups == headers[1].groups
    assert headers[0].data_version == headers[1].data_version
    assert headers[1].notes["batches"] == ["one", "another"]


def test_reading_imports_no_pandas(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.bars.merge("AUSDT", "2025-01", lake.inbox.stage("AUSDT", M1, "test", "key", grid(JANUARY, 60), LATER))
    program = f"""
import sys
from pathlib import Path
from mdplatform.lake import Lake
from mdplatform.market.timeframe import Timeframe
print(len(Lake(Path({str(tmp_path)!r})).bars.tail("AUSDT", Timeframe.M5, 100)), "pandas" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told == "12 False\n"
