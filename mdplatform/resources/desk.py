"""The desk as a Dagster resource: what sensors see of strategies' requests."""

from functools import cache

import dagster as dg
from pydantic import Field

from mdplatform.messaging.redis_desk import RedisDesk
from mdplatform.messaging.registry import desk
from mdplatform.resources.settings import SettingsResource
from mdplatform.settings import Settings


class DeskResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The run path's side of the requests, in the Redis of the settings or the embedded Valkey of the home."""

    settings: dg.ResourceDependency[SettingsResource]
    wait_seconds: float = Field(default=4.0, description="How long a tick waits for requests if there are none.")

    @property
    def desk(self) -> RedisDesk:
        """Give the process's desk; it stays open, for ticks follow one another. Raises `TransportUnavailable`."""
        return _of_process(self.settings.settings.model_dump_json())


@cache
def _of_process(settings: str) -> RedisDesk:
    return desk(Settings.model_validate_json(settings))
