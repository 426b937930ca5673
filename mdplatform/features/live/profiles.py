"""Volume profiles, each computed anew at each row by the kernels of a batch, from the bars of its window."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np

from mdplatform.errors import ParameterOutOfRange
from mdplatform.features.guard import DEGENERATE, INSUFFICIENT_HISTORY, SETTLED
from mdplatform.features.kinds.profile import NO_BARS, BarItems, bar_items, coverage, length_of, windows_of
from mdplatform.features.live.rows import Rows
from mdplatform.features.profile.developing import profiles
from mdplatform.features.profile.volume_profile import rows_at_a_time
from mdplatform.features.spec import FeatureSpec
from mdplatform.features.talib_functions import Floats
from mdplatform.features.ticks import checked_row_size
from mdplatform.market.timeframe import Timeframe

COLUMNS = ("open", "low", "high", "volume")
"""What profiles read of a bar, and which rows they keep."""

_GAP = (nan,) * len(COLUMNS)


class LiveProfiles:
    """All profiles of a stream; `held` keeps the bars of the longest window.

    Raises `ParameterOutOfRange` for a row size that is none. One by which a window has too many rows, for which a batch
    is refused, is `degenerate` here: a stream goes on.
    """

    def __init__(self, specs: Sequence[FeatureSpec], timeframe: Timeframe) -> None:
        self._timeframe = timeframe
        self._specs = list(specs)
        self._asked = [_asked(spec) for spec in specs]
        self.rows = max(length_of(spec.arguments) for spec in specs) // timeframe.microseconds + 1
        self.held = Rows(len(COLUMNS), self.rows)

    def begin(self, columns: Sequence[Floats]) -> None:
        """Take the history of `COLUMNS` in, as far as it is looked at."""
        self.held.extend(columns)

    def skip(self, rows: int) -> None:
        """Let so many gaps pass."""
        for _ in range(min(rows, self.rows)):
            self.held.push(_GAP)

    def values(self, open_time: int, row: Sequence[float], keep: bool) -> list[tuple[Sequence[float], int]]:
        """Give outputs and status of each profile at the close of the next row; without `keep` nothing is committed."""
        self.held.push(row)
        first, low, high, volume = self.held.last(self.rows)
        step, count = self._timeframe.microseconds, len(first)
        opens = np.arange(open_time - (count - 1) * step, open_time + 1, step, dtype=np.int64)
        no_gap, known = np.zeros(count, np.bool_), np.zeros(count, np.int64)  # a gap has no prices
        bars = bar_items(opens, first, low, high, volume, no_gap, known, self._timeframe, False)
        found = [self._profile(spec, asked, bars) for spec, asked in zip(self._specs, self._asked, strict=True)]
        if not keep:
            self.held.pop()
        return found

    def _profile(
        self, spec: FeatureSpec, asked: tuple[float, float, int], bars: BarItems
    ) -> tuple[Sequence[float], int]:
        nothing = (nan,) * len(spec.outputs)
        closes = bars.open_time[-1:] + bars.length
        if length_of(spec.arguments) % bars.length:
            return nothing, INSUFFICIENT_HISTORY
        windows = windows_of(spec, closes)
        status = int(coverage(bars, windows, closes)[0][0])
        if status != SETTLED:
            return nothing, INSUFFICIENT_HISTORY if status == NO_BARS else status
        try:
            numbers = profiles(bars.items, windows, *asked)[:, 0].tolist()
        except ParameterOutOfRange:
            return nothing, DEGENERATE
        return (nothing, DEGENERATE) if np.isnan(numbers[0]) else (numbers, SETTLED)


def _asked(spec: FeatureSpec) -> tuple[float, float, int]:
    """Give the row size, the share of the value area, and the rows that it grows by."""
    given = spec.arguments
    size = float(given["row_size"])
    return (
        checked_row_size(size) if size else 0.0,
        float(given["value_area_pct"]),
        rows_at_a_time(str(given["algorithm"])),
    )
