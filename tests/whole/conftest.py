"""A whole platform for a test: a small market, and workers as processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mdplatform.settings import Settings

from .crowd import SYMBOLS, Workers


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What dead workers had is taken over soon, and tombstones go while a test looks on."""
    monkeypatch.setenv("MDPLATFORM_REQUEST_CLAIM_SECONDS", "0.5")
    monkeypatch.setenv("MDPLATFORM_ANSWERS_KEPT_SECONDS", "60")
    return Settings.load(redis_timeout_seconds=2.0)


@pytest.fixture
def two_workers(settings: Settings, market: Any, processes: Any) -> Iterator[Workers]:
    """Two workers over a small market; afterwards no process is left."""
    for number, symbol in enumerate(SYMBOLS):
        market.walk(symbol, 900, seed=number)
    workers = Workers(settings, 2)
    yield workers
    workers.close()
