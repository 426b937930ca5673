"""The near cache: what a hit costs beside a bare `GET` of the same bytes, and beside a hit that asks Redis.

    python -m benchmarks.bench_near_cache [--short]

- reader: `latest` of a feature that is near, of one that Redis is asked for (`near_cache_mb=0`), and a bare `GET`.
- a crowd: a thousand tasks of one loop, near, against one bare `MGET` for each 128 of them.
- worker: a request of one result, alone and fifty at once, with sequences heard of and with an `MGET` each time.
- word: from a foreign write to its having been heard of.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial

import redis
import redis.asyncio
from rich.console import Console

from benchmarks.market import months, symbols, take_in
from benchmarks.measure import Comparison, WrongResult, compare, in_turns, in_turns_async
from benchmarks.place import temporary_settings
from benchmarks.report import machine, show
from mdplatform.features import parse_feature
from mdplatform.lake import Lake
from mdplatform.market.timeframe import Timeframe
from mdplatform.requests.request import DataRequest, RequestType
from mdplatform.serving.async_reader import AsyncReader
from mdplatform.serving.keys import bars_key, blob_key
from mdplatform.serving.near import Near
from mdplatform.serving.reader import Reader
from mdplatform.serving.result import FeatureResult
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect
from mdplatform.valkey.embedded import embedded
from mdplatform.worker.evaluator import Evaluator

SYMBOL = symbols(1)[0]
FEATURE = str(parse_feature("RSI"))
KEY = blob_key(SYMBOL, Timeframe.M15, parse_feature(FEATURE).id)
TASKS = 1_000
AT_ONCE = 128
_WAIT_SECONDS = 10.0


def run(short: bool) -> Iterator[Comparison]:
    """Compare, with few repetitions if `short`."""
    with temporary_settings() as settings, connect(settings) as bare:
        take_in(Lake(settings.lake_dir), SYMBOL, Timeframe.M15, months(2))
        far = settings.model_copy(update={"near_cache_mb": 0})
        turns = 500 if short else 3_000
        with Reader(settings) as near_reader, Reader(far) as reader:
            for n in (1, 200):
                ask = partial(near_reader.latest, SYMBOL, FEATURE, "15m", n)
                _warm(ask)
                get = partial(bare.get, KEY)
                yield _compared(f"sync near hit, n={n}", "redis-py GET", in_turns(turns, ask, get, _proven(ask)))
                asked = partial(reader.latest, SYMBOL, FEATURE, "15m", n)
                yield _compared(f"sync hit in Redis, n={n}", "redis-py GET", in_turns(turns, asked, get))
        yield from asyncio.run(_in_a_loop(short, settings, far))
        yield from asyncio.run(_in_a_worker(short, settings, far))
        yield _word(turns, settings, bare)


async def _in_a_loop(short: bool, settings: Settings, far: Settings) -> list[Comparison]:
    bare = redis.asyncio.Redis(unix_socket_path=str(embedded(settings).path))
    async with AsyncReader(settings) as near_reader, AsyncReader(far) as reader:
        await _warm_async(near_reader)

        async def crowd(asked: AsyncReader) -> object:
            return await asyncio.gather(*(asked.latest(SYMBOL, FEATURE, "15m") for _ in range(TASKS)))

        async def mgets() -> object:
            return await asyncio.gather(*(bare.mget([KEY] * AT_ONCE) for _ in range(0, TASKS, AT_ONCE)))

        rounds = 10 if short else 50
        found = []
        for what, asked in (("near hits", near_reader), ("hits in Redis", reader)):
            times = await in_turns_async(rounds, partial(crowd, asked), mgets)
            more = {"amount": TASKS, "amount_unit": "reads"}
            found.append(_compared(f"{TASKS:,} tasks at once, {what}", f"MGETs of {AT_ONCE}", times, **more))
    await bare.aclose()
    return found


async def _in_a_worker(short: bool, settings: Settings, far: Settings) -> list[Comparison]:
    found = []
    async with Evaluator(settings, worker="near") as hearing, Evaluator(far, worker="asking") as asking:
        for count in (1, 50):

            async def requests(of: Evaluator, count: int = count) -> object:
                return await asyncio.gather(*(of.evaluate([_request()]) for _ in range(count)))

            for _ in range(20):
                await requests(hearing)
                await requests(asking)
                await asyncio.sleep(0.01)
            turns = 300 if short else 2_000
            times = await in_turns_async(turns, partial(requests, hearing), partial(requests, asking))
            found.append(_compared(f"worker, {count} at once, sequences heard of", "sequences by MGET", times))
    return found


def _word(turns: int, settings: Settings, bare: redis.Redis) -> Comparison:
    """Time a foreign write until it is heard of, beside the write alone."""
    near, key = Near(settings), bars_key("OTHERUSDT")

    def fill() -> None:
        end = time.monotonic() + _WAIT_SECONDS
        while near.get([key]) is None:
            with near.filling([key]) as kept:
                kept[key] = bare.get(key)  # type: ignore[assignment]
            if time.monotonic() > end:
                raise WrongResult("nothing becomes near")

    def write() -> None:
        bare.incr(key)
        while near.get([key]) is not None:
            time.sleep(0)  # the thread that hears needs the interpreter

    try:
        return _compared(
            "a foreign write until it is heard of", "INCR", in_turns(turns, write, partial(bare.incr, key), fill)
        )
    finally:
        near.close()


def _request() -> DataRequest:
    return DataRequest(
        request_id=str(time.perf_counter_ns()),
        strategy_id="benchmark",
        type=RequestType.TECHNICAL_INDICATORS,
        symbols=(SYMBOL,),
        timeframes=("15m",),
        features=(FEATURE,),
        deadline=time.time_ns() // 1000 + 60_000_000,
    )


def _warm(ask: Callable[[], FeatureResult]) -> None:
    end = time.monotonic() + _WAIT_SECONDS
    while ask().layer != "near":
        if time.monotonic() > end:
            raise WrongResult("nothing becomes near")


def _proven(ask: Callable[[], FeatureResult]) -> Callable[[], None]:
    """Give what makes sure that the next is a near hit, on however busy a machine."""
    return lambda: _warm(ask)


async def _warm_async(reader: AsyncReader) -> None:
    end = time.monotonic() + _WAIT_SECONDS
    while (await reader.latest(SYMBOL, FEATURE, "15m")).layer != "near":
        if time.monotonic() > end:
            raise WrongResult("nothing becomes near")


def _compared(what: str, bare_is: str, times: tuple[list[float], list[float]], **more: object) -> Comparison:
    return compare("near cache", what, bare_is, times, **more)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_near_cache", description=__doc__)
    parser.add_argument("--short", action="store_true", help="with few repetitions")
    console = Console(width=160)
    show(list(run(parser.parse_args().short)), machine(), console)


if __name__ == "__main__":
    main()
