"""What all tests share: where the real data lies, and a home of its own for each test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mdplatform.settings import Settings


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
    return Settings.load()
