"""The volume profile of one session, with all its rows, from what the feature `VOLUME_PROFILE` would take for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mdplatform.features.data import Data, Grid
from mdplatform.features.guard import INSUFFICIENT_HISTORY, SETTLED, STATUSES
from mdplatform.features.panel import evaluate_on
from mdplatform.features.parse import parse_feature
from mdplatform.features.profile.volume_profile import VolumeProfile, volume_profile, volume_profile_of_bars
from mdplatform.features.spec import FeatureSpec
from mdplatform.features.trade_arrays import known_at
from mdplatform.market.timeframe import Timeframe


@dataclass(frozen=True)
class SessionProfile:
    """The profile of a session from `start` through `through` (microseconds), its end or as far as it is known.

    Where there is none, `profile` is None and `reason` says why; else it is empty.
    """

    start: int
    through: int
    profile: VolumeProfile | None
    reason: str = ""


def session_profile(
    data: Data, symbol: str, start: int, hours: int, until: int, row_size: float = 0.0
) -> SessionProfile:
    """Give the profile of the session of so many `hours` that begins at `start` (microseconds), as known at `until`.

    Where the whole session is not covered (it has not ended, or has a gap), it is that of its first whole hours which
    are. A `row_size` of 0 is the automatic one of `VOLUME_PROFILE`.
    """
    spec = parse_feature({"name": "VOLUME_PROFILE", "parameters": {"row_size": row_size, "session_hours": hours}})
    length = hours * Timeframe.H1.microseconds
    status = INSUFFICIENT_HISTORY
    for timeframe in reversed(Timeframe):
        if timeframe.microseconds not in (length, Timeframe.H1.microseconds):
            continue
        opens = np.arange(start, min(start + length, until) - timeframe.microseconds + 1, timeframe.microseconds)
        if not len(opens):
            continue
        statuses = evaluate_on(Grid(symbol, timeframe, opens), [spec], data)[spec].statuses
        settled = np.flatnonzero(statuses == SETTLED)
        if len(settled):
            return _at(data, symbol, start, timeframe, int(opens[settled[-1]]), spec)
        status = int(statuses[-1])
    return SessionProfile(start, start, None, STATUSES[status])


def _at(data: Data, symbol: str, start: int, timeframe: Timeframe, last: int, spec: FeatureSpec) -> SessionProfile:
    values = evaluate_on(Grid(symbol, timeframe, np.array([last])), [spec], data)[spec]
    through = last + timeframe.microseconds
    size, arguments = float(values.outputs[4][0]), spec.arguments
    told = (size, float(arguments["value_area_pct"]), str(arguments["algorithm"]))
    source = str(values.method)
    if source == "trades":
        rows = data.trades(symbol, start, through)
        profile = volume_profile(rows.filter(known_at(rows).to_physical() < through), *told)
    else:
        bars = data.bars(symbol, Timeframe.parse(source.partition(":")[2]), start, through)
        profile = volume_profile_of_bars(bars.filter(pl.col("volume") > 0), *told)
    return SessionProfile(start, through, profile)
