"""Reading: the cache where it is fresh, the lake where it is not, and an answer in words when Redis is of no use."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import talib

from mdplatform.errors import (
    InvalidFeature,
    InvalidSymbol,
    NoData,
    ParameterOutOfRange,
    UnknownFeature,
    UnknownParameter,
    UnknownSymbol,
    UnknownTimeframe,
)
from mdplatform.features import parse_feature
from mdplatform.market.timeframe import Timeframe
from mdplatform.serving.codec import decode, encode
from mdplatform.serving.keys import blob_key
from mdplatform.serving.publisher import Publisher
from mdplatform.serving.reader import Reader
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect
from tests.conftest import FIRST_OPEN, Market, raw_bars

RSI = "RSI(timeperiod=14)"
RSI_KEY = blob_key("BTCUSDT", Timeframe.M15, parse_feature(RSI).id)


@pytest.fixture
def bars(market: Market):
    return market.walk("BTCUSDT", 1200)


@pytest.fixture
def reader(settings, processes, bars) -> Iterator[Reader]:
    with Reader(settings) as reader:
        yield reader


@pytest.fixture
def client(settings, processes):
    with connect(settings) as client:
        yield client


def test_the_values_are_those_of_talib_on_all_of_history(reader, bars):
    expected = talib.RSI(bars["close"].to_numpy(), 14)[-200:]
    for source in ("computed", "cache"):
        result = reader.latest("BTCUSDT", RSI, timeframe="15m", n=200)
        assert result.source == source
        np.testing.assert_allclose(result.values, expected, rtol=1e-9)
        assert len(result) == 200


def test_the_first_read_computes_and_fills_redis_and_the_second_hits(reader):
    first = reader.latest("btcusdt", {"name": "RSI", "parameters": {"period": 14}})
    second = reader.latest("BTCUSDT", RSI, "15m")
    assert (first.source, first.layer) == ("computed", "lake")
    assert (second.source, second.layer) == ("cache", "redis")
    assert first.version == second.version
    assert first.rows == second.rows
    assert first.feature == second.feature == RSI
    assert set(second.timings) == {"check", "redis", "decode", "total"}
    assert set(first.timings) == {"check", "redis", "compute", "publish", "total"}
    assert first.elapsed_ms >= first.timings["compute"] > 0


def test_a_hit_is_one_round_trip(settings, client, bars):
    with Reader(settings.model_copy(update={"near_cache_mb": 0})) as reader:
        reader.latest("BTCUSDT", RSI)
        before = client.info("commandstats")
        reader.latest("BTCUSDT", RSI)
    after = client.info("commandstats")
    calls = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
    del calls["cmdstat_info"]
    assert {name: count for name, count in calls.items() if count} == {"cmdstat_mget": 1}


def test_what_the_publisher_stored_is_the_same_to_the_bit(reader, client, settings, market):
    computed = [reader.latest("BTCUSDT", each).version for each in (RSI, "MACD", "SMA(200)", "OBV")]
    client.flushall()
    specs = [parse_feature(each) for each in ("OBV", "SMA(200)", "MACD", "ADX", RSI)]
    Publisher(client, settings).publish_features(market.lake, "BTCUSDT", Timeframe.M15, specs)
    read = [reader.latest("BTCUSDT", each) for each in (RSI, "MACD", "SMA(200)", "OBV")]
    assert {each.source for each in read} == {"cache"}
    assert [each.version for each in read] == computed


def test_one_output_is_read_from_the_whole_features_blob(reader, bars):
    reader.latest("BTCUSDT", "MACD")
    result = reader.latest("BTCUSDT", "MACD_HISTOGRAM", n=50)
    assert result.source == "cache"
    assert result.outputs == {"macdhist": "MACD(fastperiod=12,slowperiod=26,signalperiod=9).macdhist"}
    np.testing.assert_allclose(result.values, talib.MACD(bars["close"].to_numpy())[2][-50:], rtol=1e-9)


def test_a_bump_makes_the_blob_stale_and_the_next_read_takes_the_new_bars(reader, client, settings, market, bars):
    old = reader.latest("BTCUSDT", RSI)
    market.deliver("BTCUSDT", raw_bars(1201).tail(1))
    Publisher(client, settings).bump_bars("BTCUSDT")
    new = reader.latest("BTCUSDT", RSI)
    assert new.source == "computed"
    assert new.available_at == old.available_at + timedelta(minutes=15)
    again = reader.latest("BTCUSDT", RSI)
    assert (again.source, again.version) == ("cache", new.version)


def test_bars_that_were_stored_while_redis_was_away_are_not_missed(reader, market):
    old = reader.latest("BTCUSDT", RSI)
    assert reader.latest("BTCUSDT", RSI).source == "cache"
    market.deliver("BTCUSDT", raw_bars(1201).tail(1))  # and nobody bumps the sequence
    new = reader.latest("BTCUSDT", RSI)
    assert new.source == "computed"
    assert new.available_at > old.available_at
    assert reader.latest("BTCUSDT", RSI).source == "cache"


def test_a_change_time_in_the_future_proves_nothing(reader, settings):
    reader.latest("BTCUSDT", RSI)
    os.utime(settings.lake_dir / "bars" / "BTCUSDT", (2e10, 2e10))
    assert reader.latest("BTCUSDT", RSI).source == "cache"


def test_a_reader_that_sees_no_lake_reads_what_redis_has(reader, settings, client):
    reader.latest("BTCUSDT", RSI)
    elsewhere = settings.model_copy(update={"home": settings.home / "elsewhere"})
    with Reader(elsewhere, connection=client) as far:
        assert far.latest("BTCUSDT", RSI).source == "cache"


def test_bars_that_land_during_a_computation_leave_no_fresh_blob_of_old_ones(settings, client, market, bars):
    publisher = Publisher(client, settings)

    class Lake:
        """The lake, with a materialization that lands just after the reader has read."""

        def __init__(self, lake):
            self.bars = self
            self._store = lake.bars

        def path(self, symbol, month):
            return self._store.path(symbol, month)

        def tail(self, symbol, timeframe, rows):
            found = self._store.tail(symbol, timeframe, rows)
            market.deliver("BTCUSDT", raw_bars(1201).tail(1))
            publisher.bump_bars("BTCUSDT")
            return found

    with Reader(settings, lake=Lake(market.lake)) as slow, Reader(settings) as reader:
        old = slow.latest("BTCUSDT", RSI)
        new = reader.latest("BTCUSDT", RSI)
        assert new.source == "computed"
        assert new.available_at > old.available_at


def test_after_a_flush_the_reader_answers_from_the_lake_and_fills_redis_again(reader, client):
    before = reader.latest("BTCUSDT", RSI)
    client.flushall()
    assert reader.latest("BTCUSDT", RSI).source == "computed"
    again = reader.latest("BTCUSDT", RSI)
    assert (again.source, again.version) == ("cache", before.version)


@pytest.mark.parametrize("damage", ["rubbish", "another feature's blob", "a cut blob"])
def test_a_bad_blob_is_noted_and_replaced(reader, client, damage):
    before = reader.latest("BTCUSDT", RSI)
    reader.latest("BTCUSDT", "SMA")
    raw = client.get(RSI_KEY)
    other = client.get(blob_key("BTCUSDT", Timeframe.M15, parse_feature("SMA").id))
    client.set(RSI_KEY, {"rubbish": b"\xff" * 500, "a cut blob": raw[:-9]}.get(damage, other))
    result = reader.latest("BTCUSDT", RSI)
    assert result.source == "computed"
    assert "no valid blob" in result.notes[0]
    healed = reader.latest("BTCUSDT", RSI)
    assert (healed.source, healed.version, healed.notes) == ("cache", before.version, ())


def test_redis_down_is_said_and_the_lake_answers(settings, bars):
    away = settings.model_copy(update={"redis_url": "redis://:hunter2@127.0.0.1:1/0", "redis_retry_seconds": 600.0})
    with Reader(away) as reader:
        first = reader.latest("BTCUSDT", RSI, n=3)
        second = reader.latest("BTCUSDT", RSI, n=3)
    for result in (first, second):
        assert result.source == "computed"
        assert len(result) == 3
        assert "Redis was not used" in result.notes[0]
        assert "computed from the lake" in result.notes[0]
        assert "hunter2" not in str(result.to_dict())
    assert second.timings["redis"] < 1.0, "the breaker leaves it alone"


def test_a_redis_that_hangs_costs_one_timeout_and_is_then_left_alone(settings, bars):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never says a word
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        slow = settings.model_copy(
            update={"redis_url": url, "redis_timeout_seconds": 0.2, "redis_retry_seconds": 600.0}
        )
        with Reader(slow) as reader:
            results = [reader.latest("BTCUSDT", RSI) for _ in range(3)]
    assert [bool(result.notes) for result in results] == [True] * 3
    assert 150 < results[0].timings["redis"] < 600
    assert results[1].timings["redis"] < 10
    assert "publish" not in results[0].timings


def test_a_redis_that_takes_nothing_is_said_and_still_read(reader, client):
    reader.latest("BTCUSDT", RSI)
    client.config_set("min-replicas-to-write", 1)
    refused = reader.latest("BTCUSDT", "SMA")
    assert refused.source == "computed"
    assert "could not be kept in Redis" in refused.notes[0]
    assert reader.latest("BTCUSDT", RSI).source == "cache"


def test_redis_is_asked_again_after_a_while(settings, client, bars):
    brief = settings.model_copy(update={"redis_retry_seconds": 0.001})
    with Reader(brief) as reader:
        reader._breaker.failed("it was away")
        threading.Event().wait(0.002)
        assert reader.latest("BTCUSDT", RSI).notes == ()
        assert reader.latest("BTCUSDT", RSI).source == "cache"


def test_a_home_without_room_for_a_server_still_answers(settings, bars):
    settings.valkey_dir.write_text("in the way")
    with Reader(settings) as reader:
        result = reader.latest("BTCUSDT", RSI)
    assert result.source == "computed"
    assert "embedded Valkey" in result.notes[0]


def test_a_killed_server_is_started_again_by_a_read(reader, processes):
    reader.latest("BTCUSDT", RSI)
    os.kill(processes.server(), signal.SIGKILL)
    result = reader.latest("BTCUSDT", RSI)
    assert (result.source, result.notes) == ("cache", ())


def test_more_rows_than_the_window_are_computed_and_not_kept(reader, client, bars):
    result = reader.latest("BTCUSDT", RSI, n=800)
    assert (len(result), result.source) == (800, "computed")
    np.testing.assert_allclose(result.values, talib.RSI(bars["close"].to_numpy(), 14)[-800:], rtol=1e-9)
    assert client.keys("mdp:*") == []


def test_a_blob_of_the_whole_history_serves_any_number_of_rows(settings, processes, market):
    market.walk("ETHUSDT", 40)
    with Reader(settings) as reader:
        for source in ("computed", "cache", "cache"):
            result = reader.latest("ETHUSDT", RSI, n=500)
            assert (len(result), result.source) == (40, source)
        assert reader.latest("ETHUSDT", RSI, n=100_000).source == "cache"


def test_a_window_that_history_just_fills_is_whole_and_one_row_more_is_not(settings, processes, market):
    narrow = settings.model_copy(update={"window_rows": 40})
    for symbol, rows, whole in (("AAA", 40, True), ("BBB", 41, False)):
        market.walk(symbol, rows)
        with Reader(narrow) as reader, connect(narrow) as client:
            reader.latest(symbol, "TRANGE")
            blob = decode(client.get(blob_key(symbol, Timeframe.M15, parse_feature("TRANGE").id)))
            assert (blob.rows, blob.whole) == (40, whole)


def test_a_null_has_a_reason_and_is_nan_only_in_numpy(settings, processes, market):
    market.walk("ETHUSDT", 40)
    with Reader(settings) as reader:
        result = reader.latest("ETHUSDT", "MACD", n=40)
    assert np.isnan(result.values[:33]).all()
    assert result.values.shape == (40, 3)
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert told["rows"][0] == {
        "open_time": FIRST_OPEN.isoformat().replace("+00:00", "Z"),
        "available_at": "2025-01-20T00:15:00Z",
        "macd": None,
        "macdsignal": None,
        "macdhist": None,
        "settled": False,
        "reason": "insufficient_history",
    }
    assert told["rows"][-1]["settled"] is False
    assert "reason" not in told["rows"][-1]
    assert isinstance(told["rows"][-1]["macdhist"], float)


def test_the_printed_form_has_what_the_command_promises(reader, bars):
    told = reader.latest("BTCUSDT", RSI, n=2).to_dict()
    assert {"symbol", "feature", "timeframe", "source", "version", "rows"} <= set(told)
    last = told["rows"][-1]
    assert last["open_time"] == "2025-02-01T11:45:00Z"
    assert last["available_at"] == "2025-02-01T12:00:00Z"
    assert last["rsi"] == pytest.approx(talib.RSI(bars["close"].to_numpy(), 14)[-1], rel=1e-9)
    assert told["outputs"] == {"rsi": RSI}


def test_a_result_can_be_sent_to_another_process_and_changed_without_harm(reader):
    first = reader.latest("BTCUSDT", "MACD", n=3)
    assert pickle.loads(pickle.dumps(first)).to_dict() == first.to_dict()
    first.outputs.clear()
    first.to_dict()["rows"].clear()
    assert len(reader.latest("BTCUSDT", "MACD", n=3).outputs) == 3


def test_pandas_and_arrow_forms_agree(reader):
    result = reader.latest("BTCUSDT", "BBANDS", n=5)
    frame = result.to_pandas()
    assert list(frame.columns) == ["available_at", "upperband", "middleband", "lowerband", "status"]
    assert str(frame.index.dtype) == "datetime64[us, UTC]"
    assert frame.index[-1].to_pydatetime() == result.open_time
    assert frame["available_at"].iloc[-1].to_pydatetime() == result.available_at
    table = result.to_arrow()
    assert table.column_names[2] == "BBANDS(timeperiod=20,nbdevup=2,nbdevdn=2,matype=0).upperband"
    np.testing.assert_array_equal(frame["middleband"].to_numpy(), result.values[:, 1])


def test_a_longer_timeframe_is_built_from_the_bars_there_are(reader, bars):
    result = reader.latest("BTCUSDT", "SMA(3)", timeframe="1h")
    hourly = bars["close"].to_numpy()[3::4]
    assert result.values[-1] == pytest.approx(hourly[-3:].mean(), rel=1e-9)
    assert result.available_at == datetime(2025, 2, 1, 12, tzinfo=UTC)


def test_many_questions_are_one_round_trip(reader, client, market):
    market.walk("ETHUSDT", 600, seed=8)
    questions = [(symbol, feature, "15m") for symbol in ("BTCUSDT", "ETHUSDT") for feature in (RSI, "MACD", "ATR", RSI)]
    first = reader.latest_many(questions, n=4)
    before = client.info("commandstats")["cmdstat_mget"]["calls"]
    second = reader.latest_many(questions, n=4)
    assert client.info("commandstats")["cmdstat_mget"]["calls"] == before + 1
    assert {each.source for each in first} == {"computed"}
    assert {each.source for each in second} == {"cache"}
    assert [(each.symbol, each.version) for each in first] == [(each.symbol, each.version) for each in second]
    assert [each.symbol for each in second] == [symbol for symbol, _, _ in questions]
    assert reader.latest_many([]) == []


@pytest.mark.parametrize(
    ("question", "error", "said"),
    [
        (("", RSI, "15m", 1), InvalidSymbol, "Not a symbol"),
        (("../etc", RSI, "15m", 1), InvalidSymbol, "Not a symbol"),
        (("BTCUSD", RSI, "15m", 1), UnknownSymbol, "BTCUSDT"),
        (("BTCUSDT", "RSJ", "15m", 1), UnknownFeature, "RSI"),
        (("BTCUSDT", "RSI(perid=3)", "15m", 1), UnknownParameter, "timeperiod"),
        (("BTCUSDT", "RSI(", "15m", 1), InvalidFeature, ""),
        (("BTCUSDT", RSI, "15M", 1), UnknownTimeframe, "15m"),
        (("BTCUSDT", RSI, "1m", 1), NoData, "mdplatform ingest PATH --symbol BTCUSDT --timeframe 1m"),
        (("BTCUSDT", RSI, "15m", 0), ParameterOutOfRange, "1 to 1000000"),
        (("BTCUSDT", RSI, "15m", 1_000_001), ParameterOutOfRange, "1 to 1000000"),
        (("BTCUSDT", RSI, "15m", True), ParameterOutOfRange, "n is refused"),
        (("BTCUSDT", RSI, "15m", "5"), ParameterOutOfRange, "n is refused"),
    ],
)
def test_what_cannot_be_answered_is_one_clear_error(reader, question, error, said):
    symbol, feature, timeframe, n = question
    with pytest.raises(error) as refused:
        reader.latest(symbol, feature, timeframe, n)
    assert said in str(refused.value)


def test_input_is_refused_before_anything_is_started(settings, processes):
    with Reader(settings) as reader, pytest.raises(UnknownFeature):
        reader.latest("BTCUSDT", "RSJ")
    assert processes.alive() == {}


def test_an_empty_lake_says_what_to_do(settings, processes):
    with Reader(settings) as reader, pytest.raises(UnknownSymbol, match="mdplatform ingest"):
        reader.latest("BTCUSDT", RSI)


def test_the_timeframe_is_the_features_own_where_the_question_names_none(reader):
    spec = parse_feature(RSI).at("1h")
    assert reader.latest("BTCUSDT", spec).timeframe == "1h"
    assert reader.latest("BTCUSDT", spec, "1h").feature == RSI


def test_history_is_read_as_it_was_known(reader, market, bars):
    start, end = FIRST_OPEN + timedelta(days=6), FIRST_OPEN + timedelta(days=7)
    plain = reader.between("BTCUSDT", "SMA(3)", "15m", start, end)
    assert len(plain) == 96
    first = int(timedelta(days=6) / timedelta(minutes=15))
    expected = talib.SMA(bars["close"].to_numpy(), 3)
    np.testing.assert_allclose(plain.values, expected[first : first + 96], rtol=1e-9)
    corrected = raw_bars(1200).with_columns(close=raw_bars(1200)["close"] * 1.0005).slice(first, 1)
    market.deliver("BTCUSDT", corrected)
    now = reader.between("BTCUSDT", "SMA(3)", "15m", start.isoformat(), end.isoformat())
    then = reader.between("BTCUSDT", "SMA(3)", "15m", start, end, as_of="2026-01-01T00:01:30")
    assert now.values[0] != plain.values[0]
    assert now.version != plain.version
    np.testing.assert_array_equal(then.values, plain.values)
    assert then.version == plain.version


def test_a_range_without_bars_and_a_time_that_is_none_are_clear_errors(reader):
    with pytest.raises(NoData, match="in that range"):
        reader.between("BTCUSDT", RSI, start="2020-01-01", end="2020-02-01")
    with pytest.raises(ParameterOutOfRange, match="2024-03-01T12:30:00Z"):
        reader.between("BTCUSDT", RSI, start="yesterday")
    with pytest.raises(UnknownSymbol):
        reader.between("NOPE", RSI)


def test_threads_share_one_reader(reader, bars):
    expected = talib.RSI(bars["close"].to_numpy(), 14)[-20:]
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda _: reader.latest("BTCUSDT", RSI, n=20), range(200)):
            np.testing.assert_allclose(result.values, expected, rtol=1e-9)
            assert result.notes == ()


def test_a_blob_of_an_older_window_setting_is_not_enough(settings, processes, bars):
    narrow = settings.model_copy(update={"window_rows": 20})
    with Reader(narrow) as reader:
        reader.latest("BTCUSDT", RSI)
    with Reader(settings) as reader:
        result = reader.latest("BTCUSDT", RSI, n=100)
        assert (len(result), result.source) == (100, "computed")
        assert reader.latest("BTCUSDT", RSI, n=100).source == "cache"


def test_a_blob_with_a_higher_sequence_stays_but_is_used(reader, client):
    reader.latest("BTCUSDT", RSI)
    ahead = replace(decode(client.get(RSI_KEY)), sequence=99)
    client.set(RSI_KEY, encode(ahead))
    assert reader.latest("BTCUSDT", RSI).source == "cache"


def test_a_count_may_be_any_integer_and_a_symbol_only_a_text(settings: Settings) -> None:
    with Reader(settings) as reader:
        with pytest.raises(ParameterOutOfRange, match="n is refused"):
            reader.latest("BTCUSDT", "RSI", "15m", 5.0)  # type: ignore[arg-type]
        with pytest.raises(InvalidSymbol):
            reader.latest(None, "RSI", "15m", 1)  # type: ignore[arg-type]
        with pytest.raises(UnknownSymbol):
            reader.latest("BTCUSDT", "RSI", "15m", np.int64(5))  # type: ignore[arg-type]
