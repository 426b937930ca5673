"""The side that hears, over RabbitMQ, for those who cannot reach Redis; a bridge must run.

Posts are kept in Redis alone: RabbitMQ carries them (`carrier`), and what is older is asked of a bridge. So
cursors are those of Redis, and go on in either.
"""

from __future__ import annotations

from mdplatform.messaging.listening import PushedListener
from mdplatform.messaging.rabbitmq.pushes import RabbitPushes
from mdplatform.messaging.rabbitmq.shelves import RabbitShelves
from mdplatform.settings import Settings


class RabbitListener(PushedListener):
    """A `Listener`, for one event loop; one task at a time may `receive`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(RabbitPushes(settings), RabbitShelves(settings))
