"""Rendering: answers and results as JSON or as an Arrow stream.

In JSON times are ISO 8601 in UTC and what has no value is null, never NaN. A feature's rows are those that
`mdplatform read --json` prints. An Arrow stream is one table; its schema's metadata carries the rest, as JSON, under
`mdplatform`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec
import polars as pl
import pyarrow as pa

from mdplatform.market.time import from_us, iso
from mdplatform.messaging.transport import Record
from mdplatform.requests.answer import Answer, AnswerBody, Progress
from mdplatform.requests.result import Result
from mdplatform.serving.result import FeatureResult

ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
LARGE_BYTES = 100_000
"""Answers with more data than this are rendered outside the event loop."""
_AGE: dict[str, Any] = {"age_seconds": pl.Float64}
_BESIDE: dict[str, Any] = {
    **_AGE,
    "observations": pl.Int64,
    "published_at": pl.Datetime("us", "UTC"),
    "vintage": pl.Date,
}


def encode_json(told: object) -> bytes:
    """Give JSON bytes; numbers that JSON cannot hold are null."""
    return msgspec.json.encode(told)


def told_answer(body: AnswerBody) -> dict[str, Any]:
    """Give an answer as JSON tells it."""
    return {**Answer(body).to_dict(), "timings_ms": body.timings_ms}


def told_progress(progress: Progress) -> dict[str, Any]:
    """Give word of how far a request has come."""
    told = msgspec.to_builtins(progress)
    return {**told, "at": _time(progress.at)}


def told_record(record: Record, progress: Progress | None = None) -> dict[str, Any]:
    """Give what is known of an open request."""
    return {
        "request_id": record.id,
        "strategy_id": record.strategy,
        "label": record.label,
        "status": "open",
        "final": False,
        "stage": record.stage,
        "holder": record.holder,
        "attempts": record.attempts,
        "priority": record.priority.value,
        "sent_at": _time(record.sent_at),
        "deadline": _time(record.deadline),
        "progress": None if progress is None else told_progress(progress),
    }


def arrow_of_answer(body: AnswerBody) -> bytes:
    """Give all values of an answer as one long table, with the rest in its metadata.

    Beside what `Answer.to_arrow` has are the columns of `_BESIDE`: how old a joined value was, how many common rows a
    correlation has, when a macro value was published and in which vintage; null where they have no meaning.
    """
    about = told_answer(body)
    for each in about["results"]:
        for values in ("rows", "matrix", "observations"):
            each.pop(values, None)
    answer = Answer(body)
    table = answer.to_arrow()
    beside = pl.concat([pl.DataFrame(schema=_BESIDE), *map(_beside, answer)], how="diagonal")
    for name in beside.columns:
        if name not in table.column_names:
            table = table.append_column(name, beside.get_column(name).to_arrow())
    return arrow_stream(table, about)


def _beside(result: Result) -> pl.DataFrame:
    """Give those columns of a result, with a row for each of the long table's."""
    table = cast(pl.DataFrame, pl.from_arrow(result.table))
    if result.kind == "correlation":
        counts = [table.get_column(f"observations of {each}") for each in result.symbols]
        return pl.DataFrame({"observations": pl.concat(counts)})
    if result.kind == "series":
        return table.select("published_at", "vintage")
    if "age" not in table.columns:
        return pl.DataFrame({"age_seconds": [None] * table.height * len(result.outputs)}, schema=_AGE)
    ages = table.select(age_seconds=pl.col("age").dt.total_microseconds() / 1e6)
    return pl.concat([ages] * len(result.outputs))


def arrow_of_result(result: FeatureResult) -> bytes:
    """Give the rows of a feature as a table, with the rest in its metadata."""
    about = {name: value for name, value in result.to_dict().items() if name != "rows"}
    return arrow_stream(result.to_arrow(), about)


def arrow_stream(table: pa.Table, about: Mapping[str, Any]) -> bytes:
    """Write a table as an Arrow IPC stream."""
    kept = table.schema.metadata or {}
    table = table.replace_schema_metadata({**kept, b"mdplatform": encode_json(about)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def weight(body: AnswerBody) -> int:
    """Give how many bytes of data an answer has."""
    return sum(len(each.data) for each in body.parts)


def _time(microseconds: int) -> str | None:
    return iso(from_us(microseconds)) if microseconds else None
