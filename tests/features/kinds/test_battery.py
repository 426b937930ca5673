"""The universal battery: every function that the kinds declare, without being told its name, in the world of `world`.

What a value is, its kind's own tests say. Here are the laws of all: it comes from what was known at the row's close,
and is the same whatever else is computed, in whatever rows, order or grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest

from mdplatform.features import FeatureSpec, Grid, Truncated, Values, load_from, parse_feature
from mdplatform.features.guard import INSUFFICIENT_HISTORY, STATUSES, UNSETTLED
from mdplatform.features.kinds import KINDS, kind
from mdplatform.features.panel import evaluate_on, frame, reads
from mdplatform.market.timeframe import Timeframe

from . import tried, world

FEATURES = tried.features()
PRESENT = [each for each in FEATURES if not tried.is_hindsight(each)]
HINDSIGHT = [each for each in FEATURES if tried.is_hindsight(each)]
GRID = world.grid()
_WHOLE: dict[FeatureSpec, Values] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, features in (("feature", FEATURES), ("present", PRESENT), ("hindsight", HINDSIGHT)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, features, ids=str)


def whole(feature: FeatureSpec) -> Values:
    """Give the values in all rows, computed once."""
    if feature not in _WHOLE:
        _WHOLE[feature] = evaluate_on(GRID, [feature], world.data())[feature]
    return _WHOLE[feature]


@cache
def in_company(kind: str, first: int, after: int, instant: int | None = None) -> Mapping[FeatureSpec, Values]:
    """Give all of a kind in some rows, from what was known at an instant if one is given.

    `test_the_same_bits_come_again_alone_and_in_company` is why they may be computed together.
    """
    known = world.data() if instant is None else Truncated(world.data(), instant)
    return evaluate_on(rows(first, after), tried.company(kind, FEATURES if instant is None else PRESENT), known)


def rows(first: int, after: int) -> Grid:
    return Grid(GRID.symbol, GRID.timeframe, GRID.open_time[first:after])


def expect_same(got: Values, wanted: Values, at: slice = slice(None), *, to_the_bit: bool = False) -> None:
    """Compare the rows `at` of `wanted` with `got`: values to 1e-9 of their size, statuses and ages exactly."""
    named = [STATUSES[each] for each in wanted.statuses[at]]
    assert [STATUSES[each] for each in got.statuses] == named
    for output, other in zip(got.outputs, wanted.outputs, strict=True):
        usual = float(np.median(np.abs(other[np.isfinite(other)]))) if np.isfinite(other).any() else 0.0
        tolerance = {"rtol": 0.0, "atol": 0.0} if to_the_bit else {"rtol": 1e-9, "atol": 1e-9 * usual}
        np.testing.assert_allclose(output, other[at], equal_nan=True, **tolerance)
    assert (got.ages is None) == (wanted.ages is None)
    if got.ages is not None and wanted.ages is not None:
        np.testing.assert_array_equal(got.ages, wanted.ages[at])


def cuts() -> list[int]:
    """Rows at which data is cut off: a day's end, a release, and the ends of the book's record and of the outage."""
    closes = GRID.close_time
    days, hour = 24 * world.HOUR_US, world.HOUR_US
    special = [world.BEGIN + 9 * days, world.BEGIN + 10 * days + 13 * hour, world.BOOK[1], world.OUTAGES["BTCUSDT"][1]]
    found = [int(np.searchsorted(closes, each)) + number % 2 for number, each in enumerate(special)]
    return sorted(found)


def test_the_world_gives_every_feature_some_values(feature: FeatureSpec) -> None:
    values = whole(feature)
    named = {STATUSES[each]: int(count) for each, count in np.stack(np.unique(values.statuses, return_counts=True)).T}
    assert (values.statuses <= UNSETTLED).sum() >= 20, f"only {named}: give it parameters in `tried.GIVEN`"


def test_every_row_has_a_value_or_a_reason(feature: FeatureSpec) -> None:
    values = whole(feature)
    assert len(values.outputs) == len(feature.definition.outputs)
    assert values.statuses.dtype == np.int8
    assert values.statuses.shape == (len(GRID),)
    assert ((values.statuses >= 0) & (values.statuses < len(STATUSES))).all()
    for output in values.outputs:
        assert output.dtype == np.float64
        assert output.shape == (len(GRID),)
        assert not np.isinf(output).any()
        assert np.isfinite(output[values.statuses <= UNSETTLED]).all(), "a null without a reason"
        assert np.isnan(output[values.statuses > UNSETTLED]).all(), "a value beside a reason"
    if values.ages is not None:
        assert values.ages.shape == (len(GRID),)
        assert (values.ages >= -1).all()


def test_what_comes_after_a_rows_close_changes_nothing(present: FeatureSpec) -> None:
    for cut in cuts():
        got = in_company(present.definition.kind, 0, cut + 1, int(GRID.close_time[cut]))
        expect_same(got[present], whole(present), slice(0, cut + 1))


def test_one_row_by_itself_has_the_same_value(present: FeatureSpec) -> None:
    for cut in (*cuts()[::2], len(GRID) - 1):
        got = in_company(present.definition.kind, cut, cut + 1, int(GRID.close_time[cut]))
        expect_same(got[present], whole(present), slice(cut, cut + 1))


def test_pieces_of_the_rows_give_what_all_give(feature: FeatureSpec) -> None:
    for first, after in ((0, 100), (100, 101), (101, 290), (290, len(GRID))):
        piece = in_company(feature.definition.kind, first, after)
        expect_same(piece[feature], whole(feature), slice(first, after))


def test_the_same_bits_come_again_alone_and_in_company(feature: FeatureSpec) -> None:
    company = [each for each in FEATURES if each.definition.kind == feature.definition.kind]
    expect_same(evaluate_on(GRID, [feature], world.data())[feature], whole(feature), to_the_bit=True)
    if feature == company[0]:
        together = evaluate_on(GRID, reversed(company), world.data())
        for each in company:
            expect_same(together[each], whole(each), to_the_bit=True)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_computed_from_is_not_written_to(name: str) -> None:
    evaluate_on(GRID, tried.company(name, FEATURES), world.data())
    untouched, held = world.untouched(), world.data()
    for name in ("bars_of", "trades_of", "depth_of", "macro_of"):
        for key, table in getattr(untouched, name).items():
            assert getattr(held, name)[key].equals(table), (name, key)
    assert held.sentiment_rows is not None
    assert held.sentiment_rows.equals(untouched.sentiment_rows)
    np.testing.assert_array_equal(GRID.open_time, world.grid().open_time)


@cache
def on_another_grid(kind: str, timeframe: str, symbol: str) -> Mapping[FeatureSpec, Values]:
    return evaluate_on(world.grid(timeframe, symbol=symbol), tried.company(kind, FEATURES), world.data())


@cache
def placed_elsewhere(kind: str, timeframe: str | None, symbol: str | None) -> Mapping[FeatureSpec, Values]:
    """Give, on the grid, all of a kind as they are in another timeframe or of another symbol."""
    company = tried.company(kind, FEATURES)
    placed = [parse_feature(replace(each, symbol=symbol)) if symbol else each.at(str(timeframe)) for each in company]
    got = evaluate_on(GRID, placed, world.data())
    return {each: got[there] for each, there in zip(company, placed, strict=True)}


def test_rows_of_another_timeframe_have_it_as_of_their_close(feature: FeatureSpec) -> None:
    hours = world.grid("1h")
    own = on_another_grid(feature.definition.kind, "1h", world.SYMBOL)[feature]
    joined = placed_elsewhere(feature.definition.kind, "1h", None)[feature]
    at = np.searchsorted(hours.close_time, GRID.close_time, side="right") - 1
    from_there = at >= 0  # the first three rows have that of the hour before
    np.testing.assert_array_equal(joined.statuses[from_there], own.statuses[at[from_there]])
    for output, other in zip(joined.outputs, own.outputs, strict=True):
        usual = float(np.nanmedian(np.abs(other))) if np.isfinite(other).any() else 0.0
        np.testing.assert_allclose(output[from_there], other[at[from_there]], rtol=1e-9, atol=1e-9 * usual)


def test_rows_of_another_symbol_have_it_as_of_their_close(feature: FeatureSpec) -> None:
    own = on_another_grid(feature.definition.kind, "15m", "ETHUSDT")[feature]
    got = placed_elsewhere(feature.definition.kind, None, "ETHUSDT")[feature]
    expect_same(replace(got, ages=own.ages), own)
    if own.ages is not None:
        np.testing.assert_array_equal(got.ages, own.ages)


@pytest.mark.parametrize("name", KINDS)
def test_the_order_of_symbols_does_not_matter(name: str) -> None:
    company = tried.company(name, FEATURES)
    given = {"timeframe": "1h", "start": "2025-02-05", "end": "2025-02-05T08:00", "statuses": True}
    forth = frame(world.SYMBOLS, company, data=world.data(), **given)
    back = frame(world.SYMBOLS[::-1], company, data=world.turned(), **given)
    assert forth.equals(back.sort("symbol", "open_time"))
    assert forth["symbol"].unique(maintain_order=True).to_list() == list(world.SYMBOLS)


def test_its_text_leads_back_to_it_and_other_parameters_are_another(feature: FeatureSpec) -> None:
    assert parse_feature(str(feature)) == feature
    assert parse_feature(told(feature)) == feature
    others = [each for each in FEATURES if each != feature]
    assert feature.id not in {each.id for each in others}
    assert feature.at("1h").id != feature.id


def told(feature: FeatureSpec) -> dict[str, object]:
    if feature.name == "FORMULA":
        return {"formula": str(feature)}
    return {"name": feature.name, "parameters": feature.arguments, "inputs": list(feature.inputs)}


def is_of_rows(feature: FeatureSpec) -> bool:
    """Tell whether lookback and settle are all that the values depend on: such a feature reads nothing but bars."""
    needs = {need.dataset for need in reads([feature], world.SYMBOL, Timeframe.M15)}
    is_elsewhere = "@" in str(feature)  # the rows of a formula's `RSI@1h` are not those of the grid
    return feature.definition.lengths is not None and needs == {"bars"} and not is_elsewhere


def test_the_first_value_stands_in_the_row_of_the_lookback(feature: FeatureSpec) -> None:
    if not is_of_rows(feature):
        return
    opens = world.data().bars(world.SYMBOL, Timeframe.M15, None, None)["open_time"].to_physical().to_numpy()
    history = Grid(world.SYMBOL, Timeframe.M15, opens[: feature.lookback + 50])
    statuses = evaluate_on(history, [feature], world.data())[feature].statuses
    assert (statuses[: feature.lookback] == INSUFFICIENT_HISTORY).all()
    assert statuses[feature.lookback] != INSUFFICIENT_HISTORY


def test_as_many_rows_as_it_declares_are_enough(feature: FeatureSpec) -> None:
    if not is_of_rows(feature):
        return
    for cut in (5, 230, 330, len(GRID) - 1):
        begins = load_from([feature], GRID.timeframe, int(GRID.open_time[cut]))
        short = evaluate_on(rows(cut, cut + 1), [feature], world.since(begins))[feature]
        expect_same(short, whole(feature), slice(cut, cut + 1))


def test_it_tells_what_it_depends_on(feature: FeatureSpec) -> None:
    needs = reads([feature], world.SYMBOL, Timeframe.M15)
    assert needs
    assert {need.dataset for need in needs} <= {"bars", "trades", "depth", "macro", "sentiment"}
    assert all((need.key == "") == (need.dataset == "sentiment") for need in needs)


def test_without_what_it_depends_on_there_is_no_value_and_a_reason(feature: FeatureSpec) -> None:
    bare = world.TableData(bars_of=world.data().bars_of)
    needs = {need.dataset for need in reads([feature], world.SYMBOL, Timeframe.M15)} - {"bars"}
    values = evaluate_on(GRID, [feature], bare)[feature]
    for output in values.outputs:
        np.testing.assert_array_equal(np.isnan(output), values.statuses > UNSETTLED)
    if len(needs) == 1 and needs & {"macro", "sentiment", "depth"}:
        assert (values.statuses > UNSETTLED).all()


@pytest.mark.parametrize("name", KINDS)
def test_what_a_kind_declares_bears_its_name_and_an_engine(name: str) -> None:
    for each in kind(name).DEFINITIONS:
        assert each.kind == name
        assert each.engine
        assert each.outputs
        assert set(each.required) <= {parameter.name for parameter in each.parameters}


def test_what_is_told_in_hindsight_is_found_to_look_ahead(hindsight: FeatureSpec) -> None:
    wanted = whole(hindsight).outputs[0]
    for cut in range(80, len(GRID), 16):
        known = Truncated(world.data(), int(GRID.close_time[cut]))
        got = evaluate_on(rows(0, cut + 1), [hindsight], known)[hindsight].outputs[0]
        if not np.allclose(got, wanted[: cut + 1], rtol=1e-9, equal_nan=True):
            return
    pytest.fail("it does not look ahead here: it need not be excepted in `tried`")


def test_frames_of_all_features_have_a_column_for_each(feature: FeatureSpec) -> None:
    made = frame(world.SYMBOL, [feature], "15m", "2025-02-05", "2025-02-05T06:00", data=world.data(), ages=True)
    assert [name for name in feature.columns if made.schema[name] != pl.Float64] == []
    assert made.schema[f"{feature}.age"] == pl.Duration("us")
    assert made.height == 24
