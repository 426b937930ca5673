"""The detector of look-ahead: it finds what looks ahead, however far, and nothing where nothing does."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from mdplatform.errors import InvalidFeature, NoData, ParameterOutOfRange, UnknownFeature
from mdplatform.features import TableData, check_lookahead, kinds, parse_feature, registry
from mdplatform.features.data import Data, Grid, Values
from mdplatform.features.definition import Definition
from mdplatform.features.kinds import Need

from .kinds import tried, world


def centred(bars: pl.DataFrame) -> pl.Series:
    return bars["close"].rolling_mean(5, center=True)


def trailing(bars: pl.DataFrame) -> pl.Series:
    return bars["close"].rolling_mean(5)


def scaled_by_all(bars: pl.DataFrame) -> pl.Series:
    return (bars["close"] - bars["close"].mean()) / bars["close"].std()


def filled_from_the_next(bars: pl.DataFrame) -> pl.Series:
    return bars["close"].backward_fill()


def close_of_its_day(bars: pl.DataFrame) -> pl.Series:
    return bars.select(pl.col("close").last().over(pl.col("open_time").dt.date())).to_series()


@pytest.mark.parametrize("leaking", [centred, scaled_by_all, close_of_its_day, filled_from_the_next])
def test_functions_that_look_ahead_are_found(leaking) -> None:
    report = check_lookahead(leaking, world.data(), world.SYMBOL)
    assert not report.passed
    name = f"{leaking.__module__}:{leaking.__name__}"
    assert report.counts[name] >= 1
    first = report.differences[0]
    assert first.value != first.value_then
    assert first.open_time < first.known_at
    assert name in str(first)


def test_of_a_centred_mean_the_rows_before_each_cut_are_shown() -> None:
    report = check_lookahead(centred, world.data(), world.SYMBOL, rows=300, samples=4)
    assert report.counts[f"{__name__}:centred"] == 8, "two rows before each cut lack what came later"
    assert {each.value_then for each in report.differences} == {None}


def test_a_function_that_looks_back_only_passes() -> None:
    report = check_lookahead([trailing, lambda bars: bars["volume"].to_numpy() * 2.0], world.data(), world.SYMBOL)
    assert report.passed
    assert set(report.counts.values()) == {0}


def test_features_of_every_kind_pass_but_those_told_in_hindsight() -> None:
    features = {each.definition.kind: each for each in tried.features() if not tried.is_hindsight(each)}
    told = parse_feature("MACRO(series=CPIAUCSL,mode=latest)")
    given = [*features.values(), "RSI(14)", {"name": "RSI", "timeframe": "1h", "symbol": "ETHUSDT"}]
    assert check_lookahead(given, world.data(), world.SYMBOL, rows=384, samples=5).passed
    report = check_lookahead([told, "SMA(3)"], world.data(), world.SYMBOL, rows=384, samples=12)
    assert not report.passed
    assert report.counts["SMA(timeperiod=3)"] == 0
    assert report.counts[str(told)] > 0
    assert json.loads(json.dumps(report.to_dict()))["differences"][0]["status"] == "settled"


@pytest.fixture
def peeking(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A kind whose values are right and whose statuses peek at the next bar, and one that peeks with both."""
    module = ModuleType("mdplatform.features.kinds.peeking")

    def definition(name: str) -> Definition:
        return Definition(name, name, "Wrong", False, (), (), (name.lower(),), kind="peeking", engine="peeking 1")

    def evaluate(specs, grid: Grid, data: Data):
        bars = data.bars(grid.symbol, grid.timeframe, grid.start, grid.end + grid.timeframe.microseconds)
        close = bars["close"].fill_null(0).to_numpy()
        here, next_one = close[: len(grid)], np.append(close[1:], np.nan)[: len(grid)]
        answers = {}
        for spec in specs:
            rises = next_one > here
            values = np.where(rises, here, np.nan) if spec.name == "PEEK" else here
            statuses = np.where(rises, 0, 6 if spec.name == "PEEK" else 1).astype(np.int8)
            answers[spec] = Values((values.astype(np.float64),), statuses)
        return answers

    module.DEFINITIONS = (definition("PEEK"), definition("PEEK_STATUS"))  # type: ignore[attr-defined]
    module.evaluate = evaluate  # type: ignore[attr-defined]
    module.reads = lambda spec, symbol, timeframe: frozenset({Need("bars", symbol)})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, "peeking"))
    forget = (kinds.declared, kinds.kind, registry._definitions)
    for each in forget:
        each.cache_clear()
    yield module
    monkeypatch.undo()
    for each in forget:
        each.cache_clear()


@pytest.mark.parametrize("name", ["PEEK", "PEEK_STATUS"])
def test_a_kind_that_peeks_is_found_by_values_and_by_statuses(peeking: ModuleType, name: str) -> None:
    report = check_lookahead(name, world.data(), world.SYMBOL)
    assert not report.passed
    assert report.counts[name] > 0
    assert report.differences[0].status != report.differences[0].status_then


def test_what_has_no_value_at_all_does_not_pass() -> None:
    report = check_lookahead(["RSI(14)", "MACRO(series=NONE)"], world.data(), world.SYMBOL)
    assert not report.passed
    assert report.without_values == ("MACRO(series=NONE,mode=as_of,missing=keep,max_staleness_days=120)",)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"features": "RSJ"}, UnknownFeature, "RSI"),
        ({"symbol": "NOPE"}, NoData, "ADAUSDT"),
        ({"rows": 1}, ParameterOutOfRange, "rows"),
        ({"samples": 0}, ParameterOutOfRange, "samples"),
        ({"samples": True}, ParameterOutOfRange, "samples"),
        ({"start": "soon"}, ParameterOutOfRange, "Not a time"),
        ({"features": lambda bars: bars["close"].head(3)}, InvalidFeature, "for each row"),
        ({"features": lambda bars: bars["symbol"]}, InvalidFeature, "no numbers"),
        ({"features": lambda bars: None}, InvalidFeature, "lambda"),
    ],
)
def test_what_cannot_be_checked_is_one_clear_error(wrong, error, said) -> None:
    given = {"features": "RSI", "symbol": world.SYMBOL, "data": world.data(), **wrong}
    with pytest.raises(error, match=said):
        check_lookahead(**given)


def test_no_data_at_all_says_so() -> None:
    with pytest.raises(NoData, match="none"):
        check_lookahead("RSI", TableData())
