"""Everything that Dagster knows of the platform, assembled; nothing is defined here."""

from __future__ import annotations

import dagster as dg

from mdplatform import assets
from mdplatform.resources import LakeResource, RedisResource, SettingsResource
from mdplatform.sensors.automation import automated, automation
from mdplatform.sensors.fred_series import fred_series, fred_series_job
from mdplatform.sensors.left_behind import left_behind
from mdplatform.sensors.running_month import (
    running_month,
    running_month_job,
    running_month_panel,
    running_month_panel_job,
)


@dg.definitions
def defs() -> dg.Definitions:
    """Give the platform's definitions."""
    settings = SettingsResource()
    return dg.Definitions(
        assets=dg.map_asset_specs(automated, dg.load_assets_from_package_module(assets)),  # type: ignore[arg-type]
        jobs=[running_month_job, running_month_panel_job, fred_series_job],
        schedules=[running_month, running_month_panel, fred_series],
        sensors=[automation, left_behind],
        resources={
            "settings": settings,
            "lake": LakeResource(settings=settings),
            "redis": RedisResource(settings=settings),
        },
        executor=dg.in_process_executor,
    )
