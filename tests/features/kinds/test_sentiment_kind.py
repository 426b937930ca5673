"""Features of sentiment: values, ages and reasons against plain loops, and the laws of time."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.errors import ParameterOutOfRange
from mdplatform.features import parse_feature
from mdplatform.features.data import Grid, TableData, Truncated, Values
from mdplatform.features.guard import STATUSES
from mdplatform.features.kinds import Need
from mdplatform.features.panel import evaluate_on, frame, reads
from mdplatform.market.bars import BAR_SCHEMA
from mdplatform.market.sentiment import SENTIMENT
from mdplatform.market.timeframe import Timeframe
from mdplatform.sources.sentiment_files import read_sentiment
from mdplatform.sources.table_delivery import TableOptions

from ..documents import BEGIN, HOUR, Document, counting, documents, table

FEATURES = (
    "SENTIMENT(provider=news)",
    "SENTIMENT(provider=news,max_staleness_hours=500)",
    "SENTIMENT_MEAN(provider=news)",
    "SENTIMENT_MEAN(provider=news,hours=300,scope=symbol)",
    "SENTIMENT_DECAYED(provider=news,half_life_hours=6)",
    "SENTIMENT_COUNT(provider=news,hours=100)",
    "SENTIMENT_DISPERSION(provider=news,hours=400)",
    "SENTIMENT_AGE(provider=news)",
    "SENTIMENT_RETURN_CORRELATION(provider=news,window=12,lag=2,min_periods=4,max_staleness_hours=900)",
)
DOCUMENTS: list[Document] = [
    (BEGIN + 10 * HOUR, 0.5, "", "a"),
    (BEGIN + 12 * HOUR, -0.5, "", "b"),
    (BEGIN + 13 * HOUR, 0.9, "", "a"),
    (BEGIN + 13 * HOUR, 0.2, "BTCUSDT", "c"),
]


def grid(first: int, rows: int, timeframe: Timeframe = Timeframe.H1) -> Grid:
    step = timeframe.microseconds
    return Grid("BTCUSDT", timeframe, BEGIN + (first + np.arange(rows)) * step)


def bars(rows: int = 2200, seed: int = 1, gaps: tuple[int, ...] = (40, 41, 700)) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    closes: list[float | None] = (100 * np.exp(np.cumsum(generator.normal(0, 0.01, rows)))).tolist()
    for gap in gaps:
        closes[gap] = None
    begin = datetime(2025, 1, 1, tzinfo=UTC)
    opens = [begin + timedelta(hours=each) for each in range(rows)]
    made = pl.DataFrame({"open_time": opens, "close": closes}).with_columns(
        pl.lit("BTCUSDT").alias("symbol"),
        pl.lit("1h").alias("timeframe"),
        (pl.col("open_time") + pl.duration(hours=1)).alias("close_time"),
        (pl.col("open_time") + pl.duration(hours=1)).alias("available_at"),
        pl.when(pl.col("close").is_null()).then(pl.lit("gap")).otherwise(pl.lit("observed")).alias("state"),
    )
    lacking = [pl.lit(None).alias(name) for name in BAR_SCHEMA if name not in made.columns]
    return made.with_columns(lacking).select(list(BAR_SCHEMA)).cast(dict(BAR_SCHEMA))


BARS = bars()


def data(given_ones: list[Document]) -> TableData:
    return TableData(bars_of={"BTCUSDT": BARS}, sentiment_rows=table(given_ones))


def value(feature: str, documents_given: list[Document], hour: int) -> tuple[float | None, str, float | None]:
    """Give value, status and age (hours) in the row that closes that many hours after the beginning."""
    answers = evaluate_on(grid(hour - 1, 1), [parse_feature(feature)], data(documents_given))
    found = next(iter(answers.values()))
    assert found.ages is not None
    number, age = float(found.outputs[0][0]), int(found.ages[0])
    return None if math.isnan(number) else number, STATUSES[found.statuses[0]], None if age < 0 else age / HOUR


@pytest.mark.parametrize(
    ("feature", "hour", "expected"),
    [
        ("SENTIMENT(provider=news)", 9, (None, "not_available_yet", None)),
        ("SENTIMENT(provider=news)", 10, (0.5, "settled", 0)),
        ("SENTIMENT(provider=news)", 14, (-0.5, "settled", 2)),  # 13:00 brought a copy of what is known
        ("SENTIMENT(provider=news)", 60, (-0.5, "settled", 48)),
        ("SENTIMENT(provider=news)", 61, (None, "stale", 49)),
        ("SENTIMENT(provider=news,scope=symbol)", 14, (0.2, "settled", 1)),
        ("SENTIMENT(provider=others)", 14, (None, "not_available_yet", None)),
        ("SENTIMENT_MEAN(provider=news)", 9, (None, "not_available_yet", None)),
        ("SENTIMENT_MEAN(provider=news)", 11, (0.5, "settled", 1)),
        ("SENTIMENT_MEAN(provider=news)", 33, (0.0, "settled", 21)),
        ("SENTIMENT_MEAN(provider=news)", 34, (-0.5, "settled", 22)),
        ("SENTIMENT_MEAN(provider=news)", 36, (None, "stale", 24)),
        ("SENTIMENT_COUNT(provider=news)", 9, (None, "not_available_yet", None)),
        ("SENTIMENT_COUNT(provider=news)", 20, (2, "settled", 8)),
        ("SENTIMENT_COUNT(provider=news)", 2000, (0, "settled", 1988)),
        ("SENTIMENT_DISPERSION(provider=news)", 11, (None, "insufficient_history", 1)),
        ("SENTIMENT_DISPERSION(provider=news)", 20, (0.5, "settled", 8)),
        ("SENTIMENT_DISPERSION(provider=news)", 40, (None, "stale", 28)),
        ("SENTIMENT_AGE(provider=news)", 9, (None, "not_available_yet", None)),
        ("SENTIMENT_AGE(provider=news)", 2000, (1988, "settled", 1988)),
        ("SENTIMENT_DECAYED(provider=news,half_life_hours=2)", 12, (-1 / 6, "settled", 0)),
        ("SENTIMENT_DECAYED(provider=news,half_life_hours=2)", 30, (-1 / 6, "settled", 18)),
        ("SENTIMENT_DECAYED(provider=news,half_life_hours=2)", 180, (-1 / 6, "settled", 168)),
        ("SENTIMENT_DECAYED(provider=news,half_life_hours=2)", 181, (None, "stale", 169)),
        ("SENTIMENT_DECAYED(provider=news,max_staleness_hours=5)", 18, (None, "stale", 6)),
    ],
)
def test_values_ages_and_reasons(feature: str, hour: int, expected: tuple[float | None, str, float | None]) -> None:
    number, status, age = value(feature, DOCUMENTS, hour)
    assert (status, age) == expected[1:]
    assert number == (None if expected[0] is None else pytest.approx(expected[0], abs=1e-15))


@settings(max_examples=25, deadline=None)
@given(documents())
def test_the_newest_score_is_the_one_that_a_look_at_all_documents_finds(given_ones: list[Document]) -> None:
    rows = grid(0, 700, Timeframe.H4)
    spec = parse_feature("SENTIMENT(provider=news,max_staleness_hours=100)")
    found = evaluate_on(rows, [spec], data(given_ones))[spec]
    known = counting(given_ones, None)
    for row, close in enumerate(rows.close_time.tolist()):
        before = [each for each in known if each[0] <= close]
        if not before:
            assert STATUSES[found.statuses[row]] == "not_available_yet"
        elif close - before[-1][0] > 100 * HOUR:
            assert STATUSES[found.statuses[row]] == "stale"
        else:
            assert found.outputs[0][row] == before[-1][1]


def _same(one: Values, other: Values) -> None:
    assert np.array_equal(one.statuses, other.statuses)
    assert one.ages is not None
    assert np.array_equal(one.ages, other.ages)
    assert np.allclose(one.outputs[0], other.outputs[0], rtol=1e-9, atol=0, equal_nan=True)


def _part(values: Values, part: slice) -> Values:
    assert values.ages is not None
    return replace(values, outputs=(values.outputs[0][part],), statuses=values.statuses[part], ages=values.ages[part])


@settings(max_examples=25, deadline=None)
@given(documents(), st.integers(1, 2000), st.integers(1, 150))
def test_a_part_of_the_rows_has_the_values_of_the_whole(given_ones: list[Document], first: int, rows: int) -> None:
    specs = [parse_feature(each) for each in FEATURES]
    whole = evaluate_on(grid(0, 2200), specs, data(given_ones))
    part = evaluate_on(grid(first, rows), specs, data(given_ones))
    for spec in specs:
        _same(part[spec], _part(whole[spec], slice(first, first + rows)))
        alone = evaluate_on(grid(first, rows), [spec], data(given_ones))
        _same(alone[spec], part[spec])


@settings(max_examples=25, deadline=None)
@given(documents(), st.integers(1, 2200))
def test_what_happens_after_a_row_changes_nothing_in_it(given_ones: list[Document], rows: int) -> None:
    specs = [parse_feature(each) for each in FEATURES]
    whole = evaluate_on(grid(0, 2200), specs, data(given_ones))
    cut = Truncated(data(given_ones), BEGIN + rows * HOUR)
    early = evaluate_on(grid(0, rows), specs, cut)
    for spec in specs:
        _same(early[spec], _part(whole[spec], slice(0, rows)))


@settings(max_examples=15, deadline=None)
@given(documents(), st.integers(0, 99))
def test_the_order_of_documents_does_not_matter(given_ones: list[Document], seed: int) -> None:
    specs = [parse_feature(each) for each in FEATURES]
    rows = table(given_ones)
    shuffled = rows.sample(fraction=1.0, shuffle=True, seed=seed)
    here = evaluate_on(grid(0, 500, Timeframe.H4), specs, TableData({"BTCUSDT": BARS}, sentiment_rows=rows))
    there = evaluate_on(grid(0, 500, Timeframe.H4), specs, TableData({"BTCUSDT": BARS}, sentiment_rows=shuffled))
    for spec in specs:
        _same(here[spec], there[spec])


@settings(max_examples=15, deadline=None)
@given(documents(60), st.integers(0, 4), st.integers(3, 30))
def test_the_correlation_pairs_a_return_with_the_score_of_lag_rows_before(
    given_ones: list[Document], lag: int, window: int
) -> None:
    spec = parse_feature(
        f"SENTIMENT_RETURN_CORRELATION(provider=news,window={window},lag={lag},min_periods=3,max_staleness_hours=48)"
    )
    rows = grid(0, 400)
    found = evaluate_on(rows, [spec], data(given_ones))[spec]
    known = counting(given_ones, None)
    closes: list[Any] = BARS["close"].to_list()
    scores: list[float] = []
    returns: list[float] = []
    for row in range(400):
        close = int(rows.close_time[row]) - lag * HOUR
        before = [each for each in known if each[0] <= close]
        fresh = before and close - before[-1][0] <= 48 * HOUR
        scores.append(before[-1][1] if fresh else math.nan)
        both = row > 0 and closes[row] is not None and closes[row - 1] is not None
        returns.append(math.log(closes[row] / closes[row - 1]) if both else math.nan)
    for row in range(400):
        x, y = (np.array(each[max(0, row - window + 1) : row + 1]) for each in (scores, returns))
        both = np.isfinite(x) & np.isfinite(y)
        if closes[row] is None:
            assert STATUSES[found.statuses[row]] == "gap"
        elif both.sum() < 3:
            assert STATUSES[found.statuses[row]] in ("insufficient_history", "stale", "not_available_yet")
        elif np.ptp(x[both]) == 0:
            assert STATUSES[found.statuses[row]] == "degenerate"
        else:
            assert found.outputs[0][row] == pytest.approx(np.corrcoef(x[both], y[both])[0, 1], rel=1e-7, abs=1e-9)


def test_every_null_has_a_reason_and_nothing_else_has_one() -> None:
    specs = [parse_feature(each) for each in FEATURES]
    given_ones: list[Document] = [(BEGIN + at * 5 * HOUR, math.sin(at), "", None) for at in range(30, 200)]
    for spec, values in evaluate_on(grid(0, 2200), specs, data(given_ones)).items():
        nulls = np.isnan(values.outputs[0])
        assert np.array_equal(nulls, values.statuses > 1), spec
        assert not np.isinf(values.outputs[0]).any()


def test_a_correlation_says_gap_where_the_row_is_one() -> None:
    given_ones: list[Document] = [(BEGIN + at * HOUR, math.sin(at), "", None) for at in range(60)]
    spec = parse_feature("SENTIMENT_RETURN_CORRELATION(provider=news,window=4,lag=0,min_periods=3)")
    found = evaluate_on(grid(0, 60), [spec], data(given_ones))[spec]
    words = [STATUSES[each] for each in found.statuses[[0, 1, 2, 3, 10, 40, 41, 42, 44, 46]]]
    assert words[:5] == ["insufficient_history"] * 3 + ["settled"] * 2
    assert words[5:8] == ["gap", "gap", "insufficient_history"]
    assert words[-1] == "settled"


def test_without_any_document_everything_is_not_available_yet() -> None:
    specs = [parse_feature(each) for each in FEATURES]
    for values in evaluate_on(grid(0, 40), specs, TableData({"BTCUSDT": BARS})).values():
        assert {STATUSES[each] for each in values.statuses} == {"not_available_yet"}
        assert values.ages is not None
        assert (values.ages == -1).all()


@pytest.mark.parametrize("days", [3, 40, 300, 380, 420, 3_000])
def test_what_was_long_ago_is_stale_with_its_age_and_not_unheard_of(days: int) -> None:
    old: list[Document] = [(BEGIN - days * 24 * HOUR, 0.5, "", None)]
    assert value("SENTIMENT(provider=news)", old, 0) == (None, "stale", days * 24)
    assert value("SENTIMENT_AGE(provider=news)", old, 0) == (days * 24, "settled", days * 24)
    assert value("SENTIMENT_COUNT(provider=news)", old, 0) == (0, "settled", days * 24)


def test_a_frame_carries_scores_with_their_ages() -> None:
    found = frame(["BTCUSDT"], FEATURES[:2], "1h", "2025-01-01", "2025-01-02", ages=True, data=data(DOCUMENTS))
    column = "SENTIMENT(provider=news,max_staleness_hours=48,scope=market)"
    assert found[column].to_list()[8:12] == [None, 0.5, 0.5, -0.5]
    assert found[f"{column}.age"].to_list()[8:11] == [None, timedelta(0), timedelta(hours=1)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("SENTIMENT", "Parameter provider of SENTIMENT is missing"),
        ("SENTIMENT(provider='a b')", "Parameter provider of SENTIMENT is out of range"),
        ("SENTIMENT_MEAN(provider=x,scope=world)", "one of market, symbol"),
        ("SENTIMENT_MEAN(provider=x,hours=0)", "Allowed: a number from 0.25"),
        ("SENTIMENT_DECAYED(provider=x,half_life_hours=-1)", "Allowed: a number from 0.25"),
        ("SENTIMENT_RETURN_CORRELATION(provider=x,lag=-1)", "Allowed: an integer from 0"),
        ("SENTIMENT_RETURN_CORRELATION(provider=x,window=2)", "Allowed: an integer from 3"),
    ],
)
def test_bad_parameters_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ParameterOutOfRange) as refused:
        parse_feature(text)
    assert problem in str(refused.value)


def test_more_pairs_than_rows_are_refused_before_any_work() -> None:
    spec = parse_feature("SENTIMENT_RETURN_CORRELATION(provider=x,window=10,min_periods=11)")
    with pytest.raises(ParameterOutOfRange, match="At most the window, which is 10"):
        evaluate_on(grid(0, 5), [spec], TableData())


def test_what_a_feature_reads() -> None:
    mean, correlation = parse_feature(FEATURES[2]), parse_feature(FEATURES[-1])
    assert reads([mean], "BTCUSDT", Timeframe.H1) == {Need("sentiment", "")}
    assert reads([correlation], "BTCUSDT", Timeframe.H1) == {Need("sentiment", ""), Need("bars", "BTCUSDT")}


@pytest.fixture(scope="module")
def real(shared_data: Path) -> TableData:
    """The real index and news, as they are taken in."""
    folder = shared_data / "sentiment"
    (index,) = read_sentiment(folder / "Katiehey__Crypto-Bot/data/fear_greed_index.csv.gz", TableOptions())
    options = TableOptions(provider="news", columns={"score": "Accurate Sentiments"})
    path = folder / "Shriniwas21__CryptoPricePrediction/data/news_sentiment_transformer.csv.gz"
    (news,) = read_sentiment(path, options)
    rows = pl.concat([index.rows, news.rows]).sort("available_at")
    lacking = [
        pl.lit(None, dtype=kind).alias(name) for name, kind in SENTIMENT.schema.items() if name not in rows.columns
    ]
    return TableData(sentiment_rows=rows.with_columns(lacking).select(list(SENTIMENT.schema)))


def daily(first: str, days: int) -> Grid:
    begin = int(datetime.fromisoformat(first).replace(tzinfo=UTC).timestamp()) * 1_000_000
    return Grid("BTCUSDT", Timeframe.D1, begin + np.arange(days) * Timeframe.D1.microseconds)


def test_each_real_text_is_counted_in_one_day(real: TableData) -> None:
    spec = parse_feature("SENTIMENT_COUNT(provider=news,hours=24)")
    found = evaluate_on(daily("2021-11-05", 1043), [spec], real)[spec]
    assert found.outputs[0].sum() == 11_295 - 172
    assert STATUSES[evaluate_on(daily("2021-11-01", 3), [spec], real)[spec].statuses[-1]] == "not_available_yet"


def test_the_real_index_is_known_at_midnight_and_stale_after_three_missing_days(real: TableData) -> None:
    spec = parse_feature("SENTIMENT(provider=fear_greed)")
    found = evaluate_on(daily("2018-04-11", 8), [spec], real)[spec]
    # rows close at the midnights from 04-12 on; 04-14, 04-15 and 04-16 were never published
    assert [STATUSES[each] for each in found.statuses] == ["settled"] * 4 + ["stale"] + ["settled"] * 3
    assert found.ages is not None
    assert (found.ages // (24 * HOUR)).tolist() == [0, 0, 1, 2, 3, 0, 0, 0]


@pytest.mark.parametrize("cut", [100, 731, 1000])
def test_real_values_do_not_know_the_future_nor_where_the_grid_begins(real: TableData, cut: int) -> None:
    features = [each for each in FEATURES if "RETURN" not in each]
    specs = [parse_feature(each) for each in (*features, *(each.replace("news", "fear_greed") for each in features))]
    whole = evaluate_on(daily("2021-10-25", 1050), specs, real)
    rows = daily("2021-10-25", cut)
    early = evaluate_on(Grid("BTCUSDT", Timeframe.D1, rows.open_time[-7:]), specs, Truncated(real, int(rows.end)))
    for spec in specs:
        _same(early[spec], _part(whole[spec], slice(cut - 7, cut)))
