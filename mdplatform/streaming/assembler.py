"""The assembler: packets of several symbols go in as they come, frames come out in order, each once.

It knows neither a clock nor a transport: who calls it tells how far a clock has run that never goes back.

1. T are the closes of the shortest timeframe. T has passed when the packets of any symbol have come as far (`at`).
2. A frame is due when those of every symbol have, or when `grace` has run since the first sign that T had passed. What
   is not there then is marked. Frames are made in order of T, none twice. A symbol of which nothing came while
   `GRACES` in a row ran out is not waited for until it is heard again.
3. Each place shows its newest closed cell with `close_time <= T` (`newest`). One that closes later waits until T gets
   there.
4. A cell that comes when its T is over corrects the frames in which it should have been, as far back as they are kept:
   each comes again with the next revision, and tensors have it from now on. One that is not newer than what is shown
   is nothing new, but for features of the shape which that lacks.
5. Of forming bars, if they are wanted, there is a frame a packet, between the closed ones. They tell nothing of time.

What is kept is bounded: `KEPT` frames, the shape's window before them, and `MOST_WAITING` instants ahead. If more pass
at once, the oldest are left out and counted in `skipped`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from mdplatform.streaming.cells import Cell, Layout, Packet
from mdplatform.streaming.frame import Frame
from mdplatform.streaming.known_sentiment import NOTHING_KNOWN, KnownSentiment
from mdplatform.streaming.newest import insert, is_newer, take_closed
from mdplatform.streaming.places import Places
from mdplatform.streaming.row import Row
from mdplatform.streaming.shape import Fitting, Shape

KEPT = 64
"""Frames that can still be corrected."""
MOST_WAITING = 10_000
"""Instants that may wait at once for a symbol that is behind."""
GRACES = 3
"""Graces that run out for a symbol of which nothing comes before it is waited for no more."""
_ROUNDING = 1e-6
"""Seconds by which a sum of times may be off."""


class Assembler:
    """Makes the frames of one shape. `layouts` are looked up by id when a frame is read, and may be filled later."""

    def __init__(self, shape: Shape, layouts: dict[str, Layout] | None = None) -> None:
        self.shape = shape
        self.sentiment: KnownSentiment = NOTHING_KNOWN
        self.skipped = 0
        self._fitting = Fitting(shape.columns, {} if layouts is None else layouts)
        self._symbols = {symbol: index for index, symbol in enumerate(shape.symbols)}
        self._slots = [
            {each.value: shape.slot_of[symbol, each] for each in shape.timeframes} for symbol in shape.symbols
        ]
        self._step = shape.clock.microseconds
        self._at = [0] * len(shape.symbols)
        self._silences = [0] * len(shape.symbols)
        self._cells: list[Cell | None] = [None] * len(shape.slots)
        self._ahead: list[list[Cell]] = [[] for _ in shape.slots]
        self._filled: list[int] = []
        self._forming: dict[int, Cell] = {}
        self._rows: list[Row] = []  # frames share it: it is added to, else a new one is made
        self._most_rows = KEPT + shape.window - 1
        self._next: int | None = None
        self._first = 0
        self._behind = len(shape.symbols)
        self._newest = 0
        self._signs: deque[tuple[int, float]] = deque()
        self._now, self._ran = math.inf, 0.0
        self._places = Places(shape.symbols)
        self._stamps = (0, 0)
        self._formed = 0

    @property
    def last(self) -> int | None:
        """T of the last frame (microseconds), None before the first."""
        return self._rows[-1].time if self._rows else None

    @property
    def due(self) -> float | None:
        """When, by the caller's clock, `tick` makes the next frame if nothing comes before; None if none waits."""
        if not self._signs:
            return None
        return self._now + max(0.0, self._signs[0][1] + self.shape.grace - self._ran)

    @property
    def is_waiting(self) -> bool:
        """Whether a frame waits for what is due."""
        return bool(self._signs)

    @property
    def over(self) -> int | None:
        """T up to which frames were made or left out (microseconds), None before anything was heard."""
        return None if self._next is None else self._next - self._step

    def begin(self, since: int | None, places: Mapping[str, str] | None = None) -> None:
        """Give no frame for T up to `since` (microseconds); say from which places on the transport is heard."""
        if since is not None:
            self.flush(since)
            if self._next is None or self._next <= since:
                self._show(since)
                self._advance(self.shape.clock.floor(since) + self._step)
            self._first = max(self._first, self._next or 0)
        self.skipped = 0
        self._places.begin(places or {})

    def take(self, packet: Packet, now: float = 0.0, place: str = "") -> list[Frame]:
        """Take a packet in; give the frames that are due by it, and those that it corrects.

        `now` is in seconds, of a clock that never goes back; `place` is where the transport goes on behind it.
        """
        frames = self.tick(now)  # what was over before it came is over
        index = self._symbols.get(packet.symbol)
        if index is None:
            return frames
        at = packet.at
        if self._next is None:
            self._advance(self.shape.clock.ceil(at))
            self._first = self._next or 0
        if self._silences[index]:
            self._hear_again(index)
        if packet.cells:
            frames += self._take_cells(index, packet.cells)
            self._stamps = (packet.sent_at, packet.received_at)
        if place:
            self._places.note(index, at if at == self._next else self.shape.clock.ceil(at), place)
        if at > self._at[index]:
            self._pass(index, at)
        return frames + self._made() if self._signs else frames

    def form(self, packet: Packet) -> list[Frame]:
        """Take forming cells in; give the frame of them, if no closed one waits and they are newer than the last."""
        index = self._symbols.get(packet.symbol)
        if index is None or self._next is None or not self.shape.forming:
            return []
        time, over = 0, self._next - self._step
        for cell in packet.cells:
            slot = self._slots[index].get(cell.timeframe)
            if slot is not None and not cell.is_closed:
                time = max(time, cell.available_at)
                held = self._forming.get(slot)
                if held is None or (cell.open_time, cell.available_at) > (held.open_time, held.available_at):
                    self._forming[slot] = cell
        if self._signs or not max(over, self._formed) < time < self._next:
            return []
        self._formed = time
        self._forming = {slot: cell for slot, cell in self._forming.items() if cell.close_time > over}
        cells = tuple(self._forming.get(slot, cell) for slot, cell in enumerate(self._cells))
        row = Row(self.shape, time, cells, self._fitting, self.sentiment)
        return [self._frame(row, len(self._rows), (packet.sent_at, packet.received_at), is_closed=False)]

    def tick(self, now: float) -> list[Frame]:
        """Give the frames that have waited for so long as they may.

        A clock that goes back all the same costs what it goes back, and nothing else.
        """
        if now > self._now:
            self._ran += now - self._now
        self._now = now
        return self._made() if self._signs else []

    def flush(self, until: int) -> list[Frame]:
        """Give the frames with T up to `until` (microseconds) that wait, without waiting any longer."""
        frames = []
        while self._next is not None and self._next <= min(until, self._newest):
            frames.append(self._make())
        return frames

    # -- time ---------------------------------------------------------------------------------------------------------

    def _pass(self, index: int, at: int) -> None:
        """Note that a symbol has come as far as `at`."""
        assert self._next is not None
        if self._at[index] < self._next <= at:
            self._behind -= 1
        self._at[index] = at
        if at < self._newest + self._step:
            return
        passed = self._newest = self.shape.clock.floor(at)
        if passed >= self._next:
            self._signs.append((passed, self._ran))
        most = MOST_WAITING * self._step
        if passed - self._next >= most:
            self._skip(passed - most + self._step)

    def _advance(self, to: int) -> None:
        self._next = to
        behind = [at < to for at in self._at]
        self._behind = behind.count(True)
        if self._behind and any(self._silences):
            told = zip(behind, self._silences, strict=True)
            self._behind = sum(is_behind and silence < GRACES for is_behind, silence in told)
        while self._signs and self._signs[0][0] < to:
            self._signs.popleft()

    def _skip(self, to: int) -> None:
        """Leave out the instants before `to`, of which there are too many."""
        assert self._next is not None
        self.skipped += (to - self._next) // self._step
        self._show(to - 1)
        self._advance(to)

    def _note_silence(self) -> None:
        """Count a grace that ran out against the symbols that did not come."""
        assert self._next is not None
        for index, at in enumerate(self._at):
            if at < self._next:
                self._silences[index] += 1

    def _hear_again(self, index: int) -> None:
        """Wait for a symbol again."""
        assert self._next is not None
        if self._silences[index] >= GRACES and self._at[index] < self._next:
            self._behind += 1
        self._silences[index] = 0

    # -- cells --------------------------------------------------------------------------------------------------------

    def _take_cells(self, index: int, cells: tuple[Cell, ...]) -> list[Frame]:
        """Put cells where they belong; give the frames that they correct."""
        assert self._next is not None
        corrected: set[int] = set()
        slots, over = self._slots[index], self._next - self._step
        for cell in cells:
            slot = slots.get(cell.timeframe)
            if slot is None or not cell.is_closed:
                continue
            if cell.close_time <= over:
                self._correct(slot, cell, corrected)
                continue
            ahead = self._ahead[slot]
            if ahead:
                insert(ahead, cell, self._fitting)
            else:
                ahead.append(cell)
                self._filled.append(slot)
        if not corrected:
            return []
        first = max(0, len(self._rows) - KEPT)
        return [
            self._frame(row, place, self._stamps)
            for place, row in enumerate(self._rows)
            if place >= first and row.time in corrected and row.time >= self._first
        ]

    def _correct(self, slot: int, cell: Cell, corrected: set[int]) -> None:
        """Put a late cell into the rows that should have shown it."""
        if is_newer(cell, self._cells[slot], self._fitting):
            self._cells[slot] = cell
        for index in range(len(self._rows) - 1, -1, -1):
            row = self._rows[index]
            if row.time < cell.close_time:
                break
            if not is_newer(cell, row.cells[slot], self._fitting):
                continue
            if not corrected:
                self._rows = self._rows.copy()
            cells = (*row.cells[:slot], cell, *row.cells[slot + 1 :])
            revision = row.revision + (row.time not in corrected)
            self._rows[index] = Row(self.shape, row.time, cells, self._fitting, row.sentiment, revision)
            corrected.add(row.time)

    def _show(self, time: int) -> None:
        """Let each place show its newest cell that has closed by `time`."""
        left = []
        for slot in self._filled:
            ahead = self._ahead[slot]
            closed = take_closed(ahead, time)
            if closed is not None and is_newer(closed, self._cells[slot], self._fitting):
                self._cells[slot] = closed
            if ahead:
                left.append(slot)
        self._filled = left

    # -- frames -------------------------------------------------------------------------------------------------------

    def _made(self) -> list[Frame]:
        """Give the frames that are due: those that are complete, and those that waited for a whole grace."""
        frames: list[Frame] = []
        is_noted = False
        while self._signs:
            if self._behind:
                if self._ran + _ROUNDING < self._signs[0][1] + self.shape.grace:
                    break
                if not is_noted:
                    self._note_silence()
                    is_noted = True
            frames.append(self._make())
        return frames

    def _make(self) -> Frame:
        """Make the frame that is next."""
        assert self._next is not None
        time = self._next
        self._show(time)
        self._places.go_to(time)
        row = Row(self.shape, time, tuple(self._cells), self._fitting, self.sentiment)
        if len(self._rows) >= 2 * self._most_rows:
            self._rows = self._rows[-self._most_rows :]
        self._rows.append(row)
        self._advance(time + self._step)
        return self._frame(row, len(self._rows) - 1, self._stamps)

    def _frame(self, row: Row, place: int, stamps: tuple[int, int], is_closed: bool = True) -> Frame:
        """Make the frame of a row that stands behind `place` others."""
        return Frame(
            row, self._rows, place, self._places.copy(), sent_at=stamps[0], received_at=stamps[1], is_closed=is_closed,
            over=self.over or 0,
        )  # fmt: skip
