"""An answer: values, where each came from, what is missing and why, and how long each stage took.

Nothing heavy is imported before values are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from mdplatform.requests.request import RequestType
from mdplatform.requests.result import Result

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Status(StrEnum):
    """How a request ended: with all that was asked for, with a part of it, turned away, or without a result."""

    OK = "ok"
    PARTIAL = "partial"
    REJECTED = "rejected"
    FAILED = "failed"


class PartKind(StrEnum):
    """What a part of an answer is."""

    FEATURE = "feature"
    CORRELATION = "correlation"
    SERIES = "series"


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Components of quality in [0, 1], None where not assessed. The `score` is the lowest of those that were."""

    completeness: float | None = None
    timeliness: float | None = None
    validity: float | None = None
    uniqueness: float | None = None
    consistency: float | None = None
    warmth: float | None = None
    reasons: tuple[str, ...] = ()

    @property
    def score(self) -> float | None:
        """The lowest component, None where none was assessed."""
        assessed = [each for each in msgspec.structs.astuple(self)[:6] if each is not None]
        return min(assessed, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Give plain values: each component, the `score` and the reasons."""
        return {**msgspec.to_builtins(self), "score": self.score}


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One result of an answer: rows of a feature, a matrix, or a series.

    `data` is an Arrow IPC stream. Of a feature: `open_time, available_at`, the outputs by canonical text, `status`,
    maybe `age`; of a correlation: `symbol`, a column for each symbol, and `observations of SYM` for each; of a series
    what is known of it. `source` is `cache`, `computed` or `run`, with the Dagster run in `run_id`; `layer` is `near`,
    `redis`, `memory`, `lake` or `run`. `outputs` maps short names to columns. `about` is what else is told, such as the
    estimator of a correlation.
    """

    kind: PartKind = PartKind.FEATURE
    symbol: str = ""
    timeframe: str = ""
    feature: str = ""
    source: str
    layer: str
    version: str
    available_at: int
    rows: int
    outputs: dict[str, str] = {}
    engine: str = ""
    made_by: str = ""
    method: str | None = None
    run_id: str = ""
    notes: tuple[str, ...] = ()
    quality: Quality | None = None
    about: dict[str, Any] = {}
    data: bytes = b""


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was asked for and is not in the answer, with cause and remedy."""

    symbol: str = ""
    timeframe: str = ""
    feature: str = ""
    cause: str
    remedy: str = ""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no result: what is wrong, in which field, with what value, and what is allowed or can be done."""

    error: str
    cause: str
    remedy: str = ""
    field: str = ""
    value: str = ""
    retry_after_seconds: float | None = None

    def __str__(self) -> str:
        shown = f"{self.cause}: {self.value}" if self.value else self.cause
        return f"{shown}. {self.remedy}" if self.remedy else shown


class AnswerBody(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it goes over the wire; strategies get an `Answer`.

    `number` grows from one answer of a standing request to the next; 0 for others. `final` is false for all
    but the last.
    `timings_ms` are stages at the answering side: `queue` (from send to take), `redis`, `memory`, `lake`, `compute`,
    `publish`, `run`, `encode`.
    """

    request_id: str
    strategy_id: str = ""
    type: RequestType = RequestType.TECHNICAL_INDICATORS
    status: Status
    final: bool = True
    number: int = 0
    parts: tuple[Part, ...] = ()
    missing: tuple[Missing, ...] = ()
    problem: Problem | None = None
    worker: str = ""
    answered_at: int = 0
    timings_ms: dict[str, float] = {}


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a request has come, for people: `stage` is `taken`, `waiting_for_run`, `run_started`, `published`, ….

    It comes while the request is open; no answer depends on it.
    """

    request_id: str
    stage: str
    text: str = ""
    run_id: str = ""
    at: int = 0


class Answer:
    """What a strategy gets: status, values, provenance, quality and timings.

    `status` is `ok`, `partial` (see `missing`), `rejected` or `failed` (see `problem`). Iterating gives the parts.
    `latency_ms` runs from send to callback; `timings_ms` tells the stages in it.
    """

    def __init__(self, body: AnswerBody, *, latency_ms: float = 0.0) -> None:
        self.body = body
        self.latency_ms = latency_ms

    @property
    def request_id(self) -> str:
        """The id of the request."""
        return self.body.request_id

    @property
    def status(self) -> Status:
        """How it ended."""
        return self.body.status

    @property
    def is_ok(self) -> bool:
        """Whether all that was asked for is there."""
        return self.body.status is Status.OK

    @property
    def final(self) -> bool:
        """Whether no more answers follow."""
        return self.body.final

    @property
    def number(self) -> int:
        """Grows from one answer of a standing request to the next; 0 for other requests."""
        return self.body.number

    @property
    def missing(self) -> tuple[Missing, ...]:
        """What was asked for and is not there, and why."""
        return self.body.missing

    @property
    def problem(self) -> Problem | None:
        """Why there is no result."""
        return self.body.problem

    @cached_property
    def parts(self) -> tuple[Result, ...]:
        """The results: one for each symbol, timeframe and feature, in the order of the request."""
        return tuple(Result(part) for part in self.body.parts)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.body.parts)

    @property
    def available_at(self) -> datetime | None:
        """The first instant at which all of the newest values could have been known; None without values."""
        return max((part.available_at for part in self.parts), default=None)

    @property
    def timings_ms(self) -> dict[str, float]:
        """How long each stage took, in milliseconds; `total` is from send to callback."""
        return {**self.body.timings_ms, "total": round(self.latency_ms, 4)}

    def get(self, symbol: str, feature: str | None = None, timeframe: str | None = None) -> Result:
        """Give the one result of that symbol, feature (canonical text, or its function's name) and timeframe.

        Raises `KeyError` where there is none, or more than one.
        """
        found = [
            each
            for each in self.parts
            if each.symbol == symbol.upper()
            and (feature is None or feature in (each.feature, each.feature.partition("(")[0]))
            and (timeframe is None or each.timeframe == timeframe)
        ]
        if len(found) != 1:
            asked = ", ".join(each for each in (symbol, feature, timeframe) if each)
            raise KeyError(f"{len(found)} results for {asked}; there are: {', '.join(map(str, self.parts))}")
        return found[0]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON: the words of the answer, and `results` as `Result.to_dict` gives them."""
        body = self.body
        return {
            "request_id": body.request_id,
            "strategy_id": body.strategy_id,
            "type": body.type.value,
            "status": body.status.value,
            "final": body.final,
            "number": body.number,
            "available_at": None if self.available_at is None else _iso(self.available_at),
            "answered_at": _iso(_EPOCH + timedelta(microseconds=body.answered_at)),
            "worker": body.worker,
            "problem": None if body.problem is None else msgspec.to_builtins(body.problem),
            "missing": [msgspec.to_builtins(each) for each in body.missing],
            "results": [each.to_dict() for each in self.parts],
            "timings_ms": self.timings_ms,
        }

    def to_arrow(self) -> pa.Table:
        """Give all values in one long table: `symbol, timeframe, feature, output, open_time, available_at, value,
        status`."""
        from mdplatform.requests.tables import long_table

        return long_table(self.parts)

    def to_pandas(self, *, statuses: bool = False) -> pd.DataFrame:
        """Give a frame with a row for each `(symbol, timeframe, open_time)`, and a column for each output by its
        canonical text. A correlation gives its matrix, a series its rows.

        With `statuses` there are `status of FEATURE`, which says why a value is NaN, and `age of FEATURE` where values
        have an age.
        """
        from mdplatform.requests.tables import wide_frame

        return wide_frame(self.parts, statuses=statuses)

    def raise_for_status(self) -> Answer:
        """Give the answer back if it is `ok` or `partial`; raises `RequestRejected` or `RequestFailed`."""
        from mdplatform.errors import RequestFailed, RequestRejected

        if self.problem is None or self.status in (Status.OK, Status.PARTIAL):
            return self
        kind = RequestRejected if self.status is Status.REJECTED else RequestFailed
        error = kind(self.problem.cause, value=self.problem.value or None, remedy=self.problem.remedy)
        if isinstance(error, RequestRejected):
            error.retry_after_seconds = self.problem.retry_after_seconds or 0.0
        raise error

    def __repr__(self) -> str:
        told = f", {self.problem}" if self.problem else ""
        return f"<Answer {self.request_id}: {self.status}, {len(self)} results in {self.latency_ms:.2f} ms{told}>"


def _iso(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
