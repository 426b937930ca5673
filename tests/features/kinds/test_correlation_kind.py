"""Correlation, beta and lead–lag as features: what a row is worth, by plain loops, and why it is null."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from mdplatform.errors import InvalidFeature, ParameterOutOfRange, UnknownParameter, UnknownSymbol
from mdplatform.features import Grid, TableData, Values, evaluate_on, frame, parse_feature
from mdplatform.features.data import grid_of
from mdplatform.features.guard import STATUSES, UNSETTLED
from mdplatform.features.kinds import Need
from mdplatform.features.panel import reads
from mdplatform.market.timeframe import Timeframe

from ..correlation import oracles
from . import world

NAN = float("nan")


def evaluated(text: str, grid: Grid, data: TableData) -> Values:
    spec = parse_feature(text)
    return evaluate_on(grid, [spec], data)[spec]


def all_rows(data: TableData, symbol: str = world.SYMBOL, timeframe: str = "15m") -> Grid:
    return grid_of(data.bars(symbol, Timeframe.parse(timeframe), None, None))


def returns(data: TableData, symbol: str, grid: Grid) -> list[float]:
    """The log returns of a symbol in the rows of a grid, by a loop over a dictionary of closes."""
    bars = data.bars(symbol, grid.timeframe, None, None)
    closes = dict(zip(bars["open_time"].dt.epoch("us").to_list(), bars["close"].to_list(), strict=True))
    found = []
    for at in grid.open_time.tolist():
        now, before = closes.get(at), closes.get(at - grid.timeframe.microseconds)
        found.append(NAN if now is None or before is None else float(np.log(now / before)))
    return found


def statuses(values: Values) -> list[str]:
    return [STATUSES[each] for each in values.statuses]


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_each_row_is_the_correlation_of_the_window_that_ends_with_it(method: str) -> None:
    data = world.data()
    grid = all_rows(data)
    values = evaluated(f"CORRELATION(reference=ETHUSDT,window=40,method={method},min_periods=12)", grid, data)
    beta = evaluated("BETA_TO(reference=ETHUSDT,window=40,min_periods=12)", grid, data)
    own, other = returns(data, "BTCUSDT", grid), returns(data, "ETHUSDT", grid)
    of = oracles.pearson if method == "pearson" else oracles.spearman
    known = np.flatnonzero(values.statuses <= UNSETTLED)
    assert len(known) > 900
    for row in known.tolist()[::7]:
        first = max(0, row - 39)
        x, y = own[first : row + 1], other[first : row + 1]
        assert values.outputs[0][row] == pytest.approx(of(x, y, 12), abs=1e-12)
        assert beta.outputs[0][row] == pytest.approx(oracles.beta(x, y, 12), rel=1e-11)


def test_the_best_lag_of_each_row_is_the_one_that_trying_all_finds() -> None:
    data = world.data()
    grid = all_rows(data)
    values = evaluated("LEAD_LAG(reference=ETHUSDT,window=40,max_lag=3,min_periods=12)", grid, data)
    own, other = returns(data, "BTCUSDT", grid), returns(data, "ETHUSDT", grid)
    for row in np.flatnonzero(values.statuses <= UNSETTLED).tolist()[::13]:
        if row < 43:
            continue
        tried = {}
        for lag in range(-3, 4):
            x = own[row - 39 + min(lag, 0) : row + 1 + min(lag, 0)]
            y = other[row - 39 - max(lag, 0) : row + 1 - max(lag, 0)]
            if (found := oracles.pearson(x, y, 12)) is not None:
                tried[lag] = found
        best = max(tried, key=lambda lag: abs(tried[lag]))
        assert values.outputs[0][row] == best
        assert values.outputs[1][row] == pytest.approx(tried[best], abs=1e-12)


def test_a_symbol_that_follows_the_reference_by_two_bars_is_led_by_two() -> None:
    data = world.data()
    follower = data.bars_of["ETHUSDT"].with_columns(
        symbol=pl.lit("LATEUSDT"), **{name: pl.col(name).shift(2) for name in ("open", "high", "low", "close")}
    )
    follower = follower.with_columns(state=pl.when(pl.col("close").is_null()).then(pl.lit("gap")).otherwise("state"))
    held = replace(data, bars_of={**data.bars_of, "LATEUSDT": follower})
    values = evaluated("LEAD_LAG(reference=ETHUSDT,window=50)", all_rows(held, "LATEUSDT", "5m"), held)
    known = values.statuses <= UNSETTLED
    assert Counter(values.outputs[0][known].tolist()).most_common(1)[0][0] == 2.0
    assert (values.outputs[0][known] == 2).mean() > 0.95


def test_a_symbol_has_correlation_and_beta_of_exactly_one_with_itself_and_no_lag() -> None:
    data = world.data()
    texts = ["CORRELATION(reference=BTCUSDT)", "BETA_TO(reference=BTCUSDT)", "LEAD_LAG(reference=BTCUSDT).lag"]
    made = frame("BTCUSDT", texts, "15m", data=data)
    for column, wanted in zip(made.columns[4:], (1.0, 1.0, 0.0), strict=True):
        assert made[column].drop_nulls().unique().to_list() == [wanted]


def test_the_beginning_of_history_is_too_short_then_unsettled_then_settled() -> None:
    data = world.data()
    values = evaluated("CORRELATION(reference=ETHUSDT,window=40,min_periods=12)", all_rows(data), data)
    told = statuses(values)
    assert told[:12] == ["insufficient_history"] * 12
    assert told[12:40] == ["unsettled"] * 28
    assert told[40:44] == ["settled"] * 4
    spec = parse_feature("CORRELATION(reference=ETHUSDT,window=40)")
    assert (spec.lookback, spec.settle) == (20, 20)
    assert parse_feature("LEAD_LAG(reference=ETHUSDT,window=40)").settle == 25


def test_rows_inside_a_gap_and_those_whose_window_it_emptied_say_gap() -> None:
    data = world.data()
    grid = all_rows(data)
    values = evaluated("CORRELATION(reference=ETHUSDT,window=20,min_periods=16)", grid, data)
    first, after = world.OUTAGES["BTCUSDT"]
    told = statuses(values)
    inside = np.flatnonzero((grid.open_time >= first) & (grid.close_time <= after))
    assert {told[row] for row in inside} == {"gap"}
    begun = int(inside[-1]) + 2  # a bar that is partly in the outage is a gap too
    assert told[begun] == "gap", "fewer than 16 rows are left in its window"
    assert told[begun + 20] == "settled"


def test_before_the_reference_began_and_after_it_ended_there_is_no_value() -> None:
    data = world.data()
    grid = world.grid()
    begin, end = int(grid.open_time[120]), int(grid.open_time[200])
    bars = data.bars_of["ETHUSDT"]
    opens = pl.col("open_time").dt.epoch("us")
    held = replace(data, bars_of={**data.bars_of, "ETHUSDT": bars.filter((opens >= begin) & (opens < end))})
    text = "CORRELATION(reference=ETHUSDT,window=20,min_periods=10)"
    told = statuses(evaluated(text, grid, held))
    assert told[:120] == ["not_available_yet"] * 120
    assert told[120:130] == ["insufficient_history"] * 10
    assert told[130] == "unsettled"
    assert told[200:] == ["gap"] * (len(grid) - 200)
    for first, after in ((50, 90), (90, 140), (190, 260), (320, 384)):  # whatever rows are asked for
        part = Grid(grid.symbol, grid.timeframe, grid.open_time[first:after])
        assert statuses(evaluated(text, part, held)) == told[first:after]


@pytest.mark.parametrize("name", ["CORRELATION", "BETA_TO", "LEAD_LAG"])
def test_a_reference_of_which_there_are_no_bars_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(UnknownSymbol, match=r"'ETHUSD'\. Known: ADAUSDT, BTCUSDT, ETHUSDT"):
        evaluated(f"{name}(reference=ETHUSD)", world.grid(), world.data())


def test_a_reference_that_rests_is_degenerate_and_beta_to_one_that_moves_is_zero() -> None:
    data = world.data()
    flat = data.bars_of["ETHUSDT"].with_columns(
        symbol=pl.lit("FLATUSDT"), **{name: pl.lit(5.0) for name in ("open", "high", "low", "close")}
    )
    held = replace(data, bars_of={**data.bars_of, "FLATUSDT": flat.with_columns(state=pl.lit("observed"))})
    grid = all_rows(held)
    last = len(grid) - 1
    for text in ("CORRELATION(reference=FLATUSDT)", "BETA_TO(reference=FLATUSDT)", "LEAD_LAG(reference=FLATUSDT)"):
        assert statuses(evaluated(text, grid, held))[last] == "degenerate"
    own = evaluated("BETA_TO(reference=BTCUSDT)", all_rows(held, "FLATUSDT"), held)
    assert own.outputs[0][-1] == 0.0
    assert statuses(own)[-1] == "settled"


def test_a_bar_of_the_reference_that_was_late_is_left_out() -> None:
    data = world.data()
    grid = world.grid()
    late = pl.col("open_time").dt.epoch("us") == int(grid.close_time[200]) - 5 * 60_000_000
    bars = data.bars_of["ETHUSDT"].with_columns(
        available_at=pl.when(late).then(pl.col("close_time") + timedelta(hours=1)).otherwise("available_at")
    )
    held = replace(data, bars_of={**data.bars_of, "ETHUSDT": bars})
    text = "CORRELATION(reference=ETHUSDT,window=20,min_periods=10)"
    changed, plain = evaluated(text, grid, held), evaluated(text, grid, data)
    assert statuses(changed)[200] == "gap"
    np.testing.assert_array_equal(changed.outputs[0][:200], plain.outputs[0][:200])
    assert statuses(changed)[201] == "settled"
    assert changed.outputs[0][201] != plain.outputs[0][201]


def test_it_reads_the_bars_of_both_symbols() -> None:
    spec = parse_feature("LEAD_LAG(reference=ETHUSDT)")
    assert reads([spec], "BTCUSDT", Timeframe.H1) == {Need("bars", "BTCUSDT"), Need("bars", "ETHUSDT")}


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("CORRELATION", ParameterOutOfRange, "such as ETHUSDT"),
        ("CORRELATION(reference=ethusdt)", ParameterOutOfRange, "in capitals"),
        ('CORRELATION(reference="A..B")', ParameterOutOfRange, "in capitals"),
        ('CORRELATION(reference="../ETH")', ParameterOutOfRange, "in capitals"),
        ("CORRELATION(reference=ETHUSDT, window=2)", ParameterOutOfRange, "from 3"),
        ("CORRELATION(reference=ETHUSDT, method=kendall)", ParameterOutOfRange, "pearson, spearman"),
        ("CORRELATION(close, reference=ETHUSDT)", InvalidFeature, "takes no inputs"),
        ("BETA_TO(reference=ETHUSDT, method=pearson)", UnknownParameter, "window"),
        ("LEAD_LAG(reference=ETHUSDT, max_lag=0)", ParameterOutOfRange, "from 1"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_when_it_is_named(text: str, error: type, told: str) -> None:
    with pytest.raises(error, match=told):
        parse_feature(text)


def test_more_periods_than_the_window_has_are_refused_before_anything_is_read() -> None:
    spec = parse_feature("CORRELATION(reference=ETHUSDT, window=20, min_periods=21)")
    with pytest.raises(ParameterOutOfRange, match="from 2 to 20"):
        evaluate_on(world.grid(), [spec], world.data())
    with pytest.raises(ParameterOutOfRange, match="from 2 to 20"):
        _ = spec.lookback
