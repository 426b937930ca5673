"""Problems: what is wrong, as `application/problem+json` (RFC 9457), in one shape whatever it was.

`type` is `urn:mdplatform:` and the kind of error (`unknown-feature`), `title` the same in words, `detail` the sentence
that a person reads; `field`, `value` and `remedy` tell it to a program. Every error of the platform becomes one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

from mdplatform.errors import (
    CorruptPartition,
    InvalidKey,
    LakeBusy,
    NoData,
    PlatformError,
    RedisUnavailable,
    RequestFailed,
    RequestRejected,
    TransportUnavailable,
    UnknownName,
    UnknownRequest,
    UnknownSymbol,
)

MEDIA_TYPE = "application/problem+json"
_MOST_SHOWN = 200
_STATUSES: tuple[tuple[type[PlatformError], int], ...] = (
    (InvalidKey, 401),
    (UnknownRequest, 404),
    (UnknownSymbol, 404),
    (NoData, 404),
    (RequestRejected, 429),
    (TransportUnavailable, 503),
    (RedisUnavailable, 503),
    (LakeBusy, 503),
    (CorruptPartition, 500),
    (RequestFailed, 500),
)


class Refusal(PlatformError):
    """An error of HTTP itself, with its status: what is not acceptable, too large, too often, or not for this key."""

    def __init__(
        self,
        status: int,
        cause: str,
        *,
        kind: str = "",
        field: str = "",
        value: object = None,
        remedy: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(cause, value=value, remedy=remedy)
        self.status = status
        self.kind = kind or HTTPStatus(status).phrase.lower().replace(" ", "-")
        self.field = field
        self.headers = dict(headers or {})


class UnknownField(UnknownName):
    """A field that the operation does not have."""

    kind = "field"


def unknown_field(name: str, known: Iterable[str]) -> UnknownField:
    """Give the error of a field that is not one of those known, which names the nearest."""
    names = list(known)
    error = UnknownField(name[:_MOST_SHOWN], names)
    error.field, error.value = name[:_MOST_SHOWN], None
    if not names:
        error.remedy = "This operation takes no parameters"
    return error


def unforeseen() -> Refusal:
    """Give the error of a failure of the gateway itself, of which nothing is told to others."""
    return Refusal(500, "The gateway failed in a way that nobody foresaw", remedy="Its log has the details")


def status_of(error: PlatformError) -> int:
    """Give the status of HTTP that tells of an error: 422 where what was asked is wrong."""
    if isinstance(error, Refusal):
        return error.status
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 422)


def headers_of(error: PlatformError) -> dict[str, str]:
    """Give the headers that belong to an error, such as `Retry-After` (whole seconds, at least 1)."""
    if isinstance(error, Refusal):
        return error.headers
    status = status_of(error)
    if status == 401:
        return {"WWW-Authenticate": 'Bearer realm="mdplatform"'}
    if status in (429, 503):
        return {"Retry-After": str(max(1, round(getattr(error, "retry_after_seconds", 0.0) + 0.5)))}
    return {}


def problem(error: PlatformError) -> dict[str, Any]:
    """Give what is told of an error; what a program can use stands in fields of its own, and only where it is known."""
    kind = error.kind if isinstance(error, Refusal) else _kebab(type(error).__name__)
    told: dict[str, Any] = {
        "type": f"urn:mdplatform:{kind}",
        "title": kind.replace("-", " ").capitalize(),
        "status": status_of(error),
        "detail": _detail(error),
    }
    if error.field:
        told["field"] = error.field
    if error.value is not None:
        told["value"] = shown(error.value)
    if error.remedy:
        told["remedy"] = error.remedy
    if error.column:
        told["column"] = error.column
    retry = getattr(error, "retry_after_seconds", None) or headers_of(error).get("Retry-After")
    if retry:
        told["retry_after_seconds"] = float(retry)
    return told


def respond(error: PlatformError) -> Response:
    """Give the response that tells of an error."""
    body = msgspec.json.encode(problem(error))
    return Response(body, status_of(error), headers_of(error), MEDIA_TYPE)


def shown(value: object) -> object:
    """Give a refused value as JSON can hold it: numbers and short texts as they are, all else as a short text."""
    if value is None or (isinstance(value, bool | int | float) and abs(value) < 2**53):
        return value
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _detail(error: PlatformError) -> str:
    value = "" if error.value is None else f": {shown(error.value)}"
    remedy = f". {error.remedy}" if error.remedy else ""
    return f"{error.cause}{value}{remedy}".encode("utf-8", "replace").decode()


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
