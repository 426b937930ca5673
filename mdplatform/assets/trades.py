"""The asset `trades`: what sources delivered, merged as revisions; one file a day and symbol."""

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
from mdplatform.assets.plots import sparkline
from mdplatform.lake import Lake
from mdplatform.market.time import day_range
from mdplatform.market.trades import TRADES
from mdplatform.resources import LakeResource, RedisResource
from mdplatform.sources.trade_files import NUMBERED_FROM

_CHECKS = {
    "values": "No price or quantity is null, negative or infinite, and no price is zero.",
    "ids": "The venue's numbers follow one another without a hole.",
}
_WARNED = ("ids",)
_DESCRIPTION = """
Trades of one symbol and day (UTC), with every revision: what takers bought and sold.

Merges what waits in the inbox (`mdplatform ingest … --as trades`). A trade that comes again with other values is a
correction, and becomes a new revision.
"""


@dg.asset(
    partitions_def=DAY_BY_SYMBOL,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="market",
    kinds={"parquet", "polars"},
    owners=OWNERS,
    tags={"domain": "trades"},
    code_version="1",
    description=_DESCRIPTION,
    metadata={"dagster/column_schema": column_schema(TRADES.schema, TRADES.meanings)},
    check_specs=day_check_specs("trades", _CHECKS, _WARNED),
    pool="lake",
)
def trades(
    context: dg.AssetExecutionContext, lake: LakeResource, redis: RedisResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Materialize the partitions of the run, a symbol at a time."""
    versions, every = merge_days(context, lake.lake.table("trades"), redis, _of_rows)
    yield dg.MaterializeResult(data_version=data_version(versions))
    yield from check_trades(lake.lake, every)


def check_trades(lake: Lake, cells: list[DayCell]) -> Iterator[dg.AssetCheckResult]:
    """Read the partitions back and give one result a check."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for cell in cells:
        counts, rows = violations(lake.table("trades"), cell)
        price, quantity = pl.col("price"), pl.col("quantity")
        invalid = price.is_null() | ~price.is_finite() | (price <= 0) | ~quantity.is_finite() | (quantity < 0)
        counts["values"] = int(rows.select((invalid | quantity.is_null()).sum()).item())
        counts["ids"] = holes(rows["trade_id"])
        for name, count in counts.items():
            if count:
                found[name][cell.key] = count
    yield from check_results((*DAY_CHECKS, *_CHECKS), found, _WARNED)


def holes(ids: pl.Series) -> int:
    """Give how many of a venue's numbers are missing between the first and the last; numbers that we made have none.

    >>> holes(pl.Series([7, 8, 11]))
    2
    """
    given = ids.filter(ids < NUMBERED_FROM).unique()
    if given.is_empty():
        return 0
    return int(given.max()) - int(given.min()) + 1 - len(given)  # type: ignore[arg-type]


def _of_rows(cell: DayCell, rows: pl.DataFrame) -> Told:
    if rows.is_empty():
        return {"note": dg.MetadataValue.text("There are no trades of this symbol on this day.")}
    volume = float(rows["quantity"].sum())
    bought = float(rows.filter(~pl.col("is_buyer_maker"))["quantity"].sum())
    sided = float(rows.filter(pl.col("is_buyer_maker").is_not_null())["quantity"].sum())
    start, end = day_range(cell.day)
    grid = rows.group_by_dynamic("time", every="5m").agg(pl.col("price").last())
    told: Told = {
        "volume": volume,
        "quote_volume": float((rows["quantity"] * rows["price"]).sum()),
        "hours_covered": round((_span(rows) / (end - start)) * 24, 3),
        "plot": dg.MetadataValue.md(sparkline(f"{cell.symbol} {cell.day} price", [("price", grid["price"])])),
    }
    if sided:
        told["buy_share"] = bought / sided
    return told


def _span(rows: pl.DataFrame) -> int:
    at = rows["time"].dt.epoch("us")
    return int(at.max()) - int(at.min())  # type: ignore[arg-type]
