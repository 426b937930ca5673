"""The asset `depth`: messages of order books as they were recorded, merged as revisions; one file a day and symbol."""

from collections import defaultdict
from collections.abc import Iterator

import dagster as dg
import polars as pl

from mdplatform.assets.common import OWNERS, column_schema, data_version
from mdplatform.assets.day_cells import (
    DAY_CHECKS,
    DayCell,
    Told,
    check_results,
    day_check_specs,
    merge_days,
    violations,
)
from mdplatform.assets.partitions import DAY_BY_SYMBOL
from mdplatform.lake import Lake
from mdplatform.market.depth import DEPTH
from mdplatform.resources import LakeResource, RedisResource

_CHECKS = {
    "values": "No price is null, zero, negative or infinite, and no quantity null, negative or infinite.",
    "sequence": "Each message follows the one before without a hole: U = u before + 1, or pu = u before.",
}
_WARNED = ("sequence",)
_DESCRIPTION = """
Changes of one symbol's order book on one day (UTC), and whole books (snapshots), one row a price level of a message.

Merges what waits in the inbox (`mdplatform ingest … --as recording`). Nothing is rebuilt here: a book needs a snapshot,
and messages without a hole from there on, which the update ids tell.

No asset follows from this one: features of books (`BOOK_MID`, `SPREAD` and others) are computed where they are read.
"""


@dg.asset(
    partitions_def=DAY_BY_SYMBOL,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="market",
    kinds={"parquet", "polars"},
    owners=OWNERS,
    tags={"domain": "depth"},
    code_version="1",
    description=_DESCRIPTION,
    metadata={"dagster/column_schema": column_schema(DEPTH.schema, DEPTH.meanings)},
    check_specs=day_check_specs("depth", _CHECKS, _WARNED),
    pool="lake",
)
def depth(
    context: dg.AssetExecutionContext, lake: LakeResource, redis: RedisResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Materialize the partitions of the run, a symbol at a time."""
    versions, every = merge_days(context, lake.lake.table("depth"), redis, _of_rows)
    yield dg.MaterializeResult(data_version=data_version(versions))
    yield from check_depth(lake.lake, every)


def check_depth(lake: Lake, cells: list[DayCell]) -> Iterator[dg.AssetCheckResult]:
    """Read the partitions back and give one result a check."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for cell in cells:
        counts, rows = violations(lake.table("depth"), cell)
        price, quantity = pl.col("price"), pl.col("quantity")
        invalid = price.is_null() | ~price.is_finite() | (price <= 0) | ~quantity.is_finite() | (quantity < 0)
        counts["values"] = int(rows.select((invalid | quantity.is_null()).sum()).item())
        counts["sequence"] = holes(rows)
        for name, count in counts.items():
            if count:
                found[name][cell.key] = count
    yield from check_results((*DAY_CHECKS, *_CHECKS), found, _WARNED)


def messages(rows: pl.DataFrame) -> pl.DataFrame:
    """Give the messages of changes, one row each, in the order of their update ids."""
    return (
        rows.filter(~pl.col("is_snapshot"))
        .select("first_update_id", "last_update_id", "previous_update_id")
        .unique()
        .sort("last_update_id")
    )


def holes(rows: pl.DataFrame) -> int:
    """Count the messages before which others are missing."""
    before = pl.col("last_update_id").shift()
    follows = pl.when(pl.col("previous_update_id").is_null()).then(pl.col("first_update_id") <= before + 1)
    told = follows.otherwise(pl.col("previous_update_id") == before)
    return int(messages(rows).select((~told).fill_null(False).sum()).item())


def _of_rows(_: DayCell, rows: pl.DataFrame) -> Told:
    if rows.is_empty():
        return {"note": dg.MetadataValue.text("There is no depth of this symbol on this day.")}
    return {
        "messages": messages(rows).height,
        "snapshots": rows.filter("is_snapshot")["last_update_id"].n_unique(),
        "holes_in_sequence": holes(rows),
    }
