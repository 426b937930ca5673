"""Measuring: ours and the bare library's work in turns, so that a busy machine slows down both.

1. `in_turns` times A, B, A, B, … and gives the seconds of each.
2. `compare` makes a `Comparison` of them: medians, p99 and the ratio, which is the median of the pairs' ratios.
3. `Stages` tells where the time of one call goes, by timing named functions of the platform from outside.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any
from unittest.mock import patch

Work = Callable[[], object]
AsyncWork = Callable[[], Awaitable[object]]
Check = Callable[[Any], object]
Times = tuple[list[float], list[float]]


def nothing(*_: object) -> None:
    """Do nothing, where nothing has to be prepared or checked."""


async def nothing_async() -> None:
    """Do nothing inside a loop."""


class WrongResult(Exception):
    """What was timed is not right, so that its time is worth nothing."""


@dataclass(frozen=True)
class Comparison:
    """Ours beside the bare library's work; times in seconds, `rate` in `rate_unit` where a rate says more.

    `ratio` is how many times as long ours takes. `stages` are seconds of ours by name, where they were measured.
    """

    part: str
    what: str
    bare_is: str
    turns: int
    ours: float
    bare: float
    ratio: float
    ours_p99: float | None = None
    bare_p99: float | None = None
    amount: int | None = None
    amount_unit: str = ""
    note: str = ""
    stages: dict[str, float] = field(default_factory=dict)


def in_turns(
    turns: int,
    ours: Work,
    bare: Work,
    prepare: Work = nothing,
    check: Check = nothing,
    prepare_bare: Work = nothing,
) -> Times:
    """Time `ours` and `bare` in turns, after one turn of each that does not count.

    `prepare` comes before each turn, `check` gets each result of `ours` and `prepare_bare` comes before `bare`; none of
    them is timed. A short `bare` after a long `ours` finds cold caches; one more before it, not counted, mends that.
    """
    times: Times = ([], [])
    with _no_collection():
        for turn in range(turns + 1):
            prepare()
            began = time.perf_counter()
            result = ours()
            taken = time.perf_counter() - began
            check(result)
            prepare_bare()
            other = seconds_of(bare)
            if turn:
                times[0].append(taken)
                times[1].append(other)
    return times


async def in_turns_async(
    turns: int,
    ours: AsyncWork,
    bare: AsyncWork,
    prepare: AsyncWork = nothing_async,
    check: Check = nothing,
    prepare_bare: AsyncWork = nothing_async,
) -> Times:
    """Do what `in_turns` does, inside an event loop."""
    times: Times = ([], [])
    with _no_collection():
        for turn in range(turns + 1):
            await prepare()
            began = time.perf_counter()
            result = await ours()
            taken = time.perf_counter() - began
            check(result)
            await prepare_bare()
            began = time.perf_counter()
            await bare()
            other = time.perf_counter() - began
            if turn:
                times[0].append(taken)
                times[1].append(other)
    return times


def compare(part: str, what: str, bare_is: str, times: Times, **more: Any) -> Comparison:
    """Sum up the times of turns; p99 where there are at least a hundred."""
    ours, bare = times
    return Comparison(
        part=part,
        what=what,
        bare_is=bare_is,
        turns=len(ours),
        ours=median(ours),
        bare=median(bare),
        ratio=median(mine / other for mine, other in zip(ours, bare, strict=True)),
        ours_p99=p99(ours),
        bare_p99=p99(bare),
        **more,
    )


def p99(times: Sequence[float]) -> float | None:
    """Give the time that 99 of 100 stay within, None of fewer than a hundred."""
    return sorted(times)[len(times) * 99 // 100] if len(times) >= 100 else None


class Stages:
    """Seconds by stage. A stage that runs inside another one counts as the outer one's."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside = False

    @contextmanager
    def watching(self, places: Sequence[tuple[object, str, str]]) -> Iterator[None]:
        """Time each `(owner, attribute, stage)` while inside the `with`."""
        with ExitStack() as stack:
            for owner, name, stage in places:
                stack.enter_context(patch.object(owner, name, self._timed(getattr(owner, name), stage)))
            yield

    def _timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            if self._inside:
                return function(*given, **named)
            self._inside = True
            began = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
                self._inside = False

        return timed


def seconds_of(work: Work) -> float:
    """Give how long `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage of the one side from being collected in the time of the other."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
