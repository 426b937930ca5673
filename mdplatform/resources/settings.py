"""The platform's settings as a Dagster resource."""

from functools import cached_property
from pathlib import Path

import dagster as dg
from pydantic import Field

from mdplatform.settings import Settings


class SettingsResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The settings of the environment (`MDPLATFORM_*`), except for what is given here."""

    home: str | None = Field(default=None, description="Folder of the platform, if not MDPLATFORM_HOME.")

    @cached_property
    def settings(self) -> Settings:
        """Read the settings. Raises `InvalidSetting`."""
        return Settings.load(home=Path(self.home) if self.home else None)
