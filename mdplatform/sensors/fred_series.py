"""The schedule of macro series: those that came from FRED are asked for anew every hour, and what follows is made."""

import dagster as dg

from mdplatform.assets.macro_series import MacroSeriesConfig, is_from_fred
from mdplatform.assets.partitions import SERIES
from mdplatform.resources import LakeResource, SettingsResource

FETCHING = dg.RunConfig(ops={"macro_series": MacroSeriesConfig(fetch=True)})

fred_series_job = dg.define_asset_job(
    "fred_series",
    selection=["macro_series", "macro_features"],
    description="Fetch the macro series that came from FRED, and materialize what was known of them.",
    config=FETCHING,
)


@dg.schedule(
    job=fred_series_job,
    cron_schedule="40 * * * *",  # releases come at full, half and quarter hours, and FRED has them minutes later
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Keeps the macro series that came from FRED fresh: one run for all of them.",
)
def fred_series(
    context: dg.ScheduleEvaluationContext, settings: SettingsResource, lake: LakeResource
) -> dg.RunRequest | dg.SkipReason:
    """Ask for all series in one run, if any came from FRED and there is a key."""
    series = list(context.instance.get_dynamic_partitions(SERIES.name or ""))
    if not any(is_from_fred(lake.lake, each) for each in series):
        return dg.SkipReason("No series came from FRED; take some in with `mdplatform ingest fred:CPIAUCSL`.")
    if settings.settings.fred_api_key is None:
        return dg.SkipReason("MDPLATFORM_FRED_API_KEY is not set.")
    return dg.RunRequest(
        run_key=f"{context.scheduled_execution_time:%Y-%m-%dT%H:%M}",
        run_config=FETCHING,  # a request without a configuration would take Dagster's defaults, not the job's
        tags={
            "dagster/asset_partition_range_start": series[0],
            "dagster/asset_partition_range_end": series[-1],
        },
    )
