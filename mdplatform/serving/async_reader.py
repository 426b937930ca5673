"""The reader for asyncio: the answers of `reader`, with one `MGET` for all that is asked in one tick of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import redis

from mdplatform.features import FeatureLike
from mdplatform.lake import Lake
from mdplatform.serving.coalesce import Coalescer
from mdplatform.serving.codec import Blob
from mdplatform.serving.lookup import Library, Lookup
from mdplatform.serving.near import Near
from mdplatform.serving.publisher import BLOBS_AT_ONCE, PUBLISH_SCRIPT, life_ms, sign
from mdplatform.serving.result import FeatureResult
from mdplatform.settings import Settings
from mdplatform.valkey.breaker import Breaker
from mdplatform.valkey.connection import REDIS_FAILURES, describe
from mdplatform.valkey.link import Link

if TYPE_CHECKING:
    import polars as pl

    from mdplatform.features import Correlations


class AsyncReader:
    """Reads features inside one event loop. Close it, or use it in an `async with`.

    Redis is asked without blocking the loop; what must be computed is computed in a thread.
    """

    def __init__(self, settings: Settings, *, lake: Lake | None = None) -> None:
        self._settings = settings
        self._library = Library(settings, lake)
        self._breaker = Breaker(settings.redis_retry_seconds)
        self._near = Near(settings)
        self._link = Link(settings)
        self._coalescer = Coalescer(self._mget)

    async def latest(
        self, symbol: str, feature: FeatureLike, timeframe: str | None = None, n: int = 1
    ) -> FeatureResult:
        """Give the newest `n` rows, as `Reader.latest` does."""
        return (await self._answer([self._library.prepare(symbol, feature, timeframe, n)]))[0]

    async def latest_many(
        self, questions: Iterable[tuple[str, FeatureLike, str | None]], n: int = 1
    ) -> list[FeatureResult]:
        """Answer many `(symbol, feature, timeframe)` at once, as `Reader.latest_many` does."""
        return await self._answer([self._library.prepare(*question, n) for question in questions])

    async def between(
        self,
        symbol: str,
        feature: FeatureLike,
        timeframe: str | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        as_of: datetime | str | None = None,
    ) -> FeatureResult:
        """Give the rows with `start <= open_time < end` as they were known at `as_of`, as `Reader.between` does."""
        return await asyncio.to_thread(self._library.history, symbol, feature, timeframe, start, end, as_of)

    async def frame(
        self,
        symbols: Iterable[str] | str,
        features: Iterable[FeatureLike] | FeatureLike,
        timeframe: str,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        as_of: datetime | str | None = None,
        *,
        ages: bool = False,
        statuses: bool = False,
    ) -> pl.DataFrame:
        """Give one aligned frame of features of any kind from the lake, as `Reader.frame` does."""
        more = {"ages": ages, "statuses": statuses}
        return await asyncio.to_thread(self._library.frame, symbols, features, timeframe, start, end, as_of, **more)

    async def correlation_matrix(
        self,
        symbols: Sequence[str],
        window: int,
        timeframe: str,
        end: datetime | str | None = None,
        as_of: datetime | str | None = None,
        **options: Any,
    ) -> Correlations:
        """Give the correlations of symbols over the last `window` bars, as `Reader.correlation_matrix` does."""
        ask = self._library.correlation_matrix
        return await asyncio.to_thread(ask, symbols, window, timeframe, end, as_of, options)

    async def close(self) -> None:
        """Close the connections; the embedded server ends if nobody else uses it."""
        await asyncio.to_thread(self._near.close)
        await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _answer(self, lookups: Sequence[Lookup]) -> list[FeatureResult]:
        results = self._near.look(self._library, lookups)
        left = [index for index, result in enumerate(results) if result is None]
        for index, result in zip(left, await self._from_redis([lookups[index] for index in left]), strict=True):
            results[index] = result
        missing = [index for index in left if results[index] is None]
        if missing:
            computed = [lookups[index] for index in missing]
            blobs = await asyncio.to_thread(self._library.compute, computed)
            await self._publish(computed, blobs)
            for index, blob in zip(missing, blobs, strict=True):
                results[index] = lookups[index].answer(blob, layer="lake")
        return cast(list[FeatureResult], results)

    async def _from_redis(self, lookups: Sequence[Lookup]) -> list[FeatureResult | None]:
        if not lookups:
            return []
        reason = self._breaker.reason
        if reason is None:
            try:
                held = await self._coalescer.get([key for each in lookups for key in each.keys])
                return self._library.judge(lookups, held)
            except REDIS_FAILURES as failure:
                reason = describe(failure, self._settings)
                self._breaker.failed(reason)
        for each in lookups:
            each.timings.mark("redis")
            each.without_redis(reason)
        return [None] * len(lookups)

    async def _publish(self, lookups: Sequence[Lookup], blobs: Sequence[Blob]) -> None:
        """Fill Redis with what was computed; a failure is noted and hurts nobody."""
        if self._breaker.reason is not None:
            return
        payloads = [
            payload
            for lookup, blob in zip(lookups, blobs, strict=True)
            if self._library.is_publishable(lookup)
            for payload in sign([blob], sequence=lookup.sequences, made_by="reader")
        ]
        try:
            client = await self._link.client()
            for start in range(0, len(payloads), BLOBS_AT_ONCE):
                async with client.pipeline(transaction=False) as pipe:
                    for key, payload in payloads[start : start + BLOBS_AT_ONCE]:
                        pipe.eval(PUBLISH_SCRIPT, 1, key, payload, life_ms(self._settings))
                    await pipe.execute()
        except REDIS_FAILURES as failure:
            reason = describe(failure, self._settings)
            if not isinstance(failure, redis.ResponseError):  # it answers, though it takes nothing
                self._breaker.failed(reason)
            for lookup in lookups:
                lookup.notes.append(f"The values could not be kept in Redis ({reason})")
        for lookup in lookups:
            lookup.timings.mark("publish")

    async def _mget(self, keys: Sequence[str]) -> list[bytes | None]:
        wanted = list(dict.fromkeys(keys))
        with self._near.filling(wanted) as read:
            held = cast("list[bytes | None]", await (await self._link.client()).mget(wanted))
            read.update(zip(wanted, held, strict=True))
        return [read[key] for key in keys]
