"""The reader: the newest rows of a feature, from Redis where it has them fresh, else from the lake.

It always answers while the lake is there: if Redis is down, slow or holds rubbish, the values are computed, and the
answer's `notes` say so. How a read goes is told in `lookup`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import redis

from mdplatform.errors import RedisUnavailable
from mdplatform.features import FeatureLike
from mdplatform.lake import Lake
from mdplatform.serving.codec import Blob
from mdplatform.serving.lookup import Library, Lookup
from mdplatform.serving.near import Near
from mdplatform.serving.publisher import Publisher
from mdplatform.serving.result import FeatureResult
from mdplatform.settings import Settings
from mdplatform.valkey.breaker import Breaker
from mdplatform.valkey.connection import REDIS_FAILURES, connect, describe

if TYPE_CHECKING:
    import polars as pl

    from mdplatform.features import Correlations


class Reader:
    """Reads features; thread-safe. Close it, or use it in a `with`, so that the embedded server can end.

    A given `connection` is used and not closed, and nothing of it is held near. Without one, the reader connects when
    it is first asked.
    """

    def __init__(self, settings: Settings, *, connection: redis.Redis | None = None, lake: Lake | None = None) -> None:
        self._settings = settings
        self._library = Library(settings, lake)
        self._breaker = Breaker(settings.redis_retry_seconds)
        self._near = Near(settings if connection is None else settings.model_copy(update={"near_cache_mb": 0}))
        self._given = connection
        self._own: redis.Redis | None = None
        self._connecting = threading.Lock()

    def latest(self, symbol: str, feature: FeatureLike, timeframe: str | None = None, n: int = 1) -> FeatureResult:
        """Give the newest `n` rows (fewer where history is shorter).

        `timeframe` is the feature's own, else `15m`. Raises `InvalidSymbol`, `UnknownSymbol`, `UnknownFeature`,
        `InvalidFeature`, `UnknownParameter`, `ParameterOutOfRange`, `UnknownTimeframe` or `NoData`.
        """
        return self._answer([self._library.prepare(symbol, feature, timeframe, n)])[0]

    def latest_many(self, questions: Iterable[tuple[str, FeatureLike, str | None]], n: int = 1) -> list[FeatureResult]:
        """Answer many `(symbol, feature, timeframe)` at once, with one round trip to Redis; raises like `latest`."""
        return self._answer([self._library.prepare(*question, n) for question in questions])

    def between(
        self,
        symbol: str,
        feature: FeatureLike,
        timeframe: str | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        as_of: datetime | str | None = None,
    ) -> FeatureResult:
        """Give the rows with `start <= open_time < end` from the lake, as they were known at `as_of`.

        Times are datetimes or ISO 8601 texts, UTC where they name no zone. Raises like `latest`.
        """
        return self._library.history(symbol, feature, timeframe, start, end, as_of)

    def frame(
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
        """Give one aligned frame of features of any kind from the lake, as `features.frame` does."""
        return self._library.frame(symbols, features, timeframe, start, end, as_of, ages=ages, statuses=statuses)

    def correlation_matrix(
        self,
        symbols: Sequence[str],
        window: int,
        timeframe: str,
        end: datetime | str | None = None,
        as_of: datetime | str | None = None,
        **options: Any,
    ) -> Correlations:
        """Give the correlations of symbols over the last `window` bars, as `features.correlation_of` does."""
        return self._library.correlation_matrix(symbols, window, timeframe, end, as_of, options)

    def close(self) -> None:
        """Close the connection; the embedded server ends if nobody else uses it."""
        self._near.close()
        with self._connecting:
            own, self._own = self._own, None
        if own is not None:
            own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, lookups: Sequence[Lookup]) -> list[FeatureResult]:
        results = self._near.look(self._library, lookups)
        left = [index for index, result in enumerate(results) if result is None]
        for index, result in zip(left, self._from_redis([lookups[index] for index in left]), strict=True):
            results[index] = result
        missing = [index for index in left if results[index] is None]
        if missing:
            computed = [lookups[index] for index in missing]
            blobs = self._library.compute(computed)
            self._publish(computed, blobs)
            for index, blob in zip(missing, blobs, strict=True):
                results[index] = lookups[index].answer(blob, layer="lake")
        return cast(list[FeatureResult], results)

    def _from_redis(self, lookups: Sequence[Lookup]) -> list[FeatureResult | None]:
        if not lookups:
            return []
        reason = self._breaker.reason
        if reason is None:
            try:
                return self._library.judge(lookups, self._mget([key for each in lookups for key in each.keys]))
            except REDIS_FAILURES as failure:
                reason = describe(failure, self._settings)
                self._breaker.failed(reason)
        for each in lookups:
            each.timings.mark("redis")
            each.without_redis(reason)
        return [None] * len(lookups)

    def _publish(self, lookups: Sequence[Lookup], blobs: Sequence[Blob]) -> None:
        """Fill Redis with what was computed; a failure is noted and hurts nobody."""
        if self._breaker.reason is not None:
            return
        by_sequence: dict[tuple[int, ...], list[Blob]] = {}
        for lookup, blob in zip(lookups, blobs, strict=True):
            if self._library.is_publishable(lookup):
                by_sequence.setdefault(lookup.sequences, []).append(blob)
        try:
            publisher = Publisher(self._redis(), self._settings)
            for sequence, group in by_sequence.items():
                publisher.publish(group, sequence=sequence, made_by="reader")
        except RedisUnavailable as failure:
            if not isinstance(failure.__context__, redis.ResponseError):  # it answers, though it takes nothing
                self._breaker.failed(failure.cause)
            for lookup in lookups:
                lookup.notes.append(f"The values could not be kept in Redis ({failure.cause})")
        for lookup in lookups:
            lookup.timings.mark("publish")

    def _mget(self, keys: Sequence[str]) -> list[bytes | None]:
        wanted = list(dict.fromkeys(keys))
        with self._near.filling(wanted) as read:
            held = cast("list[bytes | None]", self._redis().mget(wanted))
            read.update(zip(wanted, held, strict=True))
        return [read[key] for key in keys]

    def _redis(self) -> redis.Redis:
        if self._given is not None:
            return self._given
        with self._connecting:
            if self._own is None:
                self._own = connect(self._settings)
            return self._own
