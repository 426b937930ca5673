"""Losses: the times in which messages of a symbol are missing, as a feed says them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

_MOST = 64


class Loss(NamedTuple):
    """Messages of one kind that are missing in `[since, until)`, microseconds."""

    kind: str
    since: int
    until: int


def _covering(first: Loss, second: Loss) -> Loss:
    return Loss(first.kind, min(first.since, second.since), max(first.until, second.until))


class Losses:
    """At most 64 losses of a kind: those that touch become one, and beyond that the two that were noted first."""

    __slots__ = ("_losses",)

    def __init__(self) -> None:
        self._losses: list[Loss] = []

    def __bool__(self) -> bool:
        return bool(self._losses)

    def add(self, loss: Loss) -> None:
        """Note a loss."""
        for each in [each for each in self._losses if each.kind == loss.kind]:
            if each.since <= loss.until and loss.since <= each.until:
                self._losses.remove(each)
                loss = _covering(each, loss)
        self._losses.append(loss)
        alike = [each for each in self._losses if each.kind == loss.kind]
        if len(alike) > _MOST:
            self._losses = [each for each in self._losses if each not in alike[:2]]
            self._losses.insert(0, _covering(*alike[:2]))

    def touch(self, kind: str, since: int, until: int) -> bool:
        """Tell whether messages of that kind are missing somewhere in `[since, until)`."""
        return any(each.kind == kind and each.since < until and each.until > since for each in self._losses)

    def latest(self, kind: str) -> int:
        """Give the end of the latest loss of that kind, 0 if there is none."""
        return max((each.until for each in self._losses if each.kind == kind), default=0)

    def settle(self, is_mended: Callable[[Loss], bool]) -> list[Loss]:
        """Forget the losses of which that is true, and give them."""
        mended = [each for each in self._losses if is_mended(each)]
        self._losses = [each for each in self._losses if each not in mended]
        return mended
