"""Requests as examples, one of each type and kind, and the schema of a request.

The examples are sent to a live gateway by the tests. Their symbols are those of `mdplatform demo`.
"""

from __future__ import annotations

from typing import Any

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
