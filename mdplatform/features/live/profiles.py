"""Volume profiles, each computed anew at each row by the batch function, from the bars of its window."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np
import polars as pl

from mdplatform.features.bars_alone import bars_alone
from mdplatform.features.data import Grid, Values
from mdplatform.features.live.rows import Rows
from mdplatform.features.panel import evaluate_on
from mdplatform.features.spec import FeatureSpec
from mdplatform.features.talib_functions import Floats
from mdplatform.market.bars import INSTANT
from mdplatform.market.timeframe import MINUTE_US, Timeframe

COLUMNS = ("open", "high", "low", "close", "volume")
"""What profiles read of a bar, and which rows they keep."""

_GAP = (nan,) * len(COLUMNS)
_HOUR_US = 60 * MINUTE_US


class LiveProfiles:
    """All profiles of a stream; `held` keeps the bars of the longest window."""

    def __init__(self, specs: Sequence[FeatureSpec], timeframe: Timeframe) -> None:
        self._specs = tuple(specs)
        self._timeframe = timeframe
        hours = [int(spec.arguments.get("session_hours") or spec.arguments["hours"]) for spec in specs]
        self.rows = max(hours) * _HOUR_US // timeframe.microseconds + 1
        self.held = Rows(len(COLUMNS), self.rows)

    def begin(self, columns: Sequence[Floats]) -> None:
        """Take the history of `COLUMNS` in, as far as it is looked at."""
        self.held.extend(columns)

    def skip(self, rows: int) -> None:
        """Let so many gaps pass."""
        for _ in range(min(rows, self.rows)):
            self.held.push(_GAP)

    def values(self, open_time: int, row: Sequence[float], keep: bool) -> list[Values]:
        """Give the profiles at the close of the next row; without `keep` as if it had not been given."""
        self.held.push(row)
        newest = self.held.last(self.rows)
        step = self._timeframe.microseconds
        opens = np.arange(open_time - (newest.shape[1] - 1) * step, open_time + 1, step, dtype=np.int64)
        named = {name: pl.Series(each, nan_to_null=True) for name, each in zip(COLUMNS, newest, strict=True)}
        bars = pl.DataFrame({"open_time": pl.Series(opens).cast(INSTANT), **named})
        if not keep:
            self.held.pop()
        own = bars_alone(bars, self._specs, self._timeframe)
        answers = evaluate_on(Grid(own.grid.symbol, self._timeframe, opens[-1:]), self._specs, own.data)
        return [answers[spec] for spec in self._specs]
