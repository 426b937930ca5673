"""A link: the connections of one event loop to Redis, made when they are first needed."""

from __future__ import annotations

import asyncio

import redis.asyncio

from mdplatform.settings import Settings
from mdplatform.valkey.connection import REDIS_FAILURES, async_connect


class Link:
    """Gives one client, however many tasks ask; after a failure the next one who asks tries again. Close it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connecting: asyncio.Task[redis.asyncio.Redis] | None = None

    async def client(self) -> redis.asyncio.Redis:
        """Give the client. Raises what connecting raises (`REDIS_FAILURES`)."""
        if self._connecting is None:
            # in a thread, because the embedded server may have to be started
            self._connecting = asyncio.create_task(asyncio.to_thread(async_connect, self._settings))
        connecting = self._connecting
        try:
            return await asyncio.shield(connecting)
        except REDIS_FAILURES:
            if self._connecting is connecting:
                self._connecting = None
            raise

    async def close(self) -> None:
        """Close the connections; the embedded server ends if nobody else uses it."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            try:
                client = await connecting
            except REDIS_FAILURES:
                return
            await client.aclose()
