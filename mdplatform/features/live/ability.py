"""Which features a live stream can compute from the bars of one symbol and timeframe, and how."""

from __future__ import annotations

from collections.abc import Iterable

from mdplatform.errors import InvalidFeature, PlatformError
from mdplatform.features.flow.of_bars import READS
from mdplatform.features.formula.program import compiled
from mdplatform.features.formula.tokens import shortened
from mdplatform.features.graph import load_from
from mdplatform.features.kinds import INDICATORS
from mdplatform.features.kinds.profile import length_of
from mdplatform.features.parse import FeatureLike, parse_feature, parse_features
from mdplatform.features.spec import FORMULA, FeatureSpec
from mdplatform.features.talib_functions import INDEX_FUNCTIONS
from mdplatform.market.bars import VALUE_COLUMNS
from mdplatform.market.timeframe import Timeframe

ABLE = (
    "A live stream computes TA-Lib's functions of the bars' columns, order flow of bars "
    f"({', '.join(sorted(READS))}), VOLUME_PROFILE, ROLLING_VOLUME_PROFILE, and formulas of these"
)

INCREMENTAL, RECOMPUTED = "incremental", "recomputed"
"""From state that each bar moves on, in constant time; or anew from the newest rows, as many as the value looks at."""


def can_be_live(feature: FeatureLike, timeframe: Timeframe, symbol: str | None = None) -> bool:
    """Tell whether a live stream of bars of `timeframe` (and `symbol`) can compute the feature.

    >>> can_be_live("RSI", Timeframe.H1), can_be_live("RSI@4h", Timeframe.H1), can_be_live("VPIN", Timeframe.H1)
    (True, False, False)
    """
    try:
        return why_not(parse_feature(feature), timeframe, symbol) is None
    except PlatformError:
        return False


def refuse_others(specs: tuple[FeatureSpec, ...], timeframe: Timeframe, symbol: str | None) -> None:
    """Raise `InvalidFeature` for the first feature that a live stream cannot compute."""
    for spec in specs:
        why = why_not(spec, timeframe, symbol)
        if why is not None:
            raise InvalidFeature(f"{shortened(str(spec))} cannot be live: {why}", value=spec.name, remedy=ABLE)


def why_not(spec: FeatureSpec, timeframe: Timeframe, symbol: str | None) -> str | None:
    """Say why a live stream of these bars cannot compute a feature, None where it can."""
    if spec.timeframe not in (None, timeframe):
        return f"it is of {spec.timeframe}, and these bars of {timeframe}: ask for it among the features of that"
    if spec.symbol not in (None, symbol):
        return f"it is of {spec.symbol}, another symbol"
    if spec.name == FORMULA:
        parts = compiled(str(spec)).features
        if spec.place and any(each.place for each in parts):
            return "its parts are of places of their own"
        whys = (why_not(each, timeframe, symbol) for each in parts)
        return next((why for why in whys if why is not None), None)
    kind = spec.definition.kind
    if kind == INDICATORS:
        missing = [name for name in spec.inputs if name not in VALUE_COLUMNS]
        return f"bars have no column {missing[0]}" if missing else None
    if kind == "profile":
        return None
    if kind == "flow" and spec.name in READS:
        return None if spec.arguments.get("method", "bars") == "bars" else "it is made of trades"
    return f"features of the kind {kind} need more than bars" if kind != "flow" else "it is made of trades"


def load_live_from(features: Iterable[FeatureLike], timeframe: Timeframe, start: int) -> int:
    """Give the open time (µs) of the first bar of the history with which values are settled from `start` on.

    It is that of `graph.load_from`, and where there are profiles, of their windows.

    >>> load_live_from(["SMA(3)"], Timeframe.H1, 36_000_000_000) // 3_600_000_000
    8
    >>> load_live_from(["VOLUME_PROFILE(session_hours=8)"], Timeframe.H1, 36_000_000_000) // 3_600_000_000
    2
    """
    specs = list(parse_features(features))
    first = load_from(specs, timeframe, start)
    for spec in specs:
        back = 0
        parts: tuple[FeatureSpec, ...] = (spec,)
        if spec.name == FORMULA:
            program = compiled(str(spec))
            back, parts = program.rows * timeframe.microseconds, program.features
        windows = [length_of(each.arguments) for each in parts if each.definition.kind == "profile"]
        first = min(first, timeframe.floor(start - back - max(windows, default=0)))
    return first


def way_of(spec: FeatureSpec) -> str:
    """Say how a live stream computes a feature: `incremental` or `recomputed`."""
    if spec.name == FORMULA:
        program = compiled(str(spec))
        anew = program.rows > 0 or any(way_of(each) == RECOMPUTED for each in program.features)
    else:
        anew = spec.definition.kind == "profile" or is_windowed(spec)
    return RECOMPUTED if anew else INCREMENTAL


def is_windowed(spec: FeatureSpec) -> bool:
    """Tell whether a feature is computed anew from the rows of its window."""
    return spec.name in INDEX_FUNCTIONS or (spec.definition.kind == "flow" and spec.name != "CVD")
