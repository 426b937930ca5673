"""The asset `trades`: what sources delivered, merged as revisions; one file a day and symbol."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import dagster as dg
import polars as pl
from pydantic import Field

from mdplatform.assets.checks import SOURCE_CHECK
from mdplatform.assets.common import OWNERS, column_schema, data_version
from mdplatform.assets.day_cells import (
    DAY_CHECKS,
    DayCell,
    Told,
    check_results,
    day_cells,
    day_check_specs,
    merge_days,
    violations,
)
from mdplatform.assets.partitions import DAY_BY_SYMBOL
from mdplatform.assets.plots import sparkline
from mdplatform.errors import PlatformError
from mdplatform.lake import Lake
from mdplatform.market.time import day_range, to_us
from mdplatform.market.trades import TRADES
from mdplatform.resources import LakeResource, RedisResource, SettingsResource
from mdplatform.settings import Settings
from mdplatform.sources.table_registry import REMOTES, remote
from mdplatform.sources.trade_files import NUMBERED_FROM

_CHECKS = {
    "values": "No price or quantity is null, negative or infinite, and no price is zero.",
    "ids": "The venue's numbers follow one another without a hole.",
}
_ANSWERED = {SOURCE_CHECK: "Every source that was asked has delivered."}
_WARNED = ("ids", SOURCE_CHECK)
_DESCRIPTION = """
Trades of one symbol and day (UTC), with every revision: what takers bought and sold.

Merges what waits in the inbox (`mdplatform ingest … --as trades`), and with `fetch` asks each symbol's source first,
if it has trades. A trade that comes again with other values is a correction, and becomes a new revision.
"""


class TradesConfig(dg.Config):
    """How trades are materialized."""

    fetch: bool = Field(default=False, description="Ask each symbol's source for the days before merging.")
    source: str | None = Field(default=None, description="Source to ask for symbols whose own has no trades.")


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
    check_specs=day_check_specs("trades", _CHECKS | _ANSWERED, _WARNED),
    pool="lake",
)
def trades(
    context: dg.AssetExecutionContext,
    config: TradesConfig,
    settings: SettingsResource,
    lake: LakeResource,
    redis: RedisResource,
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Materialize the partitions of the run, a symbol at a time."""
    unanswered = _fetch_all(context, config, settings.settings, lake.lake) if config.fetch else {}
    versions, every = merge_days(context, lake.lake.table("trades"), redis, _of_rows)
    yield dg.MaterializeResult(data_version=data_version(versions))
    yield from check_trades(lake.lake, every)
    yield dg.AssetCheckResult(
        check_name=SOURCE_CHECK,
        passed=not unanswered,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"partitions_unanswered": unanswered},
    )


def _fetch_all(
    context: dg.AssetExecutionContext, config: TradesConfig, settings: Settings, lake: Lake
) -> dict[str, str]:
    """Ask the sources for the run's days; give why those that did not deliver did not. Raises if none did."""
    unanswered: dict[str, str] = {}
    every = [cell for of_symbol in day_cells(context.partition_keys).values() for cell in of_symbol]
    for cell in every:
        problem = fetch(lake, settings, cell, datetime.now(UTC), config.source)
        if problem is not None:
            unanswered[cell.stored] = str(problem)
            context.log.warning(f"{cell.stored} was not fetched. {problem}")
            if len(unanswered) == len(every):
                raise problem
    return unanswered


def fetch(
    lake: Lake, settings: Settings, cell: DayCell, now: datetime, otherwise: str | None = None
) -> PlatformError | None:
    """Ask the source of the cell's symbol for the day, or `otherwise` where it has no trades, and stage them.

    Gives the error of a source that did not deliver, so that the other days of the run can go on.
    """
    member = lake.universe.members().get(cell.symbol)
    name = source_of_trades([member.source if member is not None else None, otherwise])
    start, end = day_range(cell.day)
    if name is None or start >= to_us(now):
        return None
    store = lake.table("trades")
    try:
        for delivery in remote("trades", name, settings).deliveries(cell.symbol, start, end):
            store.deliver(delivery.rows, delivery.source, now, delivery.form)
            store.set_aside(delivery.set_aside, delivery.source, now)
    except PlatformError as problem:
        return problem
    return None


def source_of_trades(names: Iterable[str | None]) -> str | None:
    """Give the first of these sources that has trades, None if none does.

    >>> source_of_trades([None, "simulated", "binance"])
    'binance'
    """
    return next((name for name in names if name in REMOTES["trades"]), None)


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
