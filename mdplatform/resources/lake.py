"""The lake as a Dagster resource."""

from functools import cached_property

import dagster as dg

from mdplatform.lake import Lake
from mdplatform.resources.settings import SettingsResource


class LakeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The lake under the platform's home."""

    settings: dg.ResourceDependency[SettingsResource]

    @cached_property
    def lake(self) -> Lake:
        """Open the lake; this reads and writes nothing."""
        return Lake(self.settings.settings.lake_dir)
