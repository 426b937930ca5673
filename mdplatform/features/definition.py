"""What the registry states of one function: inputs, parameters with their ranges, outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

ParameterValue: TypeAlias = int | float | str

MOVING_AVERAGES = {
    0: "SMA",
    1: "EMA",
    2: "WMA",
    3: "DEMA",
    4: "TEMA",
    5: "TRIMA",
    6: "KAMA",
    7: "MAMA",
    8: "T3",
    9: "HMA",
    10: "none",
    12: "ZLEMA",
    13: "RMA",
}
"""TA-Lib's numbers for a `matype`. 11, "the function's own default", is left out: it would hide what is computed."""

ANCHORS = ("day", "week", "month", "year")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter: `kind` is `integer`, `real`, `choice` or `text`; a choice has `choices`, numbers a closed range.

    A text matches the regular expression `pattern` whole; `meaning` says in words what is allowed.
    """

    name: str
    kind: str
    default: ParameterValue
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[ParameterValue, ...] = ()
    pattern: str = ""
    meaning: str = ""

    @property
    def allowed(self) -> str:
        """Say what values are allowed."""
        if self.kind == "text":
            return self.meaning
        if self.kind != "choice":
            noun = "an integer" if self.kind == "integer" else "a number"
            return f"{noun} from {self.minimum:g} to {self.maximum:g}"
        if self.name.endswith("matype"):
            return "one of " + ", ".join(f"{each} ({MOVING_AVERAGES[int(each)]})" for each in self.choices)
        return "one of " + ", ".join(str(each) for each in self.choices)


@dataclass(frozen=True, slots=True)
class Input:
    """An input: the column that it is by default, and whether another may be named in its place (`free`)."""

    column: str
    free: bool


@dataclass(frozen=True, slots=True)
class Definition:
    """A function of the registry. One that `is_cumulative` sums since its `anchor`, which is its last parameter.

    `kind` is the module of `features.kinds` that computes it, and `engine` names what does, with a version that
    changes when its values do; it is part of every identity. `lengths` gives lookback and settle of its arguments in
    rows, where the function is one of rows. A text that is `required` has no default: it must be given.
    """

    name: str
    title: str
    group: str
    is_cumulative: bool
    inputs: tuple[Input, ...]
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]
    fixed_lookback: int | None = None
    kind: str = "indicators"
    engine: str = ""
    lengths: Callable[[Mapping[str, Any]], tuple[int, int]] | None = None
    required: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The default input columns."""
        return tuple(each.column for each in self.inputs)

    @property
    def defaults(self) -> dict[str, ParameterValue]:
        """The value of each parameter where none is given."""
        return {each.name: each.default for each in self.parameters}
