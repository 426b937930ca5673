"""Composites that a home keeps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mdplatform.errors import CorruptPartition, InvalidFeature, InvalidFormula
from mdplatform.features import parse_feature
from mdplatform.lake import Lake
from mdplatform.settings import Settings


def test_what_is_kept_can_be_named_by_whoever_has_that_home(settings: Settings) -> None:
    store = Lake(settings.lake_dir).composites
    assert store.all() == []
    made = store.add([{"name": "KEPT", "formula": "R * 2", "input_indicators": [{"name": "RSI", "as": "R"}]}])
    assert store.all() == made == Lake(settings.lake_dir).composites.all()
    assert parse_feature("KEPT") == parse_feature("RSI*2")
    store.add([{"name": "KEPT", "version": 2, "formula": "RSI * 3"}])
    assert parse_feature("KEPT") == parse_feature("RSI*3")
    assert parse_feature("KEPT:1") == parse_feature("RSI*2")


def test_another_home_has_composites_of_its_own(settings: Settings, tmp_path, monkeypatch) -> None:
    Lake(settings.lake_dir).composites.add([{"name": "HERE", "formula": "close"}])
    assert str(parse_feature("HERE*2")) == "close*2"
    monkeypatch.setenv("MDPLATFORM_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(InvalidFormula, match="HERE"):
        parse_feature("HERE*2")
    with pytest.raises(InvalidFormula, match="HERE"):
        parse_feature("HERE*2+1")


def test_nothing_is_kept_of_a_delivery_with_one_bad_composite(settings: Settings) -> None:
    store = Lake(settings.lake_dir).composites
    store.add([{"name": "FIRST", "formula": "close"}])
    with pytest.raises(InvalidFormula):
        store.add([{"name": "SECOND", "formula": "close*2"}, {"name": "THIRD", "formula": "close*"}])
    with pytest.raises(InvalidFeature, match="registered already"):
        store.add([{"name": "SECOND", "formula": "close*2"}, {"name": "FIRST", "formula": "open"}])
    assert [each.name for each in store.all()] == ["FIRST"]


def test_many_at_once_are_all_kept(settings: Settings) -> None:
    def add(number: int) -> None:
        Lake(settings.lake_dir).composites.add([{"name": f"N{number:02}", "formula": f"close*{number + 2}"}])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(12)))
    assert [each.name for each in Lake(settings.lake_dir).composites.all()] == [f"N{number:02}" for number in range(12)]


def test_a_file_that_cannot_be_read_says_so(settings: Settings) -> None:
    store = Lake(settings.lake_dir).composites
    store.add([{"name": "FIRST", "formula": "close"}])
    path = settings.lake_dir / "composites.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(CorruptPartition, match=r"composites\.json"):
        store.all()
