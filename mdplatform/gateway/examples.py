"""What OpenAPI tells of each operation: examples of what is sent and answered, and what can go wrong.

The examples are sent to a live gateway by the tests. Their symbols are those of `mdplatform demo`.
"""

from __future__ import annotations

from typing import Any

from mdplatform.gateway.problems import MEDIA_TYPE
from mdplatform.gateway.rendering import ARROW, JSON
from mdplatform.messaging.priority import DataPriority
from mdplatform.requests.request import Refresh, RequestType

REQUESTS: dict[str, dict[str, Any]] = {
    "indicators": {
        "summary": "Technical indicators",
        "description": "Each of `indicators` for each symbol and timeframe; names may be the friendly ones.",
        "value": {
            "type": "TECHNICAL_INDICATORS",
            "strategy_id": "momentum_strategy_001",
            "strategy_name": "Advanced Momentum Strategy",
            "symbols": ["BTCUSDT", "ETHUSDT"],
            "indicators": [
                {"name": "RSI", "parameters": {"period": 14}},
                {"name": "MACD", "parameters": {"fast": 12, "slow": 26, "signal": 9}},
            ],
            "timeframes": ["15m", "1h"],
            "priority": "HIGH",
        },
    },
    "composite": {
        "summary": "A formula of indicators",
        "description": "`input_indicators` give the names that the formula uses.",
        "value": {
            "type": "CUSTOM_COMPOSITE",
            "strategy_id": "advanced_momentum",
            "symbols": ["BTCUSDT"],
            "formula": "(RSI - 50) * 0.6 + (MACD_HISTOGRAM / PRICE_STD) * 0.4",
            "input_indicators": [
                {"name": "RSI", "parameters": {"period": 14}},
                {"name": "MACD", "parameters": {"fast": 12, "slow": 26}},
                {"name": "PRICE_STD", "parameters": {"period": 20}},
            ],
            "timeframes": ["15m", "1h"],
        },
    },
    "profile": {
        "summary": "A volume profile",
        "description": "Point of control and value area of the day so far.",
        "value": {
            "type": "VOLUME_PROFILE",
            "strategy_id": "auction_001",
            "symbols": ["BTCUSDT"],
            "timeframes": ["1h"],
            "session_hours": 24,
            "row_size": 50,
        },
    },
    "correlation": {
        "summary": "A correlation matrix",
        "description": "Of the log returns over the last `window` bars, one matrix for each timeframe.",
        "value": {
            "type": "CORRELATION_MATRIX",
            "strategy_id": "pairs_001",
            "symbols": ["BTCUSDT", "ETHUSDT", "ADAUSDT"],
            "timeframes": ["15m"],
            "window": 96,
        },
    },
    "sentiment": {
        "summary": "Sentiment",
        "description": "Measures of what each provider's documents said.",
        "value": {
            "type": "SENTIMENT_DATA",
            "strategy_id": "crowd_001",
            "symbols": ["BTCUSDT"],
            "timeframes": ["1d"],
            "providers": ["fear_greed"],
            "measures": ["score"],
        },
    },
    "macro": {
        "summary": "Macro series",
        "description": "As they were known at the close of each row; without symbols, what is known of each series.",
        "value": {
            "type": "MACRO_INDICATORS",
            "strategy_id": "regime_001",
            "series": ["CPIAUCSL"],
            "symbols": ["BTCUSDT"],
            "timeframes": ["1d"],
            "transforms": ["yoy"],
        },
    },
    "standing": {
        "summary": "A standing request",
        "description": "Answered again at each new bar until cancelled, or its deadline; best over `WS /v1/answers`.",
        "value": {
            "type": "TECHNICAL_INDICATORS",
            "strategy_id": "momentum_strategy_001",
            "symbols": ["BTCUSDT"],
            "indicators": ["RSI(timeperiod=14)"],
            "timeframes": ["15m"],
            "refresh": "on_close",
            "deadline": 3600,
        },
    },
    "range": {
        "summary": "A range, as it was known then",
        "description": "Rows with `start <= open_time < end`, without what was corrected after `as_of`.",
        "value": {
            "type": "TECHNICAL_INDICATORS",
            "strategy_id": "research_001",
            "symbols": ["BTCUSDT"],
            "indicators": ["close / EMA(close, 50) - 1"],
            "timeframes": ["1h"],
            "start": "2026-10-20",
            "end": "2026-10-21",
        },
    },
}

OPEN = {
    "request_id": "0199f0c2d4e07a3c8b1de5f60718293a",
    "strategy_id": "momentum_strategy_001",
    "label": "RSI(timeperiod=14) of BTCUSDT",
    "status": "open",
    "final": False,
    "stage": "queued",
    "holder": "",
    "attempts": 0,
    "priority": "HIGH",
    "sent_at": "2026-11-02T12:00:00.004219Z",
    "deadline": "2026-11-02T12:02:00.004219Z",
    "progress": None,
}
ANSWER: dict[str, Any] = {
    "request_id": "0199f0c2d4e07a3c8b1de5f60718293a",
    "strategy_id": "momentum_strategy_001",
    "type": "TECHNICAL_INDICATORS",
    "status": "ok",
    "final": True,
    "number": 0,
    "available_at": "2026-11-02T12:00:00Z",
    "answered_at": "2026-11-02T12:00:00.006842Z",
    "worker": "worker-1",
    "problem": None,
    "missing": [],
    "results": [
        {
            "kind": "feature",
            "symbol": "BTCUSDT",
            "feature": "RSI(timeperiod=14)",
            "timeframe": "15m",
            "source": "cache",
            "layer": "redis",
            "version": "6d1b0c9e5a7f4823b1de5f60718293a4",
            "available_at": "2026-11-02T12:00:00Z",
            "made_by": "worker-1",
            "run_id": "",
            "engine": "TA-Lib 0.8.1",
            "method": None,
            "outputs": {"rsi": "RSI(timeperiod=14)"},
            "notes": [],
            "quality": None,
            "about": {},
            "rows": [
                {
                    "open_time": "2026-11-02T11:45:00Z",
                    "available_at": "2026-11-02T12:00:00Z",
                    "rsi": 57.31,
                    "settled": True,
                }
            ],
        }
    ],
    "timings_ms": {"queue": 0.6, "redis": 0.4, "encode": 0.1},
}
PROBLEM = {
    "type": "urn:mdplatform:unknown-feature",
    "title": "Unknown feature",
    "status": 422,
    "detail": "Unknown feature: RSY. Nearest known: RSI",
    "field": "indicators[0].name",
    "value": "RSY",
    "remedy": "Nearest known: RSI",
}
FEATURE_ROWS = {
    "symbol": "BTCUSDT",
    "feature": "RSI(timeperiod=14)",
    "timeframe": "15m",
    "source": "cache",
    "layer": "redis",
    "version": "6d1b0c9e5a7f4823b1de5f60718293a4",
    "available_at": "2026-11-02T12:00:00Z",
    "made_by": "reader",
    "engine": "TA-Lib 0.8.1",
    "method": None,
    "outputs": {"rsi": "RSI(timeperiod=14)"},
    "notes": [],
    "timings_ms": {"check": 0.02, "redis": 0.3, "total": 0.4},
    "rows": ANSWER["results"][0]["rows"],
}

_TIME = {"type": "string", "description": "ISO 8601, UTC where it names no zone, such as 2025-01-31T12:00:00Z."}
_NAMES = {"type": "array", "items": {"type": "string"}}
REQUEST_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "strategy_id"],
    "description": "What is asked for. Beside the fields here each type has its own: `GET /v1/catalog` lists them. "
    "A field that the type does not have is refused.",
    "properties": {
        "type": {"type": "string", "enum": [each.value for each in RequestType]},
        "strategy_id": {"type": "string", "maxLength": 64, "description": "Who asks; the key has to be for it."},
        "strategy_name": {"type": "string", "maxLength": 200, "description": "For people."},
        "symbols": {**_NAMES, "description": "Such as BTCUSDT."},
        "timeframes": {**_NAMES, "description": "Such as 15m."},
        "indicators": {
            "type": "array",
            "description": "Of TECHNICAL_INDICATORS: texts such as `RSI(14)`, or objects.",
            "items": {"oneOf": [{"type": "string"}, {"type": "object"}]},
        },
        "formula": {"type": "string", "description": "Of CUSTOM_COMPOSITE."},
        "input_indicators": {
            "type": "array",
            "items": {},
            "description": "Of CUSTOM_COMPOSITE: what the formula names.",
        },
        "priority": {"type": "string", "enum": [each.value for each in DataPriority], "default": "NORMAL"},
        "deadline": {
            "oneOf": [{"type": "number"}, {"type": "string"}],
            "description": "Seconds from now, or a time: after that it is answered `failed`.",
        },
        "latest": {"type": "integer", "minimum": 1, "description": "So many of the newest rows; 1 by default."},
        "start": {**_TIME, "description": "Instead of `latest`: rows from this open time on."},
        "end": {**_TIME, "description": "Rows before this open time."},
        "as_of": {**_TIME, "description": "All as it was known then."},
        "refresh": {"type": "string", "enum": [each.value for each in Refresh], "default": "once"},
        "request_id": {"type": "string", "description": "Your own; to send the same again is harmless."},
    },
}


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
