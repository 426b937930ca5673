"""The newest sentiment that is known at an instant, from scored documents as they were read at one time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl

from mdplatform.features.guard import NOT_AVAILABLE_YET, SETTLED, STALE, STATUSES
from mdplatform.features.sentiment import Documents, counted
from mdplatform.market.time import from_us

MAX_STALENESS_US = 48 * 3_600_000_000
"""How old the newest document may be, as of the feature `SENTIMENT`: what is older is null with `stale`."""


class Sentiment(NamedTuple):
    """A provider's newest score, from −1 to 1, and its age at T.

    `score` is None where there is none (`status` says why) or where it is stale; `scope` tells whether it is that of
    documents on the `symbol` or on the `market`.
    """

    provider: str
    score: float | None
    age: timedelta | None
    available_at: datetime | None
    scope: str
    status: str


class KnownSentiment:
    """Scored documents of providers, by symbol; where none of a provider names the symbol, those on the market."""

    def __init__(self, rows: pl.DataFrame, symbols: Sequence[str], providers: Sequence[str]) -> None:
        self._documents: dict[tuple[str, str], tuple[str, Documents]] = {}
        for provider in providers:
            market = counted(rows, provider, None)
            for symbol in symbols:
                own = counted(rows, provider, symbol)
                self._documents[provider, symbol] = ("symbol", own) if len(own) else ("market", market)

    def at(self, provider: str, symbol: str, instant: int) -> Sentiment:
        """Give what was newest at `instant` (microseconds): never what became available later."""
        scope, documents = self._documents.get((provider, symbol), ("market", _NONE))
        place = int(np.searchsorted(documents.available_at, instant, side="right")) - 1
        if place < 0:
            return Sentiment(provider, None, None, None, scope, STATUSES[NOT_AVAILABLE_YET])
        known = int(documents.available_at[place])
        stale = instant - known > MAX_STALENESS_US
        score = None if stale else float(documents.scores[place])
        status = STATUSES[STALE if stale else SETTLED]
        return Sentiment(provider, score, timedelta(microseconds=instant - known), from_us(known), scope, status)


_NONE = Documents(np.empty(0, np.int64), np.empty(0))
NOTHING_KNOWN = KnownSentiment(pl.DataFrame(), (), ())
