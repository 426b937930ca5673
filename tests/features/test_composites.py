"""Composites: formulas by name and version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mdplatform.errors import InvalidFeature, InvalidFormula, InvalidSetting, PlatformError, UnknownComposite
from mdplatform.features import composites, parse_feature
from mdplatform.features.composites import (
    check_all,
    get,
    newest,
    read_declarations,
    read_file,
    register_all,
    register_composite,
    standing_composites,
)
from mdplatform.settings import Settings


@pytest.fixture(autouse=True)
def registered(settings: Settings) -> Iterator[None]:
    """A process without composites of its own, and an empty home."""
    held = dict(composites._registered)
    composites._registered.clear()
    yield
    composites._registered.clear()
    composites._registered.update(held)


def test_a_registered_composite_stands_for_its_formula_wherever_a_feature_is_named() -> None:
    made = register_composite("my_gap", "EMA(close, 10) / EMA(close, 30) - 1")
    assert (made.name, made.version, str(made)) == ("MY_GAP", 1, "MY_GAP:1")
    assert parse_feature("MY_GAP") == parse_feature("my_gap:1") == parse_feature(made.formula)
    assert parse_feature({"name": "My_Gap", "timeframe": "1h"}) == parse_feature(made.formula).at("1h")
    assert parse_feature("MY_GAP * 2") == parse_feature(f"({made.formula}) * 2")
    assert parse_feature("MY_GAP@1h - MY_GAP") == parse_feature(f"({made.formula})@1h - ({made.formula})")


def test_the_newest_version_is_meant_where_none_is_told_and_old_users_keep_theirs() -> None:
    register_composite("GAP_OF", "close - open")
    user = register_composite("USER", "GAP_OF * 2")
    assert parse_feature("GAP_OF") == parse_feature("close-open")
    register_composite("GAP_OF", "close / open", version=10)
    register_composite("GAP_OF", "close / open - 1", version=9)
    assert parse_feature("GAP_OF") == parse_feature("close/open")
    assert parse_feature("GAP_OF:9") == parse_feature("close/open-1")
    assert user.uses == ("GAP_OF:1",)
    assert parse_feature("USER") == parse_feature("(close-open)*2")
    assert [str(each) for each in newest(composites.composites()) if each.name == "GAP_OF"] == ["GAP_OF:10"]


def test_a_version_never_changes_but_may_be_registered_again_as_it_is() -> None:
    first = register_composite("FIXED", "close + open")
    assert register_composite("fixed", " open+close ").resolved == first.resolved
    with pytest.raises(InvalidFeature, match="registered already") as caught:
        register_composite("FIXED", "close - open")
    assert "version 2" in str(caught.value)
    assert get("FIXED").resolved == "close+open"
    with pytest.raises(InvalidFeature, match="registered already"):
        register_composite("EMA_SPREAD", "close")


def test_composites_of_one_file_may_use_one_another_in_any_order() -> None:
    made = register_all(
        [
            {"name": "TOP", "formula": "MIDDLE * 2 + BASE:1"},
            {"name": "MIDDLE", "formula": "BASE - 1"},
            {"name": "BASE", "formula": "close - open"},
            {"name": "BASE", "version": 2, "formula": "close / open"},
        ]
    )
    assert [str(each) for each in made] == ["TOP:1", "MIDDLE:1", "BASE:1", "BASE:2"]
    assert made[0].resolved == "close-open+(close/open-1)*2"
    assert made[0].uses == ("MIDDLE:1", "BASE:2", "BASE:1")


@pytest.mark.parametrize(
    ("declared", "path"),
    [
        ({"ONE": "ONE + 1"}, "ONE:1 → ONE:1"),
        ({"ONE": "TWO + 1", "TWO": "ONE + 1"}, "ONE:1 → TWO:1 → ONE:1"),
        ({"ONE": "TWO@1h", "TWO": "lag(THREE, 1)", "THREE": "close + ONE"}, "ONE:1 → TWO:1 → THREE:1 → ONE:1"),
    ],
)
def test_cycles_are_refused_with_the_path(declared: dict[str, str], path: str) -> None:
    with pytest.raises(InvalidFormula) as caught:
        register_all([{"name": name, "formula": text} for name, text in declared.items()])
    assert path in str(caught.value)
    last = list(declared.values())[-1]
    assert caught.value.column == last.index("ONE") + 1
    assert str(caught.value).endswith(f"  {last}\n  {' ' * last.index('ONE')}^")
    assert composites.find("ONE") is None


def test_a_cycle_through_inputs_is_refused_at_the_name_too() -> None:
    for given in ("TWO", {"name": "TWO"}, {"name": "TWO", "as": "T", "timeframe": "1h"}):
        inputs = [{"name": "TWO", "formula": "ONE"}, {"name": "ONE", "formula": "T*2", "input_indicators": [given]}]
        with pytest.raises(InvalidFormula, match="uses itself") as caught:
            register_all(inputs)
        assert caught.value.column == 1


def test_an_input_may_be_a_composite_of_the_same_file() -> None:
    for given in ("BASE", {"name": "BASE"}):
        made = check_all(
            [
                {"name": "TOP", "formula": "BASE*2", "input_indicators": [given]},
                {"name": "BASE", "formula": "close-open"},
            ]
        )
        assert made[0].resolved == "(close-open)*2"


@pytest.mark.parametrize(
    ("formula", "meaning"),
    [
        ("min(volume,1000)", "min(volume,1000)"),
        ("max(close, 5)", "max(close,5)"),
        ("sum(close,3)", "sum(close,3)"),
        ("sqrt(close)", "sqrt(close)"),
        ("exp(close)", "exp(close)"),
        ("LOG(close)", "log(close)"),
        ("MIN(volume,1000)", "MIN(volume,timeperiod=1000)"),
        ("SUM(close,3)", "SUM(timeperiod=3)"),
        ("MACD_HISTOGRAM", "MACD(fastperiod=12,slowperiod=26,signalperiod=9).macdhist"),
    ],
)
def test_a_composite_is_its_formula_whatever_its_text_looks_like(formula: str, meaning: str) -> None:
    made = register_composite("CAPPED", formula)
    assert str(made.spec) == meaning
    assert parse_feature("CAPPED") == made.spec == parse_feature({"formula": formula}) == parse_feature(formula)
    assert parse_feature("CAPPED@1h") == made.spec.at("1h")


def test_a_composite_may_not_use_an_older_version_of_itself() -> None:
    register_composite("SELF", "close * 2")
    register_composite("OTHER", "SELF + 1")
    for text in ("SELF:1 + 1", "OTHER * 2"):
        with pytest.raises(InvalidFormula, match="uses itself"):
            register_composite("SELF", text, version=2)


def test_formulas_grow_to_a_bound_when_composites_double_each_other() -> None:
    doubling = [{"name": f"D{level}", "formula": f"D{level - 1} * 1.5 - D{level - 1} / 3"} for level in range(1, 40)]
    register_all([{"name": "D0", "formula": "close * open + high"}, *doubling[:3]])
    with pytest.raises(InvalidFormula, match="Written out in full"):
        register_all(doubling)
    assert len(get("D3").resolved) < 500
    assert composites.find("D4") is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "RSI"}, "cannot have the name"),
        ({"name": "Close"}, "cannot have the name"),
        ({"name": "max"}, "cannot have the name"),
        ({"name": "MACD_MACDHIST"}, "cannot have the name"),
        ({"name": "formula"}, "cannot have the name"),
        ({"name": "1X"}, "Not a name"),
        ({"name": "A-B"}, "Not a name"),
        ({"name": "X" * 65}, "Not a name"),
        ({"name": "ＡＢ"}, "Not a name"),
        ({"name": ""}, "Not a name"),
        ({"name": None}, "Not a name"),
        ({"version": 0}, "Not a version"),
        ({"version": -1}, "Not a version"),
        ({"version": True}, "Not a version"),
        ({"version": "1"}, "Not a version"),
        ({"version": 1.0}, "Not a version"),
        ({"version": 10**9}, "Not a version"),
        ({"formula": None}, "has no formula"),
        ({"formula": 3}, "has no formula"),
        ({"formula": "close +"}, "the end where a value belongs"),
        ({"formula": "NOBODY + 1"}, "Unknown name 'NOBODY'"),
        ({"formula": "EMA_SPREAD:7"}, "Nobody registered"),
        ({"formula": "MACD"}, "has 3 outputs"),
        ({"formula": "3"}, "reads nothing"),
        ({"input_indicators": "RSI"}, "not a list"),
        ({"input_indicators": {"name": "RSI"}}, "not a list"),
        ({"input_indicators": [{"name": "RSY"}]}, "Unknown feature"),
        ({"title": 3}, "title"),
        ({"more": 3}, "Unknown key"),
    ],
)
def test_what_cannot_be_registered_is_refused_and_nothing_is(given: dict[str, object], says: str) -> None:
    before = composites.composites()
    good = {"name": "GOOD", "formula": "close"}
    with pytest.raises(PlatformError) as caught:
        register_all([good, {"name": "MINE", "formula": "close - open", **given}])
    assert says in str(caught.value)
    assert composites.composites() == before


def test_the_same_name_and_version_twice_in_one_file_is_refused() -> None:
    one, other = {"name": "TWICE", "formula": "close"}, {"name": "twice", "formula": "open"}
    assert len(check_all([one, one])) == 1
    with pytest.raises(InvalidFeature, match="given twice"):
        check_all([one, other])


def test_the_standing_composites_are_there_and_read_back() -> None:
    assert {each.name for each in standing_composites()} >= {"EMA_SPREAD", "MOMENTUM_BLEND"}
    for each in standing_composites():
        assert parse_feature(each.resolved) == each.spec == parse_feature(each.name)
        assert each.title


def test_an_unknown_composite_is_told_with_those_that_are_known() -> None:
    with pytest.raises(UnknownComposite, match="EMA_SPREAD:1"):
        get("EMA_SPRED")


@pytest.mark.parametrize(
    "text", ["", "3", "composites: 3", "composites: [3]", "other: []", "a: [", "composites: []\nmore: 1"]
)
def test_a_text_that_is_no_file_of_composites_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting):
        read_declarations(text, "mine.yaml")


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("composites:\n  - {name: MINE, formula: R - 50, input_indicators: [{name: RSI, as: R}]}\n")
    assert register_all(read_file(path))[0].resolved == "RSI(timeperiod=14)-50"
    with pytest.raises(InvalidSetting, match="cannot be read"):
        read_file(tmp_path / "none.yaml")
