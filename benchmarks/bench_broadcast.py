"""`python -m benchmarks.bench_broadcast [--rate N] [--seconds N] [--turns N]`: broadcasts against bare Redis pub/sub.

One process sends posts of 500 bytes in 50 topics; 1 and then 10 processes hear all of them. Bare is redis-py: pipelines
of `PUBLISH`, and `get_message` of a `PubSub` in each process; nothing is kept, numbered or looked after. Ours is the
`Broadcaster` and `Listener` of the registry, where each post is kept in a stream as well.

1. *Latency*: so many posts a second, every two milliseconds those that are due; from the instant at which they were due
   to the one at which a process has them. Bare and ours in turns; the ratio is the median of the pairs' ratios.
2. *Rate*: as many as go, in calls of 200, until the last process has the last post.

The count that each process heard is held against what was sent: a run that lost a post is no result.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from benchmarks.measure import WrongResult
from benchmarks.place import temporary_settings
from mdplatform.messaging.broadcast import Post
from mdplatform.messaging.registry import broadcaster, listener
from mdplatform.settings import Settings
from mdplatform.valkey.connection import async_connect, connect

TOPICS = [f"SYMBOL{number}" for number in range(50)]
SIZE, TICK_SECONDS, AT_ONCE = 500, 0.002, 200
LAST = b"last"
_CHANNEL = "bare:"

Say = Callable[[Sequence[bytes]], Awaitable[object]]


def main() -> None:
    """Run all of it and print one line of JSON for each comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_broadcast")
    parser.add_argument("--rate", type=int, default=10_000, help="posts a second")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--listeners", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--hear", choices=["bare", "ours"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hear:
        heard = asyncio.run(_hear_ours()) if given.hear == "ours" else _hear_bare()
        print(json.dumps(heard), flush=True)
        return
    with temporary_settings() as settings:
        for count in given.listeners:
            for paced in (True, False):
                turns: list[dict[str, dict[str, float]]] = []
                for _ in range(given.turns):
                    turns.append({kind: _turn(settings, kind, count, given, paced) for kind in ("bare", "ours")})
                print(json.dumps(_summary(turns, count, paced)), flush=True)


def _summary(turns: list[dict[str, dict[str, float]]], listeners: int, paced: bool) -> dict[str, Any]:
    names = ("p50_ms", "p99_ms") if paced else ("posts_a_second",)
    found: dict[str, Any] = {"what": "latency" if paced else "rate", "listeners": listeners, "turns": len(turns)}
    for name in names:
        for kind in ("bare", "ours"):
            found[f"{kind}_{name}"] = round(median(turn[kind][name] for turn in turns), 3)
        found[f"ratio_{name}"] = round(median(turn["ours"][name] / turn["bare"][name] for turn in turns), 2)
    return found


def _turn(settings: Settings, kind: str, count: int, given: argparse.Namespace, paced: bool) -> dict[str, float]:
    total = int(given.rate * given.seconds)
    with _processes(kind, count) as processes:
        began = time.time_ns()
        asyncio.run(_send(settings, kind, total, given.rate if paced else 0))
        heard = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    if any(each["count"] != total for each in heard):
        raise WrongResult(f"{kind}: of {total} posts were heard {[each['count'] for each in heard]}")
    return {
        "p50_ms": median(each["p50"] for each in heard) / 1e6,
        "p99_ms": max(each["p99"] for each in heard) / 1e6,
        "posts_a_second": total / ((max(each["ended"] for each in heard) - began) / 1e9),
    }


@contextmanager
def _processes(kind: str, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "benchmarks.bench_broadcast", "--hear", kind]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise WrongResult("A listening process did not start")
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


async def _send(settings: Settings, kind: str, total: int, rate: int) -> None:
    if kind == "ours":
        ours = broadcaster(settings)
        numbers = iter(range(1 << 60))

        async def say(bodies: Sequence[bytes]) -> None:
            await ours.send([Post(TOPICS[next(numbers) % len(TOPICS)], body) for body in bodies])

        close: Callable[[], Awaitable[object]] = ours.close
    else:
        client = async_connect(settings)
        counted = iter(range(1 << 60))

        async def say(bodies: Sequence[bytes]) -> None:
            pipeline = client.pipeline(transaction=False)
            for body in bodies:
                pipeline.publish(f"{_CHANNEL}{TOPICS[next(counted) % len(TOPICS)]}", body)
            await pipeline.execute()

        close = client.aclose
    try:
        await _pace(say, total, rate)
        await say([LAST] * len(TOPICS))
    finally:
        await close()


async def _pace(say: Say, total: int, rate: int) -> None:
    filling = b"x" * (SIZE - 8)
    began, sent = time.time_ns(), 0
    while sent < total:
        now = time.time_ns()
        due = min(total, int((now - began) / 1e9 * rate) + 1) if rate else min(total, sent + AT_ONCE)
        if due > sent:
            at = [began + int(number / rate * 1e9) if rate else now for number in range(sent, due)]
            await say([each.to_bytes(8, "big") + filling for each in at])
            sent = due
        if rate:
            await asyncio.sleep(TICK_SECONDS)


class _Heard:
    def __init__(self) -> None:
        self.late: list[int] = []
        self.lasts = 0

    def take(self, body: bytes, now: int) -> None:
        if body == LAST:
            self.lasts += 1
        else:
            self.late.append(now - int.from_bytes(body[:8], "big"))

    @property
    def is_over(self) -> bool:
        return self.lasts == len(TOPICS)

    def figures(self) -> dict[str, int]:
        late = sorted(self.late) or [0]
        return {
            "count": len(self.late),
            "p50": late[len(late) // 2],
            "p99": late[len(late) * 99 // 100],
            "ended": time.time_ns(),
        }


async def _hear_ours() -> dict[str, int]:
    hearing, heard = listener(Settings.load()), _Heard()
    await hearing.follow(TOPICS)
    await hearing.receive(0.1)
    print("ready", flush=True)
    while not heard.is_over:
        found = await hearing.receive(5)
        now = time.time_ns()
        for each in found:
            if not isinstance(each, Post):
                raise WrongResult(str(each))
            heard.take(each.body, now)
    figures = heard.figures()
    await hearing.close()
    return figures


def _hear_bare() -> dict[str, int]:
    heard = _Heard()
    with connect(Settings.load()) as client, client.pubsub(ignore_subscribe_messages=True) as hearing:
        hearing.subscribe(*(f"{_CHANNEL}{topic}" for topic in TOPICS))
        for _ in TOPICS:
            hearing.get_message(timeout=1)
        print("ready", flush=True)
        while not heard.is_over:
            message = hearing.get_message(timeout=5)
            if message is not None:
                heard.take(message["data"], time.time_ns())
    return heard.figures()


if __name__ == "__main__":
    main()
