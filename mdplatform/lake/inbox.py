"""The inbox: what a source delivered and no partition has merged yet.

A delivery is staged whole, a file for each month it touches, under the hash of its content; the run that materializes
the month merges it and clears it away. A run that dies leaves the inbox as it was, and the next one merges it.
Deliveries wait in the order they were staged, those of one instant too: a later poll corrects an earlier one. Each has
files of its own, even where the same waits already: that one may be taken back by whoever delivered it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import polars as pl

from mdplatform.errors import InvalidBars
from mdplatform.lake.partition import Partition, write_partition
from mdplatform.market.bars import RAW_SCHEMA
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import Timeframe

PASSING = "live-"
"""How the key begins of a batch that comes once and never again, as a stream's do."""


@dataclass(frozen=True)
class Batch:
    """Rows (`RAW_SCHEMA`, as delivered) of one symbol, timeframe and month; `key` is the hash of the whole delivery."""

    symbol: str
    timeframe: Timeframe
    month: str
    source: str
    key: str
    staged_at: datetime
    rows: pl.DataFrame
    path: Path | None = None


class Inbox:
    """The staged batches under one folder.

    Their names say in which order they are merged: `<symbol>/<month>/<staged at>-<last open time>-<number>-…`. Of
    deliveries staged at one instant, those that reach further were fetched later: where polls overlap, the half bar at
    the end of one is so corrected by the final bar of the next, in whatever order they are given.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stage(
        self, symbol: str, timeframe: Timeframe, source: str, key: str, rows: pl.DataFrame, staged_at: datetime
    ) -> list[Batch]:
        """Stage one delivery; give its batches, a month each, oldest first.

        Raises `InvalidBars` for `rows` that are not raw bars, or have no open time at all.
        """
        if rows.schema != RAW_SCHEMA:
            raise InvalidBars("Not a table of raw bars", value=dict(rows.schema))
        parts = _by_month(rows)
        last = rows["open_time"].max()
        assert isinstance(last, datetime)  # or there would be no month
        return [
            self._stage(Batch(symbol, timeframe, month, source, key, staged_at, part), to_us(last))
            for month, part in parts.items()
        ]

    def _stage(self, batch: Batch, last: int) -> Batch:
        folder = self._folder / batch.symbol / batch.month
        number = 1 + max((int(path.name.split("-")[2]) for path in folder.glob("*.parquet")), default=0)
        place = f"{to_us(batch.staged_at):020d}-{last:020d}-{number:06d}"
        path = folder / f"{place}-{batch.timeframe}-{batch.key}.{secrets.token_hex(4)}.parquet"
        write_partition(path, {batch.timeframe: batch.rows}, {"source": batch.source})
        return replace(batch, path=path)

    def symbols(self) -> list[str]:
        """Give the symbols for which something waits; tables beside bars wait in folders that begin with `_`."""
        folders = self._folder.iterdir() if self._folder.is_dir() else ()
        return sorted(each.name for each in folders if not each.name.startswith("_") and self.months(each.name))

    def months(self, symbol: str) -> list[str]:
        """Give the months of `symbol` for which something waits."""
        folder = self._folder / symbol
        return sorted(each.name for each in folder.iterdir() if any(each.glob("*.parquet"))) if folder.is_dir() else []

    def pending(self, symbol: str, month: str) -> list[Batch]:
        """Give what waits for one partition, in the order it was staged."""
        folder = self._folder / symbol / month
        found = [(path, Partition.open(path)) for path in sorted(folder.glob("*.parquet"))]
        # what is not there any more was taken back meanwhile
        return [self._read(path, opened, symbol, month) for path, opened in found if opened is not None]

    def clear(self, batch: Batch) -> None:
        """Forget a batch that has been merged, or is taken back; what another call staged stays, even the same."""
        if batch.path is not None:
            batch.path.unlink(missing_ok=True)

    def clear_merged(self, batch: Batch) -> None:
        """Forget all that waits of a delivery whose part for this month is in the lake already."""
        folder = self._folder / batch.symbol / batch.month
        for path in folder.glob(f"*-{batch.timeframe}-{batch.key}*.parquet"):
            path.unlink(missing_ok=True)

    def _read(self, path: Path, partition: Partition, symbol: str, month: str) -> Batch:
        staged_us, _, _, timeframe, key = path.stem.split("-", 4)
        return Batch(
            symbol=symbol,
            timeframe=Timeframe.parse(timeframe),
            month=month,
            source=str(partition.header.notes["source"]),
            key=key.partition(".")[0],
            staged_at=from_us(int(staged_us)),
            rows=partition.read(timeframe).cast(RAW_SCHEMA),
            path=path,
        )


def _by_month(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    months = rows.select(pl.col("open_time").dt.strftime("%Y-%m").alias("month"))["month"]
    first = months.min()
    if first is None:
        raise InvalidBars("A delivery without a single open time", remedy="Nothing of it was stored")
    # a row without a time is filed with the first month, where the rules will set it aside
    labelled = rows.with_columns(months.fill_null(str(first)))
    parts = labelled.partition_by("month", as_dict=True, include_key=False, maintain_order=True)
    return {str(key[0]): part for key, part in sorted(parts.items())}
