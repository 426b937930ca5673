"""Everything that Dagster knows of the platform, assembled; nothing is defined here."""

from __future__ import annotations

import dagster as dg

from mdplatform import assets
from mdplatform.resources import DeskResource, LakeResource, RedisResource, SettingsResource
from mdplatform.sensors.automation import automated, automation
from mdplatform.sensors.data_requests import data_requests
from mdplatform.sensors.fred_series import fred_series, fred_series_job
from mdplatform.sensors.left_behind import left_behind
from mdplatform.sensors.lineage import lineage
from mdplatform.sensors.open_requests import open_requests
from mdplatform.sensors.request_runs import JOBS
from mdplatform.sensors.running_month import (
    running_month,
    running_month_job,
    running_month_panel,
    running_month_panel_job,
)
from mdplatform.sensors.stranded_requests import answer_stranded_requests, stranded_requests


@dg.definitions
def defs() -> dg.Definitions:
    """Give the platform's definitions."""
    settings = SettingsResource()
    return dg.Definitions(
        assets=dg.map_asset_specs(automated, dg.load_assets_from_package_module(assets)),  # type: ignore[arg-type]
        jobs=[running_month_job, running_month_panel_job, fred_series_job, *JOBS.values(), answer_stranded_requests],
        schedules=[running_month, running_month_panel, fred_series],
        sensors=[automation, left_behind, data_requests, open_requests, stranded_requests, lineage],
        resources={
            "settings": settings,
            "lake": LakeResource(settings=settings),
            "redis": RedisResource(settings=settings),
            "desk": DeskResource(settings=settings),
        },
        executor=dg.in_process_executor,
    )
