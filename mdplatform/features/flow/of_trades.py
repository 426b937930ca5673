"""Order flow from trades, a day's at a time: each row uses the trades that were known at its close (`known_trades`).

Each row is computed from the trades of its own window: so many rows before, the period of its anchor, or the days
before. That window is all that a value depends on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.anchors import start_of, starts_of
from mdplatform.features.data import Data, Grid, Values
from mdplatform.features.flow.bars_in_rows import bars_in_rows, day_starts, events_in_rows
from mdplatform.features.flow.footprint import imbalances, stacks, to_cells
from mdplatform.features.flow.functions import FUNCTIONS
from mdplatform.features.flow.rows import FlowRows, join_rows, sum_rows
from mdplatform.features.guard import DEGENERATE, DIVISION_BY_ZERO, INSUFFICIENT_HISTORY, UNSETTLED
from mdplatform.features.known_trades import KnownTrades, by_day
from mdplatform.features.spec import FeatureSpec
from mdplatform.features.talib_functions import Floats
from mdplatform.features.trade_arrays import TradeArrays
from mdplatform.market.timeframe import DAY_US

METHOD = "trades"
"""What `Values.method` says."""

_SIZED = ("time", "quantity")


def evaluate_trades(specs: Sequence[FeatureSpec], grid: Grid, data: Data) -> dict[FeatureSpec, Values]:
    """Give the values of `specs` in each row of the grid."""
    values = {}
    trades = KnownTrades(grid, data)
    summed = [spec for spec in specs if spec.name in FUNCTIONS]
    if summed:
        rows = _flow(trades, min(_first_open(spec, grid) for spec in summed))
        values = {spec: _of_rows(spec, trades, rows) for spec in summed}
    for spec in specs:
        if spec not in values:
            values[spec] = _ONE_BY_ONE[spec.name](spec, trades)
    return values


def _first_open(spec: FeatureSpec, grid: Grid) -> int:
    begin = grid.start if spec.anchor is None else grid.timeframe.ceil(start_of(grid.start, spec.anchor))
    return begin - spec.lookback * grid.timeframe.microseconds


def _flow(trades: KnownTrades, earliest: int) -> FlowRows:
    step = trades.grid.timeframe.microseconds
    opens = np.arange(earliest, trades.grid.end, step)
    parts = []
    for _, rows in by_day(opens):
        edges = np.append(opens[rows], opens[rows][-1] + step)
        parts.append(sum_rows(trades.between(int(edges[0]), int(edges[-1])), edges))
    return join_rows(parts)


def _of_rows(spec: FeatureSpec, trades: KnownTrades, rows: FlowRows) -> Values:
    grid = trades.grid
    step = grid.timeframe.microseconds
    opens = grid.end - step * np.arange(len(rows.count), 0, -1)
    windows = starts_of(grid.open_time, spec.anchor) if spec.anchor else grid.open_time - spec.lookback * step
    statuses = trades.statuses(windows, windows, is_running=spec.anchor is not None)
    outputs, reasons = FUNCTIONS[spec.name](rows, starts_of(opens, spec.anchor or "day"), spec.arguments)
    at = (grid.open_time - int(opens[0])) // step
    return _values(statuses, tuple(each[at] for each in outputs), reasons[at])


def _values(statuses: NDArray[np.int8], outputs: tuple[Floats, ...], reasons: NDArray[np.int8] | None = None) -> Values:
    told = statuses if reasons is None else np.where((statuses <= UNSETTLED) & (reasons > 0), reasons, statuses)
    return Values(tuple(np.where(told <= UNSETTLED, each, np.nan) for each in outputs), told, None, METHOD)


def _size_quantile(spec: FeatureSpec, trades: KnownTrades) -> Values:
    """The quantile of the sizes of the last rows' trades; none to rank is degenerate.

    Only what rows with a value need is read, each day once.
    """
    from mdplatform.features.flow.kernels import size_quantiles, sliding_quantiles

    grid, part = trades.grid, float(spec.arguments["q"])
    windows = grid.open_time - spec.lookback * grid.timeframe.microseconds
    statuses = trades.statuses(windows)
    values = np.full(len(grid), np.nan)
    held: dict[int, TradeArrays] = {}
    for _, rows in by_day(grid.open_time):
        told = np.flatnonzero(statuses[rows] <= UNSETTLED) + rows.start
        if not len(told):
            continue
        begin, end = int(windows[told[0]]), int(grid.close_time[told[-1]])
        days = range(begin - begin % DAY_US, end, DAY_US)
        held = {day: held[day] if day in held else trades.between(day, min(day + DAY_US, grid.end)) for day in days}
        time, quantity = (np.concatenate([getattr(each, name) for each in held.values()]) for name in _SIZED)
        first, after = (np.searchsorted(time, each[told]) for each in (windows, grid.close_time))
        if spec.lookback:
            ranked, ranks = np.unique(quantity, return_inverse=True)
            values[told] = sliding_quantiles(ranked, ranks, first, after, part)
        else:
            values[told] = size_quantiles(quantity, first, after, part)
    return _values(statuses, (values,), np.where(np.isnan(values), np.int8(DEGENERATE), np.int8(0)))


def _large_volume(spec: FeatureSpec, trades: KnownTrades) -> Values:
    """The volume of large trades by side; what is large is told, or ranked among the sizes of the days before."""
    grid, given = trades.grid, spec.arguments
    told, back = float(given["min_quantity"]), int(given["days"])
    windows = grid.open_time if told else grid.open_time - grid.open_time % DAY_US - back * DAY_US
    bought, sold = np.full(len(grid), np.nan), np.full(len(grid), np.nan)
    sizes: dict[int, Floats] = {}
    for day, rows in by_day(grid.open_time):
        least = told
        if not told:
            before = range(day - back * DAY_US, day, DAY_US)
            sizes = {
                each: sizes[each] if each in sizes else trades.between(each, each + DAY_US).quantity for each in before
            }
            every = np.concatenate(list(sizes.values()))
            least = float(np.quantile(every, float(given["quantile"]))) if len(every) else np.inf
        edges = np.append(grid.open_time[rows], grid.close_time[rows][-1])
        known = trades.between(int(edges[0]), int(edges[-1]))
        large = known.quantity >= least
        flow = sum_rows(TradeArrays(*(each[large] for each in vars(known).values())), edges)
        bought[rows], sold[rows] = flow.buy, flow.sell
    until = None if told else grid.open_time - grid.open_time % DAY_US
    return _values(trades.statuses(windows, grid.open_time, until=until), (bought, sold))


def _vpin(spec: FeatureSpec, trades: KnownTrades) -> Values:
    """VPIN, its buckets cut anew from the start of the UTC day before the row's close."""
    from mdplatform.features.flow.vpin import vpin_after

    grid = trades.grid
    buckets, told = int(spec.arguments["buckets"]), float(spec.arguments["bucket_volume"])
    last = grid.close_time - 1
    windows = last - last % DAY_US - DAY_US
    values, reasons = np.full(len(grid), np.nan), np.zeros(len(grid), np.int8)
    for day, rows in by_day(last):
        known = trades.between(day - DAY_US, int(grid.close_time[rows][-1]))
        volume = told or float(known.quantity[: np.searchsorted(known.time, day)].sum()) / buckets
        if volume <= 0:
            reasons[rows] = DIVISION_BY_ZERO
            continue
        counts = np.searchsorted(known.time, grid.close_time[rows])
        values[rows] = vpin_after(known.quantity, known.is_buy, counts, volume, buckets)
        reasons[rows] = np.where(np.isnan(values[rows]), INSUFFICIENT_HISTORY, 0)
    return _values(trades.statuses(windows, windows), (values,), reasons)


def _footprint_imbalance(spec: FeatureSpec, trades: KnownTrades) -> Values:
    """How many price rows of the bar have an imbalance, and the longest stack of them, by side."""
    grid = trades.grid
    outputs = tuple(np.zeros(len(grid)) for _ in range(4))
    for _, rows in by_day(grid.open_time):
        edges = np.append(grid.open_time[rows], grid.close_time[rows][-1])
        known = trades.between(int(edges[0]), int(edges[-1]))
        bar = np.searchsorted(edges, known.time, side="right") - 1 + rows.start
        cells = to_cells(known, bar, float(spec.arguments["row_size"]))
        for side, found in enumerate(imbalances(cells, float(spec.arguments["ratio"]))):
            outputs[side][rows] = np.bincount(cells.bar[found], minlength=rows.stop)[rows]
            np.maximum.at(outputs[side + 2], cells.bar, stacks(cells, found))
    return _values(trades.statuses(grid.open_time, grid.open_time), outputs)


def _trade_bars(spec: FeatureSpec, trades: KnownTrades) -> Values:
    """What the trades since the day's start make of bars that close by what was traded."""
    starts = day_starts(trades)
    outputs, reasons = bars_in_rows(spec.name, spec.arguments, trades)
    sided = starts if spec.name == "IMBALANCE_BARS" else None
    return _values(trades.statuses(starts, sided), outputs, reasons)


def _cusum_events(spec: FeatureSpec, trades: KnownTrades) -> Values:
    """How often the price had run away in the row, by direction."""
    outputs = events_in_rows(float(spec.arguments["threshold"]), trades)
    return _values(trades.statuses(day_starts(trades)), outputs)


_ONE_BY_ONE = {
    "CUSUM_EVENTS": _cusum_events,
    "DOLLAR_BARS": _trade_bars,
    "FOOTPRINT_IMBALANCE": _footprint_imbalance,
    "IMBALANCE_BARS": _trade_bars,
    "LARGE_TRADE_VOLUME": _large_volume,
    "TICK_BARS": _trade_bars,
    "TRADE_SIZE_QUANTILE": _size_quantile,
    "VOLUME_BARS": _trade_bars,
    "VPIN": _vpin,
}
