"""The desk as a Dagster resource: what sensors see of strategies' requests."""

import threading

import dagster as dg
from pydantic import Field

from mdplatform.messaging.redis.desk import RedisDesk
from mdplatform.messaging.registry import desk
from mdplatform.resources.settings import SettingsResource
from mdplatform.settings import Settings

_OPENED: dict[Settings, RedisDesk] = {}
_LOCK = threading.Lock()


class DeskResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The run path's side of the requests, in the Redis of the settings or the embedded Valkey of the home."""

    settings: dg.ResourceDependency[SettingsResource]
    wait_seconds: float = Field(default=4.0, description="How long a tick waits for requests if there are none.")

    @property
    def desk(self) -> RedisDesk:
        """Give the process's desk; it stays open, for ticks follow one another. Raises `RedisUnavailable`."""
        settings = self.settings.settings
        with _LOCK:
            if settings not in _OPENED:
                _OPENED[settings] = desk(settings)
            return _OPENED[settings]

    def close(self) -> None:
        """Close the process's desk; it is opened anew when it is needed."""
        with _LOCK:
            opened = _OPENED.pop(self.settings.settings, None)
        if opened is not None:
            opened.close()
