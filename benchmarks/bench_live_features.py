"""Live features: 20 indicators a bar at a time, against bare handles of `talib.stream`, and `evaluate` on a window.

`python -m benchmarks --only bench_live_features`. A turn is 200 bars; times are for one bar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import talib.stream

from benchmarks.bare import columns_of
from benchmarks.market import deliveries, longest_stretch, months, symbols
from benchmarks.measure import Comparison, Times, WrongResult, compare, in_turns
from mdplatform.features import FeatureSpec, evaluate
from mdplatform.features.live import LiveFeatures
from mdplatform.features.parse import parse_features
from mdplatform.market.bars import VALUE_COLUMNS, empty_bars
from mdplatform.market.resample import complete_grid
from mdplatform.market.timeframe import Timeframe

HISTORY = 1_600
BARS = 200

COMMON = (
    "RSI", "MACD", "BBANDS", "ATR", "EMA(10)", "EMA(20)", "EMA(50)", "EMA(100)", "SMA(20)", "SMA(50)", "SMA(200)",
    "STOCH", "ADX", "OBV", "CCI", "MFI", "WILLR", "ROC", "STDDEV", "VWAP(anchor=month)",
)  # fmt: skip
BLEND = "(RSI - 50) * 0.6 + (MACD_HISTOGRAM / PRICE_STD) * 0.4"
BACK = "zscore(log(close / lag(close, 3)), 20)"
PROFILE = "VOLUME_PROFILE"

Row = tuple[int, tuple[float, ...]]
Update = Callable[..., Any]


def run(short: bool) -> Iterator[Comparison]:
    """Compare an update and a peek of 20 indicators, opening them, and what is computed of others or anew."""
    turns = 7 if short else 60
    bars = _bars(HISTORY + BARS * (turns + 2))
    specs = parse_features(COMMON)
    rows = _rows(bars)[HISTORY:]
    live = LiveFeatures(specs, Timeframe.M1, bars.head(HISTORY))
    _check(live, bars, rows[:BARS])
    bare = Handles(specs, bars.head(HISTORY))
    bare.take(rows[:BARS])
    what = f"{len(specs)} indicators, one bar more"
    yield _of_one_bar(what, "talib.stream handles", _in_turns(turns, live, bare.take, rows), "values equal to a batch")
    next_row = (live.next_open or 0, rows[-1][1])
    peeks = in_turns(turns, lambda: _repeat(live.peek, next_row), lambda: bare.peek(next_row[1]))
    yield _of_one_bar(f"{len(specs)} indicators, a forming bar", "peek of the handles", peeks)
    window = bars.head(HISTORY)
    opening = in_turns(turns, partial(LiveFeatures, specs, Timeframe.M1, window), partial(Handles, specs, window))
    yield compare("live", f"{len(specs)} indicators opened on {HISTORY:,} bars", "talib.stream handles", opening)
    for what, features in (
        (f"{len(specs)} indicators, one bar more", list(COMMON)),
        ("a formula of three indicators", [BLEND]),
        ("a formula that looks back 22 rows", [BACK]),
        ("a session's volume profile", [PROFILE]),
    ):
        live = LiveFeatures(features, Timeframe.M1, window)
        times = _in_turns(turns, live, partial(_evaluate, window, features), rows)
        per_bar = [each / BARS for each in times[0]], times[1]
        yield compare("live", what, f"evaluate on {HISTORY:,} bars", per_bar)


class Handles:
    """Handles with nothing around them."""

    def __init__(self, specs: tuple[FeatureSpec, ...], bars: pl.DataFrame) -> None:
        columns = columns_of(bars)
        self._handles = []
        for spec in specs:
            settings = [value for name, value in spec.parameters if name != "anchor"]
            handle = getattr(talib.stream, spec.name)(*(columns[name] for name in spec.inputs), *settings)
            self._handles.append((handle, [VALUE_COLUMNS.index(name) for name in spec.inputs]))

    def take(self, rows: list[Row]) -> None:
        calls = [(handle.update, places) for handle, places in self._handles]
        for _, values in rows:
            for update, places in calls:
                update(*[values[place] for place in places])

    def peek(self, values: tuple[float, ...]) -> None:
        calls = [(handle.peek, places) for handle, places in self._handles]
        for _ in range(BARS):
            for peek, places in calls:
                peek(*[values[place] for place in places])


def _in_turns(turns: int, live: LiveFeatures, bare: Callable[[list[Row]], object], rows: list[Row]) -> Times:
    """Time so many bars of `rows` after those that `live` has taken, in each turn other ones."""
    due = live.next_open
    first = next(at for at, (open_time, _) in enumerate(rows) if open_time == due)
    parts = [rows[at : at + BARS] for at in range(first, len(rows) - BARS + 1, BARS)]
    ours, theirs = iter(parts), iter(parts)
    return in_turns(min(turns, len(parts) - 1), lambda: _update(live, next(ours)), lambda: bare(next(theirs)))


def _evaluate(window: pl.DataFrame, features: list[str], _: list[Row]) -> None:
    evaluate(window, features, Timeframe.M1)


def _of_one_bar(what: str, bare_is: str, times: Times, note: str = "") -> Comparison:
    ours, bare = ([each / BARS for each in side] for side in times)
    return compare("live", what, bare_is, (ours, bare), amount=1, amount_unit="bars", note=note)


def _update(live: LiveFeatures, rows: list[Row]) -> None:
    for open_time, values in rows:
        live.update(open_time, values)


def _repeat(peek: Update, row: Row) -> None:
    for _ in range(BARS):
        peek(*row)


def _check(live: LiveFeatures, bars: pl.DataFrame, rows: list[Row]) -> None:
    found = evaluate(bars.head(HISTORY + len(rows)), live.specs, Timeframe.M1)
    for at, row in enumerate(rows, HISTORY):
        numbers = live.update(*row).numbers
        if not np.array_equal(numbers, [found.values[name][at] for name in live.columns], equal_nan=True):
            raise WrongResult(f"row {at} is not what a batch gives")


def _rows(bars: pl.DataFrame) -> list[Row]:
    opens = bars["open_time"].dt.epoch("us").to_list()
    values = zip(*(bars[name].cast(pl.Float64).to_list() for name in VALUE_COLUMNS), strict=True)
    return list(zip(opens, values, strict=True))


def _bars(rows: int) -> pl.DataFrame:
    given = next(deliveries(symbols(1)[0], Timeframe.M1, months(1))).rows
    stretch = longest_stretch(given, Timeframe.M1).head(rows)
    if len(stretch) != rows:
        raise WrongResult(f"the simulated market has {len(stretch)} bars in a row only")
    usual = {"symbol": "BTCUSDT", "timeframe": "1m", "state": "observed", "is_closed": True}
    held = [name for name in empty_bars().columns if name in stretch.columns and name not in usual]
    told = stretch.select(held).with_columns(pl.lit(value).alias(name) for name, value in usual.items())
    return complete_grid(pl.concat([empty_bars(), told], how="diagonal_relaxed"), Timeframe.M1)
