"""Features that go on from bar to bar: TA-Lib's functions and order flow of bars, of one symbol and timeframe.

1. Each row is given to the segment of its columns (`segment`), which tells the statuses of what reads these columns.
2. Where nothing changes from the row before (the same columns are known, no anchor, nobody's warm-up ends), a `plan`
   says what to call: the states of all features that have a value. That is the way of nearly every row.
3. Else each feature looks for itself: it takes the row into its state, or has the batch function compute the rows of a
   segment that is too young to have a state, and opens one. Rows are kept for no longer than somebody needs them.
4. What the library makes up for 0 / 0, and what is no number, is taken out (`resting`), as in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

from mdplatform.features.bar_arrays import BarArrays
from mdplatform.features.degenerate import rests_of
from mdplatform.features.flow.of_bars import READS
from mdplatform.features.guard import INSUFFICIENT_HISTORY, UNSETTLED
from mdplatform.features.live.kernels import Kernel, State, kernel_of
from mdplatform.features.live.plan import Function, Plan, Step, getter
from mdplatform.features.live.resting import Resting
from mdplatform.features.live.rows import Rows
from mdplatform.features.live.segment import FOR_EVER, Columns, Segment, status_in
from mdplatform.features.spec import FeatureSpec
from mdplatform.market.bars import VALUE_COLUMNS


def columns_of(spec: FeatureSpec) -> tuple[str, ...]:
    """Give the columns of bars that an indicator, or a feature of order flow, reads."""
    return READS.get(spec.name, spec.inputs)


@dataclass
class Track:
    """One feature: the number of its columns' segment, where its inputs and outputs are, its kernel and its state.

    `held` are the places of its inputs among the rows that are kept; the state is that of the segment that begins in
    row `opened`.
    """

    spec: FeatureSpec
    columns: int
    inputs: tuple[int, ...]
    held: list[int]
    outputs: slice
    kernel: Kernel
    state: State | None = None
    opened: int = -1

    def __post_init__(self) -> None:
        self.lookback = self.spec.lookback
        self.settle = None if self.spec.anchor else self.spec.settle
        self.wants_its_start = self.spec.anchor is not None and self.spec.name in READS
        self.nothing = (nan,) * len(self.spec.outputs)

    def is_open(self, segment: Segment) -> bool:
        """Tell whether the state is that of the segment."""
        return self.state is not None and self.opened == segment.start and not segment.outside

    def status(self, segment: Segment, row: int) -> tuple[int, int]:
        """Give the status of a row of the segment, and the row in which it changes."""
        lost = self.wants_its_start and not segment.anchored and segment.cause != INSUFFICIENT_HISTORY
        if lost and not segment.outside:
            return segment.cause, FOR_EVER  # what was summed before the hole is not known
        return status_in(segment, row, self.lookback, self.settle)


class LiveIndicators:
    """The state of all of them; `row` is the number of the next row, from the beginning of history."""

    def __init__(self, specs: Sequence[FeatureSpec], step: int, arrays: BarArrays) -> None:
        self.row = len(arrays.open_time)
        names = [name for name in VALUE_COLUMNS if any(name in columns_of(spec) for spec in specs)]
        self._places = [VALUE_COLUMNS.index(name) for name in names]
        self._used = getter(self._places)
        self._rows = Rows(len(names))
        self._columns: list[Columns] = []
        self._tracks: list[Track] = []
        first = 0
        for spec in specs:
            self._add(spec, names, step, first)
            first += len(spec.outputs)
        self._least = max((each.lookback + 1 for each in self._tracks if each.kernel.reads_rows), default=0)
        rests = [(at, each.outputs, rest) for at, each in enumerate(self._tracks) for rest in rests_of(each.spec)]
        self._resting = Resting(rests, arrays)
        self._segments = [each.after(arrays) for each in self._columns]
        columns = [arrays.columns[name] for name in names]
        self._lacking: list[int] | None = None  # the columns that the last row lacks, None after a gap and before all
        if self.row and (arrays.gaps is None or not arrays.gaps[-1]):
            self._lacking = [at for at, each in zip(self._places, columns, strict=True) if not isfinite(each[-1])]
        self._open(columns)
        self._make_plan()

    def take(
        self, open_time: int, values: tuple[float, ...], is_gap: bool, keep: bool
    ) -> tuple[list[float], bytearray]:
        """Give the outputs (NaN where null) and the statuses of the next row; without `keep` nothing is committed."""
        if (
            is_gap
            or self.row >= self._change
            or open_time >= self._ends
            or (not isfinite(sum(values)) and not isfinite(sum(self._known(values))))
            or (self._lacking and any(isfinite(values[place]) for place in self._lacking))
        ):
            return self._take_apart(open_time, values, is_gap, keep)
        if self._is_keeping:
            self._rows.push(self._used(values))
        numbers = self._plan.run(values, keep)
        statuses = bytearray(self._statuses)
        lengths, may_hold = self._resting.after(values)
        if may_hold or not isfinite(sum(numbers)):
            self._take_out(numbers, statuses, lengths)
        for place in self._blank:
            numbers[place] = nan
        if keep:
            self._resting.take(self.row, values, lengths, may_hold)
            self.row += 1
        elif self._is_keeping:
            self._rows.pop()
        return numbers, statuses

    def skip(self, rows: int) -> None:
        """Let so many rows pass that are as the last one was, which had a hole in every column."""
        self.row += rows

    def save(self) -> tuple[Any, ...]:
        """Give what `restore` needs to undo rows with a hole in every column."""
        states = [(each.state, each.opened) for each in self._tracks]
        return self.row, self._lacking, list(self._segments), self._rows.copy(), self._resting.copy(), states

    def restore(self, saved: tuple[Any, ...]) -> None:
        """Be again as when `saved` was."""
        self.row, self._lacking, self._segments, rows, self._resting, states = saved
        self._rows.take(rows)
        for track, (state, opened) in zip(self._tracks, states, strict=True):
            track.state, track.opened = state, opened
        self._make_plan()

    def _add(self, spec: FeatureSpec, names: Sequence[str], step: int, first: int) -> None:
        read = columns_of(spec)
        columns = Columns(tuple(sorted(set(read))), spec.anchor, step)
        if columns not in self._columns:
            self._columns.append(columns)
        inputs = tuple(VALUE_COLUMNS.index(name) for name in read)
        held = [names.index(name) for name in read]
        kernel = kernel_of(spec, read, self._rows, held)
        outputs = slice(first, first + len(spec.outputs))
        self._tracks.append(Track(spec, self._columns.index(columns), inputs, held, outputs, kernel))

    def _take_apart(
        self, open_time: int, values: tuple[float, ...], is_gap: bool, keep: bool
    ) -> tuple[list[float], bytearray]:
        """Do what `take` does, for a row in which something changes."""
        row = self.row
        pairs = zip(self._columns, self._segments, strict=True)
        segments = [each.next(before, row, open_time, values, is_gap) for each, before in pairs]
        need = self._need(segments, row + 1)
        if need:
            self._rows.keep(need)
            self._rows.push(self._used(values))
        numbers: list[float] = []
        statuses = bytearray()
        for track in self._tracks:
            segment = segments[track.columns]
            status = track.status(segment, row)[0]
            statuses.append(status)
            numbers += self._outputs(track, segment, values, keep) if status <= UNSETTLED else track.nothing
        lengths, may_hold = self._resting.after(values)
        self._take_out(numbers, statuses, lengths)
        if keep:
            self._resting.take(row, values, lengths, may_hold)
            self._segments = segments
            self._lacking = None if is_gap else [place for place in self._places if not isfinite(values[place])]
            self.row += 1
            self._open(None)
            self._make_plan()
        elif need:
            self._rows.pop()
        return numbers, statuses

    def _outputs(self, track: Track, segment: Segment, values: tuple[float, ...], keep: bool) -> Sequence[float]:
        if track.state is None or not track.is_open(segment):
            rows = self._rows.last(self.row - segment.start + 1)
            return track.kernel.at_end([rows[place] for place in track.held])
        call = track.state.update if keep else track.state.peek
        answer = call(*[values[place] for place in track.inputs])
        return answer if isinstance(answer, tuple) else (answer,)

    def _take_out(self, numbers: list[float], statuses: bytearray, lengths: Sequence[int]) -> None:
        """Take out what is made up or no number, and say why."""
        lost: dict[int, int] = {}
        for rule in self._resting.rules:
            if lengths[rule.run] < rule.least and not rule.found:
                continue
            at = rule.feature
            if at not in lost and statuses[at] <= UNSETTLED and rule.holds(self.row, lengths[rule.run], numbers):
                lost[at] = rule.rest.status
        for at, track in enumerate(self._tracks if not isfinite(sum(numbers)) else ()):
            if at not in lost and statuses[at] <= UNSETTLED and not all(map(isfinite, numbers[track.outputs])):
                reason = track.kernel.reason()
                if reason:
                    lost[at] = reason
        for at, status in lost.items():
            statuses[at] = status
            numbers[self._tracks[at].outputs] = self._tracks[at].nothing

    def _need(self, segments: Sequence[Segment], row: int) -> int:
        """Give how many of the rows before `row` are needed: those of a segment until all who read it are open."""
        need = self._least
        for track in self._tracks:
            segment = segments[track.columns]
            if not segment.outside and not track.is_open(segment):
                need = max(need, row - segment.start, track.lookback + 1)
        return need

    def _open(self, columns: Sequence[Any] | None) -> None:
        """Open what can be opened after the newest row, from the rows that are kept or from `columns` of history."""
        for track in self._tracks:
            segment = self._segments[track.columns]
            if track.is_open(segment):
                continue
            track.state = None
            rows = self.row - segment.start
            if not segment.outside and rows > track.lookback:
                held = self._rows.last(rows) if columns is None else [each[segment.start :] for each in columns]
                track.state, track.opened = track.kernel.opened([held[at] for at in track.held]), segment.start
        need = self._need(self._segments, self.row)
        if not need:
            self._rows.clear()
        elif columns is not None:
            self._rows.keep(need)
            self._rows.extend(columns)

    def _make_plan(self) -> None:
        """Say what is to be called from the next row on, and in which row or at which time that changes."""
        row, self._change = self.row, FOR_EVER
        self._ends = min((each.until for each in self._segments if not each.outside), default=FOR_EVER)
        self._is_keeping = self._need(self._segments, row) > 0
        if self._lacking is None:
            self._change = row
            return
        self._known = getter([place for place in self._places if place not in self._lacking])
        steps: list[Step] = []
        self._blank: list[int] = []
        self._statuses = bytearray()
        for track in self._tracks:
            segment = self._segments[track.columns]
            status, until = track.status(segment, row)
            self._statuses.append(status)
            if not segment.outside:
                self._change = min(self._change, until)
            if status <= UNSETTLED and not track.is_open(segment):
                self._change = row
                return
            state, count = track.state, len(track.nothing)
            if status <= UNSETTLED and state is not None:
                steps.append(Step(state.update, state.peek, track.inputs, count))
            else:
                nothing = _zero if count == 1 else _zeros(count)
                steps.append(Step(nothing, nothing, track.inputs, count))
                self._blank += range(track.outputs.start, track.outputs.stop)
        self._plan = Plan(steps)


def _zero(*_: float) -> float:
    return 0.0


def _zeros(count: int) -> Function:
    zeros = (0.0,) * count
    return lambda *_: zeros
