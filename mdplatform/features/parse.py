"""Read a feature as people write it, `rsi(period=14)` or `{"name": "RSI", "parameters": {"period": 14}}`, into a spec.

A text of one name, with its parameters and its output, is a feature (`feature_text`), unless the name is one of the
functions of formulas, in small letters, or in any where the registry has none of it. Any other text, and a mapping with
`formula`, is a formula (`features.formula`); what it stands for is a feature like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from mdplatform.errors import InvalidFeature, PlatformError, UnknownFeature
from mdplatform.features import composites, registry
from mdplatform.features.build import build
from mdplatform.features.feature_text import EXAMPLE, read_feature_text
from mdplatform.features.formula.names import Lookup, output_of
from mdplatform.features.formula.nodes import FUNCTIONS, Node, RefusedError, as_spec
from mdplatform.features.formula.parser import Parser, no_composites
from mdplatform.features.formula.tokens import MAXIMUM_LENGTH, point, refusal, shortened, tokens
from mdplatform.features.registry import ALIASES
from mdplatform.features.spec import FORMULA, FeatureSpec
from mdplatform.market.bars import VALUE_COLUMNS
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.timeframe import Timeframe

FeatureLike: TypeAlias = "str | Mapping[str, Any] | FeatureSpec"

_KEYS = ("name", "parameters", "inputs", "output", "timeframe", "symbol")
_FORMULA_KEYS = ("formula", "input_indicators", "timeframe", "symbol")
_DEEPEST = 32
_SHAPE = re.compile(
    r"\s*([A-Za-z_][A-Za-z0-9_]{0,63})\s*(?:\([^()]*\)\s*)?(?:\.\s*[A-Za-z_][A-Za-z0-9_]*\s*)?", re.ASCII
)


def parse_feature(given: FeatureLike) -> FeatureSpec:
    """Give the spec of a feature told as text, as a mapping, or as a spec already.

    A mapping has `name` and, where they are wanted, `parameters` (a mapping), `inputs` (a column or a list of them),
    `output`, `timeframe` and `symbol`. Names and parameters may be the registry's or an alias, in any case. A mapping
    with `formula` has `input_indicators`, where they are wanted: a list of features, each with the name by which the
    formula uses it, or with another one as `as`. Names of registered composites stand for what they were registered as.

    Raises UnknownFeature, UnknownParameter, UnknownInput, UnknownOutput, UnknownTimeframe, ParameterOutOfRange or
    InvalidFeature; each says what was wrong, in which feature, and what is allowed. What is wrong in a formula is an
    InvalidFormula, which points at the place.

    >>> parse_feature("rsi(period=14)") == parse_feature({"name": "RSI", "parameters": {"timeperiod": 14}})
    True
    >>> str(parse_feature("PRICE_STD(period=20)")), str(parse_feature("MACD_HISTOGRAM(fast=12)"))
    ('STDDEV(timeperiod=20,nbdev=1)', 'MACD(fastperiod=12,slowperiod=26,signalperiod=9).macdhist')
    >>> str(parse_feature({"formula": "(R - 50) / 50", "input_indicators": [{"name": "RSI", "as": "R"}]}))
    '(RSI(timeperiod=14)-50)/50'
    """
    if isinstance(given, str):
        if len(given) > MAXIMUM_LENGTH:
            tokens(given)  # refuses it
        return _fixed(given) or _from_text(given, composites.lookup)
    return _read(given, composites.lookup)


def parse_features(given: Iterable[FeatureLike] | FeatureLike) -> tuple[FeatureSpec, ...]:
    """Give the specs of one feature or of many, each once. Raises what `parse_feature` raises."""
    if isinstance(given, str | Mapping | FeatureSpec):
        given = [given]
    if not isinstance(given, Iterable):
        raise InvalidFeature("Not a feature, nor a list of them", value=_shown(given), remedy=EXAMPLE)
    return tuple(dict.fromkeys(parse_feature(each) for each in given))


@lru_cache(maxsize=4096)
def canonical_formula(text: str) -> FeatureSpec:
    """Give the spec of a canonical text, which names no composites. Raises `InvalidFormula`."""
    return as_spec(Parser(text, {}, no_composites).parse())


def refuse_nesting(given: object) -> None:
    """Raise `InvalidFeature` for mappings and lists in one another that nest deeper than any feature's do."""
    level = [given]
    for _ in range(_DEEPEST):
        inside: dict[int, object] = {}
        for each in level:
            if isinstance(each, Mapping):
                inside.update((id(value), value) for value in each.values())
            elif isinstance(each, list | tuple):
                inside.update((id(value), value) for value in each)
        if not inside:
            return
        level = list(inside.values())
    raise InvalidFeature("A feature of features that nest too deep", remedy="Register parts of it as composites")


def parse_formula(
    text: str, input_indicators: Sequence[FeatureLike] = (), lookup: Lookup | None = None
) -> tuple[Node, Parser]:
    """Read a text as a formula, even where it could be a feature too; give its node, and the parser with its names.

    Raises `InvalidFormula`, and for inputs what `parse_feature` raises.
    """
    refuse_nesting(input_indicators)
    known = lookup or composites.lookup
    parser = Parser(text, _named_inputs(input_indicators, known), known)
    return parser.parse(), parser


@lru_cache(maxsize=4096)
def _fixed(text: str) -> FeatureSpec | None:
    """Give the spec of a text that means the same for ever; None of one with composites, whose newest version may."""
    used: list[str] = []

    def lookup(name: str, version: int | None) -> FeatureSpec | None:
        spec = composites.lookup(name, version)
        if spec is not None:
            used.append(name)
        return spec

    spec = _from_text(text, lookup)
    return None if used else spec


def _read(given: object, lookup: Lookup) -> FeatureSpec:
    if isinstance(given, str):
        return _from_text(given, lookup)
    if isinstance(given, FeatureSpec):
        return _from_spec(given)
    if isinstance(given, Mapping):
        refuse_nesting(given)
        return _from_mapping(given, lookup)
    raise InvalidFeature("A feature is a text, a mapping or a FeatureSpec", value=_shown(given), remedy=EXAMPLE)


def _from_text(text: str, lookup: Lookup) -> FeatureSpec:
    shape = _SHAPE.fullmatch(text)
    column = 0 if shape is None else shape.start(1) + 1
    try:
        spec = None if shape is None or _is_of_formulas(shape[1], lookup) else _as_feature(text, shape[1])
    except RefusedError as refused:
        raise refusal(text, column, refused.cause, refused.remedy) from None
    except PlatformError as error:
        point(error, text, column)
        raise
    return as_spec(Parser(text, {}, lookup).parse()) if spec is None else spec


def _is_of_formulas(name: str, lookup: Lookup) -> bool:
    """Tell whether a name is one of formulas: a function in small letters, or what the registry has not."""
    upper = name.upper()
    if name in FUNCTIONS:
        return True
    if upper in ALIASES or upper in registry.function_names():
        return False
    known = name.lower() in (*FUNCTIONS, *VALUE_COLUMNS) or output_of(upper) is not None
    return known or lookup(upper, None) is not None


def _as_feature(text: str, name: str) -> FeatureSpec | None:
    """Give the feature that a text of one name is; None where it is to be read as a formula."""
    try:
        return read_feature_text(text)
    except UnknownFeature:
        raise _unknown(name) from None


@lru_cache(maxsize=4096)
def _from_spec(spec: FeatureSpec) -> FeatureSpec:
    if spec.name == FORMULA:
        return canonical_formula(str(spec)).placed(spec.symbol, spec.timeframe)
    return build(spec.name, (), spec.arguments, spec.inputs, spec.output, spec.timeframe, spec.symbol)


def _from_mapping(given: Mapping[str, Any], lookup: Lookup) -> FeatureSpec:
    allowed = _FORMULA_KEYS if "formula" in given else _KEYS
    unknown = [key for key in given if key not in allowed]
    if unknown or not isinstance(given.get(allowed[0]), str):
        problem = f"Unknown key of a feature: {unknown[0]!r}" if unknown else f"A feature needs a {allowed[0]}"
        raise InvalidFeature(problem, value=dict(given), remedy=f"Allowed keys: {', '.join(allowed)}")
    output, timeframe, symbol = (given.get(key) for key in ("output", "timeframe", "symbol"))
    if not all(isinstance(each, str | None) for each in (output, timeframe, symbol)):
        raise InvalidFeature("Output, timeframe and symbol are texts", value=dict(given), remedy=EXAMPLE)
    if "formula" in given:
        node = Parser(given["formula"], _named_inputs(given.get("input_indicators") or (), lookup), lookup).parse()
        return _placed(as_spec(node), symbol, timeframe, given["formula"])
    parameters = given.get("parameters") or {}
    inputs = given.get("inputs") or ()
    inputs = (inputs,) if isinstance(inputs, str) else inputs
    if not isinstance(parameters, Mapping) or not all(isinstance(each, str) for each in parameters):
        raise InvalidFeature("Parameters are not a mapping of names to values", value=parameters, remedy=EXAMPLE)
    if not isinstance(inputs, Sequence) or not all(isinstance(each, str) for each in inputs):
        raise InvalidFeature("Inputs are not a list of column names", value=inputs, remedy=EXAMPLE)
    name = given["name"]
    if name.upper() == FORMULA:
        text = parameters.get("text")
        if set(parameters) != {"text"} or not isinstance(text, str) or inputs or output:
            raise InvalidFeature(f"{FORMULA} takes one parameter, text", value=dict(given), remedy=EXAMPLE)
        return _placed(as_spec(Parser(text, {}, lookup).parse()), symbol, timeframe, text)
    picked = output_of(name.upper())
    if name.upper() in ALIASES or name.upper() in registry.function_names():
        return build(name, (), parameters, inputs, output, timeframe, symbol)
    if picked is not None and output is None:
        return build(picked[0], (), parameters, inputs, picked[1], timeframe, symbol)
    if parameters or inputs or output or not re.fullmatch(r"\s*\w+\s*(:\s*\d+\s*)?", name, re.ASCII):
        raise _unknown(name)
    return _placed(_from_text(name, lookup), symbol, timeframe, name)


def _named_inputs(given: object, lookup: Lookup) -> dict[str, FeatureSpec]:
    """Give the inputs of a formula by the names that it may use."""
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise InvalidFeature("input_indicators is not a list of features", value=given, remedy=EXAMPLE)
    named: dict[str, FeatureSpec] = {}
    for each in given:
        name = each.get("as", each.get("name")) if isinstance(each, Mapping) else None
        if isinstance(each, str):
            shape = _SHAPE.match(each)
            name = shape[1] if shape else None
        elif isinstance(each, FeatureSpec):
            name = each.name
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
            raise InvalidFeature(
                "An input of a formula needs a name",
                value=name or each,
                remedy="Give it one: {'as': 'FAST', 'name': …}",
            )
        if isinstance(each, Mapping):
            each = {key: value for key, value in each.items() if key != "as"}
        spec = _read(each, lookup)
        if name.lower() in (*FUNCTIONS, "and", "or", "not"):
            raise InvalidFeature("An input has the name of a function", value=name, remedy="Give it another by `as`")
        if named.setdefault(name.upper(), spec) != spec:
            raise InvalidFeature("Two inputs of a formula have one name", value=name, remedy="Give one another by `as`")
    return named


def _placed(spec: FeatureSpec, symbol: str | None, timeframe: str | None, text: str) -> FeatureSpec:
    if (symbol and spec.symbol) or (timeframe and spec.timeframe):
        raise refusal(text, 1, "It has a symbol or a timeframe of its own", "Name each once")
    length = Timeframe.parse(timeframe) if timeframe is not None else spec.timeframe
    return spec.placed(parse_symbol(symbol) if symbol is not None else spec.symbol, length)


def _unknown(name: str) -> UnknownFeature:
    return UnknownFeature(name, (*registry.function_names(), *ALIASES, *VALUE_COLUMNS, *composites.names()))


def _shown(given: object) -> str:
    """Tell what was given instead of a feature: containers, which may be large or deep, by their type."""
    return type(given).__name__ if isinstance(given, Iterable) else shortened(repr(given)).strip("'")
