"""Measuring requests from end to end: real workers, real Redis, strategies in this process, one report.

1. The place: a temporary home with a simulated market of some symbols, or the home that is given, with its symbols.
2. `baseline`: a bare message to another process and back; `alone`: requests one after the other, as a multiple of it.
3. Warm-up: every question once, which does not count.
4. Two phases: a *burst* of one request of each strategy at once, then *steady* load at a rate for some seconds. Or, if
   asked for, instead of these: `equal` requests, or a `flood` of LOW ones beside steady load.
5. The report: each class, where values came from, throughput, and the processor time of generator and workers.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mdplatform.bench import plan, plot
from mdplatform.bench.baseline import ping_pong
from mdplatform.bench.drive import drive
from mdplatform.bench.place import machine, symbols, take_in, temporary_home, what_can_be_asked
from mdplatform.bench.plan import Question
from mdplatform.bench.samples import Sample, Samples, by_class, layers, stages, summary, timeline
from mdplatform.errors import InvalidSetting, NoData, TransportUnavailable
from mdplatform.lake import Lake
from mdplatform.messaging.overview import overview
from mdplatform.messaging.priority import DataPriority
from mdplatform.processes import running
from mdplatform.settings import Settings
from mdplatform.strategy import StrategyDataManager
from mdplatform.valkey.connection import connect

_WARMED_AT_ONCE = 500
_ALONE_TURNS = 200
_TOLD_SECONDS = 20.0
"""Within what time workers, who do so every second, have told what they did."""


@dataclass(frozen=True)
class Options:
    """What to measure. `rate` and `flood_rate` are requests a second; a `flood_rate` above 0 asks for a flood."""

    strategies: int = 1000
    seconds: float = 10.0
    symbols: int = 50
    workers: int = 2
    rate: float = 400.0
    flood_rate: float = 0.0
    equal: bool = False
    deadline_seconds: float = 30.0
    plot: Path | None = None


def measure(
    options: Options, home: Settings | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure, and give the report: all times in milliseconds unless named otherwise. Raises `PlatformError`."""
    if options.plot is not None:
        plot.check_plot(options.plot)
    if options.workers < 1 and home is None:
        raise InvalidSetting("Nobody answers in a home of its own", value="--workers 0", remedy="Give 1 or more")
    if home is not None and not Lake(home.lake_dir).universe.members():
        remedy = "Name a home with symbols, or leave --home out: a simulated market is for a temporary one alone"
        raise NoData("Without symbols", value=home.home, remedy=remedy)
    load = os.getloadavg()[0]
    with _place(home) as settings:
        began = time.perf_counter()
        named = sorted(Lake(settings.lake_dir).universe.members())[: options.symbols]
        if not named:
            say(f"taking in a simulated market of {options.symbols} symbols")
            named = symbols(options.symbols)
            take_in(settings, named)
        took = time.perf_counter() - began
        say(f"starting {options.workers} workers")
        with running(settings, workers=options.workers) as pids:
            report, phases = asyncio.run(_measure(options, settings, named, pids, say))
    report["about"] = {
        **{name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()},
        "symbols": len(named),
        "mix": {each.value: share for each, share in plan.MIX.items()},
        "took_in_seconds": round(took, 2),
        "machine": machine(load),
    }
    if options.plot is not None:
        drawn = {name: each for name, each in phases.items() if name != "alone"}
        plot.draw(
            options.plot, drawn, f"{options.strategies:,} strategies, {len(named)} symbols, {options.workers} workers"
        )
    return report


@contextmanager
def _place(home: Settings | None) -> Iterator[Settings]:
    if home is not None:
        yield home
        return
    with temporary_home() as settings:
        yield settings


async def _measure(
    options: Options, settings: Settings, named: Sequence[str], pids: dict[str, int], say: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Samples]]:
    asked = what_can_be_asked(named)
    wait = options.deadline_seconds
    phases: dict[str, Samples] = {}
    extra: dict[str, dict[str, Any]] = {}
    say("bare Redis streams")
    baseline = await ping_pong(settings)
    async with StrategyDataManager(settings) as manager:
        idle = _told(settings)
        say(f"warming {len(asked):,} questions")
        warming = [
            await drive(manager, plan.once_each(asked[start : start + _WARMED_AT_ONCE]), listen_seconds=0.0)
            for start in range(0, len(asked), _WARMED_AT_ONCE)
        ]
        say("requests one after the other")
        phases["alone"] = await _alone(manager, asked)
        if options.equal:
            say(f"{options.strategies:,} equal requests")
            asked_so_far = idle[0] + len(asked) + _ALONE_TURNS
            before = await _computed(settings, asked_so_far)
            question = Question(named[0], "RSI(timeperiod=23)", "15m")  # not one of those that are warm
            equal = plan.equal(options.strategies, question)
            phases["equal"] = await drive(manager, equal, deadline_seconds=wait, pids=pids)
            after = await _computed(settings, asked_so_far + options.strategies)
            extra["equal"] = {"computations": after - before}
        elif options.flood_rate:
            say(f"{options.rate:,.0f} requests a second beside a flood of {options.flood_rate:,.0f} LOW ones")
            flood = plan.flood(options.strategies, options.rate, options.flood_rate, options.seconds, asked)
            phases["flood"] = await drive(manager, flood, deadline_seconds=wait, pids=pids)
        else:
            say(f"{options.strategies:,} strategies at once")
            burst = plan.burst(options.strategies, asked)
            phases["burst"] = await drive(manager, burst, deadline_seconds=wait, pids=pids)
            say(f"{options.rate:,.0f} requests a second for {options.seconds:,.0f} s")
            steady = plan.steady(options.strategies, options.rate, options.seconds, asked)
            phases["steady"] = await drive(manager, steady, deadline_seconds=wait, pids=pids)
    alone = summary(phases["alone"].every)
    counted = [each for name, each in phases.items() if name != "alone"]
    together = counted[0] if len(counted) == 1 else counted[0] + counted[1]
    report: dict[str, Any] = {
        "priorities": by_class(together),
        "totals": {name: summary(together.every)[name] for name in ("sent", "answered", "lost", "duplicated")},
        "baseline": baseline,
        "alone": {
            **alone,
            "stages_p50_ms": stages(phases["alone"].every),
            "times_bare": round((alone["p50_ms"] or 0) / baseline["p50_ms"], 2),
        },
        "warming": _phase(sum(warming[1:], start=warming[0])),
    }
    for name, samples in phases.items():
        if name != "alone":
            report[name] = {**_phase(samples), "priorities": by_class(samples), **extra.get(name, {})}
    for name in ("steady", "flood"):
        if name in phases:
            critical = phases[name].of(DataPriority.CRITICAL)
            bucket = max(1.0, options.seconds / 60)
            report[name]["critical_over_time"] = timeline(critical, phases[name].began, bucket)
    return report, phases


async def _alone(manager: StrategyDataManager, asked: Sequence[Question]) -> Samples:
    """Ask CRITICAL questions as a strategy does, one after the other, each once the one before is answered."""
    began, found = time.perf_counter(), []
    for number in range(_ALONE_TURNS):
        question = asked[number % len(asked)]
        called = time.perf_counter()
        id = await manager.request_technical_indicators(
            strategy_id="alone", symbols=[question.symbol], indicators=[question.feature],
            timeframes=[question.timeframe], priority=DataPriority.CRITICAL,
        )  # fmt: skip
        answer = await manager.result(id)
        sample = Sample(plan.Planned(0.0, 0, question, DataPriority.CRITICAL), called, called, time.perf_counter(), 1)
        sample.status, sample.stages = answer.status.value, answer.body.timings_ms
        found.append(sample)
    return Samples(found, began, time.perf_counter())


def _phase(samples: Samples) -> dict[str, Any]:
    answered = sum(each.was_served for each in samples.every)
    seconds = samples.seconds or 1e-9
    return {
        "seconds": round(seconds, 3),
        "answered_a_second": round(answered / seconds, 1),
        "layers": layers(samples.every),
        "stages_p50_ms": stages(samples.every),
        "generator_cpu_share": round(samples.cpu_seconds / seconds, 3),
        "workers_cpu_share": round(samples.worker_cpu_seconds / seconds, 3),
        "generator_late_p99_ms": _late(samples),
        "problems": sorted({each.problem for each in samples.every if each.problem})[:5],
    }


def _late(samples: Samples) -> float:
    """Give by how much the generator itself was late, p99: from due to the strategy's call."""
    late = sorted((each.called - each.due) * 1000 for each in samples.every if each.called)
    return round(late[len(late) * 99 // 100], 3) if late else 0.0


async def _computed(settings: Settings, answered: int) -> int:
    """Give how many results the workers have computed, once they have told of so many answers in all."""
    until = time.monotonic() + _TOLD_SECONDS
    while (told := _told(settings))[0] < answered:
        if time.monotonic() > until:
            remedy = f"{answered} were given: look at the logs of the workers"
            raise TransportUnavailable("Workers do not say that they answered", value=told[0], remedy=remedy)
        await asyncio.sleep(0.1)
    return told[1]


def _told(settings: Settings) -> tuple[int, int]:
    """Give how many final answers the workers that live have given, and how many results they computed."""
    with connect(settings) as connection:
        counts = [each.counts for each in overview(connection, at_most=1).workers]
    answers = (count for each in counts for name, count in each.items() if name.startswith("answered_"))
    return sum(answers), sum(each["computed"] for each in counts)
