"""Which transport carries the requests: what `MDPLATFORM_TRANSPORT` says.

Workers, sensors and feeds know Redis alone; RabbitMQ is a front for strategies, behind which a bridge stands.
"""

from __future__ import annotations

from mdplatform.messaging.broadcast import Broadcaster, Listener
from mdplatform.messaging.redis.answerer import RedisAnswerer
from mdplatform.messaging.redis.asker import RedisAsker
from mdplatform.messaging.redis.broadcaster import RedisBroadcaster
from mdplatform.messaging.redis.desk import RedisDesk
from mdplatform.messaging.redis.listener import RedisListener
from mdplatform.messaging.transport import Answerer, Asker
from mdplatform.settings import Settings


def asker(settings: Settings, address: str | None = None) -> Asker:
    """Give a strategy's side of the transport, for the running event loop; close it when done.

    An `address` of the caller's own lets a strategy that starts again receive what came meanwhile. Raises
    `InvalidSetting` and `RedisUnavailable`.
    """
    if settings.transport == "rabbitmq":
        from mdplatform.messaging.rabbitmq.asker import RabbitAsker

        return RabbitAsker(settings, address)
    return RedisAsker(settings, address)


def answerer(settings: Settings, worker: str = "") -> Answerer:
    """Give a worker's side of the transport, for the running event loop; close it when done."""
    return RedisAnswerer(settings, worker)


def desk(settings: Settings) -> RedisDesk:
    """Give the run path's side of the transport; close it when done."""
    return RedisDesk(settings)


def broadcaster(settings: Settings) -> Broadcaster:
    """Give the side of a feed, which says, for the running event loop; close it when done.

    It is Redis that keeps posts, whatever carries them to consumers. Raises `InvalidSetting` and `RedisUnavailable`.
    """
    return RedisBroadcaster(settings)


def listener(settings: Settings) -> Listener:
    """Give the side of a consumer, which hears; for the running event loop, one a process. Close it when done.

    Raises `InvalidSetting` and `RedisUnavailable`.
    """
    if settings.transport == "rabbitmq":
        from mdplatform.messaging.rabbitmq.listener import RabbitListener

        return RabbitListener(settings)
    return RedisListener(settings)
