"""Features of macro series: values, ages and reasons in rows, and correlation with returns, against plain loops."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.errors import ParameterOutOfRange, PlatformError, UnknownParameter
from mdplatform.features import parse_feature
from mdplatform.features.data import Grid, TableData, Values
from mdplatform.features.guard import STATUSES
from mdplatform.features.kinds import Need
from mdplatform.features.panel import evaluate_on, frame, reads
from mdplatform.market.bars import BAR_SCHEMA
from mdplatform.market.macro import MACRO
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import DAY_US, Timeframe
from mdplatform.sources.vintages import INTERVALS, OPEN_END, rows_of_intervals

from ..vintages import BEGIN, Vintage, known_at, month, table, transformed, vintages

TRANSFORM_OF = {
    "MACRO": "value",
    "MACRO_DIFF": "diff",
    "MACRO_PCT": "pct",
    "MACRO_YOY": "yoy",
    "MACRO_ZSCORE": "zscore",
}


def grid(first: datetime, rows: int, timeframe: Timeframe = Timeframe.D1) -> Grid:
    return Grid("BTCUSDT", timeframe, to_us(first) + np.arange(rows) * timeframe.microseconds)


def one(feature: str, at: Grid, told: list[Vintage] | pl.DataFrame, **more: pl.DataFrame) -> Values:
    rows = told if isinstance(told, pl.DataFrame) else table(told)
    spec = parse_feature(feature)
    return evaluate_on(at, [spec], TableData(bars_of=more, macro_of={"X": rows}))[spec]


def named(values: Values) -> list[str]:
    return [STATUSES[each] for each in values.statuses]


@settings(max_examples=40, deadline=None)
@given(
    vintages(),
    st.sampled_from(sorted(TRANSFORM_OF)),
    st.sampled_from(["as_of", "first_release"]),
    st.booleans(),
    st.sampled_from([1, 30, 36_500]),
)
def test_rows_have_what_one_works_out_at_their_close(
    told: list[Vintage], name: str, mode: str, skip: bool, days: int
) -> None:
    rows, at = table(told), grid(BEGIN, 110, Timeframe.W1)
    at = Grid(at.symbol, at.timeframe, at.open_time - 2 * DAY_US)  # Mondays
    periods = {"MACRO_ZSCORE": ",periods=3", "MACRO_DIFF": ",periods=2"}.get(name, "")
    missing = "skip" if skip else "keep"
    values = one(f"{name}(series=X{periods},mode={mode},missing={missing},max_staleness_days={days})", at, rows)
    assert values.ages is not None
    count = {"MACRO_ZSCORE": 3, "MACRO_DIFF": 2}.get(name, 1)
    for number, close in enumerate(at.close_time.tolist()):
        value, reason = transformed(known_at(rows, close, mode), TRANSFORM_OF[name], count, skip=skip)
        age = int(values.ages[number])
        assert (age == -1) == (reason == "not_available_yet")
        if age > days * DAY_US:
            value, reason = None, "stale"
        assert STATUSES[values.statuses[number]] == reason
        assert values.outputs[0][number] == pytest.approx(math.nan if value is None else value, rel=1e-9, nan_ok=True)


def test_age_counts_from_the_release_in_force_and_too_old_is_stale() -> None:
    told = [(month(0), 40, 0, 1.0), (month(1), 45, 0, 2.0)]
    values = one("MACRO(series=X,max_staleness_days=3)", grid(BEGIN + timedelta(days=38), 12), told)
    wanted = ["not_available_yet", *["settled"] * 4, "settled", *["settled"] * 4, "stale", "stale"]
    wanted[5] = "stale"  # four days after the first release, before the second
    assert named(values) == wanted
    assert values.ages is not None
    assert (values.ages // DAY_US).tolist() == [-1, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5]


def test_a_row_that_closes_with_the_release_has_it_and_the_one_before_has_not() -> None:
    released = {date(2025, 3, 7): 13, date(2025, 3, 12): 12, date(2025, 10, 31): 12, date(2025, 11, 4): 13}
    intervals = [(date(2025, 1, at + 1), day, OPEN_END, float(at)) for at, day in enumerate(released)]
    rows = rows_of_intervals("CPIAUCSL", pl.DataFrame(intervals, schema=INTERVALS, orient="row"))
    stored = pl.DataFrame(
        rows.with_columns(source=pl.lit("t"), revision=pl.lit(0, pl.Int32), ingested_at="available_at")
    )
    spec = parse_feature("MACRO(series=CPIAUCSL)")
    for number, (day, hour) in enumerate(released.items()):
        first = datetime(day.year, day.month, day.day, hour, 0, tzinfo=UTC)
        at = grid(first, 3, Timeframe.M15)  # closes at :15, :30 and :45
        data = TableData(macro_of={"CPIAUCSL": stored.select(list(MACRO.schema))})
        values = evaluate_on(at, [spec], data)[spec]
        assert values.outputs[0].tolist()[1:] == [number, number]
        assert values.outputs[0][0] != number
        assert values.ages is not None
        assert values.ages[1] == 0


def test_a_revision_changes_no_row_before_it_and_the_past_in_none() -> None:
    told = [(month(at), 40 + 30 * at, 0, 100.0 + at) for at in range(14)]
    revised = [*told, (month(0), 450, 0, 50.0), (month(1), 450, 0, 60.0)]
    at = grid(BEGIN + timedelta(days=400), 60)
    for name in ("MACRO_YOY(series=X)", "MACRO_ZSCORE(series=X,periods=14)", "MACRO_DIFF(series=X,periods=12)"):
        before, after = one(name, at, told), one(name, at, revised)
        earlier = at.close_time < to_us(BEGIN + timedelta(days=450))
        np.testing.assert_array_equal(before.outputs[0][earlier], after.outputs[0][earlier])
        assert (before.outputs[0][~earlier] != after.outputs[0][~earlier]).all()


def test_what_the_agency_never_published_is_a_gap_unless_passed_over() -> None:
    told = [(month(0), 40, 0, 1.0), (month(1), 70, 0, None)]
    at = grid(BEGIN + timedelta(days=69), 3)
    assert named(one("MACRO(series=X)", at, told)) == ["gap", "gap", "gap"]
    assert one("MACRO(series=X,missing=skip)", at, told).outputs[0].tolist() == [1.0, 1.0, 1.0]


def test_latest_shows_revised_data_from_the_first_publication_on() -> None:
    told = [(month(0), 40, 0, 1.0), (month(0), 400, 0, 2.0)]
    at = grid(BEGIN + timedelta(days=38), 3)
    assert one("MACRO(series=X,mode=latest)", at, told).outputs[0].tolist()[1:] == [2.0, 2.0]
    assert one("MACRO(series=X,mode=first_release)", at, told).outputs[0].tolist()[1:] == [1.0, 1.0]


def bars(rows: int, seed: int = 1, gaps: tuple[int, ...] = ()) -> pl.DataFrame:
    closes: list[float | None] = (100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.01, rows)))).tolist()
    for each in gaps:
        closes[each] = None
    opens = [BEGIN + timedelta(days=each) for each in range(rows)]
    made = pl.DataFrame({"open_time": opens, "close": closes}).with_columns(
        symbol=pl.lit("BTCUSDT"),
        timeframe=pl.lit("1d"),
        state=pl.when(pl.col("close").is_null()).then(pl.lit("gap")).otherwise(pl.lit("observed")),
        close_time=pl.col("open_time") + pl.duration(days=1),
        available_at=pl.col("open_time") + pl.duration(days=1),
        is_closed=pl.lit(True),
    )
    absent = [pl.lit(None, kind).alias(name) for name, kind in BAR_SCHEMA.items() if name not in made.columns]
    return made.with_columns(absent).select(list(BAR_SCHEMA)).cast(dict(BAR_SCHEMA))


def moving(seed: int, count: int = 60) -> list[Vintage]:
    random = np.random.default_rng(seed)
    told: list[Vintage] = []
    for at in range(count):
        period = BEGIN + timedelta(days=3 * at)
        told.append((period, 3 * at + 1, 0, float(random.normal())))
        if at % 5 == 0:
            told.append((period, 3 * at + 8, 0, float(random.normal())))
    return told


def correlated(pairs: list[tuple[float, float] | None], row: int, window: int, least: int) -> tuple[float | None, str]:
    """Give the correlation of the pairs of the window that ends with a row, or the reason why there is none."""
    within = [each for each in pairs[max(row - window + 1, 0) : row + 1] if each is not None]
    if len(within) < least:
        return None, "insufficient_history"
    if len({each for each, _ in within}) == 1:
        return None, "degenerate"
    return float(np.corrcoef(np.array(within).T)[0, 1]), "settled"


def paired(told: list[Vintage], held: pl.DataFrame, lag: int) -> list[tuple[float, float] | None]:
    """Give each row's change of the series as known `lag` rows before, and its return, where there are both."""
    rows, closes = table(told), held["close"].to_list()
    pairs: list[tuple[float, float] | None] = [None]
    for at in range(1, len(closes)):
        known = known_at(rows, to_us(BEGIN + timedelta(days=at + 1 - lag)))
        value, _ = transformed(known, "diff", 1, skip=False)
        whole = value is not None and closes[at] is not None and closes[at - 1] is not None
        pairs.append((value or 0.0, math.log(closes[at] / closes[at - 1])) if whole else None)
    return pairs


@pytest.mark.parametrize(("window", "lag", "least"), [(20, 0, 5), (20, 4, 5), (7, 1, 7), (60, 2, 20)])
def test_correlation_is_that_of_the_pairs_known_in_the_window(window: int, lag: int, least: int) -> None:
    told, held = moving(3), bars(150, gaps=(40, 41, 90))
    feature = f"MACRO_RETURN_CORRELATION(series=X,window={window},lag={lag},min_periods={least})"
    at = grid(BEGIN, 150)
    values = one(feature, at, told, BTCUSDT=held)
    reasons, pairs = named(values), paired(told, held, lag)
    assert reasons.count("settled") > 30
    for row in range(150):
        wanted, reason = correlated(pairs, row, window, least)
        if row in (40, 41, 90):
            wanted, reason = None, "gap"
        if reasons[row] == "not_available_yet":
            assert wanted is None
            continue
        assert reasons[row] == reason, row
        assert values.outputs[0][row] == pytest.approx(math.nan if wanted is None else wanted, abs=1e-9, nan_ok=True)
    for first, after in ((0, 30), (30, 31), (31, 150)):
        part = one(feature, Grid("BTCUSDT", Timeframe.D1, at.open_time[first:after]), told, BTCUSDT=held)
        np.testing.assert_allclose(part.outputs[0], values.outputs[0][first:after], rtol=1e-9)
        np.testing.assert_array_equal(part.statuses, values.statuses[first:after])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1e-9, 1.0, 1e9]), st.floats(-1e6, 1e6))
def test_correlation_lies_within_one_and_keeps_under_scale_and_shift(seed: int, scale: float, shift: float) -> None:
    told = moving(seed, 20)
    moved = [(period, day, late, value and value * scale) for period, day, late, value in told]
    feature = "MACRO_RETURN_CORRELATION(series=X,window=15,min_periods=4,transform=value)"
    at, held = grid(BEGIN, 60), bars(60, seed)
    values, others = one(feature, at, told, BTCUSDT=held), one(feature, at, moved, BTCUSDT=held)
    known = values.outputs[0][~np.isnan(values.outputs[0])]
    assert (np.abs(known) <= 1.0).all()
    np.testing.assert_allclose(values.outputs[0], others.outputs[0], atol=1e-9)
    shifted = [(period, day, late, value and value + shift) for period, day, late, value in told]
    near = one(feature, at, shifted, BTCUSDT=held)
    np.testing.assert_allclose(values.outputs[0], near.outputs[0], atol=1e-6)


def test_a_series_that_is_its_own_return_correlates_wholly() -> None:
    held = bars(60)
    closes = held["close"].to_list()
    told: list[Vintage] = [
        (BEGIN + timedelta(days=at), at + 1, 0, math.log(closes[at] / closes[at - 1])) for at in range(1, 60)
    ]
    feature = "MACRO_RETURN_CORRELATION(series=X,window=20,min_periods=5,transform=value)"
    values = one(feature, grid(BEGIN, 60), told, BTCUSDT=held)
    assert values.outputs[0][-30:] == pytest.approx(np.ones(30), abs=1e-12)
    mirrored = [(period, day, late, -(value or 0.0)) for period, day, late, value in told]
    against = one(feature, grid(BEGIN, 60), mirrored, BTCUSDT=held)
    assert against.outputs[0][-30:] == pytest.approx(-np.ones(30), abs=1e-12)


def test_without_bars_or_without_a_series_there_is_no_correlation_and_a_reason() -> None:
    feature, at = "MACRO_RETURN_CORRELATION(series=X)", grid(BEGIN, 40)
    assert set(named(one(feature, at, moving(1)))) <= {"insufficient_history", "not_available_yet"}
    assert set(named(one(feature, at, [], BTCUSDT=bars(40)))) == {"not_available_yet"}


def test_frames_give_the_age_beside_the_value() -> None:
    data = TableData(bars_of={"BTCUSDT": bars(60)}, macro_of={"X": table([(month(0), 40, 0, 1.5)])})
    made = frame("BTCUSDT", "MACRO(series=X)", "1d", data=data, ages=True, statuses=True)
    name = "MACRO(series=X,mode=as_of,missing=keep,max_staleness_days=120)"
    assert made[name].to_list()[38:41] == [None, 1.5, 1.5]
    assert made[f"{name}.age"].to_list()[38:41] == [None, timedelta(0), timedelta(days=1)]
    assert made[f"{name}.status"].to_list()[38:40] == ["not_available_yet", "settled"]


def test_it_reads_the_series_and_for_returns_the_bars() -> None:
    told = reads([parse_feature("MACRO_YOY(series=M2SL)")], "BTCUSDT", Timeframe.H1)
    assert told == {Need("macro", "M2SL")}
    both = reads([parse_feature("MACRO_RETURN_CORRELATION(series=M2SL)")], "BTCUSDT", Timeframe.H1)
    assert both == {Need("macro", "M2SL"), Need("bars", "BTCUSDT")}


@pytest.mark.parametrize(
    ("feature", "error", "said"),
    [
        ("MACRO", ParameterOutOfRange, "series of MACRO is missing"),
        ('MACRO(series="a b")', ParameterOutOfRange, "FRED's name of a series"),
        ("MACRO(series='')", ParameterOutOfRange, "FRED's name of a series"),
        ("MACRO(series=X,mode=now)", ParameterOutOfRange, "as_of, first_release, latest"),
        ("MACRO(series=X,max_staleness_days=0)", ParameterOutOfRange, "from 1 to 36500"),
        ("MACRO_ZSCORE(series=X,periods=1)", ParameterOutOfRange, "from 2 to"),
        ("MACRO_DIFF(series=X,period=3)", UnknownParameter, "periods"),
        ("MACRO_RETURN_CORRELATION(series=X,lag=-1)", ParameterOutOfRange, "from 0 to"),
    ],
)
def test_bad_parameters_are_refused_with_what_is_allowed(feature: str, error: type[PlatformError], said: str) -> None:
    with pytest.raises(error, match=said):
        parse_feature(feature)


def test_more_pairs_than_rows_are_refused() -> None:
    with pytest.raises(ParameterOutOfRange, match="At most the window, 10"):
        one("MACRO_RETURN_CORRELATION(series=X,window=10,min_periods=11)", grid(BEGIN, 3), [], BTCUSDT=bars(3))
