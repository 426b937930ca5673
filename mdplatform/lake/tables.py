"""Tables of the lake beside bars (trades, depth, sentiment, macro): what a source delivered waits, and is then merged.

1. `stage` splits a delivery by partition and writes each part, whole, under the hash of its content: a file of its
   own, even where the same waits already. That one may be taken back by whoever delivered it.
2. `merge`, which the dataset's asset calls, adds what waits to the partition: a row that is new is taken, one that is
   there with the same values is unchanged, one with other values is a correction and gets the next revision.
3. `read` gives the newest revision of each row, or those that were known at `as_of`.

A run that dies between the two leaves what waits as it was.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import polars as pl

from mdplatform.errors import InvalidTable
from mdplatform.lake.lock import locked
from mdplatform.lake.partition import Partition, content_hash, write_partition
from mdplatform.market.dataset import KEPT_BY_STORE, Dataset
from mdplatform.market.macro import LATEST, VINTAGES
from mdplatform.market.time import month_range, to_us

_TWICE = (
    "would be counted twice with {form} ones",
    "Take them into another home, or give them a symbol of their own with --symbol",
)
_UNMIXED = {
    LATEST: (
        "{form} would undo what was revised when",
        "Say --observed DAY (without --lag-days): the file is then a vintage of that day; or take the series from FRED",
    ),
    VINTAGES: (
        "would count as a newer vintage beside {form}",
        "Take them into another home; or, to begin the series anew, delete {path}",
    ),
}
"""Of the form that is refused: why, and what to do; of all others `_TWICE`."""
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


@dataclass(frozen=True)
class Merged:
    """What a merge did, in delivered rows; `changed` tells whether there is a new `data_version`."""

    taken: int = 0
    unchanged: int = 0
    corrected: int = 0
    changed: bool = False
    data_version: str = ""


@dataclass(frozen=True)
class Staged:
    """A part of a delivery: its partition, its rows, and the file where it waits; none if it was merged before."""

    key: str
    rows: int
    path: Path | None = None

    @property
    def waits(self) -> bool:
        """Tell whether there is something to merge."""
        return self.path is not None


class TableStore:
    """The partitions of one dataset under `folder`, what waits for them under `inbox`, what broke a rule aside."""

    def __init__(self, dataset: Dataset, folder: Path, inbox: Path, locks: Path, quarantine: Path) -> None:
        self.dataset = dataset
        self._folder = folder
        self._inbox = inbox
        self._quarantine = quarantine
        self._locks = locks

    def path(self, key: str) -> Path:
        """Give the file of one partition. Raises `InvalidTable` for what cannot be a key."""
        if not _KEY.fullmatch(key):
            raise InvalidTable(f"Not a key of {self.dataset.name}", value=key)
        return self._folder / f"{key}.parquet"

    def partition(self, key: str) -> Partition | None:
        """Open one partition, if it is there."""
        return Partition.open(self.path(key))

    def keys(self, prefix: str = "") -> list[str]:
        """Give the keys of the partitions that are there, ascending; those under `prefix` such as `BTCUSDT/`."""
        found = (each.relative_to(self._folder).with_suffix("") for each in (self._folder / prefix).rglob("*.parquet"))
        return sorted(each.as_posix() for each in found)

    def stage(self, rows: pl.DataFrame, source: str, staged_at: datetime) -> list[str]:
        """Let a delivery (`dataset.delivered`) wait; give the keys of its partitions. Raises `InvalidTable`."""
        return [staged.key for staged in self.deliver(rows, source, staged_at)]

    def deliver(self, rows: pl.DataFrame, source: str, staged_at: datetime, form: str = "") -> list[Staged]:
        """Let a delivery wait, a part for each partition; what was merged before is told and not staged again.

        A partition has rows of one `form` (or of none that is stated). Raises `InvalidTable`, before anything is
        written.
        """
        if rows.schema != self.dataset.delivered:
            raise InvalidTable(f"Not a table of {self.dataset.name}", value=dict(rows.schema))
        if rows.select(pl.any_horizontal(pl.col(self.dataset.time, "available_at").is_null()).any()).item():
            raise InvalidTable(f"A row of {self.dataset.name} without a time", value=source)
        if not rows[self.dataset.time].is_sorted():
            rows = rows.sort(self.dataset.time, maintain_order=True)
        parts = self.dataset.split(rows)
        for key in parts:
            self._check_form(key, form, source)
        notes = {"source": source, "form": form}
        staged: list[Staged] = []
        try:
            for key, part in parts.items():
                staged.append(self._deliver(key, part, notes, staged_at))
        except BaseException:
            for each in staged:
                self.take_back(each)
            raise
        return staged

    def _check_form(self, key: str, form: str, source: str) -> None:
        there = self.partition(key)
        waiting = (Partition.open(path) for path in (self._inbox / key).glob("*.parquet")) if form else ()
        for held in (there, *waiting) if form else ():
            before = str(held.header.notes.get("form", "")) if held else ""
            if before and before != form:
                why, remedy = _UNMIXED.get(form, _TWICE)
                raise InvalidTable(
                    f"{self.dataset.name} of {key} are {before}, and {why.format(form=form)}",
                    value=source,
                    remedy=remedy.format(path=self.path(key)),
                )

    def _deliver(self, key: str, part: pl.DataFrame, notes: Mapping[str, str], staged_at: datetime) -> Staged:
        content = content_hash({"": part})
        there = self.partition(key)
        folder = self._inbox / key
        if there is not None and content in there.header.notes.get("merged", []):
            for left_behind in folder.glob(f"*-{content}*.parquet"):  # by a merge that was killed
                left_behind.unlink(missing_ok=True)
            return Staged(key, part.height)
        path = folder / f"{to_us(staged_at):020d}-{content}-{secrets.token_hex(4)}.parquet"
        write_partition(path, {"rows": part}, notes, self.dataset.time)
        return Staged(key, part.height, path)

    def set_aside(self, rows: pl.DataFrame, source: str, set_aside_at: datetime) -> None:
        """Put rows that broke a rule (columns `rule`, `row`) into the quarantine; the same ones again are there once.

        They are not taken back: it is for the caller to do this last, when nothing can be refused any more.
        """
        if rows.is_empty():
            return
        raw = rows.select(
            pl.lit(self.dataset.name).alias("dataset"), pl.lit(source).alias("source"), pl.col("rule", "row")
        )
        path = self._quarantine / f"{content_hash({'': raw})}.parquet"
        if not path.exists():
            at = pl.lit(set_aside_at).cast(self.dataset.schema["ingested_at"]).alias("set_aside_at")
            write_partition(path, {"rows": raw.with_columns(at)}, time_column="set_aside_at")

    def waiting(self) -> list[str]:
        """Give the keys for which something waits, ascending."""
        return sorted({each.parent.relative_to(self._inbox).as_posix() for each in self._inbox.rglob("*.parquet")})

    def take_back(self, staged: Staged) -> None:
        """Forget what one call of `deliver` staged; what another one did stays, even if it is the same."""
        if staged.path is not None:
            staged.path.unlink(missing_ok=True)

    def merge(self, key: str) -> Merged:
        """Merge what waits for one partition, oldest delivery first, and clear it away once it is in the lake."""
        with locked(self._locks / f"{self.dataset.name}-{key.replace('/', '-')}.lock"):
            staged = sorted((self._inbox / key).glob("*.parquet"))
            there = self.partition(key)
            version = there.header.data_version if there else ""
            done: list[str] = list(there.header.notes.get("merged", [])) if there else []
            if not staged:
                return Merged(data_version=version)
            before = there.read("rows").cast(self.dataset.schema) if there else pl.DataFrame(schema=self.dataset.schema)
            form = str(there.header.notes.get("form", "")) if there else ""
            held, taken, unchanged, corrected = before, 0, 0, 0
            just_now: set[str] = set()
            for path in staged:
                partition = Partition.open(path)
                content = path.stem.split("-")[1]
                if partition is None or content in just_now:  # taken back meanwhile, or delivered by two at once
                    continue
                rows, form_of_rows = self._read_staged(path, partition)
                form = form or form_of_rows
                just_now.add(content)
                if content in done:
                    unchanged += rows.height
                    continue
                added = self._added(held, rows)
                fresh = int((added["revision"] == 0).sum())
                taken, corrected = taken + fresh, corrected + added.height - fresh
                unchanged += rows.height - added.height
                held = pl.concat([held, added]) if held.height else added
                done.append(content)
            ordered = held
            if held.height > before.height and not self._is_ordered(held):
                ordered = held.sort(self.dataset.time, *self.dataset.unique, "revision")
            if not just_now:
                return Merged(data_version=version)
            if there is None or done != there.header.notes.get("merged"):
                notes = {"key": key, "form": form, "merged": done}
                version = write_partition(self.path(key), {"rows": ordered}, notes, self.dataset.time).data_version
            for path in staged:
                path.unlink(missing_ok=True)
            return Merged(taken, unchanged, corrected, held.height > before.height, version)

    def _read_staged(self, path: Path, partition: Partition) -> tuple[pl.DataFrame, str]:
        staged_us = int(path.name.split("-")[0])
        rows = (
            partition.read("rows")
            .with_columns(
                pl.lit(str(partition.header.notes["source"])).alias("source"),
                pl.lit(0, dtype=pl.Int32).alias("revision"),
                pl.lit(staged_us).cast(self.dataset.schema["ingested_at"]).alias("ingested_at"),
            )
            .select(list(self.dataset.schema))
        )
        if not self._is_ordered(rows):
            rows = rows.unique(self.dataset.unique, keep="last", maintain_order=True)
        return rows, str(partition.header.notes.get("form", ""))

    def _is_ordered(self, rows: pl.DataFrame) -> bool:
        """Tell at a glance whether rows ascend by time and by one number that identifies them, each once."""
        identity = rows[self.dataset.unique[0]]
        if len(self.dataset.unique) > 1 or not identity.dtype.is_integer() or not rows[self.dataset.time].is_sorted():
            return False
        return bool((identity.diff() > 0).all())

    def _added(self, held: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        """Give those of `rows` that are new or differ from the newest revision held."""
        if held.is_empty():
            return rows
        own = [name for name in self.dataset.schema if name not in self.dataset.unique and name not in KEPT_BY_STORE]
        newest = held
        if held["revision"].max():
            newest = held.sort("revision").unique(self.dataset.unique, keep="last")
        known = newest.select(
            *self.dataset.unique, pl.col(own).name.suffix(" held"), pl.col("revision").alias("__held")
        )
        joined = rows.join(known, on=self.dataset.unique, how="left", nulls_equal=True, maintain_order="left")
        same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"{name} held")) for name in own)
        is_new = pl.col("__held").is_null()
        return (
            joined.filter(is_new | ~same)
            .with_columns((pl.col("__held") + 1).fill_null(0).cast(pl.Int32).alias("revision"))
            .select(list(self.dataset.schema))
        )

    def fingerprint(self, key: str, until: int) -> str:
        """Give a hash of the rows of a partition that are available in the months before `until` (microseconds).

        It changes when any of those does, and not by what becomes available later. Empty if there are none.
        """
        path = self.path(key)
        try:
            at = path.stat()
        except FileNotFoundError:
            return ""
        months = _hashed_months(path, (at.st_ino, at.st_mtime_ns, at.st_size))
        told = " ".join(hashed for month, hashed in months.items() if month_range(month)[0] < until)
        return hashlib.blake2b(told.encode(), digest_size=8).hexdigest() if told else ""

    def read(
        self, keys: Iterable[str], start: int | None = None, end: int | None = None, as_of: datetime | None = None
    ) -> pl.DataFrame:
        """Give the rows of these partitions (those that are there) with `start <= time < end` (microseconds).

        One row for each identity: its newest revision, or with `as_of` the newest one known then, if it was available
        then. Ascending by time.
        """
        opened = (self.partition(key) for key in keys)
        parts = [each.read("rows", None, start, end).cast(self.dataset.schema) for each in opened if each]
        rows = pl.concat(parts) if parts else pl.DataFrame(schema=self.dataset.schema)
        at = pl.col(self.dataset.time).dt.epoch("us")
        if start is not None:
            rows = rows.filter(at >= start)
        if end is not None:
            rows = rows.filter(at < end)
        if as_of is not None:
            known = (pl.col("available_at") <= as_of) & ((pl.col("revision") == 0) | (pl.col("ingested_at") <= as_of))
            rows = rows.filter(known)
        if rows["revision"].max():
            identity = (*self.dataset.by, *self.dataset.unique)
            rows = rows.sort("revision").unique(identity, keep="last").sort(self.dataset.time, *self.dataset.unique)
        return rows


@lru_cache(maxsize=4096)
def _hashed_months(path: Path, signature: tuple[int, int, int]) -> dict[str, str]:
    """Hash the rows of a file by the month in which they are available; `signature` tells one version of the file."""
    partition = Partition.open(path)
    rows = partition.read("rows") if partition else pl.DataFrame()
    if rows.is_empty():
        return {}
    parts = rows.with_columns(pl.col("available_at").dt.strftime("%Y-%m").alias("__month")).partition_by(
        "__month", as_dict=True, include_key=False, maintain_order=True
    )
    return {str(month[0]): content_hash({"rows": part}) for month, part in sorted(parts.items())}
