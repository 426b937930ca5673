"""Order flow from trades, a day's at a time: each row uses the trades that were known at its close.

1. A trade counts in the row in which it became known: executed before the row's close, and available by then. One that
   arrives more than `LATEST` after it was executed counts nowhere.
2. Rows are computed by UTC day, each from the trades of its own window: so many rows before, the period of its anchor,
   or the day before. That window is all that a value depends on.
3. Days without trades at all are not known. A row of such a day is `not_available_yet`; one whose window touches such a
   day has a `gap`, or `insufficient_history` if there are none of before it. On other days, no trade means none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.features.anchors import start_of, starts_of
from mdplatform.features.data import Data, Grid, Values
from mdplatform.features.flow_functions import FUNCTIONS
from mdplatform.features.flow_rows import FlowRows, join_rows, sum_rows
from mdplatform.features.footprint import imbalances, stacks, to_cells
from mdplatform.features.guard import (
    DEGENERATE,
    DIVISION_BY_ZERO,
    GAP,
    INSUFFICIENT_HISTORY,
    NOT_AVAILABLE_YET,
    SETTLED,
    UNSETTLED,
)
from mdplatform.features.order_flow import size_quantiles
from mdplatform.features.spec import FeatureSpec
from mdplatform.features.talib_functions import Floats
from mdplatform.features.trade_arrays import TradeArrays, as_known
from mdplatform.market.timeframe import DAY_US

LATEST = 3_600_000_000
"""How long after its execution (microseconds) a trade may become known and still count: one hour."""

METHOD = "trades"
"""What `Values.method` says."""


def evaluate_trades(specs: Sequence[FeatureSpec], grid: Grid, data: Data) -> dict[FeatureSpec, Values]:
    """Give the values of `specs` in each row of the grid."""
    days = np.array(data.trade_days(grid.symbol), "datetime64[D]").astype(np.int64)
    values = {}
    summed = [spec for spec in specs if spec.name in FUNCTIONS]
    if summed:
        earliest = min(_first_open(spec, grid) for spec in summed)
        rows = _flow(grid, earliest, data)
        values = {spec: _of_rows(spec, grid, rows, days) for spec in summed}
    for spec in specs:
        if spec not in values:
            values[spec] = _ONE_BY_ONE[spec.name](spec, grid, data, days)
    return values


def known_trades(data: Data, symbol: str, start: int, end: int) -> TradeArrays:
    """Give the trades that became known in `[start, end)` (microseconds), in that order."""
    rows = data.trades(symbol, start - LATEST, end)
    late = pl.col("available_at") - pl.col("time") > pl.duration(microseconds=LATEST)
    return as_known(rows.filter(~late.fill_null(False))).between(start, end)


def _statuses(
    grid: Grid, windows: NDArray[np.int64], days: NDArray[np.int64], cumulative: bool = False
) -> NDArray[np.int8]:
    """Give the status of each row by which days there are trades of, from `windows` (microseconds) to its close.

    `cumulative`: what began after its window did is a value, but an unsettled one.
    """
    own, last, first = grid.open_time // DAY_US, (grid.close_time - 1) // DAY_US, windows // DAY_US

    def held(begin: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(np.searchsorted(days, last, "right") - np.searchsorted(days, begin) == last - begin + 1)

    oldest = int(days[0]) if len(days) else 2**40
    statuses = np.full(len(grid), GAP, np.int8)
    statuses[held(np.maximum(first, oldest))] = UNSETTLED if cumulative else INSUFFICIENT_HISTORY
    statuses[held(first)] = SETTLED
    statuses[~held(own)] = NOT_AVAILABLE_YET
    return statuses


def _by_day(times: NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
    """Give each UTC day that ascending `times` lie in (its start), with the rows that do."""
    days = times // DAY_US
    edges = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    for begin, end in pairwise(edges):
        yield int(days[begin]) * DAY_US, slice(begin, end)


def _first_open(spec: FeatureSpec, grid: Grid) -> int:
    back = spec.lookback * grid.timeframe.microseconds
    return grid.start - back if spec.anchor is None else grid.timeframe.ceil(start_of(grid.start, spec.anchor)) - back


def _flow(grid: Grid, earliest: int, data: Data) -> FlowRows:
    step = grid.timeframe.microseconds
    opens = np.arange(earliest, grid.end, step)
    parts = []
    for _, rows in _by_day(opens):
        edges = np.append(opens[rows], opens[rows][-1] + step)
        parts.append(sum_rows(known_trades(data, grid.symbol, int(edges[0]), int(edges[-1])), edges))
    return join_rows(parts)


def _of_rows(spec: FeatureSpec, grid: Grid, rows: FlowRows, days: NDArray[np.int64]) -> Values:
    step = grid.timeframe.microseconds
    opens = grid.end - step * np.arange(len(rows.count), 0, -1)
    windows = grid.open_time - spec.lookback * step
    if spec.anchor:
        windows = starts_of(grid.open_time, spec.anchor)
    statuses = _statuses(grid, windows, days, cumulative=spec.anchor is not None)
    outputs, reasons = FUNCTIONS[spec.name](rows, starts_of(opens, spec.anchor or "day"), spec.arguments)
    at = (grid.open_time - int(opens[0])) // step
    return _values(statuses, tuple(each[at] for each in outputs), reasons[at])


def _values(statuses: NDArray[np.int8], outputs: tuple[Floats, ...], reasons: NDArray[np.int8]) -> Values:
    told = np.where((statuses <= UNSETTLED) & (reasons > 0), reasons, statuses)
    return Values(tuple(np.where(told <= UNSETTLED, each, np.nan) for each in outputs), told, None, METHOD)


def _size_quantile(spec: FeatureSpec, grid: Grid, data: Data, days: NDArray[np.int64]) -> Values:
    """The quantile of the sizes of the last rows' trades; none to rank is degenerate."""
    windows = grid.open_time - spec.lookback * grid.timeframe.microseconds
    values = np.full(len(grid), np.nan)
    for _, rows in _by_day(grid.open_time):
        trades = known_trades(data, grid.symbol, int(windows[rows][0]), int(grid.close_time[rows][-1]))
        first, after = (np.searchsorted(trades.time, each[rows]) for each in (windows, grid.close_time))
        values[rows] = size_quantiles(trades.quantity, first, after, float(spec.arguments["q"]))
    reasons = np.where(np.isnan(values), np.int8(DEGENERATE), np.int8(0))
    return _values(_statuses(grid, windows, days), (values,), reasons)


def _large_volume(spec: FeatureSpec, grid: Grid, data: Data, days: NDArray[np.int64]) -> Values:
    """The volume of large trades by side; what is large is told, or ranked among the sizes of the days before."""
    given = spec.arguments
    told, back = float(given["min_quantity"]), int(given["days"])
    own_day = grid.open_time - grid.open_time % DAY_US
    windows = grid.open_time if told else own_day - back * DAY_US
    statuses = _statuses(grid, windows, days)
    bought, sold = np.full(len(grid), np.nan), np.full(len(grid), np.nan)
    sizes: dict[int, Floats] = {}
    for day, rows in _by_day(grid.open_time):
        least = told
        if not told:
            before = [day - each * DAY_US for each in range(back, 0, -1)]
            sizes = {
                each: sizes[each] if each in sizes else known_trades(data, grid.symbol, each, each + DAY_US).quantity
                for each in before
            }
            every = np.concatenate(list(sizes.values()))
            least = float(np.quantile(every, float(given["quantile"]))) if len(every) else np.inf
        edges = np.append(grid.open_time[rows], grid.close_time[rows][-1])
        trades = known_trades(data, grid.symbol, int(edges[0]), int(edges[-1]))
        large = trades.quantity >= least
        flow = sum_rows(TradeArrays(*(each[large] for each in vars(trades).values())), edges)
        bought[rows], sold[rows] = flow.buy, flow.sell
    return _values(statuses, (bought, sold), np.zeros(len(grid), np.int8))


def _vpin(spec: FeatureSpec, grid: Grid, data: Data, days: NDArray[np.int64]) -> Values:
    """VPIN, its buckets cut anew from the start of the UTC day before the row's close."""
    from mdplatform.features.vpin import vpin_after

    buckets, told = int(spec.arguments["buckets"]), float(spec.arguments["bucket_volume"])
    last = grid.close_time - 1
    statuses = _statuses(grid, last - last % DAY_US - DAY_US, days)
    values, reasons = np.full(len(grid), np.nan), np.zeros(len(grid), np.int8)
    for day, rows in _by_day(last):
        trades = known_trades(data, grid.symbol, day - DAY_US, int(grid.close_time[rows][-1]))
        volume = told or float(trades.quantity[: np.searchsorted(trades.time, day)].sum()) / buckets
        if volume <= 0:
            reasons[rows] = DIVISION_BY_ZERO
            continue
        counts = np.searchsorted(trades.time, grid.close_time[rows])
        values[rows] = vpin_after(trades.quantity, trades.is_buy, counts, volume, buckets)
        reasons[rows] = np.where(np.isnan(values[rows]), INSUFFICIENT_HISTORY, 0)
    return _values(statuses, (values,), reasons)


def _footprint_imbalance(spec: FeatureSpec, grid: Grid, data: Data, days: NDArray[np.int64]) -> Values:
    """How many price rows of the bar have an imbalance, and the longest stack of them, by side."""
    outputs = tuple(np.zeros(len(grid)) for _ in range(4))
    for _, rows in _by_day(grid.open_time):
        edges = np.append(grid.open_time[rows], grid.close_time[rows][-1])
        trades = known_trades(data, grid.symbol, int(edges[0]), int(edges[-1]))
        bar = np.searchsorted(edges, trades.time, side="right") - 1 + rows.start
        cells = to_cells(trades, bar, float(spec.arguments["row_size"]))
        for side, found in enumerate(imbalances(cells, float(spec.arguments["ratio"]))):
            outputs[side][rows] = np.bincount(cells.bar[found], minlength=rows.stop)[rows]
            np.maximum.at(outputs[side + 2], cells.bar, stacks(cells, found))
    return _values(_statuses(grid, grid.open_time, days), outputs, np.zeros(len(grid), np.int8))


_ONE_BY_ONE = {
    "FOOTPRINT_IMBALANCE": _footprint_imbalance,
    "LARGE_TRADE_VOLUME": _large_volume,
    "TRADE_SIZE_QUANTILE": _size_quantile,
    "VPIN": _vpin,
}
