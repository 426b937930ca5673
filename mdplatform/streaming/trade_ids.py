"""Which trades of a symbol were seen: by their ids, which ascend by one, so that repeats and holes show themselves."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

_MOST_HOLES = 256
_ALWAYS = -(1 << 62)


@dataclass(slots=True)
class Hole:
    """Ids `[first, end)` that were not seen; their trades lie between the times `since` and `until` (µs, inclusive)."""

    first: int
    end: int
    since: int
    until: int


class TradeIds:
    """`next` is the id after the highest one seen, None before there is any; `time` is the newest trade's.

    At most 256 holes are kept; the ids of the lowest ones beyond that count as seen. `has_closed` tells whether the
    trade that was taken last was the last one of a hole.
    """

    __slots__ = ("_holes", "has_closed", "next", "time")

    def __init__(self) -> None:
        self.next: int | None = None
        self.time = _ALWAYS
        self.has_closed = False
        self._holes: list[Hole] = []

    def take(self, trade_id: int, time: int) -> bool:
        """Note that a trade was seen; tell whether it was not before."""
        self.has_closed = False
        if self.next is None or trade_id >= self.next:
            first = 0 if self.next is None else self.next
            if trade_id > first:
                self._add(Hole(first, trade_id, self.time, max(time, self.time)))
            self.next, self.time = trade_id + 1, max(time, self.time)
            return True
        place = bisect_right(self._holes, trade_id, key=lambda hole: hole.first) - 1
        if place < 0 or trade_id >= self._holes[place].end:
            return False
        hole = self._holes.pop(place)
        after = Hole(trade_id + 1, hole.end, max(hole.since, min(time, hole.until)), hole.until)
        before = Hole(hole.first, trade_id, hole.since, min(hole.until, max(time, hole.since)))
        self.has_closed = hole.end - hole.first == 1
        self._holes[place:place] = [part for part in (before, after) if part.first < part.end]
        self._trim()
        return True

    def has_hole(self, since: int, until: int) -> bool:
        """Tell whether trades of `[since, until)` (µs) may be missing among those seen."""
        place = bisect_left(self._holes, since, key=lambda hole: hole.until)  # their times ascend as their ids do
        return place < len(self._holes) and self._holes[place].since < until

    def _add(self, hole: Hole) -> None:
        self._holes.append(hole)
        self._trim()

    def _trim(self) -> None:
        if len(self._holes) > _MOST_HOLES:
            del self._holes[0]
