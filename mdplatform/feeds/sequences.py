"""Sequences: events that the venue numbers without a hole, given in that order, each once.

1. What comes with the next number is given at once; with a lower one it is a repetition, and dropped.
2. What comes with a higher one is held: there is a hole before it, which whoever has the sequence fills from elsewhere.
   So it is after a cut: the sequence is *behind* until what comes follows what was given last, or until it was asked
   what the venue told meanwhile.
3. What fills the hole is offered like the rest. What is not to be had is given up: it is said as `Lost`.

At most `MOST_HELD` events are held. Where more come, all of them are let go, and the sequence is behind: they are
fetched with what is missing.
"""

from __future__ import annotations

from typing import Literal

from mdplatform.market.events import BookChange, Candle, Event, Lost, Trade

MOST_HELD = 20_000
Numbered = Trade | Candle


class Sequence:
    """The trades of a symbol, or its closed candles, in order.

    `next` is the number that comes next, None while that is unknown. All up to `frontier` (µs) was given. `breaks`
    counts how often the venue began to be heard.
    """

    def __init__(self, symbol: str, kind: Literal["trades", "candles"], since: int | None = None) -> None:
        self.symbol, self.kind = symbol, kind
        self.next: int | None = None
        self.frontier = since or 0
        self.is_behind = since is not None
        self.has_given_up = False
        self.breaks = 0
        self.repeated = self.skipped = self.dropped = 0
        self._held: dict[int, Numbered] = {}

    @property
    def has_held(self) -> bool:
        """Whether events wait for something that is missing."""
        return bool(self._held)

    @property
    def is_blocked(self) -> bool:
        """Whether something is missing: it has to be filled, or given up."""
        return self.is_behind or bool(self._held)

    def offer(self, number: int, event: Numbered, at: int, out: list[Event], *, is_filled: bool = False) -> bool:
        """Take an event in, and give to `out` what is in order now; tell whether it was new.

        With `at` (µs) all of the sequence before it is known, once it was given.
        """
        if self.next is None and not self.is_behind:
            self.next = number
            if self.has_given_up:
                out.append(Lost(self.symbol, self.kind, self.frontier, _begin(event), "it was not to be had"))
        if number == self.next:
            out.append(event)
            self._held.pop(number, None)
            self.next, self.frontier = number + 1, at
            if self._held:
                self._release(out)
            if not is_filled:
                self.is_behind = False  # it follows what was given last: nothing was missed
            self.has_given_up = False
            return True
        if (self.next is not None and number < self.next) or number in self._held:
            self.repeated += not is_filled
            return False
        if not self._held and not self.is_behind:
            self.skipped += 1
        self._hold(number, event)
        if self.has_given_up and not self.is_behind:
            self.give_up("the venue did not tell it again", out)
        return True

    def cut(self) -> None:
        """Note that the venue is heard (again): what it said meanwhile is missing, if anything was known before."""
        self.breaks += 1
        self.is_behind = self.is_behind or self.next is not None or self.frontier > 0

    def expect(self, since: int) -> None:
        """Note that there were some at or after that instant (µs): where none of them came, the stream has stalled."""
        if self.next is not None and self.frontier < since and not self._held:
            self.is_behind = True

    def caught_up(self, breaks: int) -> None:
        """Note that all was heard that there was, when `breaks` was what it is if that still holds."""
        if breaks == self.breaks:
            self.is_behind = False

    def begin(self, number: int, out: list[Event] | None = None) -> None:
        """Say what number comes first, where that is unknown; give to `out` what is held of it and what follows."""
        if self.next is None:
            self.next = number
            self._held = {each: event for each, event in self._held.items() if each >= number}
            if out is not None:
                self._release(out)

    def give_up(self, reason: str, out: list[Event], *, until: int | None = None) -> None:
        """Say as lost what is missing before what is held (of it what is numbered up to `until`), and go on there."""
        while self._held and (until is None or min(self._held) <= until):
            first = min(self._held)
            if self.next != first:
                out.append(Lost(self.symbol, self.kind, self.frontier, _begin(self._held[first]), reason))
            self.next = first
            self._release(out)
        if until is None:
            self.is_behind, self.has_given_up = False, True

    def _hold(self, number: int, event: Numbered) -> None:
        if len(self._held) >= MOST_HELD:
            self.dropped += len(self._held)
            self._held.clear()
            self.cut()
        self._held[number] = event

    def _release(self, out: list[Event]) -> None:
        assert self.next is not None
        while (event := self._held.pop(self.next, None)) is not None:
            out.append(event)
            self.next += 1
            self.frontier = _end(event)


def _begin(event: Numbered) -> int:
    return event.time if isinstance(event, Trade) else event.open_time


def _end(event: Numbered) -> int:
    return event.time if isinstance(event, Trade) else event.open_time + event.timeframe.microseconds


def _before(change: BookChange) -> int:
    return change.first_id - 1 if change.previous_id is None else change.previous_id


class BookSequence:
    """The changes of a symbol's book: a snapshot, and the diffs that follow it (`U = previous u + 1`, or by `pu`).

    Diffs may come before the snapshot, and a hole makes a new snapshot necessary: they are held meanwhile. Where there
    are no snapshots to be had (`has_snapshots`), it begins with the first diff.
    """

    kind = "book"

    def __init__(self, symbol: str, *, has_snapshots: bool = True) -> None:
        self.symbol = symbol
        self.last: int | None = None
        self.frontier = 0
        self.is_behind = self._has_snapshots = has_snapshots
        self.breaks = 0
        self.repeated = self.skipped = self.dropped = 0
        self._is_fresh = False
        self._held: dict[int, BookChange] = {}

    @property
    def has_held(self) -> bool:
        """Whether changes wait for a snapshot."""
        return bool(self._held)

    @property
    def is_blocked(self) -> bool:
        """Whether a snapshot is needed."""
        return self.is_behind or bool(self._held)

    def cut(self) -> None:
        """Note that the venue is heard (again); a diff that follows the last one shows that nothing was missed."""
        self.breaks += 1
        self.is_behind = True

    def offer(self, change: BookChange, out: list[Event]) -> None:
        """Take a diff or a snapshot in, and give to `out` what is in order now."""
        if change.is_snapshot:
            self._take_snapshot(change, out)
        elif self.last is not None and (change.last_id <= self.last or change.first_id in self._held):
            self.repeated += 1
        elif self._follows(change):
            self._give(change, out)
            self.is_behind = False
            self._release(out)
        else:
            if not self._held and not self.is_behind and self.last is not None:
                self.skipped += 1
            if len(self._held) >= MOST_HELD:
                self.dropped += len(self._held)
                self._held.clear()
            self._held[change.first_id] = change
            if self.last is None and not self._has_snapshots:
                self.give_up("there is no snapshot before it", out)

    def give_up(self, reason: str, out: list[Event]) -> None:
        """Go on with what is held although changes before it are lost; without a snapshot the book is not known."""
        for first in sorted(self._held):
            change = self._held.pop(first)
            if not self._follows(change):
                out.append(Lost(self.symbol, "book", self.frontier, change.time, reason))
            self._give(change, out)
        self.is_behind = False

    def _follows(self, change: BookChange) -> bool:
        if self.last is None:
            return False
        if self._is_fresh and change.first_id <= self.last + 1 <= change.last_id:
            return True  # the first one may begin before the snapshot
        return change.previous_id == self.last if change.previous_id is not None else change.first_id == self.last + 1

    def _take_snapshot(self, snapshot: BookChange, out: list[Event]) -> None:
        if not self.is_blocked or (self.last is not None and snapshot.last_id <= self.last):
            return
        newer = {first: change for first, change in self._held.items() if change.last_id > snapshot.last_id}
        if newer and _before(newer[min(newer)]) > snapshot.last_id:
            return  # older than what is held: another one is needed
        if self.last is not None and snapshot.last_id > self.last:
            out.append(Lost(self.symbol, "book", self.frontier, snapshot.time, "a new snapshot stands for the changes"))
        out.append(snapshot)
        self.last, self.frontier, self.is_behind = snapshot.last_id, snapshot.time, False
        self._held, self._is_fresh = newer, True
        self._release(out)

    def _release(self, out: list[Event]) -> None:
        for first in sorted(self._held):
            if not self._follows(self._held[first]):
                break
            self._give(self._held.pop(first), out)

    def _give(self, change: BookChange, out: list[Event]) -> None:
        out.append(change)
        self.last, self.frontier, self._is_fresh = change.last_id, change.time, False
