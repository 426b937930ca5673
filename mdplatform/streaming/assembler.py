"""The assembler: packets of several symbols go in as they come, frames come out in order, each once.

It knows neither a clock nor a transport: who calls it tells how far a clock has run that never goes back.

1. T are the closes of the shortest timeframe. T has passed when the packets of any symbol have come as far (`at`).
2. A frame is due when those of every symbol have, or when `grace` has run since the first sign that T had passed. What
   is not there then is marked. Frames are made in order of T, none twice.
3. Each place shows its newest closed cell with `close_time <= T`. A cell that closes later waits until T gets there.
4. A cell that comes when its T is over corrects the frames in which it should have been, as far back as they are kept:
   each comes again with the next revision. A cell that is not newer (open time, revision, edition) than the one shown
   is nothing new.
5. Of forming bars, if they are wanted, there is a frame a packet, between the closed ones.

What is kept is bounded: `KEPT` frames, or the shape's window if it is longer, and `MOST_WAITING` instants ahead. If
more pass at once, the oldest are left out and counted in `skipped`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping

from mdplatform.streaming.cells import Cell, Layout, Packet
from mdplatform.streaming.frame import Frame
from mdplatform.streaming.known_sentiment import NOTHING_KNOWN, KnownSentiment
from mdplatform.streaming.row import Row
from mdplatform.streaming.shape import Fitting, Shape

KEPT = 64
"""Frames that can still be corrected, at least."""
MOST_WAITING = 10_000
"""Instants that may wait at once for a symbol that is behind."""
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
        self._at = [0] * len(shape.symbols)
        self._cells: list[Cell | None] = [None] * len(shape.slots)
        self._ahead: list[list[Cell]] = [[] for _ in shape.slots]
        self._forming: dict[int, Cell] = {}
        self._rows: deque[Row] = deque(maxlen=max(KEPT, shape.window))
        self._next: int | None = None
        self._first = 0
        self._behind = len(shape.symbols)
        self._newest = 0
        self._signs: deque[tuple[int, float]] = deque()
        self._now = self._ran = 0.0
        self._is_running = False
        self._waiting_places: list[deque[tuple[int, str]]] = [deque() for _ in shape.symbols]
        self._places: dict[str, str] = {}
        self._stamps = (0, 0)
        self._formed = 0

    @property
    def last(self) -> int | None:
        """T of the last frame (microseconds), None before the first."""
        return self._rows[-1].time if self._rows else None

    @property
    def due(self) -> float | None:
        """When, by the caller's clock, `tick` makes the next frame if nothing comes before; None if none waits."""
        if self._next is None or not self._signs:
            return None
        return self._now + max(0.0, self._signs[0][1] + self.shape.grace - self._ran)

    @property
    def behind(self) -> tuple[str, ...]:
        """The symbols that the next frame waits for."""
        if self._next is None:
            return self.shape.symbols
        return tuple(each for each, at in zip(self.shape.symbols, self._at, strict=True) if at < self._next)

    @property
    def over(self) -> int | None:
        """T up to which frames were made or left out (microseconds), None before anything was heard."""
        return None if self._next is None else self._next - self.shape.clock.microseconds

    def begin(self, since: int | None, places: Mapping[str, str] | None = None) -> None:
        """Give no frame for T up to `since` (microseconds); say from which places on the transport is heard."""
        if since is not None:
            self.flush(since)
            clock = self.shape.clock
            if self._next is None or self._next <= since:
                self._show(since)
                self._advance(clock.floor(since) + clock.microseconds)
            self._first = max(self._first, self._next or 0)
        self.skipped = 0
        self._places.update(places or {})

    def take(self, packet: Packet, now: float = 0.0, place: str = "") -> list[Frame]:
        """Take a packet in; give the frames that are due by it, and those that it corrects.

        `now` is in seconds, of a clock that never goes back; `place` is where the transport goes on behind it.
        """
        index = self._symbols.get(packet.symbol)
        if index is None:
            return self.tick(now)
        frames = self.tick(now)  # what was over before it came is over
        if self._next is None:
            self._advance(self.shape.clock.ceil(packet.at))
            self._first = self._next or 0
        frames += self._take_cells(packet.symbol, packet.cells)
        if packet.cells:
            self._stamps = (packet.sent_at, packet.received_at)
        if place:
            self._note(index, packet.at, place)
        if packet.at > self._at[index]:
            self._pass(index, packet.at)
        frames += self._made()
        if self.shape.forming and (forming := self._formed_by(packet)) is not None:
            frames.append(forming)
        return frames

    def tick(self, now: float) -> list[Frame]:
        """Give the frames that have waited for so long as they may."""
        self._run(now)
        return self._made()

    def flush(self, until: int) -> list[Frame]:
        """Give the frames with T up to `until` (microseconds) that wait, without waiting any longer."""
        frames = []
        while self._next is not None and self._next <= min(until, self._newest):
            frames.append(self._make())
        return frames

    # -- time ---------------------------------------------------------------------------------------------------------

    def _run(self, now: float) -> None:
        """Let time run on. A clock that goes back all the same costs what it goes back, and nothing else."""
        if self._is_running:
            self._ran += max(0.0, now - self._now)
        self._now, self._is_running = now, True

    def _pass(self, index: int, at: int) -> None:
        """Note that a symbol has come as far as `at`."""
        assert self._next is not None
        if self._at[index] < self._next <= at:
            self._behind -= 1
        self._at[index] = at
        passed = self.shape.clock.floor(at)
        if passed > self._newest:
            self._newest = passed
            if passed >= self._next:
                self._signs.append((passed, self._ran))
            most = MOST_WAITING * self.shape.clock.microseconds
            if passed - self._next >= most:
                self._skip(passed - most + self.shape.clock.microseconds)

    def _advance(self, to: int) -> None:
        self._next = to
        self._behind = sum(at < to for at in self._at)
        while self._signs and self._signs[0][0] < to:
            self._signs.popleft()

    def _skip(self, to: int) -> None:
        """Leave out the instants before `to`, of which there are too many."""
        assert self._next is not None
        self.skipped += (to - self._next) // self.shape.clock.microseconds
        self._show(to - 1)
        self._advance(to)

    # -- cells --------------------------------------------------------------------------------------------------------

    def _take_cells(self, symbol: str, cells: tuple[Cell, ...]) -> list[Frame]:
        """Put cells where they belong; give the frames that they correct."""
        assert self._next is not None
        corrected: dict[int, Row] = {}
        slots = self.shape.slot_of
        over = self._next - self.shape.clock.microseconds
        for cell in cells:
            slot = slots.get((symbol, cell.timeframe))
            if slot is None:
                continue
            if not cell.is_closed:
                self._form(slot, cell)
            elif cell.close_time > over:
                _insert(self._ahead[slot], cell)
            else:
                self._correct(slot, cell, corrected)
        frames = []
        for time in sorted(corrected):
            if time >= self._first:
                past = tuple(each for each in self._window() if each.time < time)
                frames.append(self._frame(corrected[time], past))
        return frames

    def _correct(self, slot: int, cell: Cell, corrected: dict[int, Row]) -> None:
        """Put a late cell into the rows of the frames that should have shown it."""
        if _is_newer(cell, self._cells[slot]):
            self._cells[slot] = cell
        for index in range(len(self._rows) - 1, -1, -1):
            row = self._rows[index]
            if row.time < cell.close_time:
                break
            if not _is_newer(cell, row.cells[slot]):
                continue
            cells = (*row.cells[:slot], cell, *row.cells[slot + 1 :])
            revision = row.revision + (row.time not in corrected)
            changed = Row(self.shape, row.time, cells, self._fitting, row.sentiment, revision)
            self._rows[index] = corrected[row.time] = changed

    def _show(self, time: int) -> None:
        """Let each place show its newest cell that has closed by `time`."""
        for slot, ahead in enumerate(self._ahead):
            if ahead and ahead[0].close_time <= time:
                closed = sum(each.close_time <= time for each in ahead)
                if _is_newer(ahead[closed - 1], self._cells[slot]):
                    self._cells[slot] = ahead[closed - 1]
                del ahead[:closed]

    # -- frames -------------------------------------------------------------------------------------------------------

    def _made(self) -> list[Frame]:
        frames: list[Frame] = []
        while self._next is not None and self._next <= self._newest:
            if self._behind and self._ran + _ROUNDING < self._signs[0][1] + self.shape.grace:
                break
            frames.append(self._make())
        return frames

    def _make(self) -> Frame:
        """Make the frame that is next."""
        assert self._next is not None
        time = self._next
        self._show(time)
        row = Row(self.shape, time, tuple(self._cells), self._fitting, self.sentiment)
        for symbol, waiting in zip(self.shape.symbols, self._waiting_places, strict=True):
            while waiting and waiting[0][0] <= time:
                self._places[symbol] = waiting.popleft()[1]
        past = self._window()
        self._rows.append(row)
        self._advance(time + self.shape.clock.microseconds)
        return self._frame(row, past)

    def _frame(self, row: Row, past: tuple[Row, ...], is_closed: bool = True) -> Frame:
        sent_at, received_at = self._stamps
        return Frame(
            row, past, dict(self._places), sent_at=sent_at, received_at=received_at, is_closed=is_closed,
            over=self.over or 0,
        )  # fmt: skip

    def _window(self) -> tuple[Row, ...]:
        """Give the rows before the next one, as far as tensors reach."""
        wanted = self.shape.window - 1
        if wanted <= 0:
            return ()
        return tuple(self._rows) if len(self._rows) <= wanted else tuple(self._rows)[-wanted:]

    def _note(self, index: int, at: int, place: str) -> None:
        """Remember from where to go on once T has come as far as `at`."""
        waiting = self._waiting_places[index]
        time = self.shape.clock.ceil(at)
        if waiting and waiting[-1][0] >= time:
            waiting[-1] = (waiting[-1][0], place)
        else:
            waiting.append((time, place))

    # -- forming bars -------------------------------------------------------------------------------------------------

    def _form(self, slot: int, cell: Cell) -> None:
        held = self._forming.get(slot)
        if held is None or (cell.open_time, cell.available_at) > (held.open_time, held.available_at):
            self._forming[slot] = cell

    def _formed_by(self, packet: Packet) -> Frame | None:
        """Give a frame with the forming bars, if the packet brought any and no closed frame waits."""
        assert self._next is not None
        time = max((each.available_at for each in packet.cells if not each.is_closed), default=0)
        over = self._next - self.shape.clock.microseconds
        if self._newest >= self._next or not max(over, self._formed) < time < self._next:
            return None
        self._formed = time
        self._forming = {slot: cell for slot, cell in self._forming.items() if cell.close_time > over}
        cells = tuple(self._forming.get(slot, cell) for slot, cell in enumerate(self._cells))
        row = Row(self.shape, time, cells, self._fitting, self.sentiment)
        return self._frame(row, self._window(), is_closed=False)


def _is_newer(cell: Cell, shown: Cell | None) -> bool:
    return shown is None or _standing(cell) > _standing(shown)


def _standing(cell: Cell) -> tuple[int, int, int]:
    return cell.open_time, cell.revision, cell.edition


def _insert(ahead: list[Cell], cell: Cell) -> None:
    """Put a cell among those that wait, by open time; of one bar the highest revision and edition stays."""
    if not ahead or ahead[-1].open_time < cell.open_time:
        ahead.append(cell)
        return
    place = bisect_left(ahead, cell.open_time, key=lambda each: each.open_time)
    if ahead[place].open_time != cell.open_time:
        ahead.insert(place, cell)
    elif _is_newer(cell, ahead[place]):
        ahead[place] = cell
