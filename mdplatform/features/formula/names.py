"""What the names of a formula mean.

A bare name is the first of these that there is, in any case of letters:

1. a named input (its `as`, else its name);
2. an output of one, `NAME_OUTPUT`, or an alias of its function: both take that input's parameters;
3. a feature of the registry with its defaults: a function, an alias, or an output of a function, `FUNCTION_OUTPUT`;
4. a column of the bars;
5. a registered composite, of the version told, else the newest; none can have a name that is one of 3 or 4.

A call is always one of 3. What has several outputs is not a value: one of them must be named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from mdplatform.errors import PlatformError, UnknownName
from mdplatform.features import registry
from mdplatform.features.build import build
from mdplatform.features.formula.nodes import FUNCTIONS, Node, Nodes, RefusedError
from mdplatform.features.registry import ALIASES, INPUT_COLUMNS
from mdplatform.features.spec import FORMULA, FeatureSpec
from mdplatform.market.bars import VALUE_COLUMNS

Lookup: TypeAlias = "Callable[[str, int | None], FeatureSpec | None]"
"""Gives the feature that a composite's name (in capitals) and version stand for; None where nobody registered it."""


class Names:
    """The meanings of one formula's names; `meant` collects what each came out as, as it was written."""

    def __init__(
        self,
        inputs: Mapping[str, FeatureSpec],
        lookup: Lookup,
        nodes: Nodes,
        inline: Callable[[FeatureSpec], Node],
    ) -> None:
        self._inputs = {name.upper(): spec for name, spec in inputs.items()}
        self._lookup = lookup
        self._nodes = nodes
        self._inline = inline
        self.meant: dict[str, str] = {}
        self.composites: set[str] = set()

    def is_feature(self, name: str) -> bool:
        """Tell whether a call of that name would be one of the registry's."""
        return name.upper() in ALIASES or name.upper() in registry.function_names()

    def in_capitals(self, name: str) -> str:
        """Tell of the registry's feature that has a function's name, to who may have meant that."""
        return f"; in capitals, {name.upper()} is TA-Lib's" if self.is_feature(name) else ""

    def bare(self, name: str, version: int | None) -> Node:
        """Give what a name stands for by itself. Raises `RefusedError`, or what the registry raises."""
        upper = name.upper()
        if version is not None:
            spec = self._composite(upper, version)
            if spec is None:
                raise RefusedError(f"Nobody registered a composite {upper}:{version}", "`mdplatform formula list`")
        else:
            spec = self._input(upper) or self._registered(upper)
        if spec is None and name.lower() in VALUE_COLUMNS:
            self.meant[name] = name.lower()
            return self._nodes.column(name.lower())
        spec = spec or self._composite(upper, None)
        if spec is None:
            raise self._unknown(name)
        return self._node(name if version is None else f"{name}:{version}", spec)

    def function_of(self, name: str) -> tuple[str, str | None]:
        """Give the function, and the output of it, that a call of that name is of. Raises `RefusedError`."""
        upper = name.upper()
        found = (upper, None) if self.is_feature(name) else output_of(upper)
        if found is not None:
            return found
        if upper in self._inputs or name.lower() in VALUE_COLUMNS or self._lookup(upper, None) is not None:
            raise RefusedError(f"{name} takes no arguments", "Write the name alone")
        raise self._unknown(name)

    def call(self, name: str, columns: Sequence[str], numbers: Sequence[int | float], named: Mapping[str, Any]) -> Node:
        """Give a feature of the registry with its parameters. Raises `RefusedError`, or what the registry raises."""
        function, output = self.function_of(name)
        try:
            spec = build(function, numbers, named, columns, output)
        except PlatformError as error:
            if name.lower() in FUNCTIONS:
                error.remedy += f". In small letters, `{name.lower()}` is the function of formulas"
            raise
        given = ",".join([*columns, *map(str, numbers), *(f"{key}={value}" for key, value in named.items())])
        return self._node(f"{name}({given})", spec)

    def _input(self, upper: str) -> FeatureSpec | None:
        if upper in self._inputs:
            return self._inputs[upper]
        found: dict[FeatureSpec, str] = {}
        alias = ALIASES.get(upper)
        for key, spec in self._inputs.items():
            if spec.output is not None or spec.name == FORMULA:
                continue
            if alias is not None and alias.function == spec.name and alias.inputs in ((), spec.inputs):
                given = {each: value for each, value in spec.arguments.items() if each not in alias.fixed}
                made = build(upper, (), given, () if alias.inputs else spec.inputs, None)
                found[made.placed(spec.symbol, spec.timeframe)] = key
            for prefix in (key, spec.name):
                output = upper.removeprefix(f"{prefix}_").lower()
                if upper.startswith(f"{prefix}_") and len(spec.outputs) > 1 and output in spec.outputs:
                    made = build(spec.name, (), spec.arguments, spec.inputs, output)
                    found[made.placed(spec.symbol, spec.timeframe)] = key
        if len(found) > 1:
            raise RefusedError(
                f"{upper} could be of {' or '.join(found.values())}",
                "Name an output by the input's own name, as in FAST_MACDHIST for an input with `as: FAST`",
            )
        return next(iter(found), None)

    def _composite(self, upper: str, version: int | None) -> FeatureSpec | None:
        spec = self._lookup(upper, version)
        if spec is not None:
            self.composites.add(upper)
        return spec

    def _registered(self, upper: str) -> FeatureSpec | None:
        if self.is_feature(upper):
            return build(upper, (), {}, (), None)
        found = output_of(upper)
        return None if found is None else build(found[0], (), {}, (), found[1])

    def _node(self, written: str, spec: FeatureSpec) -> Node:
        if len(spec.outputs) > 1:
            outputs = ", ".join(f"{spec.name}_{each.upper()}" for each in spec.outputs)
            raise RefusedError(f"{spec.name} has {len(spec.outputs)} outputs", f"Name one of them: {outputs}")
        place = spec.symbol is not None or spec.timeframe is not None
        node = self._inline(spec) if spec.name == FORMULA and not place else self._nodes.feature(spec)
        self.meant[written] = node.text
        return node

    def _unknown(self, name: str) -> RefusedError:
        known = (*self._inputs, *registry.function_names(), *ALIASES, *VALUE_COLUMNS, *FUNCTIONS)
        near = UnknownName(name[:40], known).remedy
        return RefusedError(f"Unknown name {name[:40]!r}", near)


def output_of(upper: str) -> tuple[str, str] | None:
    """Give the function and the output that a name such as `BBANDS_UPPERBAND` stands for.

    >>> output_of("MACD_MACDHIST"), output_of("MACD_X")
    (('MACD', 'macdhist'), None)
    """
    known = registry.function_names()
    for place, character in enumerate(upper):
        if character == "_" and upper[:place] in known:
            output = upper[place + 1 :].lower()
            if output in registry.definition(upper[:place]).outputs:
                return upper[:place], output
    return None


def is_reserved(name: str) -> bool:
    """Tell whether a name means something to every formula, so that no composite can have it."""
    upper, lower = name.upper(), name.lower()
    words = (*FUNCTIONS, *INPUT_COLUMNS, "and", "or", "not", FORMULA.lower())
    return upper in registry.function_names() or upper in ALIASES or output_of(upper) is not None or lower in words
