"""The kinds of features: each is one module here, named in `KINDS`, that declares its functions and computes them.

A kind's module has

- `DEFINITIONS`, a tuple of `Definition`: its functions, with `kind` set to the module's name. What it declares must
  be light: kernels and their libraries are imported when something is computed;
- `evaluate(specs, grid, data)`, which gives the `Values` of each spec in each row of the grid. It loads what it needs
  from `data` for itself, as far back as its values depend on, and uses for a row only what was available at its close;
- `reads(spec, symbol, timeframe)`, which gives the `Need`s: what its values depend on, so that a stored value is known
  to be old when any of them has changed.

Then whatever names features can name these: `frame`, the readers, composites, the command line; and the battery of
`tests/features/kinds` holds them to its laws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from mdplatform.features.definition import Definition

if TYPE_CHECKING:
    from mdplatform.features.data import Data, Grid, Values
    from mdplatform.features.spec import FeatureSpec
    from mdplatform.market.timeframe import Timeframe

INDICATORS = "indicators"
KINDS: tuple[str, ...] = (INDICATORS, "sentiment", "macro", "flow", "profile", "correlation", "book", "composite")
"""The modules; that of the indicators declares none, for theirs are in the frozen registry."""


class Need(NamedTuple):
    """One input of a feature: a dataset (`bars`, `trades`, `depth`, `macro`, `sentiment`), and the symbol or series.

    The key is empty where the dataset is not told apart by one.
    """

    dataset: str
    key: str


class Kind(Protocol):
    """What a kind's module has."""

    DEFINITIONS: tuple[Definition, ...]

    def evaluate(self, specs: Sequence[FeatureSpec], grid: Grid, data: Data) -> Mapping[FeatureSpec, Values]:
        """Give the values of `specs`, all of this kind, with all their outputs, in each row of `grid`."""
        ...

    def reads(self, spec: FeatureSpec, symbol: str, timeframe: Timeframe) -> frozenset[Need]:
        """Give what the values of `spec` for that symbol and timeframe depend on."""
        ...


@cache
def kind(name: str) -> Kind:
    """Give the kind of that name."""
    return cast(Kind, import_module(f"{__name__}.{name}"))


@cache
def declared() -> dict[str, Definition]:
    """Give the definition of every function that the kinds declare, by name."""
    return {each.name: each for name in KINDS for each in kind(name).DEFINITIONS}
