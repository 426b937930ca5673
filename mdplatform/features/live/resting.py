"""For how many rows columns have been at rest, a row at a time, and which values are made up for it (`degenerate`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from math import nan
from operator import ne

from mdplatform.features.bar_arrays import BarArrays
from mdplatform.features.degenerate import Rest, is_near
from mdplatform.features.live.plan import getter
from mdplatform.market.bars import VALUE_COLUMNS

_WIDTH = len(VALUE_COLUMNS)
_ZERO = 2 * _WIDTH


@dataclass
class Rule:
    """A rest that makes a feature's value undefined; `feature` is its number, `outputs` where its outputs are.

    `found` are the newest rows in which columns have rested, as far back as one of them has an effect.
    """

    rest: Rest
    run: int
    feature: int
    outputs: slice
    found: deque[int] = field(default_factory=deque)

    def __post_init__(self) -> None:
        rest = self.rest
        self.reach = rest.shift + rest.spread
        """For how many rows a rest has an effect after its own."""
        self.least = rest.window if rest.long is None else min(rest.window, rest.long)
        """The shortest run that has one."""

    def holds(self, row: int, length: int, numbers: Sequence[float]) -> bool:
        """Tell whether the value in a row is made up; `length` is that of the run, `numbers` are all outputs."""
        rest = self.rest
        found = length >= rest.window
        if rest.made_up is not None:
            if found:
                found = all(is_near(each, rest.made_up) for each in numbers[self.outputs])
            return found or (rest.long is not None and length >= rest.long)
        if self.reach:
            first, last = row - self.reach, row - rest.shift
            return (found and last == row) or any(first <= each <= last for each in self.found)
        return found

    def remember(self, row: int, length: int) -> None:
        """Keep in mind that columns rested in a row, and forget rows that no longer have an effect."""
        if self.reach:
            while self.found and self.found[0] < row - self.reach:
                self.found.popleft()
            if length >= self.rest.window:
                self.found.append(row)


class Resting:
    """The runs that the rules of all features look at, and the rules."""

    def __init__(self, rests: Sequence[tuple[int, slice, Rest]], arrays: BarArrays) -> None:
        kinds = list(dict.fromkeys((rest.kind, rest.columns) for _, _, rest in rests))
        self._runs: list[tuple[str, int, tuple[int, ...], int]] = []
        self.lengths: list[int] = []
        rows = len(arrays.open_time)
        counted: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for kind, names in kinds:
            places = [VALUE_COLUMNS.index(name) for name in names]
            found = arrays.runs(kind, names).lengths.tolist() if rows else []
            counted[kind, names] = found
            self.lengths.append(found[-1] if rows else 0)
            least = min(rest.window for _, _, rest in rests if (rest.kind, rest.columns) == (kind, names))
            self._runs.append((kind, places[0], tuple(places[1:]), least))
        self.rules = []
        for feature, outputs, rest in rests:
            rule = Rule(rest, kinds.index((rest.kind, rest.columns)), feature, outputs)
            newest = counted[rest.kind, rest.columns][-rule.reach :] if rule.reach else []
            for row, length in enumerate(newest, rows - len(newest)):
                rule.remember(row, length)
            self.rules.append(rule)
        ends = [_end(kind, first, others) for kind, first, others, _ in self._runs]
        self._left = getter([left for left, _ in ends])
        self._right = getter([right for _, right in ends])
        self._ended = [1 if right >= _WIDTH and right != _ZERO else 0 for _, right in ends]
        self._holds_ended = any(now >= least for now, (*_, least) in zip(self._ended, self._runs, strict=True))
        self._before: tuple[float, ...] = (nan,) * _WIDTH
        if rows:
            last = [float(arrays.columns[name][-1]) if name in arrays.columns else 0.0 for name in VALUE_COLUMNS]
            self._before = tuple(last)
        self._remembers = any(rule.found for rule in self.rules)

    def after(self, values: tuple[float, ...]) -> tuple[list[int], bool]:
        """Give the lengths of the runs with the next row, and whether a rule may hold there."""
        beside = (*values, *self._before, 0.0)
        if all(map(ne, self._left(beside), self._right(beside))):  # no run goes on, as in nearly every row
            return self._ended, self._remembers or self._holds_ended
        before, lengths, may_hold = self._before, list[int](), self._remembers
        for length, (kind, first, others, least) in zip(self.lengths, self._runs, strict=True):
            value = values[first]
            if kind == "still":
                now = 1
                if value == before[first] and length and all(values[each] == before[each] for each in others):
                    now = length + 1
            elif kind == "zero":
                now = length + 1 if value == 0 else 0
            elif others and (values[others[0]] != value or not all(values[each] == value for each in others)):
                now = 0
            elif kind == "level":
                now = length + 1
            else:
                now = length + 1 if length and value == before[first] else 1
            if now >= least:
                may_hold = True
            lengths.append(now)
        return lengths, may_hold

    def take(self, row: int, values: tuple[float, ...], lengths: list[int], may_hold: bool) -> None:
        """Take the next row in."""
        self._before, self.lengths = values, lengths
        if may_hold:
            for rule in self.rules:
                rule.remember(row, lengths[rule.run])
            self._remembers = any(rule.found for rule in self.rules)

    def copy(self) -> Resting:
        """Give a copy, on which nothing that happens to this one has an effect."""
        other = copy(self)
        other.rules = [Rule(each.rest, each.run, each.feature, each.outputs, each.found.copy()) for each in self.rules]
        return other


def _end(kind: str, first: int, others: Sequence[int]) -> tuple[int, int]:
    """Give two places of a row with the row before and 0 beside it: where these differ, a run does not go on."""
    if kind == "zero":
        return first, _ZERO
    if kind == "still" or (kind == "flat" and not others):
        return first, _WIDTH + first
    return first, others[0] if others else first
