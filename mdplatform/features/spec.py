"""A feature's declaration: which function, with which parameters, on which inputs; its canonical text and identity."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b

from mdplatform.features import lengths, registry
from mdplatform.features.definition import Definition, ParameterValue
from mdplatform.market.timeframe import Timeframe

FORMULA = "FORMULA"
"""The name of features that are formulas; their canonical text is the formula, resolved in full."""
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class FeatureSpec:
    """A feature, declared in full; made by `parse_feature`, which checks it.

    `parameters` states every parameter, in the registry's order; `inputs` names every input column; `output` is the one
    output picked, or None for all; `timeframe` and `symbol` are None where they are told elsewhere.

    >>> from mdplatform.features import parse_feature
    >>> spec = parse_feature("macd(fast=8)")
    >>> str(spec), spec.lookback, spec.settle
    ('MACD(fastperiod=8,slowperiod=26,signalperiod=9)', 33, 484)
    >>> spec.columns[2]
    'MACD(fastperiod=8,slowperiod=26,signalperiod=9).macdhist'
    """

    name: str
    parameters: tuple[tuple[str, ParameterValue], ...]
    inputs: tuple[str, ...]
    output: str | None = None
    timeframe: Timeframe | None = None
    symbol: str | None = None

    def __hash__(self) -> int:
        return hash(
            (self.canonical, self.timeframe, self.symbol)
        )  # quicker than to hash the fields, since a text keeps its hash

    def __str__(self) -> str:
        return self.canonical

    @cached_property
    def canonical(self) -> str:
        """The text that names this feature, and no other, within a timeframe."""
        return f"{self._call}.{self.output}" if self.output else self._call

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of its output columns: the canonical text, with the output's name where there are several."""
        if len(self.definition.outputs) == 1:
            return (self._call,)
        return tuple(f"{self._call}.{each}" for each in self.outputs)

    @cached_property
    def place(self) -> str:
        """What follows its names where it is of another symbol or timeframe than its row: `@ETHUSDT@1h`, or nothing."""
        return "".join(f"@{each}" for each in (self.symbol, self.timeframe) if each)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The function's outputs that the feature has: the one picked, or all."""
        return (self.output,) if self.output else self.definition.outputs

    @property
    def definition(self) -> Definition:
        """What the registry states of the function."""
        return registry.definition(self.name)

    @property
    def arguments(self) -> dict[str, ParameterValue]:
        """The parameters as a new dictionary."""
        return dict(self.parameters)

    @cached_property
    def lookback(self) -> int:
        """Rows before the first value."""
        return lengths.lookback(self.definition, self.arguments)

    @cached_property
    def settle(self) -> int:
        """Rows after the first value until none depends on where history began; 0 where there is an anchor."""
        return lengths.settle(self.definition, self.arguments)

    @property
    def anchor(self) -> str | None:
        """The UTC period (`day` to `year`) at whose start a cumulative feature begins anew, else None."""
        return str(self.arguments["anchor"]) if self.definition.is_cumulative else None

    @property
    def whole(self) -> FeatureSpec:
        """The same feature with all outputs, and neither timeframe nor symbol: what is computed, once, for all."""
        if self.output is None and self.timeframe is None and self.symbol is None:
            return self
        return replace(self, output=None, timeframe=None, symbol=None)

    def placed(self, symbol: str | None, timeframe: Timeframe | None) -> FeatureSpec:
        """Give the same feature of that symbol and timeframe, None where they are told elsewhere."""
        return replace(self, symbol=symbol, timeframe=timeframe)

    def at(self, timeframe: Timeframe | str | None) -> FeatureSpec:
        """Give the same feature in that timeframe."""
        return replace(self, timeframe=None if timeframe is None else Timeframe.parse(timeframe))

    @cached_property
    def id(self) -> str:
        """Sixteen hexadecimal digits that stand for all of it and the engine's version, the same in every process."""
        timeframe = None if self.timeframe is None else self.timeframe.value
        told = json.dumps(
            [self._call, self.inputs, self.output, timeframe, self.definition.engine]
            + ([self.symbol] if self.symbol else [])
            + ([[each.id for each in formula_parts(self._call)]] if self.name == FORMULA else [])
        )
        return blake2b(told.encode(), digest_size=8).hexdigest()

    @cached_property
    def _call(self) -> str:
        if self.name == FORMULA:
            text = str(self.arguments["text"])
            return text if self.place == "" or _is_one_part(text) else f"({text})"
        named = () if self.inputs == self.definition.columns else self.inputs[: _free_count(self.definition)]
        given = (f"{name}={value_text(value)}" for name, value in self.parameters)
        told = ",".join((*named, *given))
        return f"{self.name}({told})" if told else self.name


def formula_parts(text: str) -> tuple[FeatureSpec, ...]:
    """Give the features that a formula is made of."""
    from mdplatform.features.formula.program import compiled  # which is made of specs itself

    return compiled(text).features


def _is_one_part(text: str) -> bool:
    """Tell whether a place after a formula's text would be the whole formula's: a name, a call, or in parentheses.

    >>> _is_one_part("log(close)"), _is_one_part("(close)*(open)")
    (True, False)
    """
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and not (character.islower() or character == "_"):
            return character == ")" and place == len(text) - 1
    return True


def _free_count(definition: Definition) -> int:
    return sum(each.free for each in definition.inputs)


def value_text(value: ParameterValue) -> str:
    """Write a parameter's value so that equal values have one text: 2.0 as `2`, else the shortest exact decimal.

    A text that is no plain word stands in quotes.

    >>> value_text(2.0), value_text(0.02), value_text("month"), value_text("BTC-USD")
    ('2', '0.02', 'month', '"BTC-USD"')
    """
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str):
        return value if _WORD.fullmatch(value) else f'"{value}"'
    return repr(value)
