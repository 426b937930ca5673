"""The schedules of the month that is filling: fetched and materialized every quarter of an hour, its panel every hour.

For its first days the month before is done too: its last bars close when the month is over, and an archive has them a
day or more later.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from mdplatform.assets.bars import BarsConfig
from mdplatform.assets.partitions import FIRST_MONTH, SYMBOL
from mdplatform.resources import LakeResource

_MONTH_BEFORE_UNTIL = timedelta(days=3)
FETCHING = dg.RunConfig(ops={"bars": BarsConfig(fetch=True)})

running_month_job = dg.define_asset_job(
    "running_month",
    selection=["bars", "technical_indicators"],
    description="Fetch the running month from each symbol's source, and materialize what follows from it.",
    config=FETCHING,
)
running_month_panel_job = dg.define_asset_job(
    "running_month_panel",
    selection=["returns_panel"],
    description="Materialize the running month's returns of all symbols.",
)


@dg.schedule(
    job=running_month_job,
    cron_schedule="*/15 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Keeps the running month of every symbol that has a source fresh: one run for all of them.",
)
def running_month(context: dg.ScheduleEvaluationContext, lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    """Ask for the month of the tick, in one run over all symbols; those that a feed has brought become partitions."""
    members = lake.lake.universe.members()
    if new := set(members) - set(context.instance.get_dynamic_partitions(SYMBOL.name or "")):
        context.instance.add_dynamic_partitions(SYMBOL.name or "", sorted(new))
    symbols = list(context.instance.get_dynamic_partitions(SYMBOL.name or ""))
    if not any(member.source for member in members.values()) or not symbols:
        return dg.SkipReason("No symbol has a source that could be asked; take some in with `mdplatform ingest`.")
    first, last = _months(context.scheduled_execution_time)
    return dg.RunRequest(
        run_key=f"{context.scheduled_execution_time:%Y-%m-%dT%H:%M}",
        run_config=FETCHING,  # a request without a configuration would take Dagster's defaults, not the job's
        tags=_range_tags(_key(first, symbols[0]), _key(last, symbols[-1])),
    )


@dg.schedule(
    job=running_month_panel_job,
    cron_schedule="5 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Keeps the running month's returns panel fresh.",
)
def running_month_panel(context: dg.ScheduleEvaluationContext, lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    """Ask for the month of the tick, if any symbol has bars in it."""
    first, last = _months(context.scheduled_execution_time)
    there = {month for symbol in lake.lake.bars.symbols() for month in lake.lake.bars.months(symbol)[-2:]}
    if last not in there:
        return dg.SkipReason(f"There are no bars in {last} yet.")
    tags = _range_tags(first if first in there else last, last)
    return dg.RunRequest(run_key=f"{context.scheduled_execution_time:%Y-%m-%dT%H:%M}", tags=tags)


def _months(tick: datetime) -> tuple[str, str]:
    now = tick.astimezone(UTC)
    return max(FIRST_MONTH, f"{now - _MONTH_BEFORE_UNTIL:%Y-%m}"), f"{now:%Y-%m}"


def _key(month: str, symbol: str) -> str:
    return str(dg.MultiPartitionKey({"month": month, "symbol": symbol}))


def _range_tags(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
