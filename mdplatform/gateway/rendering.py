"""Rendering: answers and results as JSON or as an Arrow stream.

In JSON times are ISO 8601 in UTC and what has no value is null, never NaN. A feature's rows are those that
`mdplatform read --json` prints. An Arrow stream is one table; its schema's metadata carries the rest, as JSON, under
`mdplatform`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pyarrow as pa

from mdplatform.market.time import from_us, iso
from mdplatform.messaging.transport import Record
from mdplatform.requests.answer import Answer, AnswerBody, Part, PartKind, Progress, Quality
from mdplatform.serving.result import FeatureResult

ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
LARGE_BYTES = 100_000
"""Answers with more data than this are rendered outside the event loop."""


def encode_json(told: object) -> bytes:
    """Give JSON bytes; numbers that JSON cannot hold are null."""
    return msgspec.json.encode(told)


def told_answer(body: AnswerBody) -> dict[str, Any]:
    """Give an answer as JSON tells it."""
    known = max((each.available_at for each in body.parts), default=0)
    return {
        **_about(body),
        "available_at": iso(from_us(known)) if known else None,
        "parts": [_told_part(each) for each in body.parts],
    }


def told_progress(progress: Progress) -> dict[str, Any]:
    """Give word of how far a request has come."""
    told = msgspec.to_builtins(progress)
    return {**told, "at": _time(progress.at)}


def told_record(record: Record, progress: Progress | None = None) -> dict[str, Any]:
    """Give what is known of an open request."""
    return {
        "request_id": record.id,
        "strategy_id": record.strategy,
        "type": record.label,
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
    """Give all values of an answer as one long table (`Answer.to_arrow`), with the rest in its metadata."""
    about = {**_about(body), "parts": [_about_part(each) for each in body.parts]}
    return arrow_stream(Answer(body).to_arrow(), about)


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


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Give the rows of any table as JSON tells them."""
    columns = {name: [_plain(each) for each in table.column(name).to_pylist()] for name in table.schema.names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def weight(body: AnswerBody) -> int:
    """Give how many bytes of data an answer has."""
    return sum(len(each.data) for each in body.parts)


def _about(body: AnswerBody) -> dict[str, Any]:
    return {
        "request_id": body.request_id,
        "strategy_id": body.strategy_id,
        "type": body.type.value,
        "status": body.status.value,
        "final": body.final,
        "number": body.number,
        "answered_at": _time(body.answered_at),
        "worker": body.worker,
        "timings_ms": body.timings_ms,
        "missing": [msgspec.to_builtins(each) for each in body.missing],
        "problem": None if body.problem is None else msgspec.to_builtins(body.problem),
    }


def _about_part(part: Part) -> dict[str, Any]:
    told = {name: getattr(part, name) for name in part.__struct_fields__ if name not in ("data", "quality")}
    quality = None if part.quality is None else _told_quality(part.quality)
    return {**told, "kind": part.kind.value, "available_at": _time(part.available_at), "quality": quality}


def _told_part(part: Part) -> dict[str, Any]:
    told = _about_part(part)
    if not part.data:
        return {**told, "data": []}
    with pa.ipc.open_stream(part.data) as reader:
        table = reader.read_all()
    if part.kind is PartKind.FEATURE:
        told["data"] = _feature_rows(part, table)
    elif part.kind is PartKind.CORRELATION:
        told["data"] = _matrix(table)
    else:
        told["data"] = plain_rows(table)
    return told


def _feature_rows(part: Part, table: pa.Table) -> list[dict[str, Any]]:
    batches: Sequence[pa.RecordBatch] = table.combine_chunks().to_batches()
    if not batches:
        return []
    result = FeatureResult(
        symbol=part.symbol,
        feature=part.feature,
        timeframe=part.timeframe,
        source=part.source,
        layer=part.layer,
        version=part.version,
        table=batches[0],
        outputs=part.outputs,
    )
    return result.rows


def _matrix(table: pa.Table) -> dict[str, Any]:
    symbols = [str(each) for each in table.column("symbol").to_pylist()]
    matrix = [table.column(each).to_pylist() for each in symbols]
    counted = [f"observations of {each}" for each in symbols]
    told: dict[str, Any] = {"symbols": symbols, "matrix": matrix}
    if set(counted) <= set(table.schema.names):
        told["observations"] = [table.column(each).to_pylist() for each in counted]
    return told


def _told_quality(quality: Quality) -> dict[str, Any]:
    return {"score": quality.score, **msgspec.to_builtins(quality)}


def _time(microseconds: int) -> str | None:
    return iso(from_us(microseconds)) if microseconds else None


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
