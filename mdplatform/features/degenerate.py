"""Where a formula has no answer (0 / 0, as for RSI of a flat price) but the library gives a number all the same.

`_RULES` tells, for each function that does so, what makes its denominator vanish: for how many rows which inputs are

- `still`: each keeps its value;
- `flat`: all have one value, and keep it (a range or true range of zero);
- `level`: all have one value within each row;
- `zero`: they are 0.

A window function is undefined where that holds for its whole window. A recursive one forgets slowly, so its ratio stays
defined for a while after prices have come to rest; it is undefined where its window is at rest and it gives the value
that the library gives for 0 / 0, and in any case after a rest of a quarter of its settle: from there on the value would
hang on rows older than those that are loaded for it, and differ from one partition to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.guard import DEGENERATE, DIVISION_BY_ZERO
from mdplatform.features.lengths import average_lookback
from mdplatform.features.spec import FeatureSpec

Floats: TypeAlias = NDArray[np.float64]
Length: TypeAlias = Callable[[Mapping[str, Any]], int]

_NEAR = 1e-9


class HasRuns(Protocol):
    """Bars that know for how many rows columns have been `still`, `flat`, `level` or `zero`."""

    def runs(self, kind: str, columns: tuple[str, ...]) -> Runs:
        """Give the runs of rows in which the columns are of that kind."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """`inputs` (their places) of one `kind` for `window` rows, ending `shift` rows before the one that is undefined.

    `spread` is the number of rows that average an undefined one in; `made_up` is what the library gives for 0 / 0 where
    other values are good ones, or None where none is. `status` is DIVISION_BY_ZERO where what is divided is not 0 too.
    """

    kind: str
    inputs: tuple[int, ...]
    window: Length
    spread: Length = lambda _: 0
    shift: Length = lambda _: 0
    made_up: float | None = None
    status: int = DEGENERATE


def _one(_: Mapping[str, Any]) -> int:
    return 1


def _period(given: Mapping[str, Any]) -> int:
    return int(given["timeperiod"])


def _period_and_one(given: Mapping[str, Any]) -> int:
    return int(given["timeperiod"]) + 1


def _fast_k(given: Mapping[str, Any]) -> int:
    return int(given["fastk_period"])


def _smoothing(*lines: str) -> Length:
    return lambda given: sum(average_lookback(given[f"{each}_matype"], given[f"{each}_period"]) for each in lines)


def _recursive(kind: str, *inputs: int, made_up: float = 0.0, window: Length = _period_and_one) -> _Rule:
    return _Rule(kind, inputs, window, made_up=made_up)


_HILBERT = _Rule("still", (0,), lambda _: 32)
_CHANGE = _Rule("zero", (0,), _one, shift=_period, status=DIVISION_BY_ZERO)
_RULES: dict[str, _Rule | tuple[_Rule, ...]] = {
    "ADX": _recursive("still", 0, 1, window=lambda given: 2 * given["timeperiod"]),
    "ADXR": _recursive("still", 0, 1, window=lambda given: 2 * given["timeperiod"]),
    "BETA": _Rule("still", (0,), _period_and_one),
    "BOP": _Rule("flat", (1, 2), _one),
    "CCI": _Rule("still", (0, 1, 2), _period),
    "CMF": _Rule("zero", (3,), _period),
    "CMO": _recursive("still", 0),
    "CMOU": _Rule("still", (0,), _period_and_one),
    "CORREL": (_Rule("still", (0,), _period), _Rule("still", (1,), _period)),
    "CVI": _recursive("level", 0, 1, window=lambda given: given["timeperiod"] + given["rocperiod"]),
    "DX": _recursive("still", 0, 1),
    "ER": _Rule("still", (0,), _period_and_one),
    "HT_DCPERIOD": _HILBERT,
    "HT_DCPHASE": _HILBERT,
    "HT_SINE": _HILBERT,
    "HT_TRENDMODE": _HILBERT,
    "IMI": _Rule("level", (0, 1), _period),
    "KDJ": _Rule("flat", (0, 1), _fast_k, _smoothing("slowk", "slowd")),
    "MARKETFI": _Rule("zero", (2,), _one, status=DIVISION_BY_ZERO),
    "MASSI": _Rule("level", (0, 1), lambda given: 2 * given["fastperiod"] + given["slowperiod"] - 2),
    "MFI": _Rule("still", (0, 1, 2), _period_and_one),
    "MINUS_DI": _recursive("flat", 0, 1, 2),
    "PLUS_DI": _recursive("flat", 0, 1, 2),
    "PPO": _recursive("zero", 0, window=lambda given: max(given["fastperiod"], given["slowperiod"])),
    "PVO": _recursive("zero", 0, window=lambda given: max(given["fastperiod"], given["slowperiod"])),
    "ROC": _CHANGE,
    "ROCP": _CHANGE,
    "ROCR": _CHANGE,
    "ROCR100": _CHANGE,
    "RSI": _recursive("still", 0),
    "RVI": _recursive("still", 0, made_up=50.0, window=lambda given: given["timeperiod"] + given["stddevperiod"] - 1),
    "RVOL": _Rule("zero", (0,), _period, shift=_one, status=DIVISION_BY_ZERO),
    "SMI": _recursive(
        "flat", 0, 1, window=lambda given: given["timeperiod"] + given["fastperiod"] + given["slowperiod"]
    ),
    "STOCH": _Rule("flat", (0, 1), _fast_k, _smoothing("slowk", "slowd")),
    "STOCHF": _Rule("flat", (0, 1), _fast_k, _smoothing("fastd")),
    "STOCHRSI": _Rule("still", (0,), _fast_k, _smoothing("fastd")),
    "TSI": _recursive("still", 0, window=lambda given: given["firstperiod"] + given["secondperiod"]),
    "ULTOSC": _Rule("flat", (0, 1, 2), lambda given: min(given[f"timeperiod{each}"] for each in (1, 2, 3)) + 1),
    "VHF": _Rule("still", (0,), _period_and_one),
    "VORTEX": _Rule("flat", (0, 1, 2), _period_and_one),
    "VWAP": _Rule("zero", (3,), _one, made_up=0.0),
    "VWMA": _Rule("zero", (1,), _period),
    "WILLR": _Rule("flat", (0, 1), _period),
}


@dataclass(frozen=True, slots=True)
class Rest:
    """A rule as it holds for one feature: `columns` are of one `kind` for `window` rows, `shift` rows ago.

    A row is undefined where that ends, and for `spread` rows after it. Where `made_up` is told, only rows in which
    every output is that number are, and from `long` rows on all (None: never).
    """

    kind: str
    columns: tuple[str, ...]
    window: int
    spread: int
    shift: int
    made_up: float | None
    long: int | None
    status: int


def rests_of(spec: FeatureSpec) -> list[Rest]:
    """Give the rules of a feature, in the order in which they are tried."""
    rules, given = _RULES.get(spec.name, ()), spec.arguments
    found = []
    for rule in rules if isinstance(rules, tuple) else (rules,):
        window = rule.window(given)
        long = max(window, spec.settle // 4) if rule.made_up is not None and spec.settle else None
        columns = tuple(spec.inputs[place] for place in rule.inputs)
        spread, shift = rule.spread(given), rule.shift(given)
        found.append(Rest(rule.kind, columns, window, spread, shift, rule.made_up, long, rule.status))
    return found


def is_near(value: Any, made_up: float) -> Any:
    """Tell whether a number, or which of a column, is the one that the library makes up."""
    return abs(value - made_up) < _NEAR


def find_made_up(spec: FeatureSpec, bars: HasRuns, outputs: Sequence[Floats]) -> list[tuple[NDArray[np.bool_], int]]:
    """Tell the rows in which the value is made up, and the status that each such set of rows gets."""
    found = []
    for rest in rests_of(spec):
        rows = _find(rest, bars, outputs)
        if rows is not None:
            found.append((rows, rest.status))
    return found


def _find(rest: Rest, bars: HasRuns, outputs: Sequence[Floats]) -> NDArray[np.bool_] | None:
    found_runs = bars.runs(rest.kind, rest.columns)
    if found_runs.longest < rest.window:
        return None
    runs = found_runs.lengths
    found = runs >= rest.window
    if rest.made_up is not None:
        for each in outputs:
            found &= is_near(each, rest.made_up)
        if rest.long is not None:
            found |= runs >= rest.long
    if rest.shift:
        found = np.append(np.zeros(rest.shift, np.bool_), found)[: len(runs)]
    if rest.spread:
        rows = np.arange(len(runs))
        last = np.maximum.accumulate(np.where(found, rows, -rest.spread - 1))
        found = rows - last <= rest.spread
    return found if found.any() else None


class Runs:
    """For how many rows up to each row columns are of one `kind`; counted only if somebody needs each row's number.

    >>> Runs("still", [np.array([5.0, 5.0, 6.0, 6.0, 6.0])]).lengths.tolist()
    [1, 2, 1, 2, 3]
    >>> Runs("flat", [np.array([5.0, 5.0, 6.0, 6.0]), np.array([5.0, 4.0, 6.0, 6.0])]).lengths.tolist()
    [1, 0, 1, 2]
    """

    def __init__(self, kind: str, columns: Sequence[Floats]) -> None:
        first = columns[0]
        self._holds = np.ones(len(first), np.bool_)
        if kind == "zero":
            self._holds = first == 0
        elif kind in ("flat", "level"):
            for each in columns[1:]:
                self._holds &= each == first
        self._goes_on = self._holds.copy()
        self._goes_on[:1] = False
        self._goes_on[1:] &= self._holds[:-1]
        if kind in ("still", "flat"):
            for each in columns:
                self._goes_on[1:] &= each[1:] == each[:-1]

    @cached_property
    def longest(self) -> int:
        """The length of the longest run, or 1 where there is none."""
        starts = np.flatnonzero(~self._goes_on)
        return int(np.diff(starts, append=len(self._goes_on)).max(initial=0))

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """The number of rows up to each row, 0 where the columns are not of that kind."""
        rows = np.arange(len(self._holds))
        return np.where(self._holds, rows - np.maximum.accumulate(np.where(self._goes_on, -1, rows)) + 1, 0)
