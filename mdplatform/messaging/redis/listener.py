"""The side that hears, over Redis: each post is published in the step that keeps it in its stream."""

from __future__ import annotations

from mdplatform.messaging.listening import PushedListener
from mdplatform.messaging.redis.line import Line
from mdplatform.messaging.redis.pushes import RedisPushes
from mdplatform.messaging.redis.shelves import RedisShelves
from mdplatform.settings import Settings


class RedisListener(PushedListener):
    """A `Listener`, for one event loop; one task at a time may `receive`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(RedisPushes(settings), RedisShelves(Line(settings)))
