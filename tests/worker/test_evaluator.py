"""The evaluator: the numbers of the reader for every kind of feature, from whichever place, and said honestly."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from mdplatform.features import correlation_of, parse_feature
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.requests.answer import PartKind, Status
from mdplatform.requests.request import RequestType
from mdplatform.serving.publisher import Publisher
from mdplatform.settings import Settings
from mdplatform.strategy import FeatureReader
from mdplatform.valkey.connection import connect
from mdplatform.worker.evaluator import Evaluator
from tests.features.kinds import tried, world
from tests.worker.asking import RSI, ask, request, rows

SYMBOL = world.SYMBOL
NOWHERE = "unix:///nonexistent/mdplatform.sock"
PLACES = ["RSI", "MACD_HISTOGRAM", "RSI - 50", "RSI@1h", {"name": "RSI", "symbol": "ETHUSDT"}]


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return world.lake_in(settings.lake_dir)


def layers(outcome) -> list[str]:
    return [each.layer for each in outcome.body.parts]


def test_every_kind_of_feature_has_the_readers_numbers_wherever_it_is_found(settings, lake):
    features = [*tried.features(), *map(parse_feature, PLACES)]
    with FeatureReader(settings.model_copy(update={"redis_url": NOWHERE})) as reader:
        expected = reader.latest_many([(SYMBOL, each, "15m") for each in features], n=40)

    async def asked():
        async with Evaluator(settings, worker="a") as one, Evaluator(settings, worker="b") as other:
            return [await ask(each, features=features, latest=40) for each in (one, one, other, one)], one.computations

    (computed, near, redis, again), computations = asyncio.run(asked())
    assert set(layers(computed)) <= {"memory", "lake"}
    assert set(layers(near)) == {"near"}
    assert set(layers(redis)) == {"redis"}
    assert set(layers(again)) == {"near"}
    assert computations == len({part.feature.partition(".macd")[0] for part in computed.body.parts})
    for outcome in (computed, near, redis):
        assert outcome.body.status == Status.OK
        for part, result in zip(outcome.body.parts, expected, strict=True):
            assert (part.feature, part.version, part.rows) == (result.feature, result.version, 40)
            assert part.outputs == result.outputs
            assert (part.method, part.engine) == (result.method, result.engine)
            assert part.available_at == to_us(result.available_at)
            assert rows(part).equals(pl.DataFrame(pl.from_arrow(result.to_arrow()))), part.feature
            assert (part.source == "computed") == (part.layer in ("memory", "lake"))
            assert part.made_by == "worker:a"


def test_a_range_has_the_readers_numbers_and_is_found_near_the_second_time(settings, lake):
    features = [*list(tried.features())[::4], *map(parse_feature, PLACES)]
    start, end, as_of = "2025-02-05", "2025-02-05T12:00", from_us(world.END + 1)
    span = {"start": to_us(datetime(2025, 2, 5, tzinfo=UTC)), "end": to_us(datetime(2025, 2, 5, 12, tzinfo=UTC))}
    with FeatureReader(settings) as reader:
        expected = [reader.between(SYMBOL, each, "15m", start, end, as_of) for each in features]

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            more = {"features": features, **span, "as_of": to_us(as_of)}
            return [await ask(one, **more) for _ in range(2)]

    first, second = asyncio.run(asked())
    assert set(layers(second)) == {"near"}
    for outcome in (first, second):
        assert outcome.body.status == Status.OK
        for part, result in zip(outcome.body.parts, expected, strict=True):
            assert rows(part).equals(pl.DataFrame(pl.from_arrow(result.to_arrow()))), part.feature
            assert part.rows == 48
            assert part.quality.timeliness == 1.0


def test_the_newest_rows_as_of_an_instant_are_those_that_were_known(settings, lake):
    as_of = datetime(2025, 2, 6, 10, 7, tzinfo=UTC)
    with FeatureReader(settings) as reader:
        known = reader.between(SYMBOL, RSI, "15m", None, as_of, as_of)

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            return await ask(one, latest=5, as_of=to_us(as_of))

    part = asyncio.run(asked()).body.parts[0]
    assert part.rows == 5
    assert rows(part)["open_time"].to_list() == known.to_arrow()["open_time"].to_pylist()[-5:]
    np.testing.assert_allclose(rows(part)[RSI].to_numpy(), known.values[-5:], rtol=1e-9)


def test_a_provider_that_nobody_took_in_is_told_with_those_that_are_known(settings, lake):
    async def asked():
        async with Evaluator(settings, worker="a") as one:
            texts = (str(parse_feature(f"SENTIMENT(provider={name})")) for name in ("newz", "news"))
            return [await ask(one, features=(each,)) for each in texts]

    unknown, known = (each.body for each in asyncio.run(asked()))
    assert (unknown.status, known.status) == (Status.PARTIAL, Status.OK)
    (missing,) = unknown.missing
    assert missing.cause == "Unknown provider: newz"
    assert "news" in missing.remedy


def test_a_matrix_tells_why_a_pair_is_null_and_of_which_symbols_it_is_judged(settings, lake):
    async def asked():
        async with Evaluator(settings, worker="a") as one:
            options = {"window": 96, "min_periods": 10}
            more = {"type": RequestType.CORRELATION_MATRIX, "options": options, "features": ()}
            return await ask(one, (*world.SYMBOLS[:2], "NOPEUSDT"), timeframes=("1h",), **more)

    about = asyncio.run(asked()).body.parts[0].about
    first, second = world.SYMBOLS[:2]
    assert about["null_pairs"] == 2
    assert about["null_reasons"] == [[each, "NOPEUSDT", "insufficient_history"] for each in (first, second)]
    assert about["eigenvalues_of"] == [first, second]


def test_a_matrix_tells_pairs_observations_and_estimator(settings, lake):
    found = correlation_of(world.SYMBOLS, 96, "1h", data=LakeData(lake), method="spearman", min_periods=10)

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            options = {"window": 96, "method": "spearman", "min_periods": 10}
            more = {"type": RequestType.CORRELATION_MATRIX, "options": options, "features": ()}
            first = await ask(one, world.SYMBOLS, timeframes=("15m", "1h"), **more)
            second = await ask(one, world.SYMBOLS, timeframes=("15m", "1h"), **more)
            unknown = await ask(one, (*world.SYMBOLS, "NOPEUSDT"), timeframes=("1h",), **more)
            return first, second, unknown

    first, second, unknown = asyncio.run(asked())
    assert [each.timeframe for each in first.body.parts] == ["15m", "1h"]
    assert layers(second) == ["near", "near"]
    assert first.needs == tuple(f"bars/{each}" for each in sorted(world.SYMBOLS))
    for outcome in (first, second):
        part = outcome.body.parts[1]
        table = rows(part)
        assert part.kind == PartKind.CORRELATION
        assert table["symbol"].to_list() == list(world.SYMBOLS)
        np.testing.assert_array_equal(table.select(world.SYMBOLS).to_numpy(), found.matrix)
        counted = table.select(f"observations of {each}" for each in world.SYMBOLS).to_numpy()
        np.testing.assert_array_equal(counted, found.observations)
        assert part.about["estimator"] == found.estimator
        assert part.about["is_psd"] == found.is_psd
        assert (part.about["rows"], part.about["min_periods"]) == (96, 10)
    assert {each.asset for each in first.made} == {"correlation_matrix"}
    assert unknown.body.status == Status.PARTIAL
    assert [each.symbol for each in unknown.body.missing] == ["NOPEUSDT"]


def test_series_are_what_is_known_now_or_was_known_then(settings, lake):
    then = to_us(datetime(2025, 1, 30, tzinfo=UTC))
    vintages = LakeData(lake).macro("CPIAUCSL")

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            more = {"type": RequestType.MACRO_INDICATORS, "features": (), "timeframes": ()}
            series = {"series": ["CPIAUCSL", "NOPE"]}
            now = await ask(one, (), options=series, latest=3, **more)
            again = await ask(one, (), options=series, latest=3, **more)
            before = await ask(one, (), options={"series": ["CPIAUCSL"]}, latest=3, as_of=then, **more)
            return now, again, before

    now, again, before = asyncio.run(asked())
    assert now.body.status == Status.PARTIAL
    assert now.body.missing[0].feature == "NOPE"
    assert "fred:NOPE" in now.body.missing[0].remedy
    assert layers(again) == ["near"]
    assert now.needs == ("macro/CPIAUCSL", "macro/NOPE")
    for outcome, until in ((now, None), (again, None), (before, then)):
        known = vintages if until is None else vintages.filter(pl.col("available_at") <= from_us(until))
        newest = known.sort("available_at").group_by("ref_period").last().sort("ref_period").tail(3)
        part = outcome.body.parts[0]
        assert part.kind == PartKind.SERIES
        assert rows(part).equals(newest.select(rows(part).columns))
        assert part.about["age_seconds"] > 0
    assert before.body.parts[0].available_at <= then


def test_what_a_run_has_published_says_so(settings, lake):
    with connect(settings) as client:
        specs = [parse_feature(RSI)]
        Publisher(client, settings).publish_features(lake, SYMBOL, Timeframe.M15, specs, made_by="run:0af3")

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            return [(await ask(one)).body.parts[0] for _ in range(2)], one.answered_by_layer

    parts, counted = asyncio.run(asked())
    assert [(each.source, each.layer, each.run_id) for each in parts] == [
        ("run", "redis", "0af3"),
        ("run", "near", "0af3"),
    ]
    assert counted == {"near": 1, "redis": 1, "memory": 0, "lake": 0, "run": 0}


def test_a_new_indicator_on_a_hot_symbol_reads_no_file(settings, lake):
    async def asked():
        async with Evaluator(settings, worker="a") as one:
            return [await ask(one, features=[each]) for each in (RSI, "EMA(timeperiod=9)", "RSI - 50")]

    assert [layers(each) for each in asyncio.run(asked())] == [["lake"], ["memory"], ["memory"]]


def test_without_redis_memory_and_the_lake_answer_and_say_so(settings, lake):
    alone = settings.model_copy(update={"redis_url": NOWHERE})
    with FeatureReader(alone) as reader:
        expected = reader.latest(SYMBOL, RSI, "15m", 10)

    async def asked():
        async with Evaluator(alone, worker="a") as one:
            return [await ask(one, features=each, latest=10) for each in ([RSI], ["EMA"], [RSI])]

    outcomes = asyncio.run(asked())
    assert layers(outcomes[1]) == ["memory"]
    for outcome in outcomes:
        part = outcome.body.parts[0]
        assert outcome.body.status == Status.OK
        assert any("Redis was not used" in note for note in part.notes)
    assert rows(outcomes[2].body.parts[0]).equals(pl.DataFrame(pl.from_arrow(expected.to_arrow())))


def test_what_was_computed_is_told_for_the_lineage_once(settings, lake):
    asked_of = {
        RSI: ("technical_indicators", "BTCUSDT/2025-02"),
        "RSI - 50": ("composite_indicators", "BTCUSDT/2025-02"),
        "DELTA": ("order_flow", "BTCUSDT/2025-02-07"),
        "MACRO(series=CPIAUCSL)": ("macro_features", "CPIAUCSL"),
        "SENTIMENT_MEAN(provider=news)": ("sentiment_features", "2025-02"),
        "VOLUME_PROFILE(row_size=0.25)": ("volume_profile", "BTCUSDT/2025-02-07"),
    }

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            both = [request(features=asked_of), request(features=asked_of)]
            return await one.evaluate(both), await ask(one, features=asked_of)

    (first, second), third = asyncio.run(asked())
    assert [(each.asset, each.partition) for each in first.made] == list(asked_of.values())
    assert {each.request_id for each in first.made} == {first.body.request_id}
    assert all(each.took_ms > 0 and each.worker == "a" for each in first.made)
    assert second.made == third.made == ()


def test_what_cannot_be_had_is_partial_or_failed_with_what_to_do(settings, lake):
    async def asked():
        async with Evaluator(settings, worker="a") as one:
            return (
                await ask(one, ["BTCUSDT", "NOPEUSDT"]),
                await ask(one, ["NOPEUSDT"]),
                await ask(one, timeframes=["1m"]),
                await ask(one, start=0, end=10**15),
                await ask(one, features=[]),
                *await one.evaluate([]),
            )

    partial, unknown, unbuilt, empty, nothing = asyncio.run(asked())
    assert partial.body.status == Status.PARTIAL
    assert [each.symbol for each in partial.body.missing] == ["NOPEUSDT"]
    assert partial.needs == ("bars/BTCUSDT", "bars/NOPEUSDT")
    assert partial.watermark == world.END
    assert [each.body.status for each in (unknown, unbuilt, empty)] == [Status.FAILED] * 3
    assert unknown.body.problem.error == "UnknownSymbol"
    assert "ADAUSDT" in unknown.body.problem.remedy
    assert "5m" in unbuilt.body.problem.remedy
    assert nothing.body.status == Status.REJECTED
    assert all(each.wanted is None for each in (partial, unknown, unbuilt, empty, nothing))


def test_a_fault_of_the_platform_is_told_and_hurts_no_neighbour(settings, lake):
    path = lake.bars.path("ETHUSDT", "2025-02")
    beginning = path.read_bytes()[:1000]
    path.unlink()  # it may be a link to what other tests read
    path.write_bytes(beginning)

    async def asked():
        async with Evaluator(settings, worker="a") as one:
            return await ask(one, ["BTCUSDT", "ETHUSDT"])

    outcome = asyncio.run(asked())
    assert outcome.body.status == Status.PARTIAL
    assert [each.symbol for each in outcome.body.parts] == ["BTCUSDT"]
    assert outcome.body.missing[0].symbol == "ETHUSDT"
    assert outcome.body.missing[0].cause


def test_quality_tells_what_is_wrong_with_rows(settings, lake):
    async def asked():
        async with Evaluator(settings, worker="a") as one:
            return await ask(one, features=["SMA(timeperiod=3)"], latest=500, as_of=world.END)

    quality = asyncio.run(asked()).body.parts[0].quality
    gaps = (world.OUTAGES[SYMBOL][1] - world.OUTAGES[SYMBOL][0]) // Timeframe.M15.microseconds
    assert quality.completeness <= 1 - gaps / 500
    assert quality.timeliness == 1.0
    assert quality.score == quality.completeness
    assert quality.validity is quality.uniqueness is quality.consistency is None
    assert any("gaps" in each for each in quality.reasons)


@pytest.mark.parametrize(
    "wrong",
    [
        {"latest": 0},
        {"latest": -5},
        {"latest": 10**9},
        {"start": 2**60, "end": 2**61},
        {"start": -(2**60), "end": 2**60},
        {"as_of": -1},
        {"as_of": 2**62},
        {"symbols": ["../etc"]},
        {"timeframes": ["7m"]},
        {"type": RequestType.CORRELATION_MATRIX, "options": {"window": [1]}},
        {"type": RequestType.CORRELATION_MATRIX, "options": {"window": 1}},
        {"type": RequestType.CORRELATION_MATRIX, "options": {"unknown": 1}},
        {"type": RequestType.MACRO_INDICATORS, "symbols": (), "options": {"series": 5}},
        {"type": RequestType.MACRO_INDICATORS, "symbols": (), "options": {"series": ["../../x"]}},
        {"type": RequestType.MACRO_INDICATORS, "symbols": (), "options": {}},
    ],
)
def test_what_no_check_has_seen_is_told_and_never_raised(settings, market, wrong):
    async def asked():
        async with Evaluator(settings.model_copy(update={"redis_url": NOWHERE}), worker="a") as one:
            return await one.evaluate([request(), request(**wrong)])

    neighbour, outcome = asyncio.run(asked())
    assert neighbour.body.problem.error == "UnknownSymbol"
    assert outcome.body.status in (Status.REJECTED, Status.FAILED)
    assert outcome.body.problem.cause
    assert outcome.wanted is None
