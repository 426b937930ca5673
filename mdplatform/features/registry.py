"""The registry: every function that a feature may name, and the aliases that strategies write.

It is read from the frozen file `talib_functions.json` (see `generate.py`), never from the library, so that a feature's
meaning does not move when the library does, and reading a feature's text needs no library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from mdplatform.errors import UnknownFeature
from mdplatform.features.definition import ANCHORS, Definition, Input, Parameter, ParameterValue
from mdplatform.features.kinds import declared
from mdplatform.market.bars import VALUE_COLUMNS

CUMULATIVE = frozenset(["AD", "CUMSUM", "NVI", "OBV", "PVI", "PVT", "VWAP", "WAD"])
"""They sum since history began and never settle, so each has an `anchor` at which it starts anew."""

INPUT_COLUMNS = (*VALUE_COLUMNS, "periods")
"""Columns that an input may name. `periods` is MAVP's, which bars do not have: the caller's table brings it."""

PARAMETER_ALIASES = MappingProxyType(
    {"period": "timeperiod", "fast": "fastperiod", "slow": "slowperiod", "signal": "signalperiod"}
)
"""Friendly names of parameters, for the functions that have the parameter on the right."""


@dataclass(frozen=True, slots=True)
class Alias:
    """A friendly name of a function, with the parameters it fixes, the inputs it names and the output it picks."""

    function: str
    fixed: Mapping[str, ParameterValue] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    output: str | None = None


ALIASES: Mapping[str, Alias] = MappingProxyType(
    {
        "MACD_HISTOGRAM": Alias("MACD", output="macdhist"),
        "PRICE_STD": Alias("STDDEV", fixed={"nbdev": 1}, inputs=("close",)),
    }
)


def function_names() -> tuple[str, ...]:
    """Give the name of every function of every kind, sorted; aliases are in `ALIASES`."""
    return tuple(_definitions())


def indicator_names() -> tuple[str, ...]:
    """Give the name of every technical indicator, sorted."""
    return tuple(_frozen()["functions"])


def definition(name: str) -> Definition:
    """Give what the registry states of the function `name` (upper case, no alias).

    >>> definition("RSI").parameters[0].allowed
    'an integer from 2 to 100000'
    >>> definition("RSY")
    Traceback (most recent call last):
    mdplatform.errors.UnknownFeature: Unknown feature: 'RSY'. Nearest known: RSI
    """
    try:
        return _definitions()[name]
    except KeyError:
        raise UnknownFeature(name, (*_definitions(), *ALIASES)) from None


def engine() -> str:
    """Give the indicators' engine and its version, which is part of the identity of each."""
    return str(_frozen()["engine"])


@cache
def _frozen() -> dict[str, Any]:
    text = resources.files("mdplatform.features").joinpath("talib_functions.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


@cache
def _definitions() -> Mapping[str, Definition]:
    indicators = {name: _as_definition(name, form) for name, form in _frozen()["functions"].items()}
    return MappingProxyType(dict(sorted({**indicators, **declared()}.items())))


def _as_definition(name: str, form: Mapping[str, Any]) -> Definition:
    parameters = [
        Parameter(
            name=each["name"],
            kind=each["kind"],
            default=each["default"],
            minimum=each.get("minimum"),
            maximum=each.get("maximum"),
            choices=tuple(each.get("choices", ())),
        )
        for each in form["parameters"]
    ]
    if name in CUMULATIVE:
        parameters.append(Parameter(name="anchor", kind="choice", default="month", choices=ANCHORS))
    return Definition(
        name=name,
        title=form["title"],
        group=form["group"],
        is_cumulative=name in CUMULATIVE,
        inputs=tuple(Input(each["column"], each["free"]) for each in form["inputs"]),
        parameters=tuple(parameters),
        outputs=tuple(form["outputs"]),
        fixed_lookback=form.get("lookback"),
        engine=engine(),
    )
