"""Freshness: what stored values depend on, so that a reader knows when any of it has changed.

The rows of a feature are bars of its symbol, and its values come from what its kind reads: bars, trades, macro series,
… (`features.panel.reads`), each of them a `Need`. Each need has a sequence number in Redis and a folder in the lake.
What changes these is told in `publisher`; how readers judge by them in `lookup`.

A row's value never changes by what becomes known after its close: time alone makes nothing old, a value that goes stale
does so in a later row. So rows that are stored stay right until one of the needs changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from mdplatform.features import FeatureSpec
from mdplatform.features.kinds import INDICATORS, Need
from mdplatform.features.panel import reads
from mdplatform.lake import Lake
from mdplatform.market.timeframe import Timeframe
from mdplatform.serving.keys import OF_A_SYMBOL, need_key


def stored(spec: FeatureSpec, symbol: str, timeframe: Timeframe) -> FeatureSpec:
    """Give what is stored of a feature for rows of that symbol and timeframe: all outputs, and its place if it differs.

    >>> from mdplatform.features import parse_feature
    >>> str(stored(parse_feature("MACD_HISTOGRAM(8)"), "BTCUSDT", Timeframe.H1))
    'MACD(fastperiod=8,slowperiod=26,signalperiod=9)'
    """
    own = (None if spec.symbol == symbol else spec.symbol, None if spec.timeframe is timeframe else spec.timeframe)
    if (spec.output, spec.symbol, spec.timeframe) == (None, *own):
        return spec
    return replace(spec, output=None, symbol=own[0], timeframe=own[1])


def is_plain(spec: FeatureSpec) -> bool:
    """Tell whether a feature, as it is stored, comes from nothing but the bars that are its rows."""
    return spec.symbol is None and spec.timeframe is None and spec.definition.kind == INDICATORS


@lru_cache(maxsize=16_384)
def needs(spec: FeatureSpec, symbol: str, timeframe: Timeframe) -> tuple[Need, ...]:
    """Give what the rows of a feature depend on, in one order everywhere."""
    own = Need("bars", symbol)
    return (own,) if is_plain(spec) else tuple(sorted({own, *reads([spec], symbol, timeframe)}))


def sequence_keys(spec: FeatureSpec, symbol: str, timeframe: Timeframe) -> tuple[str, ...]:
    """Give the keys of the sequence numbers of what the rows of a feature depend on."""
    return tuple(need_key(*each) for each in needs(spec, symbol, timeframe))


def newest_change(stamps: Iterable[int]) -> int:
    """Give the newest of these stamps in microseconds, 0 where there is none.

    Those that lie ahead of the clock prove nothing.
    """
    now = time.time_ns()
    return max((each for each in stamps if each <= now), default=0) // 1000


def folder_of(lake: Lake, need: Need) -> Path:
    """Give the folder of the lake whose time changes whenever what is needed does.

    A file is replaced by renaming, which changes the time of its folder; a symbol has a folder of its own.
    """
    if need.dataset == "bars":
        return lake.bars.path(need.key, "").parent
    return lake.folder / need.dataset / need.key if need.dataset in OF_A_SYMBOL else lake.folder / need.dataset


def folders_of(lake: Lake) -> Callable[[Need], Path]:
    """Give `folder_of` for one lake. It keeps its answers: to put a path together takes longer than to look at it."""
    return lru_cache(maxsize=16_384)(partial(folder_of, lake))


def stamp(folder: Path) -> int:
    """Give the time of a folder (nanoseconds), 0 where there is none: another one is a change."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0
