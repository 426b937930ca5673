"""Technical indicators: TA-Lib's functions on the bars of the symbol itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdplatform.features.bar_arrays import read_bars
from mdplatform.features.data import Data, Grid, Values, within
from mdplatform.features.definition import Definition
from mdplatform.features.graph import load_from
from mdplatform.features.guard import INSUFFICIENT_HISTORY
from mdplatform.features.indicators import evaluate_one
from mdplatform.features.kinds import Need
from mdplatform.features.spec import FeatureSpec
from mdplatform.market.resample import complete_grid
from mdplatform.market.timeframe import Timeframe

DEFINITIONS: tuple[Definition, ...] = ()


def evaluate(specs: Sequence[FeatureSpec], grid: Grid, data: Data) -> dict[FeatureSpec, Values]:
    """Load the rows before that each spec needs itself, not what its neighbours need, and compute it.

    So values are the same to the bit whether a feature is computed alone or with others.
    """
    earliest = {spec: load_from([spec], grid.timeframe, grid.start) for spec in specs}
    bars = data.bars(grid.symbol, grid.timeframe, min(earliest.values()), grid.end)
    if bars.height:  # a bar that has not come by T is a gap
        bars = complete_grid(bars, grid.timeframe, end=grid.end)
    values: dict[FeatureSpec, Values] = {}
    for first in sorted(set(earliest.values())):
        group = [spec for spec in specs if earliest[spec] == first]
        inputs = {name for spec in group for name in spec.inputs}
        arrays = read_bars(within(bars, "open_time", first, None), grid.timeframe, inputs)
        rows = np.searchsorted(arrays.open_time, grid.open_time)
        found = np.append(arrays.open_time, -1)[rows] == grid.open_time
        rows = np.where(found, rows, 0)
        for spec in group:
            if not found.any():
                nothing = np.full(len(grid), np.nan)
                values[spec] = Values(
                    tuple(nothing.copy() for _ in spec.outputs), np.full(len(grid), INSUFFICIENT_HISTORY, np.int8)
                )
                continue
            outputs, statuses = evaluate_one(spec, arrays)
            values[spec] = Values(
                tuple(np.where(found, each[rows], np.nan) for each in outputs),
                np.where(found, statuses[rows], np.int8(INSUFFICIENT_HISTORY)),
            )
    return values


def reads(spec: FeatureSpec, symbol: str, timeframe: Timeframe) -> frozenset[Need]:
    """The bars of the symbol."""
    return frozenset({Need("bars", symbol)})
