"""A small market, taken in once and copied for each test that changes it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdplatform.ingest import Wanted, ingest
from mdplatform.market.timeframe import Timeframe
from mdplatform.runs import Runs
from mdplatform.settings import Settings

SYMBOLS = ["ADAUSDT", "BTCUSDT"]
MONTHS = ["2025-01", "2025-02", "2025-03"]


@pytest.fixture(scope="session")
def taken_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the simulated market's 15m bars of `SYMBOLS` and `MONTHS`, to be copied and never written."""
    home = tmp_path_factory.mktemp("taken-in") / "home"
    wanted = Wanted(timeframe=Timeframe.M15, first_month=MONTHS[0], last_month=MONTHS[-1])
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MDPLATFORM_HOME", str(home))
        ingest([f"simulated:{symbol}" for symbol in SYMBOLS], wanted, Settings.load())
    return home


@pytest.fixture
def market(taken_in: Path, settings: Settings) -> Settings:
    """A home of the test's own with bars."""
    shutil.copytree(taken_in, settings.home, ignore=shutil.ignore_patterns("valkey"))
    return settings


@pytest.fixture
def runs(market: Settings) -> Iterator[Runs]:
    """Runs on a home of the test's own with bars."""
    with Runs(market) as opened:
        yield opened
