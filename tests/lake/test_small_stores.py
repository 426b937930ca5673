"""The universe of symbols, and the frames of assets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from mdplatform.errors import CorruptPartition
from mdplatform.lake import Lake
from mdplatform.lake.universe import Member
from mdplatform.market.timeframe import Timeframe

from .deliveries import FEBRUARY, HOUR, JANUARY, MARCH, grid, opens


def test_the_universe_is_empty_before_anything_is_added(tmp_path: Path) -> None:
    assert Lake(tmp_path / "none").universe.members() == {}
    assert list(tmp_path.iterdir()) == []


def test_members_are_kept_and_a_source_is_not_lost_to_files(tmp_path: Path) -> None:
    universe = Lake(tmp_path / "lake").universe
    universe.add("BUSDT", "simulated", Timeframe.M1)
    universe.add("AUSDT", None, Timeframe.M15)
    universe.add("BUSDT", None, Timeframe.H1)
    expected = {"AUSDT": Member(None, Timeframe.M15), "BUSDT": Member("simulated", Timeframe.M1)}
    assert Lake(tmp_path / "lake").universe.members() == expected
    universe.add("AUSDT", "binance_archive", Timeframe.M1)
    assert universe.members()["AUSDT"] == Member("binance_archive", Timeframe.M1)
    assert [each.name for each in (tmp_path / "lake").iterdir() if each.is_file()] == ["universe.json"]


def test_members_added_at_once_are_all_there(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        adds = [pool.submit(Lake(tmp_path).universe.add, f"S{n}USDT", None, Timeframe.M1) for n in range(40)]
        for each in adds:
            each.result()
    assert sorted(Lake(tmp_path).universe.members()) == sorted(f"S{n}USDT" for n in range(40))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"A": 1}', b'{"A": {"source": null, "timeframe": "2m"}}', b"\xff"]
)
def test_a_broken_universe_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "universe.json").write_bytes(content)
    with pytest.raises(CorruptPartition, match=r"universe\.json"):
        Lake(tmp_path).universe.members()


def test_frames_are_read_across_months_and_holes(tmp_path: Path) -> None:
    store = Lake(tmp_path).frames("returns")
    january, march = grid(FEBRUARY - 4 * HOUR, 4, Timeframe.H1), grid(MARCH, 4, Timeframe.H1)
    header = store.write("AUSDT/2025-01", {Timeframe.H1: january, Timeframe.D1: january[:0]}, {"engine": "1"})
    store.write("AUSDT/2025-03", {Timeframe.H1: march}, {})
    assert header.notes == {"engine": "1"}
    assert store.path("AUSDT/2025-01") == tmp_path / "returns" / "AUSDT" / "2025-01.parquet"
    whole = store.read("AUSDT/", Timeframe.H1, JANUARY, MARCH + 99 * HOUR)
    assert whole.equals(pl.concat([january, march]))
    part = store.read("AUSDT/", Timeframe.H1, FEBRUARY - 2 * HOUR, MARCH + HOUR, ["open_time", "close"])
    assert opens(part) == [FEBRUARY - 2 * HOUR, FEBRUARY - HOUR, MARCH]
    assert part.columns == ["open_time", "close"]
    assert store.read("AUSDT/", Timeframe.H1, FEBRUARY, MARCH).is_empty()
    assert store.read("AUSDT/", Timeframe.D1, JANUARY, MARCH).is_empty()
    assert store.partition("BUSDT/2025-01") is None


def test_frames_with_new_columns_are_read_beside_older_ones(tmp_path: Path) -> None:
    store = Lake(tmp_path).frames("returns")
    store.write("2025-01", {Timeframe.D1: grid(JANUARY, 2, Timeframe.D1).drop("volume")}, {})
    store.write("2025-02", {Timeframe.D1: grid(FEBRUARY, 2, Timeframe.D1)}, {})
    assert store.read("", Timeframe.D1, JANUARY, MARCH)["volume"].null_count() == 2
