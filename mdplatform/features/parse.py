"""Read a feature as people write it, `rsi(period=14)` or `{"name": "RSI", "parameters": {"period": 14}}`, into a spec.

The text's grammar, read by hand and never evaluated:

    feature  = name [ "(" [ item { "," item } ] ")" ] [ "." output ]
    item     = input column | number | parameter "=" ( number | word | text in quotes )

Inputs come first, then numbers in the registry's order of parameters, then named parameters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from numbers import Real
from typing import Any, TypeAlias

from mdplatform.errors import (
    InvalidFeature,
    ParameterOutOfRange,
    UnknownFeature,
    UnknownInput,
    UnknownName,
    UnknownOutput,
    UnknownParameter,
)
from mdplatform.features import registry
from mdplatform.features.definition import Definition, Parameter, ParameterValue
from mdplatform.features.registry import ALIASES, INPUT_COLUMNS, PARAMETER_ALIASES, Alias
from mdplatform.features.spec import FeatureSpec
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.timeframe import Timeframe

FeatureLike: TypeAlias = "str | Mapping[str, Any] | FeatureSpec"

MAXIMUM_LENGTH = 500
_EXAMPLE = "Write it as in `RSI(timeperiod=14)`, `EMA(high, 20)` or `MACD(fast=12, slow=26, signal=9).macdhist`"
_KEYS = ("name", "parameters", "inputs", "output", "timeframe", "symbol")
_VALUES = (["number"], ["word"], ["quoted"])
_TOKEN = re.compile(
    r"\s*(?:(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<mark>[(),=.])"
    r"|\"(?P<quoted>[^\"]*)\"|'(?P<quoted_so>[^']*)')"
)


def parse_feature(given: FeatureLike) -> FeatureSpec:
    """Give the spec of a feature told as text, as a mapping, or as a spec already.

    A mapping has `name` and, where they are wanted, `parameters` (a mapping), `inputs` (a column or a list of them),
    `output`, `timeframe` and `symbol`. Names and parameters may be the registry's or an alias, in any case.

    Raises UnknownFeature, UnknownParameter, UnknownInput, UnknownOutput, UnknownTimeframe, ParameterOutOfRange or
    InvalidFeature; each says what was wrong, in which feature, and what is allowed.

    >>> parse_feature("rsi(period=14)") == parse_feature({"name": "RSI", "parameters": {"timeperiod": 14}})
    True
    >>> str(parse_feature("PRICE_STD(period=20)")), str(parse_feature("MACD_HISTOGRAM(fast=12)"))
    ('STDDEV(timeperiod=20,nbdev=1)', 'MACD(fastperiod=12,slowperiod=26,signalperiod=9).macdhist')
    """
    if isinstance(given, str):
        return _from_text(given)
    if isinstance(given, FeatureSpec):
        return _from_spec(given)
    if isinstance(given, Mapping):
        return _from_mapping(given)
    raise InvalidFeature("A feature is a text, a mapping or a FeatureSpec", value=given, remedy=_EXAMPLE)


@lru_cache(maxsize=4096)
def _from_spec(spec: FeatureSpec) -> FeatureSpec:
    return _build(spec.name, (), spec.arguments, spec.inputs, spec.output, spec.timeframe, spec.symbol)


def _from_mapping(given: Mapping[str, Any]) -> FeatureSpec:
    unknown = [key for key in given if key not in _KEYS]
    if unknown or not isinstance(given.get("name"), str):
        problem = f"Unknown key of a feature: {unknown[0]!r}" if unknown else "A feature needs a name"
        raise InvalidFeature(problem, value=dict(given), remedy=f"Allowed keys: {', '.join(_KEYS)}")
    parameters = given.get("parameters") or {}
    inputs = given.get("inputs") or ()
    inputs = (inputs,) if isinstance(inputs, str) else inputs
    if not isinstance(parameters, Mapping) or not all(isinstance(each, str) for each in parameters):
        raise InvalidFeature("Parameters are not a mapping of names to values", value=parameters, remedy=_EXAMPLE)
    if not isinstance(inputs, Sequence) or not all(isinstance(each, str) for each in inputs):
        raise InvalidFeature("Inputs are not a list of column names", value=inputs, remedy=_EXAMPLE)
    output, timeframe, symbol = (given.get(key) for key in ("output", "timeframe", "symbol"))
    if not all(isinstance(each, str | None) for each in (output, timeframe, symbol)):
        raise InvalidFeature("Output, timeframe and symbol are texts", value=dict(given), remedy=_EXAMPLE)
    return _build(given["name"], (), dict(parameters), tuple(inputs), output, timeframe, symbol)


@lru_cache(maxsize=4096)
def _from_text(text: str) -> FeatureSpec:
    tokens = _tokens(text)
    name = tokens.pop(0) if tokens else ("", "")
    if name[0] != "word":
        raise _unreadable(text)
    inputs: list[str] = []
    numbers: list[int | float] = []
    named: dict[str, Any] = {}
    if tokens and tokens[0] == ("mark", "("):
        close = tokens.index(("mark", ")")) if ("mark", ")") in tokens else -1
        if close < 0:
            raise _unreadable(text)
        for item in _items(tokens[1:close], text):
            kinds = [kind for kind, _ in item]
            if kinds == ["word"] and not numbers and not named:
                inputs.append(item[0][1])
            elif kinds == ["number"] and not named:
                numbers.append(_number(item[0][1]))
            elif kinds[:2] == ["word", "mark"] and kinds[2:] in _VALUES and item[1][1] == "=":
                if item[0][1].lower() in named:
                    raise InvalidFeature(f"Parameter {item[0][1]} is given twice", value=text, remedy="Give it once")
                named[item[0][1].lower()] = _number(item[2][1]) if item[2][0] == "number" else item[2][1]
            else:
                raise _unreadable(text)
        tokens = tokens[close + 1 :]
    output = None
    if len(tokens) == 2 and tokens[0] == ("mark", ".") and tokens[1][0] == "word":
        output = tokens[1][1]
    elif tokens:
        raise _unreadable(text)
    return _build(name[1], tuple(numbers), named, tuple(inputs), output)


def _tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > MAXIMUM_LENGTH:
        shown = f"{text[:40]}… ({len(text)} characters)"
        raise InvalidFeature("Feature's text is too long", value=shown, remedy=f"At most {MAXIMUM_LENGTH} characters")
    tokens: list[tuple[str, str]] = []
    position = 0
    while text[position:].strip():
        found = _TOKEN.match(text, position)
        if found is None or not text.isascii():
            raise _unreadable(text)
        kind = str(found.lastgroup)
        tokens.append((kind.removesuffix("_so"), found[kind]))
        position = found.end()
    return tokens


def _items(tokens: list[tuple[str, str]], text: str) -> list[list[tuple[str, str]]]:
    if not tokens:
        return []
    items: list[list[tuple[str, str]]] = [[]]
    for token in tokens:
        if token == ("mark", ","):
            items.append([])
        else:
            items[-1].append(token)
    if not all(items):
        raise _unreadable(text)
    return items


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _unreadable(text: str) -> InvalidFeature:
    return InvalidFeature("Feature cannot be read", value=text, remedy=_EXAMPLE)


def _build(
    name: str,
    numbers: Sequence[int | float],
    named: Mapping[str, Any],
    inputs: Sequence[str],
    output: str | None,
    timeframe: str | None = None,
    symbol: str | None = None,
) -> FeatureSpec:
    alias = ALIASES.get(name.upper()) or Alias(name.upper())
    try:
        definition = registry.definition(alias.function)
    except UnknownFeature:
        raise UnknownFeature(name, (*registry.function_names(), *ALIASES)) from None
    parameters = _parameters(definition, alias, numbers, named)
    if alias.inputs and inputs and tuple(inputs) != alias.inputs:
        raise InvalidFeature(f"{name.upper()} reads {', '.join(alias.inputs)}", value=inputs, remedy="Name no inputs")
    if alias.output and output and output.lower() != alias.output:
        raise _unknown(UnknownOutput, output, (alias.output,), name.upper())
    return FeatureSpec(
        name=definition.name,
        parameters=parameters,
        inputs=_inputs(definition, inputs or alias.inputs),
        output=_output(definition, output or alias.output),
        timeframe=None if timeframe is None else Timeframe.parse(timeframe),
        symbol=None if symbol is None else parse_symbol(symbol),
    )


def _parameters(
    definition: Definition, alias: Alias, numbers: Sequence[int | float], named: Mapping[str, Any]
) -> tuple[tuple[str, ParameterValue], ...]:
    open_ones = [each for each in definition.parameters if each.name not in alias.fixed]
    if len(numbers) > len(open_ones):
        raise InvalidFeature(
            f"{definition.name} takes {len(open_ones)} parameters, not {len(numbers)}",
            value=list(numbers),
            remedy=f"Its parameters: {', '.join(each.name for each in open_ones) or 'none'}",
        )
    given: dict[str, Any] = {each.name: value for each, value in zip(open_ones, numbers, strict=False)}
    names = {each.name for each in open_ones}
    friendly = {short: full for short, full in PARAMETER_ALIASES.items() if full in names}
    for name, value in named.items():
        full = friendly.get(name.lower(), name.lower())
        if full not in names:
            raise _unknown(UnknownParameter, name, (*names, *friendly), definition.name)
        if full in given:
            raise InvalidFeature(f"Parameter {full} of {definition.name} is given twice", value=value)
        given[full] = value
    given.update(alias.fixed)
    for name in definition.required:
        if name not in given:
            raise ParameterOutOfRange(
                f"Parameter {name} of {definition.name} is missing",
                remedy=f"Give it: {_parameter(definition, name).allowed}",
            )
    stated = tuple(
        (each.name, _checked(definition, each, given[each.name]) if each.name in given else each.default)
        for each in definition.parameters
    )
    settled = dict(stated)
    if definition.name == "MAVP" and settled["minperiod"] > settled["maxperiod"]:  # type: ignore[operator]
        raise ParameterOutOfRange(
            "Parameter minperiod of MAVP is out of range", value=settled["minperiod"], remedy="At most maxperiod"
        )
    return stated


def _parameter(definition: Definition, name: str) -> Parameter:
    return next(each for each in definition.parameters if each.name == name)


def _checked(definition: Definition, parameter: Parameter, value: object) -> ParameterValue:
    if parameter.kind == "choice":
        word = value.lower() if isinstance(value, str) else value
        for choice in parameter.choices:
            if not isinstance(word, bool) and word == choice:
                return choice
    elif parameter.kind == "text":
        if isinstance(value, str) and re.fullmatch(parameter.pattern, value):
            return value
    elif isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(_as_float(value)):
        inside = parameter.minimum is not None and parameter.maximum is not None
        if inside and parameter.minimum <= value <= parameter.maximum:  # type: ignore[operator]
            if parameter.kind == "real":
                return float(value) + 0.0
            if float(value).is_integer():
                return int(float(value))
    raise ParameterOutOfRange(
        f"Parameter {parameter.name} of {definition.name} is out of range",
        value=_shown(value),
        remedy=f"Allowed: {parameter.allowed}",
    )


def _shown(value: object) -> object:
    text = repr(value)
    return f"{text[:40]}…" if len(text) > 40 else "None" if value is None else value


def _as_float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _inputs(definition: Definition, given: Sequence[str]) -> tuple[str, ...]:
    if not given:
        return definition.columns
    free = [each for each in definition.inputs if each.free]
    for name in given:
        if name.lower() not in INPUT_COLUMNS:
            raise _unknown(UnknownInput, name, INPUT_COLUMNS, definition.name)
    names = tuple(name.lower() for name in given)
    fixed = definition.columns[len(free) :]
    if names == definition.columns or (len(names) == len(definition.inputs) and names[len(free) :] == fixed):
        return names
    if free and len(names) == len(free):
        return names + fixed
    remedy = f"It always reads {', '.join(definition.columns)}"
    if free:
        remedy = f"It takes {len(free)}, by default {', '.join(each.column for each in free)}"
    raise InvalidFeature(f"{definition.name} cannot take these inputs", value=", ".join(names), remedy=remedy)


def _output(definition: Definition, given: str | None) -> str | None:
    if given is None:
        return None
    output = given.lower()
    if len(definition.outputs) == 1 and output == definition.name.lower():  # as answers call it
        return None
    if output not in definition.outputs:
        raise _unknown(UnknownOutput, given, definition.outputs, definition.name)
    return output if len(definition.outputs) > 1 else None


def _unknown(kind: type[UnknownName], value: str, known: Sequence[str], where: str) -> UnknownName:
    error = kind(value, known)
    error.cause = f"{error.cause} of {where}"
    if not known:
        error.remedy = f"{where} takes none"
    return error
