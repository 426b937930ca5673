"""What the universal battery tries: every function that the kinds declare, with parameters for the world of `world`.

A new function whose parameters are required, or that has no value in that world by its defaults, must be told here
what to take; it fails loudly until it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mdplatform.features import FeatureSpec, parse_feature
from mdplatform.features.definition import Definition
from mdplatform.features.kinds import declared

SAMPLES: Mapping[str, Any] = {
    "provider": "news",
    "series": "CPIAUCSL",
    "series_id": "CPIAUCSL",
    "row_size": 0.25,
    "size": 40.0,
    "reference": "ETHUSDT",
    "other": "ETHUSDT",
}
"""What stands for a required parameter, by its name."""

GIVEN: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "SENTIMENT_RETURN_CORRELATION": ({"window": 60, "min_periods": 10},),
    "CUSUM_EVENTS": ({"threshold": 0.004},),
    "DOLLAR_BARS": ({"size": 5000.0},),
    "IMBALANCE_BARS": ({"expected_count": 20},),
    "TICK_BARS": ({"size": 20},),
    "VOLUME_PROFILE": ({"row_size": 0.25}, {}),
    "ROLLING_VOLUME_PROFILE": ({"row_size": 0.25}, {}),
    "MACRO": ({}, {"series": "DGS10", "max_staleness_days": 2}),
    "MACRO_RETURN_CORRELATION": ({"series": "DGS10", "window": 250, "min_periods": 10, "periods": 12},),
    "MACRO_YOY": ({}, {"series": "DGS10"}),
    "MACRO_ZSCORE": ({}, {"series": "DGS10", "periods": 30}),
}
"""Parameters with which a function is tried, by the function's name, where its defaults do not do or do too little."""


FORMULAS = (
    "(RSI - 50) * 0.6 + (MACD_HISTOGRAM / PRICE_STD) * 0.4",
    "EMA(close, 20) / EMA(close, 50) - 1",
    "RSI@1h - RSI",
    "close / close@ETHUSDT",
    "zscore(log(close / lag(close, 3)), 20)",
    "where(DELTA > 0, SENTIMENT(provider=news), MACRO(series=CPIAUCSL) / 300)",
)
"""What the kind of formulas is tried with."""


def is_hindsight(feature: FeatureSpec) -> bool:
    """Tell of a feature that shows on purpose what was known later: it is held to all laws but that of time."""
    return feature.arguments.get("mode") == "latest"


def features() -> list[FeatureSpec]:
    """Every function that the kinds declare, with each set of parameters that it is tried with, and other choices."""
    return list(dict.fromkeys(spec for each in declared().values() for spec in _tried(each)))


def company(kind: str, given: Sequence[FeatureSpec]) -> list[FeatureSpec]:
    """Those of a kind, to be computed together: that takes a third of the time that they take one by one."""
    return [each for each in given if each.definition.kind == kind]


def _tried(definition: Definition) -> Iterator[FeatureSpec]:
    if definition.name == "FORMULA":
        yield from map(parse_feature, FORMULAS)
        return
    tried = [{**_required(definition), **given} for given in GIVEN.get(definition.name, ({},))]
    for given in tried:
        yield parse_feature({"name": definition.name, "parameters": given})
    base = tried[0]
    for parameter in definition.parameters:
        for choice in parameter.choices if parameter.kind == "choice" else ():
            if choice != base.get(parameter.name, parameter.default):
                yield parse_feature({"name": definition.name, "parameters": {**base, parameter.name: choice}})


def _required(definition: Definition) -> dict[str, Any]:
    unknown = [name for name in definition.required if name not in SAMPLES]
    if unknown:
        raise LookupError(f"{definition.name} requires {unknown}: say in `SAMPLES` of {__name__} what to take")
    return {name: SAMPLES[name] for name in definition.required}
