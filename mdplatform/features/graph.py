"""What features need before they are computed: which share a computation, and how far back their inputs must reach.

Nobody else thinks about warm-up: whoever wants values from an instant on loads bars from `load_from`, computes, and
drops the rows before that instant; every value that is left is then the same as if all of history had been loaded.
"""

from __future__ import annotations

from collections.abc import Iterable

from mdplatform.features.anchors import start_of
from mdplatform.features.formula.program import compiled
from mdplatform.features.parse import FeatureLike, parse_feature
from mdplatform.features.spec import FORMULA, FeatureSpec
from mdplatform.market.timeframe import DAY_US, Timeframe

_LONGEST_ANCHOR_DAYS = {"day": 1, "week": 7, "month": 31, "year": 366}


def computations(features: Iterable[FeatureLike]) -> dict[FeatureSpec, list[FeatureSpec]]:
    """Group features by what is computed for them: `MACD` and `MACD_HISTOGRAM` are one computation.

    >>> {str(whole): [str(each) for each in wanted] for whole, wanted in computations(["RSI", "rsi(14)"]).items()}
    {'RSI(timeperiod=14)': ['RSI(timeperiod=14)']}
    """
    groups: dict[FeatureSpec, list[FeatureSpec]] = {}
    for spec in dict.fromkeys(parse_feature(each) for each in features):
        groups.setdefault(spec.whole, []).append(spec)
    return groups


def inputs_of(features: Iterable[FeatureLike]) -> tuple[str, ...]:
    """Give the columns of bars that the features read, each once, sorted."""
    return tuple(sorted({name for each in features for name in parse_feature(each).inputs}))


def extra_rows(features: Iterable[FeatureLike], timeframe: Timeframe | str) -> int:
    """Give the most rows that any of the features needs before the first row asked for: `lookback + settle`.

    For an anchored feature that is the whole of its longest period.

    >>> extra_rows(["RSI", "SMA(200)"], "15m"), extra_rows(["OBV(anchor=week)"], "1d")
    (387, 7)
    """
    frame = Timeframe.parse(timeframe)
    length = frame.microseconds
    needed = [0]
    for spec in map(parse_feature, features):
        if spec.name == FORMULA:
            needed.append(_rows_of_formula(spec, frame))
            continue
        anchored = 0 if spec.anchor is None else -(-_LONGEST_ANCHOR_DAYS[spec.anchor] * DAY_US // length)
        needed.append(spec.lookback + spec.settle + anchored)
    return max(needed)


def load_from(features: Iterable[FeatureLike], timeframe: Timeframe | str, start: int) -> int:
    """Give the open time (microseconds) of the first bar to load so that every value from `start` on is settled.

    Anchored features need bars from the start of the period that `start` lies in.

    >>> load_from(["SMA(3)"], "1h", 36_000_000_000) // 3_600_000_000
    8
    """
    frame = Timeframe.parse(timeframe)
    first = frame.floor(start)
    earliest = first
    for spec in map(parse_feature, features):
        if spec.name == FORMULA:
            earliest = min(earliest, _load_from_for_formula(spec, frame, first))
            continue
        origin = first if spec.anchor is None else frame.ceil(start_of(first, spec.anchor))
        earliest = min(earliest, origin - (spec.lookback + spec.settle) * frame.microseconds)
    return earliest


def _rows_of_formula(spec: FeatureSpec, frame: Timeframe) -> int:
    """Add up the rows of `frame` along a formula: its own windows, and the features within, of whatever timeframe."""
    program = compiled(str(spec))
    within = 0
    for each in program.features:
        own = each.timeframe or frame
        joined = own.microseconds if own is not frame else 0  # its newest row may have closed so long ago
        within = max(within, extra_rows([each.at(None)], own) * own.microseconds + joined)
    return program.rows - (-within // frame.microseconds)


def _load_from_for_formula(spec: FeatureSpec, frame: Timeframe, first: int) -> int:
    program = compiled(str(spec))
    first -= program.rows * frame.microseconds
    earliest = first
    for each in program.features:
        own = each.timeframe or frame
        begins = first if own is frame else own.floor(first) - own.microseconds
        earliest = min(earliest, load_from([each.at(None)], own, begins))
    return earliest
