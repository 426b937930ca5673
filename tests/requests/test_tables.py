"""Answers as values and tables, of every kind, also where there is nothing or little in them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
import pytest

from mdplatform.errors import RequestFailed, RequestRejected
from mdplatform.market.time import to_us
from mdplatform.requests import wire
from mdplatform.requests.answer import Answer, AnswerBody, Missing, Part, PartKind, Problem, Quality, Status
from mdplatform.worker.parts import series_part

INSTANT = pl.Datetime("us", "UTC")
FIRST = datetime(2025, 1, 1, tzinfo=UTC)


def feature(symbol: str, name: str, hours: list[int], values: list[float | None], status: str = "settled") -> Part:
    frame = pl.DataFrame(
        {
            "open_time": pl.Series([FIRST.replace(hour=each) for each in hours], dtype=INSTANT),
            "available_at": pl.Series([FIRST.replace(hour=each + 1) for each in hours], dtype=INSTANT),
            f"{name}()": pl.Series(values, dtype=pl.Float64),
            "status": pl.Series([status if each is not None else "gap" for each in values], dtype=pl.String),
        }
    )
    table = frame.to_arrow()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    newest = to_us(FIRST.replace(hour=hours[-1] + 1)) if hours else 0
    return Part(
        symbol=symbol, timeframe="1h", feature=f"{name}()", source="computed", layer="memory", version="v",
        available_at=newest, rows=len(hours), outputs={name.lower(): f"{name}()"}, data=sink.getvalue().to_pybytes(),
    )  # fmt: skip


def answer(*parts: Part, **words: object) -> Answer:
    given = {"request_id": "r", "status": Status.OK, "parts": parts, "answered_at": to_us(FIRST), **words}
    body = wire.decode_reply(wire.encode_reply(AnswerBody(**given)))
    assert isinstance(body, AnswerBody)
    return Answer(body, latency_ms=1.5)


def test_a_wide_frame_says_why_a_value_is_null_where_that_is_wanted() -> None:
    rsi, atr = feature("BTCUSDT", "RSI", [1, 2], [50.0, None]), feature("BTCUSDT", "ATR", [2, 3], [None, 2.0])
    plain, told = answer(rsi, atr).to_pandas(), answer(rsi, atr).to_pandas(statuses=True)
    assert list(plain.columns) == ["available_at", "RSI()", "ATR()"]
    assert set(told.columns) == {*plain.columns, "status of RSI()", "status of ATR()"}
    assert told["status of RSI()"].to_list()[:2] == ["settled", "gap"]
    assert told["status of ATR()"].to_list()[1:] == ["gap", "settled"]


def test_features_are_laid_side_by_side_where_their_bars_are_not_the_same() -> None:
    found = answer(
        feature("BTCUSDT", "RSI", [1, 2, 3], [50.0, None, 52.0]),
        feature("BTCUSDT", "ATR", [2, 3, 4], [1.0, 2.0, 3.0]),
        feature("ETHUSDT", "RSI", [3], [40.0]),
    )
    frame = found.to_pandas()
    assert frame.index.names == ["symbol", "timeframe", "open_time"]
    btc = frame.loc[("BTCUSDT", "1h")]
    assert [each.hour for each in btc.index] == [1, 2, 3, 4]
    assert [each.hour for each in btc["available_at"]] == [2, 3, 4, 5]
    assert str(btc.index.tz) == "UTC"
    assert btc["RSI()"].fillna(-1).tolist() == [50.0, -1, 52.0, -1]
    assert btc["ATR()"].fillna(-1).tolist() == [-1, 1.0, 2.0, 3.0]
    assert found.available_at == FIRST.replace(hour=5)
    long = pl.DataFrame(found.to_arrow())
    assert long.columns == ["symbol", "timeframe", "feature", "output", "open_time", "available_at", "value", "status"]
    assert long.row(1) == (
        "BTCUSDT", "1h", "RSI()", "rsi", FIRST.replace(hour=2), FIRST.replace(hour=3), None, "gap"
    )  # fmt: skip


def test_a_null_is_nan_in_arrays_and_none_in_rows_with_its_reason() -> None:
    (result,) = answer(feature("BTCUSDT", "RSI", [1, 2], [50.0, None]))
    assert result.values[0] == 50.0
    assert result.values[1] != result.values[1]
    assert result.rows[1] == {
        "open_time": "2025-01-01T02:00:00Z", "available_at": "2025-01-01T03:00:00Z", "rsi": None, "settled": False,
        "reason": "gap",
    }  # fmt: skip
    assert (result.open_time, result.ages, result.quality) == (FIRST.replace(hour=2), None, None)
    assert str(result) == "BTCUSDT 1h RSI()"


def test_a_series_is_told_by_its_periods() -> None:
    known = pl.DataFrame(
        {
            "ref_period": pl.Series(
                [datetime(2024, 11, 1, tzinfo=UTC), datetime(2024, 12, 1, tzinfo=UTC)], dtype=INSTANT
            ),
            "value": [315.5, None],
            "vintage": pl.Series([FIRST, FIRST], dtype=INSTANT),
            "published_at": pl.Series([FIRST, FIRST], dtype=INSTANT),
            "available_at": pl.Series([FIRST, FIRST], dtype=INSTANT),
        }
    )
    found = answer(series_part("CPIAUCSL", known))
    (result,) = found
    assert result.kind is PartKind.SERIES
    assert result.values[0] == 315.5
    assert result.rows[1]["value"] is None
    assert result.rows[0]["ref_period"] == "2024-11-01T00:00:00Z"
    assert result.to_pandas().index[0] == known["ref_period"][0]
    assert found.to_pandas().equals(result.to_pandas())
    assert [each["output"] for each in found.to_arrow().to_pylist()] == ["value", "value"]
    two = answer(series_part("CPIAUCSL", known), series_part("GDP", known))
    assert two.to_pandas().index.names == ["series", "ref_period"]
    assert answer(series_part("CPIAUCSL", known.clear())).parts[0].rows == []


def test_an_answer_without_results_has_empty_tables() -> None:
    found = answer(
        status=Status.FAILED,
        problem=Problem(error="NoData", cause="No 1m bars of BTCUSDT", remedy="Take them in"),
        missing=(Missing(symbol="BTCUSDT", timeframe="1m", feature="RSI()", cause="No 1m bars"),),
    )
    assert len(found.to_pandas()) == found.to_arrow().num_rows == len(found) == 0
    assert found.available_at is None
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["missing"][0]["cause"] == "No 1m bars"
    assert told["problem"]["error"] == "NoData"
    assert told["timings_ms"] == {"total": 1.5}
    with pytest.raises(RequestFailed, match="Take them in"):
        found.raise_for_status()
    with pytest.raises(KeyError, match="0 results for BTCUSDT"):
        found.get("BTCUSDT")
    turned_away = Problem(error="RequestRejected", cause="Too many", retry_after_seconds=2.0)
    with pytest.raises(RequestRejected) as rejected:
        answer(status=Status.REJECTED, problem=turned_away).raise_for_status()
    assert rejected.value.retry_after_seconds == 2.0
    empty = answer(feature("BTCUSDT", "RSI", [], []))
    assert (len(empty), empty.parts[0].open_time, empty.parts[0].values.shape) == (1, None, (0,))
    assert empty.to_pandas().shape == (0, 2)


def test_quality_is_the_lowest_component_and_told_in_plain_values() -> None:
    quality = Quality(completeness=0.9, warmth=1.0, reasons=("a gap",))
    assert quality.score == 0.9
    assert Quality().score is None
    told = quality.to_dict()
    assert (told["score"], told["timeliness"], list(told["reasons"])) == (0.9, None, ["a gap"])
