"""The asset `macro_series`: every vintage of a macro series that sources delivered; one partition a series."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl
from pydantic import Field

from mdplatform.assets.checks import SOURCE_CHECK
from mdplatform.assets.common import OWNERS, REDIS_PROBLEM, SOURCE_PROBLEM, column_schema, data_version
from mdplatform.assets.partitions import SERIES
from mdplatform.assets.plots import Panel, over_time
from mdplatform.errors import PlatformError
from mdplatform.lake import Lake
from mdplatform.lake.tables import Merged
from mdplatform.market.macro import MACRO
from mdplatform.market.time import iso
from mdplatform.resources import LakeResource, RedisResource, SettingsResource
from mdplatform.settings import Settings
from mdplatform.sources.fred import Fred
from mdplatform.sources.release_clock import release_of

_CHECKS = {
    "schema": "The file has the columns of the dataset, with their types, and can be read.",
    "known_after": "No value was available before the period began that it is of.",
    "one_row": "Each period and vintage has one row, and its revisions are counted from 0 without a hole.",
    "fresh": "The newest release is not older than 120 days, which no monthly or quarterly series is.",
}
_ANSWERED = {SOURCE_CHECK: "FRED answered for every series that was asked for."}
_WARNED = ("fresh", SOURCE_CHECK)
_NOT_BLOCKING = (*_WARNED, "known_after")  # agencies project some series into the future
_STALE_AFTER = timedelta(days=120)
_DESCRIPTION = """
Macro series with all their vintages: what each observation was said to be, from which instant on.

Merges what waits in the inbox (`mdplatform ingest fred:CPIAUCSL`, or files `--as macro`), and with `fetch` asks FRED
first for series that came from there. A value that is published anew is a row of its own, with its vintage; nothing is
overwritten, so that what was known at any instant stays readable.
"""

Told = dict[str, dg.MetadataValue | int | float | str]


class MacroSeriesConfig(dg.Config):
    """How macro series are materialized."""

    fetch: bool = Field(default=False, description="Ask FRED for each series that came from there before merging.")
    new: bool = Field(default=False, description="Ask FRED also for series of which there is nothing yet.")


@dg.asset(
    partitions_def=SERIES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="market",
    kinds={"parquet", "polars"},
    owners=OWNERS,
    tags={"domain": "macro"},
    code_version="1",
    description=_DESCRIPTION,
    metadata={"dagster/column_schema": column_schema(MACRO.schema, MACRO.meanings)},
    check_specs=[
        dg.AssetCheckSpec(name, asset="macro_series", description=said, blocking=name not in _NOT_BLOCKING)
        for name, said in (_CHECKS | _ANSWERED).items()
    ],
    pool="lake",
)
def macro_series(
    context: dg.AssetExecutionContext,
    config: MacroSeriesConfig,
    settings: SettingsResource,
    lake: LakeResource,
    redis: RedisResource,
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Materialize the series of the run, one at a time."""
    versions: list[str] = []
    unanswered: dict[str, str] = {}
    for series in context.partition_keys:
        now = datetime.now(UTC)
        problem = fetch(lake.lake, settings.settings, series, now, new=config.new) if config.fetch else None
        if problem is not None:
            unanswered[series] = str(problem)
            context.log.warning(f"{series} was not fetched. {problem}")
            if len(unanswered) == len(context.partition_keys):
                raise problem
        merged = lake.lake.table("macro").merge(series)
        versions.append(merged.data_version)
        told = _metadata(lake.lake, series, merged)
        if problem is not None:
            told[SOURCE_PROBLEM] = str(problem)
        if merged.changed and (away := redis.announce("macro", series, context.log, context.run.run_id)):
            told[REDIS_PROBLEM] = away
        context.add_asset_metadata(told, partition_key=series)
        context.log.info(f"{series}: {merged}")
    yield dg.MaterializeResult(data_version=data_version(versions))
    yield from check_series(lake.lake, list(context.partition_keys), datetime.now(UTC))
    yield dg.AssetCheckResult(
        check_name=SOURCE_CHECK,
        passed=not unanswered,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"partitions_unanswered": unanswered},
    )


def fetch(lake: Lake, settings: Settings, series: str, now: datetime, *, new: bool = False) -> PlatformError | None:
    """Ask FRED for a series that came from there, and stage its vintages; give the error if FRED did not deliver.

    With `new` also for one of which the lake has nothing, and nothing waits.
    """
    store = lake.table("macro")
    unknown = new and store.partition(series) is None and series not in store.waiting()
    if not unknown and not is_from_fred(lake, series):
        return None
    try:
        for delivery in Fred.from_settings(settings).deliveries(series, None, None):
            lake.table("macro").deliver(delivery.rows, delivery.source, now, delivery.form)
            lake.table("macro").set_aside(delivery.set_aside, delivery.source, now)
    except PlatformError as problem:
        return problem
    return None


def is_from_fred(lake: Lake, series: str) -> bool:
    """Tell whether anything of a series came from FRED."""
    partition = lake.table("macro").partition(series)
    if partition is None or not partition.header.groups:
        return False
    return bool((partition.read("rows", ["source"])["source"] == f"{Fred.name}:{series}").any())


def check_series(lake: Lake, series: list[str], now: datetime) -> Iterator[dg.AssetCheckResult]:
    """Read the partitions back and give one result a check."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for each in series:
        for name, count in _broken(lake, each, now).items():
            if count:
                found[name][each] = count
    for name in _CHECKS:
        yield dg.AssetCheckResult(
            check_name=name,
            passed=not found[name],
            severity=dg.AssetCheckSeverity.WARN if name in _WARNED else dg.AssetCheckSeverity.ERROR,
            metadata={"rows_broken": sum(found[name].values()), "partitions_broken": dict(found[name])},
        )


def _broken(lake: Lake, series: str, now: datetime) -> dict[str, int]:
    """Give how many rows of one series break each check."""
    try:
        partition = lake.table("macro").partition(series)
        rows = partition.read("rows") if partition is not None and partition.header.groups else None
    except PlatformError:
        return {"schema": 1}
    if rows is None:
        return {}
    if rows.schema != MACRO.schema:
        return {"schema": rows.height}
    identity = list(MACRO.unique)
    revisions = rows.sort(*identity, "revision").select(
        (pl.col("revision") != pl.int_range(pl.len(), dtype=pl.Int32).over(identity)).sum()
    )
    newest = rows["available_at"].max()
    assert isinstance(newest, datetime)
    return {
        "known_after": int(rows.select((pl.col("available_at") < pl.col("ref_period")).sum()).item()),
        "one_row": int(revisions.item()),
        "fresh": int(now - newest > _STALE_AFTER),
    }


def _metadata(lake: Lake, series: str, merged: Merged) -> Told:
    rows = lake.table("macro").read([series])
    release = release_of(series)
    told: Told = {
        "dagster/row_count": rows.height,
        "taken": merged.taken,
        "unchanged": merged.unchanged,
        "corrected": merged.corrected,
        "released": f"{release.name}, {release.at:%H:%M} {release.zone}"
        if release
        else "by the end of the vintage day",
    }
    if rows.is_empty():
        return told | {"note": dg.MetadataValue.text("There are no observations of this series.")}
    of_periods = (
        rows.sort("vintage")
        .group_by("ref_period")
        .agg(
            pl.col("value").n_unique().alias("values"),
            pl.col("value").first().alias("first"),
            pl.col("value").last().alias("last"),
        )
        .sort("ref_period")
    )
    first, last = of_periods["ref_period"][0], of_periods["ref_period"][-1]
    available = rows["available_at"].sort()
    return told | {
        "observations": of_periods.height,
        "vintages": rows["vintage"].n_unique(),
        "revised_observations": int((of_periods["values"] > 1).sum()),
        "observations_without_value": of_periods["last"].null_count(),
        "periods": dg.MetadataValue.text(f"{first:%Y-%m-%d} … {last:%Y-%m-%d}"),
        "known": dg.MetadataValue.text(f"{iso(available[0])} … {iso(available[-1])}"),
        "plot": dg.MetadataValue.md(picture(series, of_periods)),
    }


def picture(series: str, of_periods: pl.DataFrame) -> str:
    """Draw what each period (`ref_period`, `first`, `last`) was first said to be and is now, and below the revisions.

    Those are in percent of the first release where it is above 0 in every period, else in the series' units.
    """
    change = of_periods["last"] - of_periods["first"]
    least = of_periods["first"].min()
    unit = "in its units"
    if isinstance(least, float) and least > 0:
        change, unit = 100 * change / of_periods["first"], "in % of the first release"
    revised = int((change.fill_null(0.0) != 0).sum())
    lines = [("first release", of_periods["first"]), ("newest vintage", of_periods["last"])]
    panels = [Panel("", lines)]
    if revised:
        panels.append(
            Panel(f"newest − first, {unit}; {revised:,} of {len(change):,} differ", [("", change)], as_bars=True)
        )
    else:
        panels[0] = Panel("No newest value differs from the first:", lines[1:])
    return over_time(series, of_periods["ref_period"], panels)
