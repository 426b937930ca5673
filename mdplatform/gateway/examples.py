"""What OpenAPI tells of each operation: examples of what is sent and answered, and what can go wrong."""

from __future__ import annotations

from typing import Any

from mdplatform.gateway.example_answers import ANSWER, FEATURE_ROWS, OPEN, PROBLEM
from mdplatform.gateway.example_requests import REQUEST_SCHEMA, REQUESTS
from mdplatform.gateway.problems import MEDIA_TYPE
from mdplatform.gateway.rendering import ARROW, JSON

__all__ = [
    "ANSWER",
    "BATCH",
    "CANCEL",
    "CATALOG",
    "FEATURE",
    "FEATURE_ROWS",
    "HEALTH",
    "LOOK",
    "OPEN",
    "PROBLEM",
    "REQUESTS",
    "REQUEST_SCHEMA",
    "SEND",
    "SYMBOLS",
    "problems",
]


def _content(*examples: tuple[str, Any], schema: dict[str, Any] | None = None) -> dict[str, Any]:
    told = {name: {"value": value} for name, value in examples}
    return {JSON: {"schema": schema or {"type": "object"}, "examples": told}}


def _answered(description: str, content: dict[str, Any], *, arrow: bool = False) -> dict[str, Any]:
    if arrow:
        content = {**content, ARROW: {"schema": {"type": "string", "format": "binary"}}}
    return {"description": description, "content": content}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Tell what can go wrong, by status."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": PROBLEM}}
    return {status: {"description": _WRONG[status], "content": content} for status in statuses}


_WRONG = {
    400: "The body is no JSON.",
    401: "An API key is missing, unknown or revoked.",
    403: "The API key lacks the scope, or is for other strategies.",
    404: "There is no such thing, or it is another's.",
    406: "None of the accepted forms can be given.",
    409: "The `request_id` is another request's.",
    410: "The answer is no longer kept.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "What is asked is wrong: `field` says where, `remedy` what is allowed.",
    429: "Too often, or over capacity: `Retry-After` says when to try again.",
    503: "Redis, or whatever carries requests, does not answer; or it took too long.",
}

_FORMS = "JSON, or an Arrow stream for `Accept: application/vnd.apache.arrow.stream`."
_body = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/DataRequest"}, "examples": REQUESTS}},
    }
}
_batch_body = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "required": ["requests"],
                    "properties": {
                        "requests": {"type": "array", "items": {"$ref": "#/components/schemas/DataRequest"}},
                    },
                },
                "examples": {
                    "two": {
                        "summary": "Two requests",
                        "value": {"requests": [REQUESTS["indicators"]["value"], REQUESTS["correlation"]["value"]]},
                    }
                },
            }
        },
    }
}

SEND: dict[str, Any] = {
    "summary": "Send a request",
    "status_code": 202,
    "openapi_extra": _body,
    "responses": {
        200: _answered(f"The answer came while it was waited for. {_FORMS}", _content(("answer", ANSWER)), arrow=True),
        202: _answered("The request is on its way; `Location` leads to it.", _content(("open", OPEN))),
        **problems(400, 401, 403, 406, 409, 413, 415, 422, 429, 503),
    },
}
BATCH: dict[str, Any] = {
    "summary": "Send many requests",
    "status_code": 202,
    "openapi_extra": _batch_body,
    "responses": {
        202: _answered(
            "At least one was accepted; `results` are in the order of the requests.",
            _content(
                (
                    "mixed",
                    {
                        "results": [
                            {"request_id": OPEN["request_id"], "status": "open", "location": "/v1/requests/0199f0c2…"},
                            {"status": "refused", "problem": {**PROBLEM, "field": "requests[1].indicators[0].name"}},
                        ]
                    },
                )
            ),
        ),
        **problems(400, 401, 403, 406, 413, 415, 422, 429, 503),
    },
}
LOOK: dict[str, Any] = {
    "summary": "Look at a request, or wait for its answer",
    "responses": {
        200: _answered(f"Its answer. {_FORMS}", _content(("answer", ANSWER)), arrow=True),
        202: _answered("It is open.", _content(("open", {**OPEN, "stage": "parked", "holder": "bars/BTCUSDT"}))),
        **problems(401, 403, 404, 406, 410, 422, 429, 503),
    },
}
CANCEL: dict[str, Any] = {
    "summary": "Cancel a request",
    "responses": {
        200: _answered(
            "Its final answer: `failed`, cancelled by its sender, unless it was answered before.",
            _content(
                (
                    "cancelled",
                    {
                        **ANSWER,
                        "status": "failed",
                        "results": [],
                        "problem": {"error": "Cancelled", "cause": "The request was cancelled"},
                    },
                )
            ),
            arrow=True,
        ),
        **problems(401, 403, 404, 406, 410, 429, 503),
    },
}
FEATURE: dict[str, Any] = {
    "summary": "Read a feature",
    "openapi_extra": {"x-examples": ["/v1/features/BTCUSDT/RSI(timeperiod=14)?timeframe=15m&last=3"]},
    "responses": {
        200: _answered(f"Its rows, oldest first. {_FORMS}", _content(("rows", FEATURE_ROWS)), arrow=True),
        **problems(401, 403, 404, 406, 422, 429, 503),
    },
}
CATALOG: dict[str, Any] = {
    "summary": "What can be asked for",
    "openapi_extra": {"x-examples": ["/v1/catalog", "/v1/catalog?kind=macro", "/v1/catalog?name=RSI"]},
    "responses": {
        200: _answered(
            "Types of requests, features, formulas, timeframes, priorities and limits.",
            _content(
                (
                    "rsi",
                    {
                        "features": [
                            {
                                "name": "RSI",
                                "title": "Relative Strength Index",
                                "kind": "indicators",
                                "group": "Momentum Indicators",
                                "inputs": ["close"],
                                "parameters": [
                                    {
                                        "name": "timeperiod",
                                        "kind": "integer",
                                        "required": False,
                                        "default": 14,
                                        "allowed": "an integer from 2 to 100000",
                                        "alias": "period",
                                        "minimum": 2,
                                        "maximum": 100000,
                                    }
                                ],
                                "outputs": ["real"],
                                "canonical": "RSI(timeperiod=14)",
                                "lookback": 14,
                                "settle": 373,
                            }
                        ]
                    },
                )
            ),
        ),
        **problems(401, 403, 406, 422, 429),
    },
}
SYMBOLS: dict[str, Any] = {
    "summary": "The symbols",
    "openapi_extra": {"x-examples": ["/v1/symbols"]},
    "responses": {
        200: _answered(
            "The symbols, with the timeframes that can be read.",
            _content(
                (
                    "one",
                    {
                        "symbols": [
                            {"symbol": "BTCUSDT", "timeframes": ["15m", "1h", "4h", "1d"], "source": "simulated"}
                        ]
                    },
                )
            ),
        ),
        **problems(401, 403, 406, 422, 429, 503),
    },
}
HEALTH: dict[str, Any] = {
    "summary": "Whether the gateway is well",
    "openapi_extra": {"x-examples": ["/healthz"], "security": []},
    "responses": {
        200: _answered("It is.", _content(("well", {"status": "ok", "version": "0.1.0", "following": 3}))),
        503: _answered(
            "The transport of requests does not answer; features and the catalogue may.",
            _content(("not", {"status": "transport unavailable", "version": "0.1.0", "following": 3})),
        ),
    },
}
