"""What all tests share: where the real data lies, a home of its own for each test, a small market, other processes."""

from __future__ import annotations

import gc
import os
import select
import subprocess
import sys
import textwrap
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import polars as pl
import pytest
import sqlalchemy
from alembic.script import ScriptDirectory

from mdplatform.lake import Lake
from mdplatform.market.bars import RAW_SCHEMA
from mdplatform.market.timeframe import Timeframe
from mdplatform.settings import Settings

FIRST_OPEN = datetime(2025, 1, 20, tzinfo=UTC)


def keep_engines() -> None:
    """Let Dagster keep the engine of each of its SQLite files, and what it knows of their revisions, in this process.

    It makes an engine for every statement it sends, which compiles the statement anew, and reads sixty scripts of
    revisions for every file it opens: half the time of a run of a small market. Connections are opened and closed as
    before (`NullPool`), and the files are the same; only that they need not outlive a power cut.
    """
    make = sqlalchemy.create_engine
    kept: dict[tuple[object, ...], sqlalchemy.Engine] = {}

    def create_engine(url: str, **options: Any) -> sqlalchemy.Engine:
        if options.get("poolclass") is not sqlalchemy.NullPool or not str(url).startswith("sqlite:////"):
            return make(url, **options)
        key = (url, *sorted((name, str(value)) for name, value in options.items()))
        if key not in kept:
            while len(kept) >= 64:
                del kept[next(iter(kept))]
            kept[key] = make(url, **options)
            sqlalchemy.event.listen(kept[key], "connect", lambda opened, _: opened.execute("PRAGMA synchronous=OFF"))
        return kept[key]

    sqlalchemy.create_engine = create_engine
    ScriptDirectory.from_config = cache(ScriptDirectory.from_config)  # type: ignore[method-assign]


keep_engines()  # before anything imports Dagster
# or each of the many processes that tests start would compile all of the platform anew
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
hypothesis.settings.register_profile("busy", deadline=None)  # a busy machine is slow at any example
hypothesis.settings.load_profile("busy")

MOSTLY_WAITING = ("whole", "sensors", "processes", "messaging", "streaming", "valkey", "cli", "bench", "docs")
"""Folders whose tests mostly wait for other processes, those that wait the longest first."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the collector of garbage from looking, now and later, through what is imported and listed."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Give it all back to the collector, or libraries complain at the end of what is still there."""
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that wait: one worker goes through them while the others use the cores."""

    def place(item: pytest.Item) -> int:
        waiting = [f"tests/{folder}/" for folder in MOSTLY_WAITING]
        return next((at for at, folder in enumerate(waiting) if item.nodeid.startswith(folder)), len(waiting))

    items.sort(key=place)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real market data, which no clone carries; tests that need it are skipped where it is absent."""
    given = os.environ.get("MDPLATFORM_TEST_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "README.md").is_file():
        pytest.skip(f"real market data is not at {folder}; set MDPLATFORM_TEST_DATA to run this test")
    return folder


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with a fresh home, in the environment too, so that processes started by a test share them."""
    for name in [name for name in os.environ if name.startswith("MDPLATFORM_") and name != "MDPLATFORM_TEST_DATA"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MDPLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MDPLATFORM_REDIS_TIMEOUT_SECONDS", "1")  # a busy machine is no outage
    return Settings.load()


def raw_bars(
    rows: int, seed: int = 7, first: datetime = FIRST_OPEN, timeframe: Timeframe = Timeframe.M15
) -> pl.DataFrame:
    """A random walk of plausible bars, as a source delivers them."""
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, rows)))
    opened = np.concatenate([[100.0], close[:-1]])
    volume = random.uniform(1, 10, rows)
    step = pl.duration(microseconds=timeframe.microseconds)
    return (
        pl.DataFrame({"row": np.arange(rows)})
        .select(
            (pl.lit(first).cast(pl.Datetime("us", "UTC")) + pl.col("row") * step).alias("open_time"),
            (pl.lit(first).cast(pl.Datetime("us", "UTC")) + (pl.col("row") + 1) * step).alias("close_time"),
            pl.Series("open", opened),
            pl.Series("high", np.maximum(opened, close) * 1.001),
            pl.Series("low", np.minimum(opened, close) * 0.999),
            pl.Series("close", close),
            pl.Series("volume", volume),
            pl.Series("quote_volume", volume * close),
            pl.Series("trade_count", random.integers(1, 100, rows)),
            pl.Series("taker_buy_volume", volume / 2),
            pl.Series("taker_buy_quote_volume", volume * close / 2),
        )
        .cast(dict(RAW_SCHEMA))
    )


class Market:
    """A lake that takes in bars as the `bars` asset does."""

    def __init__(self, settings: Settings) -> None:
        self.lake = Lake(settings.lake_dir)
        self._deliveries = 0

    def deliver(self, symbol: str, bars: pl.DataFrame, timeframe: Timeframe = Timeframe.M15) -> None:
        self._deliveries += 1
        staged_at = datetime(2026, 1, 1, 0, self._deliveries, tzinfo=UTC)
        for batch in self.lake.inbox.stage(symbol, timeframe, "test", f"{self._deliveries:064x}", bars, staged_at):
            self.lake.bars.merge(symbol, batch.month, [batch])

    def walk(self, symbol: str, rows: int, seed: int = 7) -> pl.DataFrame:
        bars = raw_bars(rows, seed)
        self.deliver(symbol, bars)
        return bars


@pytest.fixture
def market(settings: Settings) -> Market:
    """An empty lake under the test's home."""
    return Market(settings)


class Processes:
    """Looks at the processes that carry the test's home in their command line."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def alive(self) -> dict[int, str]:
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                running = (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            except (OSError, NotADirectoryError):
                continue
            if entry.name.isdigit() and running and str(self.home / "valkey") in command:
                found[int(entry.name)] = command
        return found

    def keeper(self) -> int:
        return next(pid for pid, command in self.alive().items() if "keeper.py" in command)

    def server(self) -> int:
        return next(pid for pid, command in self.alive().items() if "keeper.py" not in command)

    @staticmethod
    def wait_gone(pid: int, seconds: float = 10.0) -> bool:
        """Wait for the end of a process, whoever its parent is."""
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([handle], [], [], seconds)[0])
        finally:
            os.close(handle)


@pytest.fixture
def processes(settings: Settings) -> Iterator[Processes]:
    """The processes of this home; when the test is over there must be none left."""
    if not hasattr(os, "pidfd_open") or not Path("/proc/self/cmdline").exists():
        pytest.skip("looks at processes as Linux shows them")
    watch = Processes(settings.home)
    yield watch
    for pid in watch.alive():
        watch.wait_gone(pid, 5.0)
    assert watch.alive() == {}


@pytest.fixture
def python(settings: Settings) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts Python processes on the same home, with pipes to talk over."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
