"""The live features of one symbol and timeframe: opened from history, then a bar at a time.

What `update` gives for a bar is what `features.evaluate` gives for it on the same bars from the same beginning, bit for
bit: values and statuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.features.parse import FeatureLike
from mdplatform.features.spec import FeatureSpec
from mdplatform.market.timeframe import Timeframe


@dataclass(frozen=True)
class LiveValues:
    """The values of one bar: `numbers` (float64, NaN for null) by column, `statuses` (int8) by feature."""

    numbers: NDArray[np.float64]
    statuses: NDArray[np.int8]


class LiveFeatures:
    """State of features between bars; `specs` fix the order of columns and statuses.

    `history` is a table of closed bars (`BAR_SCHEMA`, newest revisions, complete grid, ascending) that reaches up to
    the bar before the first update.
    """

    specs: tuple[FeatureSpec, ...]
    columns: tuple[str, ...]

    def __init__(self, features: Sequence[FeatureLike], timeframe: Timeframe, history: pl.DataFrame) -> None:
        raise NotImplementedError

    def update(self, open_time: int, values: Sequence[float], state: str = "observed") -> LiveValues:
        """Take the next closed bar in: nine values as in `VALUE_COLUMNS`, NaN for null; give the features at its close.

        A bar that is not the next one on the grid, or a `gap`, cuts the segment as in a batch. Raises `InvalidBars` for
        one that opens before the last, and for values that are no bar; the state stays as it was.
        """
        raise NotImplementedError

    def peek(self, open_time: int, values: Sequence[float]) -> LiveValues:
        """Give the features as they would be if the forming bar closed like this; nothing is committed."""
        raise NotImplementedError
