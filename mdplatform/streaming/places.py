"""From where on the transport is to be heard by who goes on behind a frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence


class Places:
    """The transport's places of some symbols (its topics), up to an instant that goes on."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = tuple(symbols)
        self._ahead: list[deque[tuple[int, str]]] = [deque() for _ in symbols]
        self._passed: dict[str, str] = {}

    def begin(self, places: Mapping[str, str]) -> None:
        """Say where it begins."""
        self._passed.update(places)

    def note(self, index: int, time: int, place: str) -> None:
        """Remember from where a symbol goes on once `time` (microseconds) has passed."""
        ahead = self._ahead[index]
        if ahead and ahead[-1][0] >= time:
            ahead[-1] = (ahead[-1][0], place)
        else:
            ahead.append((time, place))

    def go_to(self, time: int) -> None:
        """Let `time` have passed."""
        for symbol, ahead in zip(self._symbols, self._ahead, strict=True):
            while ahead and ahead[0][0] <= time:
                self._passed[symbol] = ahead.popleft()[1]

    def copy(self) -> dict[str, str]:
        """Give the places as they are now."""
        return self._passed.copy()
