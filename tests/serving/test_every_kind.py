"""Serving every kind of feature like any other: a frame's values, fresh with regard to all that they depend on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from mdplatform.errors import NoData, ParameterOutOfRange, UnknownFeature, UnknownSymbol
from mdplatform.features import Truncated, frame, parse_feature
from mdplatform.features.kinds import Need
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData
from mdplatform.market.time import from_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.serving.codec import decode, encode
from mdplatform.serving.freshness import needs, sequence_keys, stored
from mdplatform.serving.keys import blob_key, need_key
from mdplatform.serving.publisher import Publisher
from mdplatform.serving.reader import Reader
from mdplatform.settings import Settings
from mdplatform.strategy import AsyncFeatureReader, FeatureReader
from mdplatform.valkey.connection import connect

from ..features.kinds import tried, world

SYMBOL = world.SYMBOL
ELSEWHERE = [
    {"name": "RSI", "symbol": "ETHUSDT"},
    {"name": "RSI", "timeframe": "1h"},
    {"name": "RSI", "timeframe": "1h", "symbol": "ETHUSDT"},
    {"name": "MACD", "parameters": {"fast": 8}, "output": "macdhist", "timeframe": "30m"},
]
CPI = "MACRO(series=CPIAUCSL)"
NEWS = "SENTIMENT_MEAN(provider=news)"


@pytest.fixture
def lake(settings: Settings) -> Lake:
    """The world's lake, in the test's home."""
    return world.lake_in(settings.lake_dir)


@pytest.fixture
def reader(settings: Settings, lake: Lake) -> Iterator[Reader]:
    """What Redis holds at this very instant: what is held near may be a tenth of a second older."""
    with Reader(settings.model_copy(update={"near_cache_mb": 0})) as reader:
        yield reader


@pytest.fixture
def client(settings: Settings, reader: Reader):
    with connect(settings) as client:
        yield client


def table(result) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(result.to_arrow()))


def test_what_is_served_is_the_frame_to_the_bit_for_every_kind(reader: Reader, lake: Lake, settings: Settings) -> None:
    features = [*tried.features(), *map(parse_feature, ["RSI", "OBV", "MACD_HISTOGRAM", "VWAP", *ELSEWHERE])]
    newest = lake.bars.tail(SYMBOL, Timeframe.M15, settings.window_rows)
    start = newest["open_time"][0]
    made = frame(SYMBOL, features, "15m", start, data=LakeData(lake), ages=True, statuses=True)
    asked = [(SYMBOL, each, "15m") for each in features]
    computed, cached = reader.latest_many(asked, n=200), reader.latest_many(asked, n=200)
    assert {each.source for each in computed} == {"computed"}
    assert [each.feature for each in cached if each.source != "cache"] == []
    for feature, first, second in zip(features, computed, cached, strict=True):
        name = f"{feature}{feature.place}"
        columns = [f"{each}{feature.place}" for each in feature.columns]
        expected = made.select("open_time", *columns, pl.col(f"{name}.status").alias("status"), f"{name}.age").tail(200)
        for result in (first, second):
            assert result.feature == name
            assert list(result.outputs.values()) == columns
            got = table(result)
            assert got.select(expected.columns[:-1]).equals(expected[:, :-1]), name
            if result.ages is None:
                assert expected[f"{name}.age"].null_count() == 200
            else:
                assert result.ages == expected[f"{name}.age"].to_list()
        assert (first.version, first.method, first.rows) == (second.version, second.method, second.rows)


def test_the_newest_row_is_that_of_a_frame_that_ends_now(reader: Reader, lake: Lake) -> None:
    """To 1e-9, whatever row the frame begins with."""
    features = [*tried.features(), *map(parse_feature, ["RSI", "OBV", *ELSEWHERE])]
    made = frame(
        SYMBOL, features, "15m", from_us(world.END) - timedelta(days=2), from_us(world.END), data=LakeData(lake)
    )
    for feature in features:
        result = reader.latest(SYMBOL, feature, "15m")
        columns = [f"{each}{feature.place}" for each in feature.columns]
        wanted = np.array(made.select(columns).fill_null(np.nan).row(-1), np.float64)
        np.testing.assert_allclose(np.atleast_1d(result.values[-1]), wanted, rtol=1e-9, atol=1e-12)


def test_between_gives_the_rows_of_a_frame_also_as_of_an_instant(reader: Reader, lake: Lake) -> None:
    start, end, as_of = "2025-02-05", "2025-02-05T12:00", from_us(world.END + 1)
    for feature in (CPI, NEWS, "RSI - 50", "DELTA", ELSEWHERE[2]):
        result = reader.between(SYMBOL, feature, "15m", start, end, as_of)
        spec = parse_feature(feature)
        expected = frame(SYMBOL, feature, "15m", start, end, data=LakeData(lake, as_of))
        assert table(result)[f"{spec}{spec.place}"].equals(expected[f"{spec}{spec.place}"])
        assert len(result) == 48


def test_features_of_another_place_do_not_collide() -> None:
    specs = [parse_feature(each) for each in ("RSI", *ELSEWHERE[:3])]
    keys = {blob_key(SYMBOL, Timeframe.M15, stored(each, SYMBOL, Timeframe.M15).id) for each in specs}
    assert len(keys) == 4
    own = parse_feature({"name": "RSI", "symbol": SYMBOL, "timeframe": "15m"})
    assert stored(own, SYMBOL, Timeframe.M15) == parse_feature("RSI")
    assert stored(own, "ETHUSDT", Timeframe.M15) != parse_feature("RSI")


def test_a_symbol_that_names_itself_is_the_plain_feature(reader: Reader) -> None:
    plain = reader.latest(SYMBOL, "RSI", "15m", 20)
    own = reader.latest(SYMBOL, {"name": "RSI", "symbol": SYMBOL, "timeframe": "15m"}, "15m", 20)
    assert (own.source, own.version, own.feature, own.outputs) == ("cache", plain.version, plain.feature, plain.outputs)


def test_keys_of_what_values_depend_on() -> None:
    assert need_key("trades", SYMBOL) == "mdp:{BTCUSDT}:trades"
    formula = parse_feature(
        "where(DELTA(method=trades) > 0, SENTIMENT(provider=news), MACRO(series=CPIAUCSL)) + RSI@1h"
    )
    assert set(needs(formula, SYMBOL, Timeframe.M15)) == {
        Need("bars", SYMBOL),
        Need("trades", SYMBOL),
        Need("macro", "CPIAUCSL"),
        Need("sentiment", ""),
    }
    other = stored(parse_feature(ELSEWHERE[2]), SYMBOL, Timeframe.M15)
    assert sequence_keys(other, SYMBOL, Timeframe.M15) == ("mdp:{BTCUSDT}:bars", "mdp:{ETHUSDT}:bars")
    assert sequence_keys(parse_feature(CPI), SYMBOL, Timeframe.M15) == ("mdp:{BTCUSDT}:bars", "mdp:{macro}:CPIAUCSL")


BUMPS = [
    (CPI, ("macro", "CPIAUCSL"), True),
    (CPI, ("macro", "DGS10"), False),
    (CPI, ("bars", SYMBOL), True),
    (CPI, ("sentiment", ""), False),
    (NEWS, ("sentiment", ""), True),
    ("DELTA(method=trades)", ("trades", SYMBOL), True),
    ("DELTA(method=trades)", ("trades", "ETHUSDT"), False),
    ("RSI", ("trades", SYMBOL), False),
    ("RSI", ("bars", "ETHUSDT"), False),
    ("close / close@ETHUSDT", ("bars", "ETHUSDT"), True),
    (ELSEWHERE[0], ("bars", "ETHUSDT"), True),
    (ELSEWHERE[0], ("bars", SYMBOL), True),
    (ELSEWHERE[0], ("bars", "ADAUSDT"), False),
]


def test_a_bump_of_any_input_makes_values_old_and_of_no_other(reader: Reader, client, settings: Settings) -> None:
    publisher = Publisher(client, settings)
    for feature, bumped, becomes_old in BUMPS:
        reader.latest(SYMBOL, feature, "15m")
        before = reader.latest(SYMBOL, feature, "15m")
        assert before.source == "cache"
        publisher.bump(*bumped)
        after = reader.latest(SYMBOL, feature, "15m")
        assert (after.source == "computed") == becomes_old, (feature, bumped)
        assert after.version == before.version, "nothing has changed but the number"
        assert reader.latest(SYMBOL, feature, "15m").source == "cache"


def test_an_input_bumped_by_a_clock_that_is_behind_still_makes_values_old(reader: Reader, client, settings) -> None:
    """The highest sequence does not change by it: each is looked at."""
    publisher = Publisher(client, settings)
    publisher.bump("bars", SYMBOL, 10**15)
    publisher.bump("macro", "CPIAUCSL", 5)
    assert [reader.latest(SYMBOL, CPI, "15m").source for _ in range(2)] == ["computed", "cache"]
    publisher.bump("macro", "CPIAUCSL", 6)
    assert [reader.latest(SYMBOL, CPI, "15m").source for _ in range(2)] == ["computed", "cache"]


@pytest.mark.parametrize(
    ("name", "feature"),
    [("macro", CPI), ("sentiment", NEWS), ("trades", "DELTA(method=trades)"), ("bars", ELSEWHERE[0])],
)
def test_what_was_stored_while_redis_was_away_is_not_missed(reader: Reader, lake: Lake, name: str, feature) -> None:
    assert [reader.latest(SYMBOL, feature, "15m").source for _ in range(2)] == ["computed", "cache"]
    if name == "bars":
        path = lake.bars.path("ETHUSDT", "2025-02")
    else:
        store = lake.table(name)
        path = store.path({"macro": "DGS10", "sentiment": "2025-01", "trades": f"{SYMBOL}/2025-02-07"}[name])
    copy = path.with_name(".copy.tmp")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)
    assert [reader.latest(SYMBOL, feature, "15m").source for _ in range(2)] == ["computed", "cache"]


def test_what_becomes_known_later_changes_no_row_and_what_comes_late_does(reader: Reader, lake: Lake) -> None:
    before = reader.latest(SYMBOL, CPI, "15m", 400)
    store = lake.table("macro")
    later = world.data().macro("CPIAUCSL").tail(1).select(list(store.dataset.delivered))
    at = pl.lit(from_us(world.END + 1)).cast(pl.Datetime("us", "UTC"))
    known_later = later.with_columns(value=pl.lit(999.0), vintage=at, available_at=at, published_at=at)
    store.stage(known_later, "test", from_us(world.END))
    store.merge("CPIAUCSL")
    same = reader.latest(SYMBOL, CPI, "15m", 400)
    assert (same.source, same.version, same.rows) == ("computed", before.version, before.rows)
    earlier = pl.lit(from_us(world.END - 3 * world.HOUR_US)).cast(pl.Datetime("us", "UTC"))
    late = later.with_columns(value=pl.lit(777.0), vintage=earlier, available_at=earlier, published_at=earlier)
    store.stage(late, "test", from_us(world.END))
    store.merge("CPIAUCSL")
    corrected = reader.latest(SYMBOL, CPI, "15m", 400)
    assert corrected.values[-13:].tolist() == [777.0] * 13, "known at the close of the row before, and from then on"
    assert corrected.values[:-13].tolist() == before.values[:-13].tolist()


def test_the_publisher_stores_what_the_reader_would(reader: Reader, client, lake: Lake, settings: Settings) -> None:
    features = [parse_feature(each) for each in (CPI, NEWS, "RSI", "RSI - 50", "DELTA", ELSEWHERE[0])]
    versions = [reader.latest(SYMBOL, each, "15m").version for each in features]
    client.flushall()
    done = Publisher(client, settings).publish_features(lake, SYMBOL, Timeframe.M15, features, made_by="run 1")
    assert done.stored == len(features)
    results = reader.latest_many([(SYMBOL, each, "15m") for each in features])
    assert {each.source for each in results} == {"cache"}
    assert {each.made_by for each in results} == {"run 1"}
    assert [each.version for each in results] == versions


def test_a_blob_tells_ages_method_and_all_its_sequences(reader: Reader, client, settings: Settings) -> None:
    Publisher(client, settings).bump("macro", "CPIAUCSL", 41)
    result = reader.latest(SYMBOL, CPI, "15m", 3)
    raw = client.get(blob_key(SYMBOL, Timeframe.M15, parse_feature(CPI).id))
    blob = decode(raw)
    assert (blob.sequence, blob.sequences, blob.method) == (41, (0, 41), result.method)
    assert decode(encode(blob)).sequences == (0, 41)
    assert result.ages is not None
    assert result.ages[-1] == timedelta(days=1, hours=10, minutes=30)
    assert result.rows[-1]["age_seconds"] == 34.5 * 3600
    assert reader.latest(SYMBOL, "DELTA(method=trades)", "15m").to_dict()["method"] == "trades"
    assert reader.latest(SYMBOL, "RSI", "15m").ages is None


def test_frames_and_matrices_through_the_strategys_readers(settings: Settings, lake: Lake) -> None:
    asked = (["BTCUSDT", "ETHUSDT"], ["RSI", CPI, "RSI - 50"], "1h", "2025-02-04")
    with FeatureReader(settings) as reader:
        made = reader.frame(*asked, ages=True, statuses=True)
        matrix = reader.correlation_matrix(world.SYMBOLS, 96, "15m", method="spearman")
    assert made.equals(frame(*asked, data=LakeData(lake), ages=True, statuses=True))
    assert made["symbol"].unique().sort().to_list() == ["BTCUSDT", "ETHUSDT"]
    assert matrix.symbols == world.SYMBOLS

    async def read():
        async with AsyncFeatureReader(settings) as reader:
            return await asyncio.gather(
                reader.frame(*asked, ages=True, statuses=True),
                reader.correlation_matrix(world.SYMBOLS, 96, "15m", method="spearman"),
                reader.latest(SYMBOL, CPI, "15m"),
                reader.latest(SYMBOL, ELSEWHERE[2], "15m"),
            )

    again, same, *newest = asyncio.run(read())
    assert again.equals(made)
    np.testing.assert_array_equal(same.matrix, matrix.matrix)
    assert [each.source for each in newest] == ["computed"] * 2


def test_a_frame_reads_the_home_that_the_settings_name(lake: Lake) -> None:
    assert frame(SYMBOL, CPI, "1h", "2025-02-07").equals(frame(SYMBOL, CPI, "1h", "2025-02-07", data=LakeData(lake)))


def test_a_frame_as_of_an_instant_has_nothing_that_became_known_later(lake: Lake) -> None:
    as_of = from_us(world.END + 1)
    store = lake.table("macro")
    rows = world.data().macro("CPIAUCSL").tail(1).select(list(store.dataset.delivered))
    store.stage(rows.with_columns(value=pl.lit(1.0)), "test", from_us(world.END + 10**9))  # a correction of that row
    store.merge("CPIAUCSL")
    then = frame(SYMBOL, [CPI, "RSI"], "1h", "2025-02-04", as_of=as_of)
    now = frame(SYMBOL, [CPI, "RSI"], "1h", "2025-02-04")
    column = str(parse_feature(CPI))
    assert now[column][-1] == 1.0
    assert then[column][-1] == world.data().macro("CPIAUCSL")["value"][-1]
    known = frame(SYMBOL, [CPI, "RSI"], "1h", "2025-02-04", data=Truncated(world.data(), world.END))
    assert then[column].equals(known[column])


@pytest.mark.parametrize(
    ("symbol", "feature", "error", "said"),
    [
        (SYMBOL, {"name": "RSI", "symbol": "NOPEUSDT"}, UnknownSymbol, "ADAUSDT"),
        ("NOPEUSDT", CPI, UnknownSymbol, "ADAUSDT"),
        (SYMBOL, "MACRO", ParameterOutOfRange, "series"),
        (SYMBOL, "MACROO(series=CPIAUCSL)", UnknownFeature, "MACRO"),
    ],
)
def test_wrong_questions_are_one_clear_error(reader: Reader, symbol: str, feature, error, said: str) -> None:
    with pytest.raises(error, match=said):
        reader.latest(symbol, feature, "15m")


def test_a_timeframe_that_cannot_be_built_says_which_there_are(reader: Reader) -> None:
    with pytest.raises(NoData, match="5m"):
        reader.latest(SYMBOL, CPI, "1m")
