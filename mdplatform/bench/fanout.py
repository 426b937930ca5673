"""Measuring the fan-out: messages in at a rate, through bars, features and frames, out to many callbacks.

1. The place: a temporary home with a simulated market, so that features have a history.
2. Consumers (`ears`), one process or several, subscribe: each to a group of symbols in four timeframes.
3. The feed process (`metronome`) runs the platform's engine on candles that are due at exact instants.
4. Latency of a delivery: from the instant at which the message was due that completed the frame, to the callback.
5. Meanwhile the memory of each process is sampled (`memory`).
6. The baseline: bare Redis pub/sub with as many messages as there were packets, as large, to as many processes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec

from mdplatform.bench import handover, metronome, plot
from mdplatform.bench.bare_fanout import bare_fanout
from mdplatform.bench.ears import Heard, Listening
from mdplatform.bench.latencies import Counts, together
from mdplatform.bench.memory import Memory
from mdplatform.bench.place import machine, symbols, take_in, temporary_home
from mdplatform.errors import InvalidSetting
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.processes import platform_program, run_programs
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect

TIMEFRAMES = ("1m", "5m", "15m", "1h")
_HISTORY = timedelta(days=10)
_RESULT_SECONDS = 60.0
_SEALED_SECONDS = 600.0
"""How long the feed may take after its last message, until the lake has everything."""
_READY_SECONDS = 120.0
_HEAD_START_US = 300_000
_STRETCHES = 60
_SAMPLES = 360
_LEAST_STEP_SECONDS = 0.2


@dataclass(frozen=True)
class Options:
    """What to measure: `rate` messages a second, of which one in `per_bar` closes a bar of 1m; so many subscriptions
    in all, over `processes`; each to one of `shapes` groups of symbols."""

    rate: float = 10_000.0
    subscriptions: int = 1000
    processes: int = 1
    seconds: float = 10.0
    symbols: int = 50
    shapes: int = 10
    per_bar: int = 10
    plot: Path | None = None


def measure(options: Options, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure, and give the report; times in milliseconds unless named otherwise. Raises `PlatformError`."""
    _check(options)
    load = os.getloadavg()[0]
    with temporary_home() as settings:
        named = symbols(options.symbols)
        say(f"taking in a simulated market of {options.symbols} symbols")
        start = Timeframe.H1.floor(to_us(datetime.now(UTC)))  # so that no bar of any timeframe begins before it
        take_in(settings, named, from_us(start), Timeframe.M5, _HISTORY)
        report, course, memory = asyncio.run(_measure(options, settings, named, start, say))
    report["about"] = {
        **{name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()},
        "timeframes": TIMEFRAMES,
        "machine": machine(load),
    }
    if options.plot is not None:
        title = f"{options.rate:,.0f} messages/s to {options.subscriptions:,} callbacks"
        plot.draw_course(options.plot, course, options.seconds / _STRETCHES, memory, title)
    return report


def _check(options: Options) -> None:
    if options.plot is not None:
        plot.check_plot(options.plot)
    if options.subscriptions < options.processes:
        raise InvalidSetting("More processes than subscriptions", value=f"--processes {options.processes}")
    if options.shapes > options.symbols:
        raise InvalidSetting("More groups than symbols", value=f"--shapes {options.shapes}")
    minutes = metronome.minutes_of(options.symbols, options.rate, options.seconds, options.per_bar)
    if minutes < 2:
        raise InvalidSetting(
            "Too few messages for two minutes of bars", value=f"--rate {options.rate:g} --seconds {options.seconds:g}",
            remedy=f"Give at least {2 * options.symbols * options.per_bar} messages in all",
        )  # fmt: skip


async def _measure(
    options: Options, settings: Settings, named: Sequence[str], start: int, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[Counts], Memory]:
    folder = settings.home / "fanout"
    folder.mkdir(parents=True, exist_ok=True)
    go = folder / "go"
    beat = metronome.Beat(tuple(named), start, options.rate, options.seconds, options.per_bar, str(go))
    shapes = tuple(tuple(named[number :: options.shapes]) for number in range(options.shapes))
    programs, results = [], []
    for number in range(options.processes):
        results.append(folder / f"ears-{number}.msgpack")
        own = len(range(number, options.subscriptions, options.processes))
        asked = Listening(beat, shapes, TIMEFRAMES, own, str(results[-1]), options.seconds / _STRETCHES)
        words = msgspec.json.encode(asked).decode()
        programs.append(
            platform_program(settings, f"ears-{number}", words, module="mdplatform.bench.ears", one_thread=True)
        )
    words = msgspec.json.encode(beat).decode()
    feed = platform_program(settings, "metronome", words, module="mdplatform.bench.metronome", one_thread=True)
    say(f"subscribing {options.subscriptions:,} times in {options.processes} processes")
    with run_programs([feed, *programs], settings.home / "logs", _READY_SECONDS) as pids:
        say(f"{options.rate:,.0f} messages a second for {options.seconds:,.0f} s")
        handover.write(go, str(time.time_ns() // 1000 + _HEAD_START_US).encode())
        memory = Memory(pids | {"redis": _server(settings)}, below={"sealing": pids["metronome"]})
        watching = asyncio.create_task(memory.watch(max(_LEAST_STEP_SECONDS, options.seconds / _SAMPLES)))
        came = [await handover.read(path, options.seconds + _RESULT_SECONDS) for path in results]
        watching.cancel()
        fed = msgspec.json.decode(await handover.read(folder / "go.done", _SEALED_SECONDS))
    heard = [msgspec.msgpack.decode(each, type=Heard) for each in came]
    packets, size = max(1, fed["packets"]), max(1, fed["bytes"] // max(1, fed["packets"]))
    say("bare pub/sub")
    bare = await bare_fanout(
        settings, folder, processes=options.processes, rate=packets / options.seconds,
        seconds=min(options.seconds, 10.0), size=size,
    )  # fmt: skip
    course = _course([each.latencies for each in heard])
    latencies = together(course)
    delivered = sum(each.delivered for each in heard)
    seconds = max((each.seconds for each in heard), default=0.0) or 1e-9
    p50, p99 = latencies.percentile_ms(0.5), latencies.percentile_ms(0.99)
    report = {
        "sent": beat.minutes * options.subscriptions,
        "delivered": delivered,
        "lost": sum(each.lost for each in heard),
        "duplicated": sum(each.duplicated for each in heard),
        "incomplete": sum(each.incomplete for each in heard),
        "p50_ms": round(p50, 3),
        "p99_ms": round(p99, 3),
        "max_ms": round(latencies.longest / 1000, 3),
        "deliveries_a_second": round(delivered / seconds),
        "messages": fed["messages"],
        "messages_a_second": round(fed["messages"] / fed["seconds"]),
        "packets": packets,
        "bytes_a_packet": size,
        "feed_cpu_share": round(fed["cpu_seconds"] / fed["seconds"], 3),
        "consumers_cpu_share": round(sum(each.cpu_seconds for each in heard) / seconds, 3),
        "memory": memory.summary(),
        "bare": bare,
        "times_bare": {
            "p50": round(p50 / bare["p50_ms"], 2) if bare["p50_ms"] else None,
            "p99": round(p99 / bare["p99_ms"], 2) if bare["p99_ms"] else None,
        },
    }
    return report, course, memory


def _course(of_each: Sequence[Sequence[Counts]]) -> list[Counts]:
    """Put the counts of several processes together, stretch by stretch."""
    return [together(stretch) for stretch in zip_longest(*of_each, fillvalue=Counts())]


def _server(settings: Settings) -> int:
    with connect(settings) as connection:
        return int(connection.info("server")["process_id"])
