"""Bursts of candles, as the fan-out benchmark sends them: 50 symbols, nine forming candles and a closed one a minute.

Ours are `LiveBars` in all timeframes and, at each close, `LiveFeatures` of the standing catalogue in four of them. Bare
is a loop that keeps the newest candle of each symbol, and bare handles of `talib.stream` that are given each closed bar
of ours. A turn is an hour of the venue; times are of the processor, for one candle. So many states do not fit into its
caches, which a loop over one of them hides.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.bench_live_features import Handles
from benchmarks.measure import Comparison, Times, Work, WrongResult, compare
from mdplatform.features.catalogue import standing_catalogue
from mdplatform.features.live import LiveFeatures
from mdplatform.market.events import Candle
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe
from mdplatform.streaming.bars import LiveBars
from mdplatform.streaming.lane import as_table
from mdplatform.streaming.live_bar import LiveBar

SYMBOLS = [f"S{n:02d}USDT" for n in range(50)]
TIMEFRAMES = (Timeframe.M1, Timeframe.M5, Timeframe.M15, Timeframe.H1)
PER_BAR = 10
_START = 20_000 * DAY_US
_HISTORY = 600


def run(short: bool) -> Iterator[Comparison]:
    """Compare forming candles, then closed ones with what follows them."""
    specs = standing_catalogue().features
    history = {timeframe: as_table(_walk(timeframe)) for timeframe in TIMEFRAMES}
    keys = [(symbol, timeframe) for symbol in SYMBOLS for timeframe in TIMEFRAMES]
    ours = {key: LiveFeatures(specs, key[1], history[key[1]]) for key in keys}
    bare = {key: Handles(specs, history[key[1]]) for key in keys}
    bars = LiveBars(SYMBOLS, list(Timeframe), source="benchmark")
    forming: Times = ([], [])
    closed: Times = ([], [])
    turns = 3 if short else 12
    for hour in range(turns + 1):
        sums = [0.0] * 4
        for minute in range(hour * 60, hour * 60 + 60):
            *before, last = _candles(minute)
            sums[0] += _busy(lambda: [bars.take(each) for each in before])  # noqa: B023
            sums[1] += _busy(lambda: [_newest(each) for each in before])  # noqa: B023
            made: list[LiveBar] = []
            sums[2] += _busy(lambda: made.extend(_take(bars, ours, last)))  # noqa: B023
            sums[3] += _busy(lambda: _give(bare, made, last))  # noqa: B023
        if hour:
            for place, (times, count) in enumerate(((forming, PER_BAR - 1), (closed, 1))):
                for side in (0, 1):
                    times[side].append(sums[2 * place + side] / (60 * count * len(SYMBOLS)))
    refused = {name: n for name, n in bars.counts.items() if n and name not in ("candles", "closed")}
    if refused or bars.counts["closed"] != (turns + 1) * 60 * len(SYMBOLS):
        raise WrongResult(f"Not every candle was taken: {dict(bars.counts)}")
    yield compare("live_burst", "a forming candle", "a dict of the newest", forming)
    what = f"a closed candle, 1.28 bars with {len(specs)} features each"
    yield compare("live_burst", what, "a dict of the newest, talib.stream handles", closed)


def _busy(work: Work) -> float:
    """Give how long `work` keeps the processor busy, seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def _take(
    bars: LiveBars, features: dict[tuple[str, Timeframe], LiveFeatures], candles: Sequence[Candle]
) -> list[LiveBar]:
    made = [bar for bar in bars.take(candles) if bar.timeframe in TIMEFRAMES]
    for bar in made:
        features[bar.symbol, bar.timeframe].update(bar.open_time, bar.values, bar.state)
    return made


def _give(handles: dict[tuple[str, Timeframe], Handles], made: Sequence[LiveBar], candles: Sequence[Candle]) -> None:
    _newest(candles)
    for bar in made:
        handles[bar.symbol, bar.timeframe].take([(bar.open_time, bar.values)])


def _newest(candles: Sequence[Candle]) -> dict[str, Candle]:
    return {each.symbol: each for each in candles}


def _candles(minute: int) -> list[list[Candle]]:
    """Give the candles of a minute, a list for each time that all symbols are told."""
    opened, base = _START + minute * MINUTE_US, 100.0 + (minute % 17) * 0.25 + (minute % 5) * 0.5
    prices = [base + place for place in range(len(SYMBOLS))]
    told = []
    for turn in range(1, PER_BAR + 1):
        is_closed = turn == PER_BAR
        said = opened + (MINUTE_US if is_closed else MINUTE_US * turn // (PER_BAR + 1))
        told.append([
            Candle(
                symbol, Timeframe.M1, opened, price, price + 1.0, price - 1.0, price + (minute % 3) * 0.25,
                10.00125 + turn, 1000.0000125 + turn, 20 + turn, 5.00025, 500.0000125, is_closed, said,
            )
            for symbol, price in zip(SYMBOLS, prices, strict=True)
        ])  # fmt: skip
    return told


def _walk(timeframe: Timeframe) -> list[LiveBar]:
    """Give the bars of a random walk up to the first minute."""
    close = np.round(100 + np.cumsum(np.random.default_rng(7).normal(0, 0.3, _HISTORY)), 2).tolist()
    first, length = _START - _HISTORY * timeframe.microseconds, timeframe.microseconds
    return [
        LiveBar(
            "S", timeframe, first + n * length, price, price + 0.2, price - 0.2, price, 3.0 + n % 7, 300.0, 10.0, 1.0,
            100.0, available_at=first + (n + 1) * length,
        )
        for n, price in enumerate(close)
    ]  # fmt: skip
