"""A small market, taken in and materialized once for all tests here that only look at it."""

from __future__ import annotations

import pytest

from mdplatform.ingest import Wanted, ingest
from mdplatform.market.timeframe import Timeframe
from mdplatform.runs import Runs
from mdplatform.settings import Settings

SYMBOLS = ["ADAUSDT", "BTCUSDT"]
MONTHS = ["2025-01", "2025-02", "2025-03"]


def take_in(settings: Settings) -> None:
    """Take in the simulated market's 15m bars of `SYMBOLS` and `MONTHS`."""
    wanted = Wanted(timeframe=Timeframe.M15, first_month=MONTHS[0], last_month=MONTHS[-1])
    ingest([f"simulated:{symbol}" for symbol in SYMBOLS], wanted, settings)


@pytest.fixture
def market(settings: Settings) -> Settings:
    """A fresh home with bars."""
    take_in(settings)
    return settings


@pytest.fixture
def runs(market: Settings) -> Runs:
    """Runs on a fresh home with bars."""
    with Runs(market) as opened:
        yield opened
