"""The catalogue: what can be asked for, from the registry itself, so that it says what is so."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from mdplatform import __version__
from mdplatform.errors import PlatformError, UnknownFeature, UnknownName
from mdplatform.features.catalogue import standing_catalogue
from mdplatform.features.composites import Composite, names, standing_composites
from mdplatform.features.definition import Definition, Parameter
from mdplatform.features.formula.nodes import DEEPEST, FUNCTIONS, LONGEST_WINDOW, MOST_NODES
from mdplatform.features.formula.operations import GREATEST_POWER
from mdplatform.features.formula.tokens import MAXIMUM_LENGTH
from mdplatform.features.guard import STATUSES
from mdplatform.features.kinds import KINDS
from mdplatform.features.parse import parse_feature
from mdplatform.features.registry import ALIASES, PARAMETER_ALIASES, definition, function_names
from mdplatform.market.bars import VALUE_COLUMNS
from mdplatform.market.timeframe import Timeframe
from mdplatform.messaging.priority import DataPriority
from mdplatform.requests import fields
from mdplatform.requests.checking import Common
from mdplatform.requests.making import MAKERS
from mdplatform.requests.request import Refresh

_SHORT = {alias: name for name, alias in PARAMETER_ALIASES.items()}


class UnknownKind(UnknownName):
    """A kind of features that there is not."""

    kind = "kind"


def catalogue(kind: str | None = None, name: str | None = None) -> dict[str, Any]:
    """Tell what can be asked for; of the features those of a kind or a name. Raises for unknown ones."""
    if kind is not None and kind not in KINDS:
        raise _at("kind", UnknownKind(kind, KINDS))
    chosen = function_names()
    if name is not None:
        chosen = (_function(name),)
    told = [each for each in map(_told, chosen) if kind in (None, each["kind"])]
    if name is not None and not told:
        raise _at("name", UnknownFeature(name, [each for each in function_names() if definition(each).kind == kind]))
    return {**_frame(), "features": told}


@cache
def _frame() -> dict[str, Any]:
    standing = standing_catalogue()
    return {
        "version": __version__,
        "types": {kind.value: _type(kind.value) for kind in MAKERS},
        "common_fields": sorted(Common.__annotations__),
        "timeframes": [each.value for each in Timeframe],
        "priorities": [{"name": each.value, "target_ms": each.target_seconds * 1000} for each in DataPriority],
        "refresh": [each.value for each in Refresh],
        "statuses_of_rows": list(STATUSES),
        "kinds": list(KINDS),
        "aliases": {alias: str(parse_feature(alias)) for alias in ALIASES},
        "parameter_aliases": dict(PARAMETER_ALIASES),
        "composites": [_composite(each) for each in standing_composites()],
        "materialized": {
            "timeframes": [each.value for each in standing.timeframes],
            "features": [str(each) for each in standing.features],
        },
        "formula": {
            "functions": [{"name": each, "arguments": list(count)} for each, count in FUNCTIONS.items()],
            "operators": ["+", "-", "*", "/", "**", "<", "<=", ">", ">=", "==", "!=", "and", "or", "not"],
            "columns": list(VALUE_COLUMNS),
            "limits": {
                "characters": MAXIMUM_LENGTH,
                "depth": DEEPEST,
                "nodes": MOST_NODES,
                "window": LONGEST_WINDOW,
                "power": GREATEST_POWER,
            },
        },
        "limits": {
            "symbols": fields.MOST_SYMBOLS,
            "features": fields.MOST_FEATURES,
            "parts": fields.MOST_PARTS,
            "latest": fields.MOST_LATEST,
            "rows": fields.MOST_ROWS,
            "deadline_seconds": fields.LONGEST_DEADLINE_SECONDS,
        },
    }


def _type(kind: str) -> dict[str, Any]:
    """Tell of a type of requests what it takes, from the function that makes it."""
    maker = MAKERS[next(each for each in MAKERS if each.value == kind)]
    own = [each for each in inspect.signature(maker).parameters.values() if each.kind is not each.VAR_KEYWORD]
    return {
        "title": (inspect.getdoc(maker) or "").partition("\n\n")[0].replace("\n", " "),
        "required": [each.name for each in own if each.default is each.empty],
        "optional": [each.name for each in own if each.default is not each.empty],
    }


@cache
def _told(name: str) -> dict[str, Any]:
    one = definition(name)
    told: dict[str, Any] = {
        "name": one.name,
        "title": one.title,
        "kind": one.kind,
        "group": one.group,
        "inputs": list(one.columns),
        "parameters": [_parameter(each, one) for each in one.parameters],
        "outputs": list(one.outputs),
        "canonical": None,
        "lookback": None,
        "settle": None,
        "engine": one.engine,
    }
    if not one.required:
        spec = parse_feature({"name": name})
        told.update(canonical=str(spec), lookback=spec.lookback, settle=spec.settle)
    return told


def _parameter(one: Parameter, of: Definition) -> dict[str, Any]:
    required = one.name in of.required
    told: dict[str, Any] = {
        "name": one.name,
        "kind": one.kind,
        "required": required,
        "default": None if required else one.default,
        "allowed": one.allowed,
    }
    if one.name in _SHORT:
        told["alias"] = _SHORT[one.name]
    if one.choices:
        told["choices"] = list(one.choices)
    if one.minimum is not None:
        told.update(minimum=one.minimum, maximum=one.maximum)
    return told


def _composite(one: Composite) -> dict[str, Any]:
    return {"name": one.name, "version": one.version, "formula": one.formula, "title": one.title}


def _function(name: str) -> str:
    """Give the function that a name stands for: its own, in any case, or an alias's."""
    upper = name.strip().upper()
    if upper in ALIASES:
        return ALIASES[upper].function
    if upper in function_names():
        return upper
    raise _at("name", UnknownFeature(name, (*function_names(), *ALIASES, *names())))


def _at(field: str, error: PlatformError) -> PlatformError:
    error.field = field
    return error
