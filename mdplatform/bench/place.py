"""The place of a measurement: a home of its own with a simulated market, whatever the environment says."""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mdplatform.bench.plan import Question, questions
from mdplatform.features.catalogue import standing_catalogue
from mdplatform.lake import Lake
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.settings import Settings
from mdplatform.sources.simulated import SimulatedMarket

TIMEFRAMES = ("15m", "1h")
_HISTORY = timedelta(days=45)
_PATIENCE_SECONDS = 5.0
"""How long one answer of Redis is waited for: a busy machine is to show in latencies, not in errors."""


@contextmanager
def temporary_home() -> Iterator[Settings]:
    """Give settings of an empty home in a temporary folder. Variables `MDPLATFORM_*` are set aside meanwhile.

    In a main thread a SIGTERM ends the program as `sys.exit` does, so that the folder goes.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)) if is_main else None
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("MDPLATFORM_")}
    try:
        with TemporaryDirectory(prefix="mdplatform-bench-") as folder:
            yield Settings.load(home=Path(folder), redis_timeout_seconds=_PATIENCE_SECONDS)
    finally:
        os.environ.update(kept)
        if is_main:
            signal.signal(signal.SIGTERM, before)


def symbols(count: int) -> list[str]:
    """Give that many symbols.

    >>> symbols(2)
    ['COIN00USDT', 'COIN01USDT']
    """
    return [f"COIN{number:02d}USDT" for number in range(count)]


def take_in(
    settings: Settings,
    named: Sequence[str],
    until: datetime | None = None,
    timeframe: Timeframe = Timeframe.M15,
    history: timedelta = _HISTORY,
) -> None:
    """Put simulated bars, by default up to now, into the lake: as the asset `bars` does, without a Dagster run."""
    lake, market, now = Lake(settings.lake_dir), SimulatedMarket(), datetime.now(UTC)
    end = until or now
    for symbol in named:
        for each in market.bars(symbol, timeframe, to_us(end - history), to_us(end)):
            for batch in lake.inbox.stage(symbol, timeframe, each.source, each.content_hash, each.rows, now):
                lake.bars.merge(symbol, batch.month, [batch])
                lake.inbox.clear(batch)
        lake.universe.add(symbol, "simulated", timeframe)


def machine(load: float) -> dict[str, Any]:
    """Say what a measurement ran on; `load` is the load average from before it."""
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average": round(load, 2),
    }


def what_can_be_asked(named: Sequence[str]) -> list[Question]:
    """Give the standing catalogue over these symbols."""
    return questions(named, [str(each) for each in standing_catalogue().features], TIMEFRAMES)
