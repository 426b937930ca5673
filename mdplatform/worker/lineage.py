"""Lineage: under which asset and partition a run would have made what a worker computed."""

from __future__ import annotations

import time

from mdplatform.features.kinds import INDICATORS
from mdplatform.market.time import from_us, month_of
from mdplatform.requests.answer import Part
from mdplatform.requests.request import DataRequest
from mdplatform.requests.wanted import Made
from mdplatform.worker.questions import AnyQuestion, FeatureQuestion, SeriesQuestion

_ASSETS = {
    INDICATORS: "technical_indicators",
    "composite": "composite_indicators",
    "profile": "volume_profile",
    "flow": "order_flow",
    "book": "order_flow",
    "sentiment": "sentiment_features",
    "macro": "macro_features",
    "correlation": "correlation_matrix",
}
_BY_DAY = ("volume_profile", "order_flow")
_BY_MONTH = ("sentiment_features", "correlation_matrix")


def made(question: AnyQuestion, part: Part, request: DataRequest, worker: str, took_ms: float) -> Made:
    """Give the entry of what was computed for a request."""
    asset, partition = _place(question, part)
    return Made(
        asset=asset,
        partition=partition,
        feature=part.feature,
        timeframe=part.timeframe,
        version=part.version,
        rows=part.rows,
        worker=worker,
        request_id=request.request_id,
        strategy_id=request.strategy_id,
        at=time.time_ns() // 1000,
        took_ms=took_ms,
    )


def _place(question: AnyQuestion, part: Part) -> tuple[str, str]:
    """Give the asset, and its partition that holds the newest row."""
    if isinstance(question, SeriesQuestion):
        return "macro_features", question.series
    newest = max(0, part.available_at - 1)  # a row is available when it closes: it lies before that
    if not isinstance(question, FeatureQuestion):
        return "correlation_matrix", month_of(newest)
    spec = question.target.spec
    asset = _ASSETS[spec.definition.kind]
    if asset == "macro_features":
        return asset, str(spec.arguments["series"])
    if asset in _BY_MONTH:
        return asset, month_of(newest)
    when = f"{from_us(newest):%Y-%m-%d}" if asset in _BY_DAY else month_of(newest)
    return asset, f"{spec.symbol or question.symbol}/{when}"
