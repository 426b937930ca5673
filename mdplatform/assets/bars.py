"""The asset `bars`: what sources delivered, sifted, merged as revisions and resampled; one file a month and symbol."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl
from pydantic import Field

from mdplatform.assets.checks import SOURCE_CHECK, bar_check_specs, check_bars
from mdplatform.assets.common import OWNERS, SOURCE_PROBLEM, column_schema, data_version
from mdplatform.assets.partitions import MONTH_BY_SYMBOL, Cell, cells
from mdplatform.assets.plots import counts_table, sparkline
from mdplatform.errors import PlatformError, SourceError, UnknownSource
from mdplatform.lake import Lake
from mdplatform.lake.bars import MergeReport
from mdplatform.market.bars import BAR_SCHEMA, COLUMN_MEANINGS
from mdplatform.market.revisions import newest
from mdplatform.market.time import month_range, to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.resources import LakeResource, RedisResource, SettingsResource
from mdplatform.settings import Settings
from mdplatform.sources.registry import source

_DESCRIPTION = """
Closed bars (klines) of one symbol and month in every timeframe, with every revision.

Merges what waits in the inbox (`mdplatform ingest`), and with `fetch` asks the symbol's source first. Rows that break
a rule are quarantined under its name; corrections become new revisions; longer bars are built from complete children.
"""


class BarsConfig(dg.Config):
    """How bars are materialized."""

    fetch: bool = Field(default=False, description="Ask each symbol's source for the months before merging.")
    source: str | None = Field(default=None, description="Source to ask for symbols that have none of their own.")
    source_for: list[str] | None = Field(
        default=None,
        description="Symbols of which it is asked, None for all: others may have come into the range since.",
    )


@dg.asset(
    partitions_def=MONTH_BY_SYMBOL,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="market",
    kinds={"parquet", "polars"},
    owners=OWNERS,
    tags={"domain": "bars"},
    code_version="1",
    description=_DESCRIPTION,
    metadata={"dagster/column_schema": column_schema(BAR_SCHEMA, COLUMN_MEANINGS)},
    check_specs=bar_check_specs("bars"),
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(days=7), warn_window=timedelta(days=2)),
    pool="lake",
)
def bars(
    context: dg.AssetExecutionContext,
    config: BarsConfig,
    settings: SettingsResource,
    lake: LakeResource,
    redis: RedisResource,
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Materialize the partitions of the run, a symbol at a time."""
    versions: list[str] = []
    unanswered: dict[str, str] = {}
    by_symbol = cells(context.partition_keys)
    every = [cell for of_symbol in by_symbol.values() for cell in of_symbol]
    for symbol, of_symbol in by_symbol.items():
        otherwise = config.source if config.source_for is None or symbol in config.source_for else None
        for cell in of_symbol:
            now = datetime.now(UTC)
            problem = fetch(lake.lake, settings.settings, cell, now, otherwise) if config.fetch else None
            if problem is not None:
                unanswered[cell.key] = str(problem)
                if len(unanswered) == len(every):
                    raise problem
            report = merge_inbox(lake.lake, cell)
            versions.append(report.data_version)
            metadata = _metadata(lake.lake, cell, report) | ({SOURCE_PROBLEM: str(problem)} if problem else {})
            context.add_asset_metadata(metadata, partition_key=cell.key)
            context.log.info(f"{symbol} {cell.month}: {report}")
        redis.announce_bars(symbol, context.log, context.run.run_id)
    yield dg.MaterializeResult(data_version=data_version(versions))
    yield from check_bars(lake.lake, every, datetime.now(UTC))
    yield dg.AssetCheckResult(
        check_name=SOURCE_CHECK,
        passed=not unanswered,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"partitions_unanswered": unanswered},
    )


def fetch(
    lake: Lake, settings: Settings, cell: Cell, now: datetime, otherwise: str | None = None
) -> PlatformError | None:
    """Ask the source of the cell's symbol for the month, up to `now`, and stage what it delivers.

    A symbol that has no source is asked of `otherwise`, which is its source from then on if it delivers. Gives the
    error of a source that did not deliver, so that the other symbols of the run can go on.
    """
    member = lake.universe.members().get(cell.symbol)
    name = member.source if member is not None and member.source is not None else otherwise
    start, end = month_range(cell.month)
    if name is None or start >= to_us(now):
        return None
    timeframe = member.timeframe if member is not None else Timeframe.M1
    try:
        for delivery in source(name, settings).bars(cell.symbol, timeframe, start, min(end, to_us(now))):
            lake.inbox.stage(
                delivery.symbol, delivery.timeframe, delivery.source, delivery.content_hash, delivery.rows, now
            )
            if member is None or member.source is None:
                lake.universe.add(cell.symbol, name, timeframe)
    except (SourceError, UnknownSource) as problem:
        return problem
    return None


def merge_inbox(lake: Lake, cell: Cell) -> MergeReport:
    """Merge what waits for `cell`, and clear it away once it is in the lake."""
    waiting = lake.inbox.pending(cell.symbol, cell.month)
    report = lake.bars.merge(cell.symbol, cell.month, waiting)
    for batch in waiting:
        lake.inbox.clear(batch)
    return report


def _metadata(lake: Lake, cell: Cell, report: MergeReport) -> dict[str, dg.MetadataValue | int]:
    partition = lake.bars.partition(cell.symbol, cell.month)
    rows: Counter[str] = Counter()
    shown: dict[str, dg.MetadataValue | int] = {}
    if partition is not None:
        frames = {Timeframe.parse(name): newest(partition.read(name)) for name in partition.header.groups}
        rows.update({timeframe.value: len(frame) for timeframe, frame in frames.items()})
        shown = _pictures(cell, frames)
    return {
        "dagster/row_count": sum(rows.values()),
        "rows_by_timeframe": dg.MetadataValue.md(counts_table("timeframe", rows)),
        "taken": report.taken,
        "unchanged": report.unchanged,
        "corrected": report.corrected,
        "quarantined": report.quarantined.total(),
        "quarantined_by_rule": dg.MetadataValue.json(dict(report.quarantined)),
        "disagreements": report.disagreements,
        **shown,
    }


def _pictures(cell: Cell, frames: dict[Timeframe, pl.DataFrame]) -> dict[str, dg.MetadataValue | int]:
    if not frames:
        return {}
    shortest = min(frames, key=lambda timeframe: timeframe.microseconds)
    frame = frames[shortest]
    first, last = frame["open_time"][0], frame["close_time"][-1]
    gaps = (to_us(last) - to_us(first)) // shortest.microseconds - len(frame)
    hourly = frames.get(Timeframe.H1, frame)
    return {
        "range": dg.MetadataValue.text(f"{first:%Y-%m-%d %H:%M} … {last:%Y-%m-%d %H:%M} UTC"),
        "gaps": gaps,
        "plot": dg.MetadataValue.md(sparkline(f"{cell.symbol} {cell.month} close", [("close", hourly["close"])])),
    }
