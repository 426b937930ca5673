"""A request: who asks, for what, of which symbols and timeframes, how urgently and until when.

It is light: nothing heavy is imported here. `making` makes one from what a strategy writes and checks it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from mdplatform.messaging.priority import DataPriority


class RequestType(StrEnum):
    """What is asked for."""

    TECHNICAL_INDICATORS = "TECHNICAL_INDICATORS"
    VOLUME_PROFILE = "VOLUME_PROFILE"
    SENTIMENT_DATA = "SENTIMENT_DATA"
    CORRELATION_MATRIX = "CORRELATION_MATRIX"
    CUSTOM_COMPOSITE = "CUSTOM_COMPOSITE"
    MACRO_INDICATORS = "MACRO_INDICATORS"


class Refresh(StrEnum):
    """When a request is answered: once, or again at each new bar until it is cancelled or expires."""

    ONCE = "once"
    ON_CLOSE = "on_close"


class DataRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checked request, as it goes over the wire.

    For each of `symbols` × `timeframes` × `features` (canonical texts of features, of any kind) one result is wanted:
    the newest `latest` rows, or those with `start <= open_time < end`, as they were known at `as_of`. Times are
    microseconds since the epoch, UTC.

    Of two types the answer has another shape. CORRELATION_MATRIX has no features; for each timeframe it wants one
    matrix over all `symbols`, by `options` (`window` and those of `features.correlation_of`). MACRO_INDICATORS without
    symbols has series in `options["series"]`, and wants a table of what is known of each.
    """

    request_id: str
    strategy_id: str
    strategy_name: str = ""
    type: RequestType
    symbols: tuple[str, ...] = ()
    timeframes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    latest: int | None = 1
    start: int | None = None
    end: int | None = None
    as_of: int | None = None
    priority: DataPriority = DataPriority.NORMAL
    refresh: Refresh = Refresh.ONCE
    deadline: int
    sent_at: int = 0
