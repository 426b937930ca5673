"""The asset `volume_profile`: what it writes for the days of a small world, and what its checks find."""

from __future__ import annotations

import base64
import re
import shutil

import dagster as dg
import polars as pl
import pytest

from mdplatform.assets.day_cells import DayCell
from mdplatform.assets.following import Watch
from mdplatform.assets.partitions import DAY_BY_SYMBOL, MONTH_BY_SYMBOL, month_of_day, partition_key
from mdplatform.assets.plots import histogram
from mdplatform.assets.volume_profile import FOLLOWING, SCHEMA, check_profiles
from mdplatform.errors import MaterializationFailed
from mdplatform.features import volume_profile
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData
from mdplatform.lake.partition import write_partition
from mdplatform.lake.sql import ask
from mdplatform.market.time import day_range, from_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.runs import Runs
from mdplatform.settings import Settings

from ..features.kinds import world

DAYS = ["2025-01-29", "2025-01-30", "2025-02-04"]
"""The last one holds the beginning of an outage."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, dict[str, dict[str, object]]]:
    """A home with a day more than is looked at, and what the runs said of each day; to be copied and never written."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MDPLATFORM_HOME", str(tmp_path_factory.mktemp("made") / "home"))
        opened = Settings.load()
        world.lake_in(opened.lake_dir)
        with Runs(opened) as runs:
            runs.register(["BTCUSDT", "NOPE"])
            done = runs.materialize(["volume_profile"], {"BTCUSDT": DAYS})
    return opened, {each.partition.split("|")[0]: each.metadata for each in done}


@pytest.fixture(scope="module")
def lake(made: tuple[Settings, dict[str, dict[str, object]]]) -> Lake:
    return Lake(made[0].lake_dir)


@pytest.fixture
def copied(made: tuple[Settings, dict[str, dict[str, object]]], settings: Settings) -> Settings:
    shutil.copytree(made[0].home, settings.home, ignore=shutil.ignore_patterns("valkey"))
    return settings


def rows(lake: Lake, day: str, group: str = "24h") -> pl.DataFrame:
    partition = lake.frames("volume_profile").partition(f"BTCUSDT/{day}")
    assert partition is not None
    return partition.read(group)


def test_a_day_holds_its_own_profile_and_those_of_its_thirds(lake: Lake) -> None:
    for day in DAYS[:2]:
        whole, thirds = rows(lake, day), rows(lake, day, "8h")
        assert whole.schema == SCHEMA
        assert thirds["session_start"].n_unique() == 3
        volume = LakeData(lake).bars("BTCUSDT", Timeframe.D1, *day_range(day))["volume"][0]
        assert whole["volume"].sum() == pytest.approx(volume, rel=1e-12)
        assert thirds["volume"].sum() == pytest.approx(volume, rel=1e-12)


def test_it_is_the_profile_of_the_day_s_trades(lake: Lake) -> None:
    day = DAYS[0]
    found = rows(lake, day)
    assert found["method"].unique().to_list() == ["trades"]
    wanted = volume_profile(LakeData(lake).trades("BTCUSDT", *day_range(day)), row_size=found["row_size"][0])
    assert found["volume"].to_list() == wanted.rows["volume"].to_list()
    assert found["taker_buy_volume"].to_list() == wanted.rows["taker_buy_volume"].to_list()
    assert (found["poc"][0], found["vah"][0], found["val"][0]) == (wanted.poc, wanted.vah, wanted.val)
    middle = (found["price_low"] + found["price_high"]) / 2
    assert middle.filter(found["is_hvn"]).to_list() == pytest.approx(list(wanted.hvn))
    assert middle.filter(found["is_lvn"]).to_list() == pytest.approx(list(wanted.lvn))
    assert middle.filter(found["is_poc"]).to_list() == pytest.approx([wanted.poc])
    inside = found.filter("in_value_area")
    assert (inside["price_low"].min(), inside["price_high"].max()) == (wanted.val, wanted.vah)


def test_a_day_with_an_outage_has_the_profile_up_to_it(lake: Lake) -> None:
    assert rows(lake, DAYS[2])["session_through"].unique().to_list() == [from_us(world.OUTAGES["BTCUSDT"][0])]


def test_a_fragment_of_a_day_s_trades_does_not_pass_for_the_whole(copied: Settings) -> None:
    lake = Lake(copied.lake_dir)
    store, key = lake.table("trades"), f"BTCUSDT/{DAYS[0]}"
    partition = store.partition(key)
    assert partition is not None
    held = partition.read("rows")
    write_partition(store.path(key), {"rows": held[: held.height // 2]}, partition.header.notes, "time")
    with Runs(copied) as runs:
        runs.materialize(["volume_profile"], {"BTCUSDT": DAYS[:1]})
    assert rows(lake, DAYS[0])["method"].unique().to_list() == ["bars:5m"]
    assert rows(lake, DAYS[0], "8h").group_by("session_start").agg(pl.first("method")).sort("session_start")[
        "method"
    ].to_list() == ["trades", "bars:5m", "bars:5m"]


def test_the_metadata_show_a_picture_and_the_levels(
    lake: Lake, made: tuple[Settings, dict[str, dict[str, object]]]
) -> None:
    told = made[1][DAYS[0]]
    assert told["poc"] == rows(lake, DAYS[0])["poc"][0]
    day_after = from_us(day_range(DAYS[0])[1])
    assert str(told["range"]) == f"{DAYS[0]} 00:00 … {day_after:%Y-%m-%d} 00:00 UTC"
    assert told["dagster/row_count"] == sum(rows(lake, DAYS[0], group).height for group in ("24h", "8h"))
    assert "data:image/svg+xml;base64," in str(told["plot"])


def test_the_checks_pass_on_what_was_written_and_find_what_was_not(copied: Settings) -> None:
    lake = Lake(copied.lake_dir)
    cells = [DayCell(day, "BTCUSDT") for day in DAYS]
    assert {each.check_name: each.passed for each in check_profiles(lake, cells)} == {"total": True, "area": True}
    path = lake.frames("volume_profile").path(f"BTCUSDT/{DAYS[0]}")
    good = rows(lake, DAYS[0])
    for name, broken in (
        ("total", good.with_columns(pl.col("volume") * 1.001)),
        ("area", good.with_columns(is_poc=pl.lit(False))),
        ("area", good.with_columns(in_value_area=pl.lit(True))),
    ):
        write_partition(path, {"24h": broken}, {}, "session_start")
        assert name in [each.check_name for each in check_profiles(lake, cells) if not each.passed]


def test_the_same_run_again_makes_the_same_version(copied: Settings) -> None:
    store = Lake(copied.lake_dir).frames("volume_profile")
    before = store.partition(f"BTCUSDT/{DAYS[0]}")
    with Runs(copied) as runs:
        runs.materialize(["volume_profile"], {"BTCUSDT": DAYS[:1]})
    after = store.partition(f"BTCUSDT/{DAYS[0]}")
    assert before is not None
    assert after is not None
    assert before.header.data_version == after.header.data_version


def test_a_correction_makes_exactly_the_day_stale_that_it_touches(copied: Settings) -> None:
    lake = Lake(copied.lake_dir)
    made = {f"BTCUSDT/{day}" for day in DAYS}
    watch = Watch(lake, "volume_profile", FOLLOWING)
    assert not made & set(watch.stale())
    store, key = lake.table("trades"), f"BTCUSDT/{DAYS[1]}"
    row = store.read([key])[:1].with_columns(quantity=pl.col("quantity") + 1)
    store.stage(row.select(list(store.dataset.delivered)), "again", from_us(world.END))
    store.merge(key)
    assert made & set(Watch(lake, "volume_profile", FOLLOWING).stale()) == {key}


def test_a_symbol_without_anything_fails_with_a_remedy(copied: Settings) -> None:
    with Runs(copied) as runs:  # noqa: SIM117
        with pytest.raises(MaterializationFailed, match="No session has trades or bars"):
            runs.materialize(["volume_profile"], {"NOPE": DAYS[:1]})


def test_sql_sees_the_histograms(lake: Lake) -> None:
    answer = ask(
        lake.folder,
        "select session_start, poc, sum(volume) as volume from volume_profile where session = '24h' group by all",
    )
    assert answer.height == len(DAYS)


def test_a_day_follows_from_its_month() -> None:
    found = month_of_day().get_upstream_mapped_partitions_result_for_partitions(
        DAY_BY_SYMBOL.empty_subset().with_partition_keys([str(partition_key("BTCUSDT/2025-01-31"))]),
        DAY_BY_SYMBOL,
        MONTH_BY_SYMBOL,
        dynamic_partitions_store=dg.DagsterInstance.ephemeral(),
    )
    keys = found.partitions_subset.get_partition_keys()
    assert [str(key) for key in keys] == ["2025-01|BTCUSDT"]


def test_a_histogram_draws_each_row_and_nothing_where_there_is_none() -> None:
    profile = volume_profile(pl.DataFrame({"price": [1.0, 1.5, 3.0], "quantity": [1.0, 2.0, 1.0]}), row_size=0.5)
    drawn = histogram("profile", profile.rows, profile.poc, profile.val, profile.vah)
    found = re.search(r"base64,([^)]*)\)", drawn)
    assert found is not None
    assert base64.b64decode(found[1]).decode().count("<rect") == 2 + 2 * profile.rows.height
    assert histogram("profile", profile.rows.clear(), 1, 1, 1) == "profile: nothing to draw"
