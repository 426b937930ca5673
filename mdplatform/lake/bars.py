"""Bars in the lake: one file a (symbol, month) with every timeframe and every revision.

`merge` is what the `bars` asset does for one partition, in steps:
1. sift each batch by the row rules (`market.rules`); what breaks one is quarantined under the batch's key;
2. merge the rest into the revisions that are there (`lake.month`); a batch that was merged before is skipped;
3. if that changed anything, build the longer timeframes from the shorter ones where those changed, as revisions too;
4. write the file if anything changed; only what changed is hashed anew.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa

from mdplatform.lake.inbox import PASSING, Batch
from mdplatform.lake.lock import locked
from mdplatform.lake.month import CHILDREN, Month
from mdplatform.lake.month import DERIVED as DERIVED
from mdplatform.lake.partition import Before, Header, Partition, write_partition
from mdplatform.market.bars import BAR_SCHEMA, VALUE_COLUMNS, empty_bars
from mdplatform.market.resample import complete_grid, resample
from mdplatform.market.revisions import newest
from mdplatform.market.rules import sift
from mdplatform.market.time import from_us, month_of
from mdplatform.market.timeframe import Timeframe

_HASHED = (*VALUE_COLUMNS, "revision")
_PASSING_KEPT = 256
_MONTH_FILE = re.compile(r"(\d{4}-\d{2})\.parquet")


@dataclass(frozen=True)
class MergeReport:
    """What a merge did, in delivered rows; `disagreements` are the month's delivered bars unlike sums of shorter ones.

    `changed` tells whether there are new rows or revisions, and so a new `data_version` (empty if there is no file).
    """

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
        folders = self._folder.iterdir() if self._folder.is_dir() else ()
        return sorted(each.name for each in folders if each.is_dir() and self.months(each.name))

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

    def folder(self, symbol: str) -> Path:
        """Give the folder of a symbol's files: it is written to whenever one of them is replaced."""
        return self._folder / symbol

    def path(self, symbol: str, month: str) -> Path:
        """Give the file of one partition."""
        return self._folder / symbol / f"{month}.parquet"

    def partition(self, symbol: str, month: str) -> Partition | None:
        """Open one partition, if it is there."""
        return Partition.open(self.path(symbol, month))

    def revisions(self, symbol: str, month: str, timeframe: Timeframe) -> pl.DataFrame:
        """Give every revision of one partition and timeframe (`BAR_SCHEMA`)."""
        partition = self.partition(symbol, month)
        return partition.read(timeframe).cast(BAR_SCHEMA) if partition else empty_bars()

    # -- writing ------------------------------------------------------------------------------------------------------

    def merge(self, symbol: str, month: str, batches: Sequence[Batch]) -> MergeReport:
        """Merge `batches` of this symbol and month into the partition (see the module's steps)."""
        with locked(self._locks / f"bars-{symbol}-{month}.lock"):
            partition = self.partition(symbol, month)
            notes = partition.header.notes if partition else {}
            done: list[str] = list(notes.get("batches", []))
            if partition and all(batch.is_among(done) for batch in batches):
                return MergeReport(
                    unchanged=sum({batch.key: len(batch.rows) for batch in batches}.values()),
                    disagreements=notes["disagreements"],
                    data_version=partition.header.data_version,
                )
            bars = Month(partition)
            counts: Counter[str] = Counter()
            quarantined: Counter[str] = Counter()
            just_now: set[str] = set()
            for batch in batches:
                if batch.key in just_now:  # delivered by two at once
                    continue
                just_now.add(batch.key)
                if batch.is_among(done):
                    counts["unchanged"] += len(batch.rows)
                    continue
                kept, broken = sift(batch.rows, batch.timeframe, batch.staged_at)
                quarantined.update(broken["rule"].to_list())
                self._set_aside(batch, broken)
                merged = bars.take(batch.timeframe, _as_bars(batch, kept))
                counts.update(taken=merged.taken, unchanged=merged.unchanged, corrected=merged.corrected)
                done.append(batch.key)
            rows_changed = bool(counts["taken"] or counts["corrected"])
            disagreements = notes.get("disagreements", 0) + bars.derive()
            version = partition.header.data_version if partition else ""
            if rows_changed or partition:
                done = _without_passed(done, just_now)
                notes = {"symbol": symbol, "month": month, "batches": done, "disagreements": disagreements}
                before = Before(partition.header, bars.changed()) if partition else None
                path = self.path(symbol, month)
                version = write_partition(path, bars.tables(), notes, hashed_by_day=_HASHED, before=before).data_version
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

    def has_merged(self, batch: Batch) -> bool:
        """Tell whether this very delivery was merged into its partition before."""
        partition = self.partition(batch.symbol, batch.month)
        return partition is not None and batch.is_among(partition.header.notes["batches"])

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

        Holes inside the symbol's history come as `gap` rows. `as_of` gives what was known at that instant. What is not
        stored of `timeframe` is built from stored timeframes that divide it. Empty if there is nothing.
        """
        months = self.months(symbol)
        extent = self._extent(symbol, months, timeframe, as_of)
        if extent is None:
            return empty_bars()
        first = extent[0] if start is None else max(timeframe.ceil(start), extent[0])
        after = extent[1] if end is None else min(timeframe.ceil(end), extent[1])
        if after <= first:
            return empty_bars()
        bars = self._stored(symbol, months, timeframe, first, after, as_of)
        for child in _layers(timeframe)[1:]:
            if len(bars) * timeframe.microseconds < after - first:
                built = resample(self._stored(symbol, months, child, first, after, as_of), timeframe)
                bars = pl.concat([bars, built.join(bars, on="open_time", how="anti")]).sort("open_time")
        return complete_grid(bars, timeframe, symbol, first, after)

    def fingerprint(self, symbol: str, timeframe: Timeframe, start: int, end: int) -> str:
        """Give a hash of the bars that open on the days which `[start, end)` (microseconds) touches, from the headers.

        It changes when any of those bars does: by a correction, or because there are more of them. Empty if there are
        none.
        """
        first, last = f"{from_us(start):%Y-%m-%d}", f"{from_us(end - 1):%Y-%m-%d}"
        found: list[str] = []
        for month in self.months(symbol):
            if not first[:7] <= month <= last[:7]:
                continue
            header = self._header(symbol, month)
            for layer in _layers(timeframe):
                group = header.groups.get(layer)
                if group is not None:
                    found += [f"{day} {group.days[day]}" for day in group.days if first <= day <= last]
                    found += [] if group.days else [f"{month} {header.data_version}"]  # written before days were hashed
        return hashlib.blake2b("\0".join(found).encode(), digest_size=8).hexdigest() if found else ""

    def tail(self, symbol: str, timeframe: Timeframe, rows: int) -> pl.DataFrame:
        """Give the newest `rows` bars on a complete grid (fewer where history is shorter), ascending."""
        extent = self._extent(symbol, self.months(symbol), timeframe)
        if extent is None:
            return empty_bars()
        return self.read(symbol, timeframe, extent[1] - rows * timeframe.microseconds, extent[1])

    def _stored(
        self, symbol: str, months: Sequence[str], timeframe: Timeframe, start: int, end: int, as_of: datetime | None
    ) -> pl.DataFrame:
        """Give the stored bars of `timeframe` that open in `[start, end)`, newest revisions."""
        tables: list[pa.Table] = []
        first, last = month_of(start), month_of(end - 1)
        for month in months:
            if first <= month <= last and timeframe in self._header(symbol, month).groups:
                partition = self.partition(symbol, month)
                tables += [partition.table(timeframe, start=start, end=end)] if partition else []
        if not tables:
            return empty_bars()
        rows = pl.DataFrame(pa.concat_tables(tables)).cast(BAR_SCHEMA)
        opens = pl.col("open_time").dt.epoch("us")
        return newest(rows.filter((opens >= start) & (opens < end)), as_of)

    def _extent(
        self, symbol: str, months: Sequence[str], timeframe: Timeframe, as_of: datetime | None = None
    ) -> tuple[int, int] | None:
        """Give where the grid of `timeframe` begins and ends (exclusive), as far as there are whole bars for it."""
        firsts, ends = [], []
        for layer in _layers(timeframe):
            spans = (self._span(symbol, month, layer, as_of) for month in months)
            if first := next(filter(None, spans), None):
                spans = (self._span(symbol, month, layer, as_of) for month in reversed(months))
                last = next(filter(None, spans), first)
                firsts.append(timeframe.ceil(first[0]))
                ends.append(timeframe.floor(last[1] + layer.microseconds))
        return (min(firsts), max(ends)) if firsts else None

    def _span(self, symbol: str, month: str, timeframe: Timeframe, as_of: datetime | None) -> tuple[int, int] | None:
        """Give the first and last open time of one month's bars: from the file's header, or of those stored `as_of`."""
        group = self._header(symbol, month).groups.get(timeframe)
        if group is None:
            return None
        if as_of is None:
            return group.bounds[0][0], group.bounds[-1][1]
        opens = newest(self.revisions(symbol, month, timeframe), as_of)["open_time"].dt.epoch("us")
        return (opens[0], opens[-1]) if len(opens) else None

    def _header(self, symbol: str, month: str) -> Header:
        path = self.path(symbol, month)
        at = path.stat()
        signature = (at.st_ino, at.st_mtime_ns, at.st_size)
        known = self._headers.get(path)
        if known is None or known[0] != signature:
            partition = Partition.open(path)
            known = self._headers[path] = (signature, partition.header if partition else Header("", {}))
        return known[1]


def _layers(timeframe: Timeframe) -> tuple[Timeframe, ...]:
    """Give the stored timeframes that `timeframe` is read from; derived ones hold all that could be built of them."""
    return (timeframe,) if timeframe in DERIVED else (timeframe, *CHILDREN[timeframe])


def _without_passed(done: list[str], just_now: set[str]) -> list[str]:
    """Forget the older ones of the passing batches, of which a stream leaves tens of thousands in a month.

    Nobody delivers them again: they are known only until they are cleared out of the inbox.
    """
    passing = [key for key in done if key.startswith(PASSING)]
    old = set(passing[:-_PASSING_KEPT]) - just_now
    return [key for key in done if key not in old] if old else done


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
    ).cast(BAR_SCHEMA)
