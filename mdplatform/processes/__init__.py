"""Processes: start the platform's pieces beside this one, wait until they are ready, and leave none behind.

    with running(settings, workers=2) as pids:
        ...                                     # {"worker-1": 4711, "worker-2": 4712}

Each piece has a `minder` between it and this process, which ends it when this one ends, even by SIGKILL. A piece that
dies inside the `with` is not started again. Its log is `<home>/logs/<name>.log`.
"""

from __future__ import annotations

import os
import queue
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mdplatform.errors import InvalidSetting
from mdplatform.processes.child import Child, Program
from mdplatform.settings import Settings
from mdplatform.tuning import ONE_THREAD

__all__ = ["Program", "platform_program", "run_programs", "running"]

READY_SECONDS = 60.0
"""How long all pieces together may take to become ready."""


@contextmanager
def running(
    settings: Settings,
    *,
    workers: int = 1,
    dagster: bool = False,
    gateway: bool = False,
    feed: str | None = None,
) -> Iterator[dict[str, int]]:
    """Run workers, and if wanted Dagster's daemon with its code server, the gateway and a feed, until the `with` ends.

    `feed` is what stands behind `mdplatform feed`, such as `simulated BTCUSDT ETHUSDT --speed 60`. Gives the process
    ids by name (`worker-1`, `dagster`, `gateway`, `feed`) once all are ready. They end with this process, even if it is
    killed. Raises `PlatformError` with the end of the log of one that does not become ready in time.
    """
    programs = [
        platform_program(settings, f"worker-{number}", "worker", one_thread=True) for number in range(1, workers + 1)
    ]
    if gateway:
        programs.append(platform_program(settings, "gateway", "gateway"))
    if feed is not None:
        programs.append(platform_program(settings, "feed", "feed", *shlex.split(feed), one_thread=True))
    if dagster:
        programs.append(platform_program(settings, "dagster", module="mdplatform.runs.daemon"))
    with run_programs(programs, settings.home / "logs") as pids:
        yield pids


@contextmanager
def run_programs(
    programs: Sequence[Program], logs: Path, ready_seconds: float = READY_SECONDS
) -> Iterator[dict[str, int]]:
    """Run programs until the `with` ends; give their process ids by name once all are ready. Raises `PlatformError`."""
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as refused:
        raise InvalidSetting(f"The folder of logs cannot be made ({refused.strerror})", value=str(logs)) from None
    events: queue.SimpleQueue[Child] = queue.SimpleQueue()
    children: list[Child] = []
    try:
        for program in programs:
            children.append(Child(program, logs / f"{program.name}.log", events))
        _wait_until_ready(children, events, ready_seconds)
        yield {each.name: each.pid for each in children}
    finally:
        for each in children:
            each.ask_to_end()
        for each in children:
            each.wait()


def _wait_until_ready(children: Sequence[Child], events: queue.SimpleQueue[Child], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while late := [each for each in children if not each.is_ready]:
        try:
            event = events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise late[0].failure(f"is not ready after {seconds:.0f} s") from None
        if event.has_ended:
            raise event.failure("ended before all was ready")


def platform_program(
    settings: Settings, name: str, *words: str, module: str = "mdplatform", one_thread: bool = False
) -> Program:
    """Give a command of the platform (or a module of it that is run) as a program on these settings.

    With `one_thread` libraries have no pools of threads, unless the environment says how many.
    """
    environment = {**(dict.fromkeys(ONE_THREAD, "1") if one_thread else {}), **os.environ}
    for variable, value in settings.variables().items():
        environment.pop(variable, None)
        if value is not None:
            environment[variable] = value
    home = ["--home", str(settings.home)] if module == "mdplatform" else []
    return Program(name, [sys.executable, "-P", "-m", module, *home, *words], environment)
