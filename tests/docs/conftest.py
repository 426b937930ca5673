"""A home with a small market in it, as the README supposes after `make demo`."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mdplatform.lake import Lake
from mdplatform.market.time import month_range
from mdplatform.market.timeframe import Timeframe
from mdplatform.settings import Settings
from mdplatform.sources.simulated import SimulatedMarket

MONTH = "2026-10"
STAGED_AT = datetime(2026, 11, 2, tzinfo=UTC)


@pytest.fixture(scope="session")
def demo_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a month of the demo's symbols, made once."""
    lake = Lake(tmp_path_factory.mktemp("demo") / "lake")
    for symbol in ("BTCUSDT", "ETHUSDT", "ADAUSDT"):
        for each in SimulatedMarket().bars(symbol, Timeframe.M15, *month_range(MONTH)):
            batches = lake.inbox.stage(symbol, Timeframe.M15, each.source, each.content_hash, each.rows, STAGED_AT)
            assert lake.bars.merge(symbol, MONTH, batches).taken == each.rows.height
    return lake.folder


@pytest.fixture
def market(settings: Settings, demo_lake: Path) -> Path:
    """A home, which the environment names, with a copy of that lake."""
    shutil.copytree(demo_lake, settings.lake_dir)
    return settings.home
