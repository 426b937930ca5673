"""What Dagster's assets are handed: the settings, the lake, the sources, and Redis."""

from mdplatform.resources.lake import LakeResource
from mdplatform.resources.redis import RedisResource
from mdplatform.resources.settings import SettingsResource

__all__ = ["LakeResource", "RedisResource", "SettingsResource"]
