"""The schedule `running_month`: the month that is filling is fetched and materialized every quarter of an hour.

For its first days the month before is fetched too: its last bars close when the month is over, and an archive has
them a day or more later.
"""

from collections.abc import Sequence
from datetime import UTC, timedelta

import dagster as dg

from mdplatform.assets.bars import BarsConfig
from mdplatform.assets.partitions import SYMBOL
from mdplatform.resources import LakeResource

_MONTH_BEFORE_UNTIL = timedelta(days=3)
FETCHING = dg.RunConfig(ops={"bars": BarsConfig(fetch=True)})

running_month_job = dg.define_asset_job(
    "running_month",
    selection=["bars", "technical_indicators"],
    description="Fetch the running month from each symbol's source, and materialize what follows from it.",
    config=FETCHING,
)


@dg.schedule(
    job=running_month_job,
    cron_schedule="*/15 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Keeps the running month of every symbol that has a source fresh: one run for all of them.",
)
def running_month(context: dg.ScheduleEvaluationContext, lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    """Ask for the month of the tick, in one run over all symbols."""
    symbols = list(context.instance.get_dynamic_partitions(SYMBOL.name or ""))
    if not any(member.source for member in lake.lake.universe.members().values()) or not symbols:
        return dg.SkipReason("No symbol has a source that could be asked; take some in with `mdplatform ingest`.")
    tick = context.scheduled_execution_time.astimezone(UTC)
    # a request without a configuration would take Dagster's defaults, not the job's
    months = f"{tick - _MONTH_BEFORE_UNTIL:%Y-%m}", f"{tick:%Y-%m}"
    tags = range_tags(*months, symbols)
    return dg.RunRequest(run_key=f"{tick:%Y-%m-%dT%H:%M}", run_config=FETCHING, tags=tags)


def range_tags(first_month: str, last_month: str, symbols: Sequence[str]) -> dict[str, str]:
    """Give the tags of a run over some months of all `symbols` (in the order of the dynamic partition)."""
    first = dg.MultiPartitionKey({"month": first_month, "symbol": symbols[0]})
    last = dg.MultiPartitionKey({"month": last_month, "symbol": symbols[-1]})
    return {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}
