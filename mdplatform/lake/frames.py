"""What assets compute from bars: one file a partition, the rows of each timeframe in a group of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from mdplatform.lake.partition import Header, Partition, write_partition
from mdplatform.market.time import months_between
from mdplatform.market.timeframe import Timeframe


class FrameStore:
    """The partitions of one asset under `folder`; a partition's key is a path: `BTCUSDT/2025-01` or `2025-01`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, key: str) -> Path:
        """Give the file of one partition."""
        return self._folder / f"{key}.parquet"

    def write(self, key: str, frames: Mapping[Timeframe, pl.DataFrame], notes: Mapping[str, Any]) -> Header:
        """Write one partition, a frame (ascending `open_time`) for each timeframe."""
        return write_partition(self.path(key), {each.value: frame for each, frame in frames.items()}, notes)

    def partition(self, key: str) -> Partition | None:
        """Open one partition, if it is there."""
        return Partition.open(self.path(key))

    def all_keys(self) -> list[str]:
        """Give the keys of the partitions that are there, ascending."""
        found = (each.relative_to(self._folder).with_suffix("") for each in self._folder.rglob("*.parquet"))
        return sorted(each.as_posix() for each in found)

    def note(self, key: str, name: str) -> Any:
        """Give one note of a partition's file, None where there is no such file or note."""
        partition = self.partition(key)
        return None if partition is None else partition.header.notes.get(name)

    def read(
        self, prefix: str, timeframe: Timeframe, start: int, end: int, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Give the rows with `start <= open_time < end` (microseconds) of the months that are there, ascending.

        `prefix` is what stands before the month in the key, such as `BTCUSDT/`.
        """
        opened = (self.partition(f"{prefix}{month}") for month in months_between(start, end))
        parts = [each.read(timeframe, columns, start, end) for each in opened if each]
        opens = pl.col("open_time").dt.epoch("us")
        return pl.concat(parts, how="diagonal").filter((opens >= start) & (opens < end)) if parts else pl.DataFrame()
