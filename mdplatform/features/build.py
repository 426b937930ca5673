"""Build a feature's spec of what was said of it: each parameter checked and stated, each name the registry's own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

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
from mdplatform.features.ticks import checked_row_size
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.timeframe import Timeframe


def build(
    name: str,
    numbers: Sequence[int | float],
    named: Mapping[str, Any],
    inputs: Sequence[str],
    output: str | None,
    timeframe: str | None = None,
    symbol: str | None = None,
) -> FeatureSpec:
    """Give the spec of `name` (a function or an alias) with `numbers` in the registry's order, then `named` parameters.

    Raises UnknownFeature, UnknownParameter, UnknownInput, UnknownOutput, UnknownTimeframe, ParameterOutOfRange or
    InvalidFeature; each says what was wrong, in which feature, and what is allowed.
    """
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
    if settled.get("row_size"):
        try:
            checked_row_size(settled["row_size"])
        except ParameterOutOfRange as error:
            error.cause = f"Parameter row_size of {definition.name} is out of range"
            error.remedy = "A decimal of at most 12 digits from 1e-12 to 1e12, such as 0.01, 0.5 or 25"
            raise
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
            if isinstance(word, str | Real) and not isinstance(word, bool) and word == choice:
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
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
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
    if not definition.columns:
        remedy = "It takes no inputs; name parameters, as in MACRO(series=CPIAUCSL)"
    elif free:
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
