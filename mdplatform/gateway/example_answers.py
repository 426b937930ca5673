"""What is answered, as examples: an open request, an answer, a problem, the rows of a feature."""

from __future__ import annotations

from typing import Any

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
