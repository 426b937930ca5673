"""Order flow from bars with taker columns: what the exchange itself summed.

A row is unusable in a gap, or where a column that the feature reads is null (`missing_volume`); windows that touch such
a row have no value, and a running sum has none until its next anchor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mdplatform.features.anchors import starts_of
from mdplatform.features.bar_arrays import BarArrays, read_bars
from mdplatform.features.data import Data, Grid, Values
from mdplatform.features.flow.functions import FUNCTIONS
from mdplatform.features.flow.rows import FlowRows
from mdplatform.features.graph import load_from
from mdplatform.features.guard import INSUFFICIENT_HISTORY, UNSETTLED
from mdplatform.features.spec import FeatureSpec
from mdplatform.features.talib_functions import Floats

READS = {
    "AMIHUD": ("close", "quote_volume"),
    "CVD": ("taker_buy_volume", "volume"),
    "DELTA": ("taker_buy_volume", "volume"),
    "KYLE_LAMBDA": ("close", "open", "taker_buy_volume", "volume"),
    "ROLL_SPREAD": ("close",),
    "TAKER_IMBALANCE": ("taker_buy_volume", "volume"),
    "TAKER_RATIO": ("taker_buy_volume", "volume"),
}
"""The columns of bars that each function reads."""


def evaluate_bars(specs: Sequence[FeatureSpec], grid: Grid, data: Data) -> dict[FeatureSpec, Values]:
    """Give the values of `specs` in each row of the grid."""
    earliest = load_from(specs, grid.timeframe, grid.start)
    bars = data.bars(grid.symbol, grid.timeframe, earliest, grid.end)
    arrays = read_bars(bars, grid.timeframe, {name for spec in specs for name in READS[spec.name]})
    method = f"bars:{grid.timeframe}"
    rows = np.searchsorted(arrays.open_time, grid.open_time)
    found = np.append(arrays.open_time, -1)[rows] == grid.open_time
    values = {}
    for spec in specs:
        if not found.any():
            nothing = tuple(np.full(len(grid), np.nan) for _ in spec.outputs)
            values[spec] = Values(nothing, np.full(len(grid), INSUFFICIENT_HISTORY, np.int8), None, method)
            continue
        whole = _evaluate_one(spec, arrays)
        at = np.where(found, rows, 0)
        outputs = tuple(np.where(found, each[at], np.nan) for each in whole.outputs)
        statuses = np.where(found, whole.statuses[at], np.int8(INSUFFICIENT_HISTORY))
        values[spec] = Values(outputs, statuses, None, method)
    return values


def _evaluate_one(spec: FeatureSpec, bars: BarArrays) -> Values:
    holes = bars.holes(READS[spec.name], spec.anchor)
    statuses = holes.statuses_after(spec.lookback, None if spec.anchor else spec.settle).copy()
    outputs = tuple(np.full(len(bars.open_time), np.nan) for _ in spec.definition.outputs)
    starts = starts_of(bars.open_time, spec.anchor or "day")
    for segment in holes.segments:
        inside = slice(segment.start, segment.stop)
        if spec.anchor and not segment.anchored and segment.cause != INSUFFICIENT_HISTORY:
            statuses[inside] = segment.cause  # what was summed before the hole is not known
            continue
        columns = {name: values[inside] for name, values in bars.columns.items()}
        parts, reasons = FUNCTIONS[spec.name](flow_rows(columns), starts[inside], spec.arguments)
        given = statuses[inside] <= UNSETTLED
        statuses[inside][given & (reasons > 0)] = reasons[given & (reasons > 0)]
        for output, part in zip(outputs, parts, strict=True):
            output[inside] = np.where(statuses[inside] <= UNSETTLED, part, np.nan)
    return Values(outputs, statuses)


def flow_rows(columns: Mapping[str, Floats]) -> FlowRows:
    """Give what takers did in each row, from columns of bars; those that are not there count as 0."""
    nothing = np.zeros(len(next(iter(columns.values()))))
    volume = columns.get("volume", nothing)
    bought = np.minimum(columns.get("taker_buy_volume", nothing), volume)  # which may be above it by rounding
    return FlowRows(
        buy=bought,
        sell=volume - bought,
        quote=columns.get("quote_volume", nothing),
        count=(volume > 0).astype(np.int64),
        first=columns.get("open", nothing),
        last=columns.get("close", nothing),
    )
