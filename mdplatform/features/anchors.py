"""Anchors: the periods of the UTC calendar at whose start a cumulative feature begins anew.

Instants are integers, microseconds since 1970-01-01T00:00Z; weeks start on Monday.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdplatform.market.timeframe import Timeframe

_CALENDAR = {"month": "datetime64[M]", "year": "datetime64[Y]"}


def starts_of(instants: NDArray[np.int64], anchor: str) -> NDArray[np.int64]:
    """Give, for each instant, the start of the period that it lies in.

    >>> starts_of(np.array([86_400_000_001]), "day").tolist()
    [86400000000]
    """
    if anchor in _CALENDAR:
        periods = instants.view("datetime64[us]").astype(_CALENDAR[anchor])
        return np.asarray(periods.astype("datetime64[us]").astype(np.int64))
    period = Timeframe.D1 if anchor == "day" else Timeframe.W1
    origin = period.ceil(0)
    return instants - (instants - origin) % period.microseconds


def start_of(instant: int, anchor: str) -> int:
    """Give the start of the period that `instant` lies in."""
    return int(starts_of(np.array([instant], np.int64), anchor)[0])
