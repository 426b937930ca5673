"""The shelf: what workers and readers share in Redis, seen from one event loop.

Sequences and blobs are read by one `MGET` for all that is asked in a tick of the loop. Sequences are held near, too
(`serving.near`). Leases say which worker computes
what is on no shelf: who gets one computes and publishes; others wait until it is gone, and look again. A lease that is
not renewed lasts a second, so that nobody waits for the dead.

After a failure Redis is left alone for a while; methods give None then, and `reason` says why.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

import redis

from mdplatform.serving.coalesce import Coalescer
from mdplatform.serving.keys import read_sequence
from mdplatform.serving.near import Near
from mdplatform.serving.publisher import BLOBS_AT_ONCE, PUBLISH_SCRIPT, life_ms
from mdplatform.settings import Settings
from mdplatform.valkey.breaker import Breaker
from mdplatform.valkey.connection import REDIS_FAILURES, describe
from mdplatform.valkey.link import Link
from mdplatform.worker.lending import LENT_SECONDS

LEASE_SECONDS = 1.0

# KEYS are leases, ARGV[1] the holder, ARGV[2] for how long more in milliseconds, 0 to let go of them.
_HOLD_SCRIPT = """
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then
    if ARGV[2] == '0' then redis.call('DEL', key) else redis.call('PEXPIRE', key, ARGV[2]) end
  end
end
"""
T = TypeVar("T")


class Shelf:
    """Reads and writes what is shared in Redis. Close it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._breaker = Breaker(settings.redis_retry_seconds)
        self._numbers = Coalescer(self._mget_near)
        self._leases = Coalescer(self._mget)
        self._blobs = Coalescer(self._mget)  # apart, so that numbers do not wait behind blobs
        self._near = Near(settings)
        self._link = Link(settings)
        self._holder = secrets.token_hex(8)

    @property
    def reason(self) -> str | None:
        """Why Redis is left alone at present; None if it is asked."""
        return self._breaker.reason

    def near_sequences(self, keys: Sequence[str]) -> list[int] | None:
        """Give the numbers under these keys as this process has heard of them, `BOUND_SECONDS` ago at the latest; None
        if it cannot tell."""
        held = self._near.get(keys)
        return None if held is None else [read_sequence(each) for each in held]

    async def sequences(self, keys: Sequence[str]) -> list[int] | None:
        """Give the numbers that are held under these keys, 0 for none."""
        held = await self._try(lambda: self._numbers.get(keys)) if keys else []
        return None if held is None else [read_sequence(each) for each in held]

    async def blobs(self, keys: Sequence[str]) -> list[bytes | None] | None:
        """Give the blobs that are held under these keys."""
        return await self._try(lambda: self._blobs.get(keys)) if keys else []

    async def are_leased(self, leases: Sequence[str]) -> list[bool] | None:
        """Tell of each lease whether somebody holds it."""
        held = await self._try(lambda: self._leases.get(leases)) if leases else []
        return None if held is None else [each is not None for each in held]

    async def publish(
        self, payloads: Sequence[tuple[str, bytes]], leases: Sequence[str], lent: Sequence[tuple[str, bytes]] = ()
    ) -> str | None:
        """Store signed blobs where nothing newer is, and what is lent for a while; then give up leases: what they were
        for is done.

        Gives in words what went wrong, None if nothing did.
        """

        async def store() -> bool:
            client = await self._link.client()
            for start in range(0, max(1, len(payloads)), BLOBS_AT_ONCE):
                async with client.pipeline(transaction=False) as pipe:
                    for key, payload in lent if start == 0 else ():
                        pipe.set(key, payload, px=round(LENT_SECONDS * 1000))
                    for key, payload in payloads[start : start + BLOBS_AT_ONCE]:
                        pipe.eval(PUBLISH_SCRIPT, 1, key, payload, life_ms(self._settings))
                    for key in leases if start + BLOBS_AT_ONCE >= len(payloads) else ():
                        pipe.eval(_HOLD_SCRIPT, 1, key, self._holder, "0")
                    await pipe.execute()
            return True

        failed: list[str] = []
        if payloads or lent or leases:
            await self._try(store, failed)
        return failed[0] if failed else None

    async def lease(self, asked: Sequence[tuple[str, str]]) -> list[tuple[bool, bytes | None]]:
        """Try to get leases (`key`, and the key of what is to be made); give of each whether the work is the caller's.

        Beside that comes what is there already: who held the lease before may have made it meanwhile. Where Redis is
        away, all work is the caller's.
        """

        async def ask() -> list[tuple[bool, bytes | None]]:
            async with (await self._link.client()).pipeline(transaction=False) as pipe:
                for lease, made in asked:
                    pipe.set(lease, self._holder, nx=True, px=round(LEASE_SECONDS * 1000))
                    pipe.get(made)
                told = await pipe.execute()
            return [(bool(given), held) for given, held in zip(told[::2], told[1::2], strict=True)]

        given = await self._try(ask) if asked else []
        return [(True, None)] * len(asked) if given is None else given

    async def renew(self, keys: Sequence[str]) -> None:
        """Keep leases for longer."""
        await self._hold(keys, round(LEASE_SECONDS * 1000))

    async def let_go(self, keys: Sequence[str]) -> None:
        """Give leases up: the work is published, or failed."""
        await self._hold(keys, 0)

    async def close(self) -> None:
        """Close the connections; the embedded server ends if nobody else uses it."""
        await asyncio.to_thread(self._near.close)
        await self._link.close()

    async def _hold(self, keys: Sequence[str], milliseconds: int) -> None:
        async def hold() -> None:
            # one call for each: in a cluster a script may not use keys of several symbols
            async with (await self._link.client()).pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.eval(_HOLD_SCRIPT, 1, key, self._holder, str(milliseconds))
                await pipe.execute()

        if keys:
            await self._try(hold)

    async def _try(self, work: Callable[[], Awaitable[T]], failed: list[str] | None = None) -> T | None:
        if self._breaker.reason is not None:
            return None
        try:
            return await work()
        except REDIS_FAILURES as failure:
            told = describe(failure, self._settings)
            if not isinstance(failure, redis.ResponseError):  # it answers, though it takes nothing
                self._breaker.failed(told)
            if failed is not None:
                failed.append(told)
            return None

    async def _mget_near(self, keys: Sequence[str]) -> list[bytes | None]:
        with self._near.filling(keys) as read:
            held = await self._mget(keys)
            read.update(zip(keys, held, strict=True))
        return held

    async def _mget(self, keys: Sequence[str]) -> list[bytes | None]:
        places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        held = cast("list[bytes | None]", await (await self._link.client()).mget(list(places)))
        return [held[places[key]] for key in keys]
