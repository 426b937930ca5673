"""The one NaN guard: no kernel ever sees a hole.

Libraries answer a hole with silent garbage (RSI is 0.0 for ever after one NaN). So, for the columns a feature reads:

1. a row is unusable if its state is `gap`, or if a column that the feature reads is null, NaN or infinite there;
2. rows are cut into segments at unusable rows and wherever a row is missing (a step longer than the timeframe);
   features with an anchor are cut at each anchor too;
3. the kernel runs on each segment by itself, and its values are put back where they belong;
4. every row gets a status: `settled`, `unsettled` or the reason why it has no value. The rows that a segment takes to
   warm up carry the reason for which it began: `insufficient_history` at the start of history, else `gap` or
   `missing_volume`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.anchors import starts_of
from mdplatform.market.bars import AMOUNT_COLUMNS

STATUSES = (
    "settled",
    "unsettled",
    "insufficient_history",
    "gap",
    "missing_volume",
    "division_by_zero",
    "degenerate",
    "stale",
    "not_available_yet",
)
"""A status is a small integer, the index in this tuple; from the third on it is the reason of a null."""
(
    SETTLED,
    UNSETTLED,
    INSUFFICIENT_HISTORY,
    GAP,
    MISSING_VOLUME,
    DIVISION_BY_ZERO,
    DEGENERATE,
    STALE,
    NOT_AVAILABLE_YET,
) = range(len(STATUSES))
REASONS = STATUSES[2:]


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows `[start, stop)` without a hole; `cause` is its warm-up's status; `anchored` if it starts at its anchor."""

    start: int
    stop: int
    cause: int
    anchored: bool = False


@dataclass(frozen=True)
class Holes:
    """What is unusable in a set of columns: the segments between, and the status of each row outside of them."""

    rows: int
    segments: tuple[Segment, ...]
    outside: NDArray[np.int8] | None
    _statuses: dict[tuple[int, int | None], NDArray[np.int8]] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether one segment holds all rows."""
        return len(self.segments) == 1 and self.outside is None

    def statuses_after(self, lookback: int, settle: int | None) -> NDArray[np.int8]:
        """Give the status of each row for these lengths; without `settle`, what begins at an anchor is settled.

        One array serves all features of the same lengths: it is not to be written to.
        """
        key = (lookback, settle)
        if key not in self._statuses:
            statuses = np.zeros(self.rows, np.int8) if self.outside is None else self.outside.copy()
            for segment in self.segments:
                first = min(segment.start + lookback, segment.stop)
                statuses[segment.start : first] = segment.cause
                unsettled = settle if settle is not None else 0 if segment.anchored else self.rows
                statuses[first : min(first + unsettled, segment.stop)] = UNSETTLED
            statuses.flags.writeable = False
            self._statuses[key] = statuses
        return self._statuses[key]


def find_holes(
    open_time: NDArray[np.int64],
    step: int | None,
    gaps: NDArray[np.bool_] | None,
    unusable: Iterable[tuple[str, NDArray[np.bool_]]],
    anchor: str | None,
) -> Holes:
    """Cut the rows into segments.

    `step` is the timeframe in microseconds, `gaps` tells the rows of state `gap` (None if there are none), and
    `unusable` the rows without a finite value of each column that has such rows.
    """
    rows = len(open_time)
    statuses: NDArray[np.int8] | None = None
    for column, missing in unusable:
        statuses = np.zeros(rows, np.int8) if statuses is None else statuses
        statuses[missing & (statuses != GAP)] = MISSING_VOLUME if column in AMOUNT_COLUMNS else GAP
    if gaps is not None:
        statuses = np.zeros(rows, np.int8) if statuses is None else statuses
        statuses[gaps] = GAP
    cuts = np.zeros(rows, np.bool_)
    cuts[:1] = True
    jumps = np.flatnonzero(np.diff(open_time) > step) + 1 if step is not None else np.empty(0, np.int64)
    cuts[jumps] = True
    if anchor is not None:
        anchor_starts = starts_of(open_time, anchor)
        cuts[1:] |= anchor_starts[1:] != anchor_starts[:-1]
    if statuses is None:
        edges = np.append(np.flatnonzero(cuts), rows)
        spans = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    else:
        usable = statuses == SETTLED
        begins = usable & (cuts | ~np.append(False, usable[:-1]))
        ends = usable & (np.append(cuts[1:], True) | ~np.append(usable[1:], False))
        spans = list(zip(np.flatnonzero(begins).tolist(), (np.flatnonzero(ends) + 1).tolist(), strict=True))
    jumped = set(jumps.tolist())
    segments = []
    for start, stop in spans:
        cause = GAP
        if start == 0:
            cause = INSUFFICIENT_HISTORY
        elif start not in jumped and statuses is not None and statuses[start - 1] != SETTLED:
            cause = int(statuses[start - 1])
        anchored = anchor is not None and bool(open_time[start] - (step or 1) < anchor_starts[start])
        segments.append(Segment(start, stop, cause, anchored))
    return Holes(rows, tuple(segments), statuses)
