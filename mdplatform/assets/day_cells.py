"""Merging tables beside bars: what the assets of trades and of depth do alike for the days of their run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

import dagster as dg
import polars as pl

from mdplatform.assets.common import REDIS_PROBLEM
from mdplatform.errors import PlatformError
from mdplatform.lake.tables import Merged, TableStore
from mdplatform.market.dataset import Dataset
from mdplatform.market.time import day_range, from_us
from mdplatform.resources import RedisResource


@dataclass(frozen=True)
class DayCell:
    """One partition of an asset by day × symbol."""

    day: str
    symbol: str

    @property
    def key(self) -> dg.MultiPartitionKey:
        """Give the partition's key for Dagster."""
        return dg.MultiPartitionKey({"day": self.day, "symbol": self.symbol})

    @property
    def stored(self) -> str:
        """Give the partition's key in the lake."""
        return f"{self.symbol}/{self.day}"


def day_cells(keys: Iterable[str]) -> dict[str, list[DayCell]]:
    """Give the partitions of a run by symbol, each symbol's days oldest first."""
    of_run = sorted((_cell(key) for key in keys), key=lambda cell: (cell.symbol, cell.day))
    return {symbol: list(of_symbol) for symbol, of_symbol in groupby(of_run, key=lambda cell: cell.symbol)}


def _cell(key: str) -> DayCell:
    assert isinstance(key, dg.MultiPartitionKey)
    return DayCell(day=key.keys_by_dimension["day"], symbol=key.keys_by_dimension["symbol"])


Told = dict[str, dg.MetadataValue | int | float | str]
"""Metadata of a partition."""


def merged_metadata(merged: Merged, rows: pl.DataFrame, time: str) -> Told:
    """Tell what a merge did, and from when to when the rows reach."""
    told: Told = {
        "dagster/row_count": rows.height,
        "taken": merged.taken,
        "unchanged": merged.unchanged,
        "corrected": merged.corrected,
    }
    if rows.height:
        first, last = (from_us(int(at)) for at in rows[time].dt.epoch("us").sort()[[0, -1]])
        told["range"] = dg.MetadataValue.text(f"{first:%Y-%m-%d %H:%M:%S.%f} … {last:%Y-%m-%d %H:%M:%S.%f} UTC")
    return told


def merge_days(
    context: dg.AssetExecutionContext,
    store: TableStore,
    redis: RedisResource,
    told_of: Callable[[DayCell, pl.DataFrame], Told],
) -> tuple[list[str], list[DayCell]]:
    """Merge what waits for the days of a run, a symbol at a time; give the data versions, and the partitions.

    Readers are told of each symbol whose rows have changed. `told_of` gives what is to be said of a partition's rows.
    """
    versions: list[str] = []
    by_symbol = day_cells(context.partition_keys)
    for symbol, of_symbol in by_symbol.items():
        told, changed = dict[DayCell, Told](), False
        for cell in of_symbol:
            merged = store.merge(cell.stored)
            versions.append(merged.data_version)
            changed |= merged.changed
            rows = store.read([cell.stored])
            told[cell] = merged_metadata(merged, rows, "time") | told_of(cell, rows)
            context.log.info(f"{cell.stored}: {merged}")
        problem = redis.announce(store.dataset.name, symbol, context.log, context.run.run_id) if changed else None
        for cell, metadata in told.items():
            context.add_asset_metadata(metadata | ({REDIS_PROBLEM: problem} if problem else {}), partition_key=cell.key)
    return versions, [cell for of_symbol in by_symbol.values() for cell in of_symbol]


DAY_CHECKS = {
    "schema": "The file has the columns of the dataset, with their types, and can be read.",
    "order": "Rows ascend by time, lie inside their day, and none could be known before it happened.",
    "duplicates": "Each row has each revision once, counted from 0 without a hole.",
}


def day_check_specs(asset: str, more: dict[str, str], warned: Iterable[str] = ()) -> list[dg.AssetCheckSpec]:
    """Declare the checks of a table by days; all but `warned` stop what lies downstream."""
    return [
        dg.AssetCheckSpec(name, asset=asset, description=said, blocking=name not in set(warned))
        for name, said in (DAY_CHECKS | more).items()
    ]


def violations(store: TableStore, cell: DayCell) -> tuple[dict[str, int], pl.DataFrame]:
    """Read a partition back; give how many rows break each of `DAY_CHECKS`, and its rows (none where it is broken)."""
    dataset = store.dataset
    empty = pl.DataFrame(schema=dataset.schema)
    try:
        partition = store.partition(cell.stored)
        rows = partition.read("rows") if partition else empty
    except PlatformError:
        return {"schema": 1}, empty
    if rows.schema != dataset.schema:
        return {"schema": 1}, empty
    return _broken(dataset, rows, cell), rows


def _broken(dataset: Dataset, rows: pl.DataFrame, cell: DayCell) -> dict[str, int]:
    start, end = (from_us(instant) for instant in day_range(cell.day))
    time = pl.col(dataset.time)
    early = pl.col("available_at") < time
    disordered = (time < time.shift()) | ~time.is_between(start, end, closed="left") | early
    counts = {"order": int(rows.select(disordered.fill_null(False).sum()).item()), "duplicates": 0}
    distinct = rows.select(dataset.unique).unique().height if rows["revision"].max() == 0 else 0
    if distinct < rows.height:
        expected = pl.col("revision").rank("ordinal").over(dataset.unique) - 1
        counts["duplicates"] = int(rows.select((pl.col("revision") != expected).sum()).item())
    return counts


def check_results(
    names: Iterable[str], found: dict[str, dict[str, int]], warned: Iterable[str] = ()
) -> list[dg.AssetCheckResult]:
    """Give one result a check, with how many rows of which partition broke it."""
    mild = set(warned)
    return [
        dg.AssetCheckResult(
            check_name=name,
            passed=not found.get(name),
            severity=dg.AssetCheckSeverity.WARN if name in mild else dg.AssetCheckSeverity.ERROR,
            metadata={"rows_broken": sum(found.get(name, {}).values()), "partitions_broken": found.get(name, {})},
        )
        for name in names
    ]
