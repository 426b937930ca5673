"""Corrections flow downstream: exactly the partitions whose values they can reach are materialized again."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import dagster as dg
import polars as pl
import pytest

from mdplatform import assets
from mdplatform.assets.following import INPUTS
from mdplatform.definitions import defs
from mdplatform.home import prepare_home
from mdplatform.lake import Lake
from mdplatform.market.bars import RAW_SCHEMA
from mdplatform.market.time import month_range
from mdplatform.market.timeframe import Timeframe
from mdplatform.runs import Runs
from mdplatform.sensors.automation import FOLLOWED
from mdplatform.settings import Settings
from mdplatform.sources.delivery import Delivery
from tests.assets.conftest import MONTHS, SYMBOLS

DERIVED = ["technical_indicators", "returns_panel"]


class Automation:
    """The ticks of the automation sensor, one after the other."""

    def __init__(self, settings: Settings) -> None:
        self._definitions = defs() if callable(defs) else defs
        self._instance = dg.DagsterInstance.get()
        self._cursor = None

    def tick(self) -> dict[str, set[str]]:
        """Evaluate once; give the partitions that are asked for, by asset."""
        result = dg.evaluate_automation_conditions(self._definitions, self._instance, cursor=self._cursor)
        self._cursor = result.cursor
        asked = {
            each.key.to_user_string(): set(each.true_subset.expensively_compute_partition_keys())
            for each in result.results
        }
        return {asset: keys for asset, keys in asked.items() if keys}


def correct(settings: Settings, symbol: str, at: datetime, **values: float) -> None:
    """Stage a correction of one 15m bar, and merge it."""
    lake = Lake(settings.lake_dir)
    held = lake.bars.read(symbol, Timeframe.M15).filter(pl.col("open_time") == at)
    rows = held.with_columns(pl.lit(each).alias(name) for name, each in values.items()).select(list(RAW_SCHEMA))
    delivery = Delivery.of(symbol, Timeframe.M15, "test", rows.cast(RAW_SCHEMA))  # type: ignore[arg-type]
    lake.inbox.stage(symbol, Timeframe.M15, "test", delivery.content_hash, delivery.rows, datetime.now(UTC))
    with Runs(settings) as runs:
        runs.materialize(["bars"], {symbol: [f"{at:%Y-%m}"]})


@pytest.fixture(scope="module")
def made(taken_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which everything was materialized once, to be copied and never written."""
    home = tmp_path_factory.mktemp("made") / "home"
    shutil.copytree(taken_in, home, ignore=shutil.ignore_patterns("valkey"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MDPLATFORM_HOME", str(home))
        with Runs(Settings.load()) as runs:
            runs.materialize(DERIVED, dict.fromkeys(SYMBOLS, MONTHS))
    return home


@pytest.fixture
def followed(made: Path, settings: Settings) -> Settings:
    """A home of the test's own in which everything was materialized once."""
    shutil.copytree(made, settings.home, ignore=shutil.ignore_patterns("valkey"))
    prepare_home(settings)
    return settings


def versions(settings: Settings) -> dict[str, str]:
    """Give the data version of each derived partition."""
    lake = Lake(settings.lake_dir)
    return {
        f"{asset} {key}": store.partition(key).header.data_version  # type: ignore[union-attr]
        for asset in DERIVED
        for store in (lake.frames(asset),)
        for key in store.all_keys()
    }


def test_every_asset_that_follows_from_others_is_automated() -> None:
    modules = [import_module(f"mdplatform.assets.{each.name}") for each in iter_modules(assets.__path__)]
    following = {each.__name__.rpartition(".")[2] for each in modules if hasattr(each, "FOLLOWING")}
    definitions = defs() if callable(defs) else defs
    automated = {
        spec.key.to_user_string()
        for spec in definitions.resolve_all_asset_specs()
        if spec.automation_condition is not None
    }
    with_inputs = {spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs() if spec.deps}
    assert following == automated == with_inputs == set(FOLLOWED)


def test_nothing_is_asked_for_while_nothing_changes(followed: Settings) -> None:
    automation = Automation(followed)
    assert [automation.tick(), automation.tick()] == [{}, {}]


def test_a_correction_asks_for_what_it_reaches_once_and_for_nothing_else(followed: Settings) -> None:
    before = versions(followed)
    automation = Automation(followed)
    automation.tick()
    correct(followed, "BTCUSDT", datetime(2025, 2, 10, 12, tzinfo=UTC), close=1.0, low=1.0)
    assert automation.tick() == {}, "inputs must have stood still for a tick"
    reached = {
        "technical_indicators": {"2025-02|BTCUSDT", "2025-03|BTCUSDT"},
        "returns_panel": {"2025-02"},
    }
    assert automation.tick() == reached
    assert automation.tick() == {}, "each change is asked for once"
    with Runs(followed) as runs:
        runs.materialize(["technical_indicators"], {"BTCUSDT": MONTHS[1:]})
        runs.materialize(["returns_panel"], {"BTCUSDT": MONTHS[1:2]})
    after = versions(followed)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        "technical_indicators BTCUSDT/2025-02",
        "technical_indicators BTCUSDT/2025-03",
        "returns_panel 2025-02",
    }
    assert [automation.tick(), automation.tick()] == [{}, {}]
    with Runs(followed) as runs:
        runs.materialize(DERIVED, dict.fromkeys(SYMBOLS, MONTHS))
    assert versions(followed) == after, "what was not asked for was not reached"


def test_a_correction_that_changes_no_longer_bar_reaches_only_as_far_as_the_short_ones_remember(
    followed: Settings,
) -> None:
    automation = Automation(followed)
    lake = Lake(followed.lake_dir)
    start, after = month_range("2025-01")
    at = datetime(2025, 1, 2, 12, 30, tzinfo=UTC)
    bar = lake.bars.read("ADAUSDT", Timeframe.M15).filter(pl.col("open_time") == at)
    daily = lake.bars.fingerprint("ADAUSDT", Timeframe.D1, start, after)
    correct(followed, "ADAUSDT", at, open=(bar["high"][0] + bar["low"][0]) / 2)
    assert lake.bars.fingerprint("ADAUSDT", Timeframe.D1, start, after) == daily, "the day's open is the first bar's"
    automation.tick()
    assert automation.tick()["technical_indicators"] == {"2025-01|ADAUSDT"}


def test_two_corrections_of_one_partition_are_asked_for_twice(followed: Settings) -> None:
    automation = Automation(followed)
    for close in (1.0, 2.0):
        correct(followed, "BTCUSDT", datetime(2025, 3, 30, tzinfo=UTC), close=close, low=1.0)
        automation.tick()
        assert automation.tick()["technical_indicators"] == {"2025-03|BTCUSDT"}


def test_a_month_that_came_later_is_asked_for_where_the_one_before_was_made(market: Settings) -> None:
    with Runs(market) as runs:
        runs.materialize(["technical_indicators"], {"BTCUSDT": MONTHS[:2]})
    automation = Automation(market)
    automation.tick()
    assert automation.tick() == {"technical_indicators": {"2025-03|BTCUSDT"}}


def test_a_run_that_changes_no_value_still_remembers_its_new_inputs(followed: Settings) -> None:
    store = Lake(followed.lake_dir).frames("technical_indicators")
    header = store.partition("BTCUSDT/2025-03").header  # type: ignore[union-attr]
    before, version = header.notes[INPUTS], header.data_version
    correct(followed, "BTCUSDT", datetime(2025, 3, 30, tzinfo=UTC), trade_count=7)
    with Runs(followed) as runs:
        runs.materialize(["technical_indicators"], {"BTCUSDT": ["2025-03"]})
    after = store.partition("BTCUSDT/2025-03").header  # type: ignore[union-attr]
    assert after.notes[INPUTS] != before
    assert after.data_version == version, "no standing indicator counts trades"
