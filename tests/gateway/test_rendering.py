"""An answer as an Arrow stream says what it says as JSON."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa

from mdplatform.gateway.rendering import arrow_of_answer
from mdplatform.requests.answer import Answer, AnswerBody, Part, Status
from mdplatform.worker.parts import series_part

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)


def table_of(*parts: Part) -> tuple[pa.Table, AnswerBody]:
    body = AnswerBody(request_id="a", status=Status.OK, parts=parts)
    return pa.ipc.open_stream(arrow_of_answer(body)).read_all(), body


def feature(columns: dict[str, Any], *outputs: str) -> Part:
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    named = {each: each for each in outputs}
    return Part(
        symbol="BTCUSDT", timeframe="1h", source="computed", layer="lake", version="v", available_at=0,
        rows=batch.num_rows, outputs=named, data=sink.getvalue().to_pybytes(),
    )  # fmt: skip


def rows(**more: Any) -> dict[str, Any]:
    instant = pa.timestamp("us", tz="UTC")
    return {
        "open_time": pa.array([NOON, NOON + timedelta(hours=1)], instant),
        "available_at": pa.array([NOON + timedelta(hours=1), NOON + timedelta(hours=2)], instant),
        "one": pa.array([1.0, 2.0]),
        "two": pa.array([3.0, None]),
        "status": pa.array(["settled", "stale"]),
        **more,
    }


def test_the_age_of_each_value_is_beside_it() -> None:
    aged = rows(age=pa.array([timedelta(seconds=90), timedelta(days=3)], pa.duration("us")))
    table, body = table_of(feature(aged, "one", "two"), feature(rows(), "one"))
    told = [row.get("age_seconds") for row in Answer(body).parts[0].rows]
    assert told == [90.0, 259_200.0]
    assert table.column("age_seconds").to_pylist() == [*told, *told, None, None]
    assert table.column("output").to_pylist() == ["one", "one", "two", "two", "one", "one"]


def test_a_macro_value_says_when_it_was_published_and_in_which_vintage() -> None:
    published = datetime(2026, 9, 10, 12, 30, tzinfo=UTC)
    known = pl.DataFrame(
        {
            "ref_period": [date(2026, 8, 1)],
            "value": [3.5],
            "vintage": [date(2026, 9, 10)],
            "published_at": [published],
            "available_at": [published],
        },
        schema_overrides={name: pl.Datetime("us", "UTC") for name in ("published_at", "available_at")},
    )
    table, _ = table_of(series_part("CPIAUCSL", known), feature(rows(), "one"))
    assert table.column("published_at").to_pylist() == [published, None, None]
    assert table.column("vintage").to_pylist() == [date(2026, 9, 10), None, None]


def test_an_answer_without_results_has_the_columns_all_the_same() -> None:
    table, _ = table_of()
    assert table.num_rows == 0
    assert {"age_seconds", "observations", "published_at", "vintage"} <= set(table.column_names)
