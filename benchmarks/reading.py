"""Reading: how long a strategy waits for a feature, against a bare redis-py `GET` of the same bytes on the same socket.

- hit: Redis holds the blob, fresh; it is checked and decoded.
- miss: Redis is empty; the values are computed from the lake and published.
- lake: there is no Redis; the values are computed from the lake.

Then a thousand tasks of one event loop, each of which asks for one feature: through one `AsyncFeatureReader`, against
one bare `GET` for each through a pool of `redis.asyncio`, and against bare `MGET`s of the same keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import cycle, islice

import numpy as np
import redis
import redis.asyncio

from benchmarks.bare import Floats, expected
from benchmarks.market import months, symbols, take_in
from benchmarks.measure import (
    AsyncWork,
    Comparison,
    Times,
    WrongResult,
    compare,
    in_turns,
    in_turns_async,
    nothing,
    p99,
)
from benchmarks.place import temporary_settings
from mdplatform.features import parse_feature, standing_catalogue
from mdplatform.lake import Lake
from mdplatform.market.timeframe import Timeframe
from mdplatform.serving.keys import blob_key
from mdplatform.serving.publisher import Publisher
from mdplatform.serving.result import FeatureResult
from mdplatform.settings import Settings
from mdplatform.strategy import AsyncFeatureReader, FeatureReader
from mdplatform.valkey.connection import connect
from mdplatform.valkey.embedded import embedded

FEATURE = parse_feature("RSI(timeperiod=14)")
SYMBOL = symbols(1)[0]
TIMEFRAMES = (Timeframe.M15, Timeframe.H1, Timeframe.H4)
KEY = blob_key(SYMBOL, Timeframe.M15, FEATURE.id)
TASKS = 1_000
CONNECTIONS = 16
_KEYS_AT_ONCE = 128
_ROWS = (1, 200)
_LAYERS = {"hit": ("cache", "redis"), "miss": ("computed", "lake"), "lake": ("computed", "lake")}
_NOWHERE = "unix:///nonexistent/mdplatform.sock"

Wanted = dict[tuple[str, Timeframe], list[Floats]]


def run(short: bool) -> Iterator[Comparison]:
    """Compare hits, misses and reads from the lake, for one row and 200, sync and async; then many at once."""
    with temporary_settings(near_cache_mb=0) as settings, connect(settings) as keeper:
        lake = Lake(settings.lake_dir)
        take_in(lake, SYMBOL, Timeframe.M15, months(4))
        wanted = _wanted(lake)
        without_redis = Settings.load(home=settings.home, redis_url=_NOWHERE)
        bare = redis.Redis(unix_socket_path=str(embedded(settings).path))
        try:
            with FeatureReader(settings) as reader, FeatureReader(without_redis) as alone:
                for way, turns in _turns(short).items():
                    asked = alone if way == "lake" else reader
                    for n in _ROWS:
                        times = in_turns(
                            turns,
                            ours=partial(asked.latest, SYMBOL, str(FEATURE), "15m", n),
                            bare=partial(bare.get, KEY),
                            prepare=bare.flushall if way == "miss" else _have_key(bare, reader),
                            check=_check(wanted, _LAYERS[way], n),
                            prepare_bare=partial(bare.get, KEY) if way != "hit" else nothing,
                        )
                        yield _compared("sync", way, n, "redis-py GET", times, bare)
        finally:
            bare.close()
        yield from asyncio.run(_in_a_loop(short, settings, without_redis, wanted))
        publisher = Publisher(keeper, settings)
        for timeframe in TIMEFRAMES:
            publisher.publish_features(lake, SYMBOL, timeframe, standing_catalogue().features)
        yield from asyncio.run(_many_at_once(short, settings, wanted))


def _turns(short: bool) -> dict[str, int]:
    return {"hit": 500, "miss": 100, "lake": 100} if short else {"hit": 3_000, "miss": 500, "lake": 500}


async def _in_a_loop(short: bool, settings: Settings, without_redis: Settings, wanted: Wanted) -> list[Comparison]:
    found = []
    async with AsyncExitStack() as stack:
        reader = await stack.enter_async_context(AsyncFeatureReader(settings))
        alone = await stack.enter_async_context(AsyncFeatureReader(without_redis))
        bare = redis.asyncio.Redis(unix_socket_path=str(embedded(settings).path))
        stack.push_async_callback(bare.aclose)
        await reader.latest(SYMBOL, str(FEATURE), "15m")
        for way, turns in _turns(short).items():
            asked = alone if way == "lake" else reader
            for n in _ROWS:
                if not await bare.exists(KEY):
                    await reader.latest(SYMBOL, str(FEATURE), "15m")
                more: dict[str, AsyncWork] = {"prepare": bare.flushall} if way == "miss" else {}
                if way != "hit":
                    more["prepare_bare"] = partial(bare.get, KEY)
                times = await in_turns_async(
                    turns,
                    ours=partial(asked.latest, SYMBOL, str(FEATURE), "15m", n),
                    bare=partial(bare.get, KEY),
                    check=_check(wanted, _LAYERS[way], n),
                    **more,
                )
                found.append(_compared("async", way, n, "redis.asyncio GET", times, None))
    return found


async def _many_at_once(short: bool, settings: Settings, wanted: Wanted) -> list[Comparison]:
    features = standing_catalogue().features
    every = [(feature, timeframe) for timeframe in TIMEFRAMES for feature in features]
    asked = list(islice(cycle(every), TASKS))
    keys = [blob_key(SYMBOL, timeframe, feature.id) for feature, timeframe in asked]
    path = str(embedded(settings).path)
    ours_waits: list[float] = []
    bare_waits: list[float] = []
    rounds = 5 if short else 30
    async with AsyncFeatureReader(settings) as reader:
        pool = redis.asyncio.BlockingConnectionPool(
            connection_class=redis.asyncio.UnixDomainSocketConnection,
            path=path,
            max_connections=CONNECTIONS,
            timeout=60,
        )
        bare = redis.asyncio.Redis.from_pool(pool)

        async def ours() -> list[FeatureResult]:
            return await _all(
                [partial(reader.latest, SYMBOL, str(feature), timeframe.value, 1) for feature, timeframe in asked],
                ours_waits,
            )

        async def gets() -> list[bytes]:
            return await _all([partial(bare.get, key) for key in keys], bare_waits)

        async def mgets() -> object:
            parts = [keys[at : at + _KEYS_AT_ONCE] for at in range(0, TASKS, _KEYS_AT_ONCE)]
            return await asyncio.gather(*(bare.mget(part) for part in parts))

        def check(results: list[FeatureResult]) -> None:
            for (feature, timeframe), result in zip(asked, results, strict=True):
                _hold(result, wanted[str(feature), timeframe], _LAYERS["hit"], 1)
            if sum(bool(np.isfinite(result.values).all()) for result in results) < 0.9 * TASKS:
                raise WrongResult("more than a tenth of the values are missing")

        try:
            if any(each is None for each in await bare.mget(keys)):
                raise WrongResult("a key that the bare GET asks for is not there")
            of_gets = await in_turns_async(rounds, ours, gets, check=check)
            waits = f"a task's p99 {1e3 * (p99(ours_waits) or 0):.0f} ms, bare {1e3 * (p99(bare_waits) or 0):.0f} ms"
            of_mgets = await in_turns_async(rounds, ours, mgets, check=check)
        finally:
            await bare.aclose()
            await pool.aclose()
    what = f"{TASKS:,} tasks at once, async hit"
    more = {"amount": TASKS, "amount_unit": "reads"}
    return [
        compare("reading", what, f"GETs, redis.asyncio pool of {CONNECTIONS}", of_gets, note=waits, **more),
        compare("reading", what, f"MGETs of {_KEYS_AT_ONCE}", of_mgets, **more),
    ]


async def _all(calls: Sequence[Callable[[], Awaitable]], waits: list[float]) -> list:  # type: ignore[type-arg]
    async def one(call: Callable[[], Awaitable]) -> object:  # type: ignore[type-arg]
        began = time.perf_counter()
        result = await call()
        waits.append(time.perf_counter() - began)
        return result

    return await asyncio.gather(*(one(call) for call in calls))


def _have_key(bare: redis.Redis, reader: FeatureReader) -> Callable[[], object]:
    def have_key() -> None:
        if not bare.exists(KEY):
            reader.latest(SYMBOL, str(FEATURE), "15m")

    return have_key


def _wanted(lake: Lake) -> Wanted:
    """Give what each feature is worth in each timeframe, by bare TA-Lib calls."""
    found: Wanted = {}
    for timeframe in TIMEFRAMES:
        bars = lake.bars.read(SYMBOL, timeframe)
        for feature in standing_catalogue().features:
            found[str(feature), timeframe] = expected(feature, bars, timeframe.microseconds)
    return found


def _check(wanted: Wanted, layer: tuple[str, str], n: int) -> Callable[[FeatureResult], None]:
    outputs = wanted[str(FEATURE), Timeframe.M15]
    if not np.isfinite(outputs[0][-n:]).all():
        raise WrongResult("the newest rows have no values to compare")
    return lambda result: _hold(result, outputs, layer, n)


def _hold(result: FeatureResult, outputs: list[Floats], layer: tuple[str, str], n: int) -> None:
    if (result.source, result.layer) != layer:
        raise WrongResult(f"read from {result.source} ({result.layer}), not {layer}: {result.notes}")
    newest = np.column_stack([each[-n:] for each in outputs])
    if not np.allclose(result.values.reshape(n, -1), newest, rtol=1e-9, atol=1e-9, equal_nan=True):
        raise WrongResult(f"{result.feature} {result.timeframe} is {result.values[-1]}, not {newest[-1]}")


def _compared(kind: str, way: str, n: int, bare_is: str, times: Times, bare: redis.Redis | None) -> Comparison:
    size = "" if bare is None else f"a blob of {bare.strlen(KEY):,} bytes"
    return compare("reading", f"{kind} {way}, n={n}", bare_is, times, note=size)
