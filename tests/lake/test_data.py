"""The lake as what features are computed from: the same rows as tables in memory, read by key, as of an instant."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdplatform.errors import NoData, UnknownSeries
from mdplatform.features import frame
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData, of_home
from mdplatform.market.dataset import KEPT_BY_STORE
from mdplatform.market.time import from_us
from mdplatform.market.timeframe import DAY_US, Timeframe
from mdplatform.settings import Settings

from ..features.kinds import world

OWN = [name for name in KEPT_BY_STORE if name != "available_at"]
INSTANTS = st.none() | st.integers(world.BEGIN - 30 * DAY_US, world.END + DAY_US)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return world.lake_in(tmp_path_factory.mktemp("lake"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=INSTANTS, end=INSTANTS)
def test_any_range_has_the_rows_of_the_tables(lake: Lake, start: int | None, end: int | None) -> None:
    held, tables = LakeData(lake), world.data()
    for name in ("trades", "depth"):
        got, wanted = (getattr(each, name)(world.SYMBOL, start, end) for each in (held, tables))
        assert got.schema == wanted.schema
        by = [each for each in wanted.columns if each not in OWN]
        assert got.select(by).sort(by).equals(wanted.select(by).sort(by))
    got, wanted = (each.sentiment(start, end) for each in (held, tables))
    assert got.drop(OWN).sort("doc_id").equals(wanted.drop(OWN).sort("doc_id"))
    assert got["available_at"].is_sorted()
    for timeframe in (Timeframe.M5, Timeframe.H1):
        got, wanted = (each.bars("BTCUSDT", timeframe, start, end) for each in (held, tables))
        values = ["open_time", "close", "volume", "state", "available_at"]
        if got.height == wanted.height:  # one may have the hour of a hole as a gap where the other ends before it
            assert got.select(values).equals(wanted.select(values))


def test_series_days_and_symbols_are_those_of_the_tables(lake: Lake) -> None:
    held, tables = LakeData(lake), world.data()
    assert held.macro("CPIAUCSL").drop(OWN).equals(tables.macro("CPIAUCSL").drop(OWN))
    assert held.trade_days(world.SYMBOL) == tables.trade_days(world.SYMBOL)
    assert held.symbols() == tables.symbols()


def test_what_is_not_there_is_empty_with_the_right_columns(lake: Lake, tmp_path: Path) -> None:
    for held in (LakeData(lake), LakeData(Lake(tmp_path))):
        empty = [
            held.trades("NOPE", None, None),
            held.trades("NOPE", 0, DAY_US),
            held.depth("NOPE", None, None),
            held.sentiment(0, DAY_US),
            held.bars("NOPE", Timeframe.M15, None, None),
        ]
        assert [len(each) for each in empty] == [0] * 5
        assert [each.schema for each in empty] == [
            world.data().trades("NOPE", None, None).schema,
            world.data().trades("NOPE", None, None).schema,
            world.data().depth("NOPE", None, None).schema,
            world.data().sentiment(0, 0).schema,
            world.data().bars("NOPE", Timeframe.M15, None, None).schema,
        ]
        assert held.trade_days("NOPE") == []
    with pytest.raises(UnknownSeries, match="Known: CPIAUCSL, DGS10"):
        LakeData(lake).macro("NOPE")


def test_a_range_touches_its_own_partitions_only(lake: Lake, tmp_path: Path) -> None:
    broken = world.lake_in(tmp_path / "lake")
    for name, key in (("trades", f"{world.SYMBOL}/2025-01-30"), ("sentiment", "2025-01"), ("macro", "DGS10")):
        path = broken.table(name).path(key)
        path.unlink()
        path.write_bytes(b"not a partition")
    held = LakeData(broken)
    day = world.BEGIN + 5 * DAY_US
    assert held.trades(world.SYMBOL, day, day + DAY_US).height
    assert held.trades(world.SYMBOL, day, None).height
    assert held.trades(world.SYMBOL, None, world.BEGIN + 2 * DAY_US).height
    assert held.sentiment(day, None).height
    assert held.macro("CPIAUCSL").height


def test_as_of_an_instant_there_is_what_was_available_and_the_correction_that_was_known(tmp_path: Path) -> None:
    lake = world.lake_in(tmp_path / "lake")
    store = lake.table("macro")
    last = world.data().macro("CPIAUCSL").tail(1).select(list(store.dataset.delivered))
    corrected_at = from_us(world.END) + timedelta(hours=1)
    store.stage(last.with_columns(value=pl.lit(1.0)), "test", corrected_at)
    store.merge("CPIAUCSL")
    assert LakeData(lake).macro("CPIAUCSL")["value"][-1] == 1.0
    assert LakeData(lake, corrected_at).macro("CPIAUCSL")["value"][-1] == 1.0
    before = LakeData(lake, corrected_at - timedelta(microseconds=1)).macro("CPIAUCSL")
    assert before["value"][-1] == last["value"][0]
    earlier = LakeData(lake, from_us(world.BEGIN)).macro("CPIAUCSL")
    assert 0 < len(earlier) < len(before)
    assert earlier["available_at"].max() <= from_us(world.BEGIN)
    day_before = LakeData(lake, from_us(world.END) - timedelta(days=1)).bars("BTCUSDT", Timeframe.M5, None, None)
    assert day_before.height == (world.DAYS - 1) * 288, "though all were taken in at once, later"
    assert LakeData(lake, from_us(world.END)).bars("BTCUSDT", Timeframe.M5, None, None).height == world.DAYS * 288


def test_the_home_that_the_settings_name_is_the_default(settings: Settings) -> None:
    world.lake_in(settings.lake_dir)
    assert of_home().symbols() == list(world.SYMBOLS)
    assert of_home(from_us(world.BEGIN)).as_of == from_us(world.BEGIN)


def test_a_frame_of_bars_that_became_known_after_as_of_says_so(settings: Settings) -> None:
    world.lake_in(settings.lake_dir)
    with pytest.raises(NoData, match=r"were known at as_of, 2025-\d\d-.* became known later"):
        frame("BTCUSDT", "RSI", "15m", as_of=from_us(world.BEGIN))
    with pytest.raises(NoData) as never:
        frame("BTCUSDT", "RSI", "15m", start="2020-01-01", end="2020-01-02", as_of=from_us(world.BEGIN))
    assert "as_of" not in str(never.value)


def test_days_of_trades_are_those_of_which_one_was_known_at_the_instant(tmp_path: Path) -> None:
    lake = world.lake_in(tmp_path)
    noon = from_us(world.BEGIN + 3 * 24 * world.HOUR_US + 12 * world.HOUR_US)
    days = LakeData(lake).trade_days(world.SYMBOL)
    assert len(days) == world.DAYS
    assert LakeData(lake, noon).trade_days(world.SYMBOL) == days[:4]
    assert LakeData(lake, noon - timedelta(hours=12)).trade_days(world.SYMBOL) == days[:3]
