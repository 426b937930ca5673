"""What Dagster's assets and sensors are handed: the settings, the lake, Redis, and the desk of strategies' requests."""

from mdplatform.resources.desk import DeskResource
from mdplatform.resources.lake import LakeResource
from mdplatform.resources.redis import RedisResource
from mdplatform.resources.settings import SettingsResource

__all__ = ["DeskResource", "LakeResource", "RedisResource", "SettingsResource"]
