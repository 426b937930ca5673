"""Bars in the lake: one file a (symbol, month) with every timeframe and every revision.

`merge` is what the `bars` asset does for one partition, in steps:
1. sift each batch by the row rules (`market.rules`); what breaks one is quarantined under the batch's key;
2. merge the rest into the revisions that are there (`market.revisions`); a batch that was merged before is skipped;
3. build the longer timeframes from the shorter ones (`market.resample`), longest child first, as revisions too;
   where the venue delivered a bar itself, that one stands and a differing sum is counted as a disagreement;
4. write the file if anything changed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl

from mdplatform.lake.inbox import Batch
from mdplatform.lake.lock import locked
from mdplatform.lake.partition import Header, Partition, write_partition
from mdplatform.market.bars import BAR_SCHEMA, VALUE_COLUMNS, empty_bars
from mdplatform.market.resample import RESAMPLED, complete_grid, resample
from mdplatform.market.revisions import merge, newest, with_states
from mdplatform.market.rules import sift
from mdplatform.market.time import months_between
from mdplatform.market.timeframe import Timeframe

DERIVED = (Timeframe.M5, Timeframe.M15, Timeframe.M30, Timeframe.H1, Timeframe.H4, Timeframe.D1)
"""The timeframes that are built for every partition from the shorter ones which were delivered."""

_MONTH_FILE = re.compile(r"(\d{4}-\d{2})\.parquet")


@dataclass(frozen=True)
class MergeReport:
    """What a merge did, in delivered rows; `disagreements` are delivered bars that differ from the sum of shorter ones."""

    taken: int = 0
    unchanged: int = 0
    corrected: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    disagreements: int = 0
    changed: bool = False
    data_version: str = ""


class BarStore:
    """The bars under one folder of the lake. Reading needs no lock: files are replaced whole."""

    def __init__(self, folder: Path, quarantine: Path, locks: Path) -> None:
        self._folder = folder
        self._quarantine = quarantine
        self._locks = locks
        self._headers: dict[Path, tuple[tuple[int, int, int], Header]] = {}

    def symbols(self) -> list[str]:
        """Give the symbols of which there are bars."""
        return sorted(each.name for each in self._folder.iterdir()) if self._folder.is_dir() else []

    def months(self, symbol: str) -> list[str]:
        """Give the months of which there are bars of `symbol`, oldest first."""
        folder = self._folder / symbol
        names = (_MONTH_FILE.fullmatch(each.name) for each in folder.iterdir()) if folder.is_dir() else ()
        return sorted(name[1] for name in names if name)

    def timeframes(self, symbol: str) -> list[Timeframe]:
        """Give the timeframes in which bars of `symbol` can be read, shortest first."""
        groups = {name for month in self.months(symbol) for name in self._header(symbol, month).groups}
        stored = [Timeframe.parse(name) for name in groups]
        return [each for each in Timeframe if each in stored or any(child.divides(each) for child in stored)]

    def path(self, symbol: str, month: str) -> Path:
        """Give the file of one partition."""
        return self._folder / symbol / f"{month}.parquet"

    def partition(self, symbol: str, month: str) -> Partition | None:
        """Open one partition, if it is there."""
        return Partition.open(self.path(symbol, month))

    def revisions(self, symbol: str, month: str, timeframe: Timeframe) -> pl.DataFrame:
        """Give every revision of one partition and timeframe (`BAR_SCHEMA`)."""
        partition = self.partition(symbol, month)
        return partition.read(timeframe).cast(dict(BAR_SCHEMA)) if partition else empty_bars()

    # -- writing ------------------------------------------------------------------------------------------------------

    def merge(self, symbol: str, month: str, batches: Sequence[Batch]) -> MergeReport:
        """Merge `batches` of this symbol and month into the partition (see the module's steps)."""
        with locked(self._locks / f"bars-{symbol}-{month}.lock"):
            partition = self.partition(symbol, month)
            before = _read_all(partition)
            done: list[str] = list(partition.header.notes.get("batches", [])) if partition else []
            counts: Counter[str] = Counter()
            quarantined: Counter[str] = Counter()
            after = dict(before)
            for batch in batches:
                if batch.key in done:
                    counts["unchanged"] += len(batch.rows)
                    continue
                kept, broken = sift(batch.rows, batch.timeframe, batch.staged_at)
                quarantined.update(broken["rule"].to_list())
                self._set_aside(batch, broken)
                merged = merge(after.get(batch.timeframe, empty_bars()), _as_bars(batch, kept))
                after[batch.timeframe] = with_states(merged.bars, batch.timeframe)
                counts.update(taken=merged.taken, unchanged=merged.unchanged, corrected=merged.corrected)
                done.append(batch.key)
            disagreements = _derive(after)
            ordered = {timeframe.value: after[timeframe] for timeframe in Timeframe if timeframe in after}
            version = partition.header.data_version if partition else ""
            rows_changed = any(not bars.equals(before.get(Timeframe(name), empty_bars())) for name, bars in ordered.items())
            if rows_changed or (partition and done != partition.header.notes["batches"]):
                notes = {"symbol": symbol, "month": month, "batches": done}
                version = write_partition(self.path(symbol, month), ordered, notes).data_version
            return MergeReport(
                taken=counts["taken"],
                unchanged=counts["unchanged"],
                corrected=counts["corrected"],
                quarantined=quarantined,
                disagreements=disagreements,
                changed=rows_changed,
                data_version=version,
            )

    def _set_aside(self, batch: Batch, broken: pl.DataFrame) -> None:
        if broken.is_empty():
            return
        raw = broken.select(
            pl.lit(batch.symbol).alias("symbol"),
            pl.lit(batch.timeframe.value).alias("timeframe"),
            pl.lit(batch.source).alias("source"),
            "rule",
            pl.exclude("rule"),
        )
        folder = self._quarantine / batch.symbol / batch.month
        write_partition(folder / f"{batch.timeframe}-{batch.key}.parquet", {batch.timeframe: raw})

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(
        self,
        symbol: str,
        timeframe: Timeframe,
        start: int | None = None,
        end: int | None = None,
        as_of: datetime | None = None,
    ) -> pl.DataFrame:
        """Give the bars with `start <= open_time < end` (microseconds), newest revisions, on a complete grid.

        Holes inside the symbol's history come as `gap` rows. `as_of` gives what was stored at that instant. A timeframe
        that is not stored is built from the longest stored one that divides it. Empty if there is nothing.
        """
        months = self.months(symbol)
        child = self._child(symbol, months, timeframe)
        if child is None:
            return empty_bars()
        first, last = self._extent(symbol, months, child)
        after = timeframe.floor(last + child.microseconds)
        first = timeframe.ceil(first if start is None else max(start, first))
        after = after if end is None else min(timeframe.ceil(end), after)
        if after <= first:
            return empty_bars()
        bars = self._stored_bars(symbol, months, child, first, after, as_of)
        if child is not timeframe:
            bars = resample(bars, timeframe)
        if as_of is not None:  # what was not known then is no gap before the first or after the last bar known
            return complete_grid(bars, timeframe)
        return complete_grid(bars, timeframe, symbol, first, after)

    def tail(self, symbol: str, timeframe: Timeframe, rows: int) -> pl.DataFrame:
        """Give the newest `rows` bars on a complete grid (fewer where history is shorter), ascending."""
        months = self.months(symbol)
        child = self._child(symbol, months, timeframe)
        if child is None:
            return empty_bars()
        after = timeframe.floor(self._extent(symbol, months, child)[1] + child.microseconds)
        return self.read(symbol, timeframe, after - rows * timeframe.microseconds, after)

    def _stored_bars(
        self, symbol: str, months: Sequence[str], timeframe: Timeframe, start: int, end: int, as_of: datetime | None
    ) -> pl.DataFrame:
        parts = [empty_bars()]
        wanted = set(months_between(start, end))
        for month in months:
            partition = self.partition(symbol, month) if month in wanted else None
            if partition is not None:
                rows = partition.read(timeframe, start=start, end=end)
                parts.append(newest(rows.cast(dict(BAR_SCHEMA)), as_of))
        opens = pl.col("open_time").dt.epoch("us")
        return pl.concat(parts).filter((opens >= start) & (opens < end))

    def _child(self, symbol: str, months: Sequence[str], timeframe: Timeframe) -> Timeframe | None:
        """Give the stored timeframe from which `timeframe` is read, looking at the newest month first."""
        for month in reversed(months):
            stored = [Timeframe.parse(name) for name in self._header(symbol, month).groups]
            if timeframe in stored:
                return timeframe
            if fitting := [each for each in stored if each.divides(timeframe)]:
                return max(fitting, key=lambda each: each.microseconds)
        return None

    def _extent(self, symbol: str, months: Sequence[str], timeframe: Timeframe) -> tuple[int, int]:
        """Give the first and last open time stored for `timeframe`, from the files' headers alone."""
        found = (self._header(symbol, month).groups.get(timeframe) for month in months)
        first = next(group for group in found if group)
        found = (self._header(symbol, month).groups.get(timeframe) for month in reversed(months))
        last = next(group for group in found if group)
        return first.bounds[0][0], last.bounds[-1][1]

    def _header(self, symbol: str, month: str) -> Header:
        path = self.path(symbol, month)
        at = path.stat()
        signature = (at.st_ino, at.st_mtime_ns, at.st_size)
        known = self._headers.get(path)
        if known is None or known[0] != signature:
            partition = Partition.open(path)
            known = self._headers[path] = (signature, partition.header if partition else Header("", {}))
        return known[1]


def _read_all(partition: Partition | None) -> dict[Timeframe, pl.DataFrame]:
    if partition is None:
        return {}
    groups = partition.header.groups
    return {Timeframe.parse(name): partition.read(name).cast(dict(BAR_SCHEMA)) for name in groups}


def _as_bars(batch: Batch, kept: pl.DataFrame) -> pl.DataFrame:
    close_time = pl.col("open_time") + pl.duration(microseconds=batch.timeframe.microseconds)
    return kept.select(
        pl.lit(batch.symbol).alias("symbol"),
        pl.lit(batch.timeframe.value).alias("timeframe"),
        pl.col("open_time"),
        close_time.alias("close_time"),
        pl.col(VALUE_COLUMNS),
        pl.lit(True).alias("is_closed"),
        pl.lit("observed").alias("state"),
        pl.lit(batch.source).alias("source"),
        pl.lit(0, dtype=pl.Int32).alias("revision"),
        close_time.alias("available_at"),
        pl.lit(batch.staged_at).alias("ingested_at"),
    ).cast(dict(BAR_SCHEMA))


def _derive(stored: dict[Timeframe, pl.DataFrame]) -> int:
    """Build the derived timeframes into `stored`; give how many delivered bars differ from what was built."""
    disagreements = 0
    for timeframe in DERIVED:
        children = sorted((each for each in stored if each.divides(timeframe)), key=lambda each: -each.microseconds)
        built = empty_bars()
        for child in children:
            more = resample(newest(stored[child]), timeframe)
            built = pl.concat([built, more.join(built, on="open_time", how="anti")])
        if built.is_empty():
            continue
        before = stored.get(timeframe, empty_bars())
        is_delivered = ~pl.col("source").str.starts_with(RESAMPLED)
        delivered = newest(before).filter(is_delivered)
        beside = built.join(delivered, on="open_time", how="semi")
        disagreements += merge(delivered, beside).corrected
        built = built.join(delivered, on="open_time", how="anti").sort("open_time")
        stored[timeframe] = merge(before, built).bars
    return disagreements
