"""A plan: what to call in a row in which nothing changes from the one before, laid out so that a row costs little more.

Values that several features read are taken out of the row once. What tells how to call, but not whose states, is shared
by all plans of equal features: a burst of many symbols' bars finds it in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

Function: TypeAlias = Callable[..., Any]
Getter: TypeAlias = Callable[[Sequence[float]], tuple[float, ...]]


class Step(NamedTuple):
    """What gives one feature: two ways to call it, the places of its inputs in a row, and the number of its outputs."""

    update: Function
    peek: Function
    inputs: tuple[int, ...]
    outputs: int


class Plan:
    """The steps of all features, in order."""

    __slots__ = ("_getters", "_peeks", "_updates", "_ways")

    def __init__(self, steps: Sequence[Step]) -> None:
        self._updates = [step.update for step in steps]
        self._peeks = [step.peek for step in steps]
        self._getters, self._ways = _ways_of(tuple((step.inputs, step.outputs) for step in steps))

    def run(self, values: Sequence[float], keep: bool) -> list[float]:
        """Give the outputs of all features in a row."""
        given = [get(values) for get in self._getters]
        numbers: list[float] = []
        for call, (at, is_one) in zip(self._updates if keep else self._peeks, self._ways, strict=True):
            if is_one:
                numbers.append(call(*given[at]))
            else:
                numbers += call(*given[at])
        return numbers


def getter(places: Sequence[int]) -> Getter:
    """Give what takes the values at these places out of a row, as a tuple."""
    if len(places) > 1:
        return itemgetter(*places)
    return itemgetter(slice(places[0], places[0] + 1) if places else slice(0))


@lru_cache(maxsize=1024)
def _ways_of(steps: tuple[tuple[tuple[int, ...], int], ...]) -> tuple[list[Getter], list[tuple[int, bool]]]:
    """Give what takes inputs out of a row, and for each step which of these it needs, and whether it gives one."""
    inputs = list(dict.fromkeys(each for each, _ in steps))
    return [getter(each) for each in inputs], [(inputs.index(each), count == 1) for each, count in steps]
