"""The features of a request: from what a strategy writes to canonical texts that mean the same in every process."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec

from mdplatform.errors import (
    InvalidSymbol,
    PlatformError,
    UnknownFeature,
    UnknownInput,
    UnknownOutput,
    UnknownParameter,
    UnknownTimeframe,
)
from mdplatform.features import FeatureLike, FeatureSpec, parse_feature
from mdplatform.features.registry import ALIASES, PARAMETER_ALIASES, function_names
from mdplatform.features.spec import FORMULA
from mdplatform.requests.fields import MOST_FEATURES, at, items, refuse

MOST_TEXT = 100_000
"""Characters of all features of a request together."""
_REMEMBERED, _LONGEST_KEY = 4096, 500
_fixed: dict[bytes, tuple[str, ...]] = {}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PARAMETER = re.compile(r"Parameter (\w+) of")
_PLACES: dict[type[PlatformError], str] = {
    UnknownFeature: "name",
    UnknownOutput: "output",
    UnknownInput: "inputs",
    UnknownTimeframe: "timeframe",
    InvalidSymbol: "symbol",
}


def features(given: object, field: str) -> tuple[str, ...]:
    """Give the canonical texts of features, each once, in their order."""
    found: dict[str, None] = {}
    listed = [given] if isinstance(given, Mapping | FeatureSpec) else items(given, MOST_FEATURES, field)
    for index, each in enumerate(listed):
        found.update(dict.fromkeys(_texts(each, f"{field}[{index}]")))
    if len(found) > MOST_FEATURES:
        raise refuse(field, "Too many features", len(found), f"Allowed: 1 to {MOST_FEATURES}")
    if (size := sum(map(len, found))) > MOST_TEXT:
        raise refuse(field, "Too long together", size, f"Allowed: {MOST_TEXT:,} characters of canonical text")
    return tuple(found)


def _texts(given: Any, field: str) -> tuple[str, ...]:
    """Give the texts of one feature; those of a mapping that means the same for ever are remembered."""
    key = _key(given) if isinstance(given, dict) else None
    if key is not None and key in _fixed:
        return _fixed[key]
    texts = texts_of(feature(given, field))
    if key is not None:
        if len(_fixed) >= _REMEMBERED:
            _fixed.pop(next(iter(_fixed), b""), None)
        _fixed[key] = texts
    return texts


@cache
def _functions() -> frozenset[str]:
    return frozenset(function_names())


def _key(given: dict[Any, Any]) -> bytes | None:
    """Give what a mapping is known by; None of one that may be a composite, whose newest version may change."""
    name = given.get("name")
    if not isinstance(name, str) or (name.upper() not in _functions() and name.upper() not in ALIASES):
        return None
    try:
        key = msgspec.msgpack.encode(given)
    except (TypeError, ValueError, RecursionError, OverflowError):
        return None
    return key if len(key) <= _LONGEST_KEY else None


def feature(given: Any, field: str) -> FeatureSpec:
    """Give the spec of one feature; an error tells the place inside a mapping."""
    with at(field):
        try:
            return parse_feature(given)
        except PlatformError as error:
            if isinstance(given, Mapping) and not error.field:
                error.field = _place(error, given)
            raise


def composite(formula: object, input_indicators: object) -> tuple[str, ...]:
    """Give the canonical text of a formula with its inputs: all that it uses by name is written out in it."""
    if not isinstance(formula, str):
        raise refuse("formula", "Not a text", "None" if formula is None else formula, "Write it as '(RSI - 50) / 50'")
    inputs: Sequence[Any] = ()
    if input_indicators is not None and not (isinstance(input_indicators, list | tuple) and not input_indicators):
        inputs = items(input_indicators, MOST_FEATURES, "input_indicators")
    for index, each in enumerate(inputs):
        alone = {key: value for key, value in each.items() if key != "as"} if isinstance(each, Mapping) else each
        feature(alone, f"input_indicators[{index}]")
    with at("formula"):
        texts = texts_of(parse_feature({"formula": formula, "input_indicators": inputs}))
    words = {each.upper() for each in _WORD.findall(formula)}
    for index, each in enumerate(inputs):
        name = _name_of(each)
        if name and not any(word == name or word.startswith(f"{name}_") for word in words):
            others = [*inputs[:index], *inputs[index + 1 :]]
            if texts_of(parse_feature({"formula": formula, "input_indicators": others})) == texts:
                raise refuse(
                    f"input_indicators[{index}]", "The formula does not use it", name, "Leave it out, or use it"
                )
    return texts


def _name_of(given: object) -> str:
    """Give the name by which a formula uses an input, in capitals; empty where that cannot be told."""
    if isinstance(given, Mapping):
        given = given.get("as") or given.get("name")
    told = _WORD.match(given) if isinstance(given, str) else None
    return "" if told is None else told[0].upper()


def texts_of(spec: FeatureSpec) -> tuple[str, ...]:
    """Give the texts from which `parse_feature` reads the feature again.

    One of another place that has several outputs is given output by output.

    >>> texts_of(parse_feature("RSI@4h")), texts_of(parse_feature({"name": "AROON", "timeframe": "1h"}))[0]
    (('RSI(timeperiod=14)@4h',), 'AROON_AROONDOWN(timeperiod=14)@1h')
    """
    if not spec.place or spec.name == FORMULA or len(spec.definition.outputs) == 1:
        return (f"{spec}{spec.place}",)
    call = str(replace(spec, output=None))
    inside = call.removeprefix(spec.name) or "()"
    return tuple(f"{spec.name}_{output.upper()}{inside}{spec.place}" for output in spec.outputs)


def call(function: str, **parameters: Any) -> FeatureLike:
    """Give a feature as a mapping, of the parameters that were given."""
    return {"name": function, "parameters": {name: value for name, value in parameters.items() if value is not None}}


def _place(error: PlatformError, given: Mapping[str, Any]) -> str:
    """Tell where inside a mapping an error of it lies, empty where that is not told."""
    if isinstance(error, UnknownParameter):
        return f"parameters.{error.value}"
    told = _PARAMETER.search(error.cause)
    parameters = given.get("parameters") or {}
    if told is not None and isinstance(parameters, Mapping):
        written = (
            each for each in parameters if PARAMETER_ALIASES.get(str(each).lower(), str(each).lower()) == told[1]
        )
        return f"parameters.{next(written, told[1])}"
    return next((place for kind, place in _PLACES.items() if isinstance(error, kind) and place in given), "")
