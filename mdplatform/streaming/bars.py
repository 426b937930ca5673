"""Bars from events: closed by the venue's time with a grace period, never by this machine's clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mdplatform.market.events import Event
from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming.live_bar import LiveBar


class LiveBars:
    """Makes the bars of many symbols, in `timeframes`, of trades or of the venue's own candles of 1m.

    `grace_us` is how long after its close, by the venue's clock, a bar waits for trades that come late.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        timeframes: Sequence[Timeframe],
        *,
        source: str,
        grace_us: int = 500_000,
        forming: bool = False,
    ) -> None:
        raise NotImplementedError

    def seed(self, bars: Iterable[LiveBar]) -> None:
        """Take in what is known already, ascending: the closed bars of 1m since the longest timeframe's last close."""
        raise NotImplementedError

    def take(self, events: Sequence[Event]) -> list[LiveBar]:
        """Take events in; give the bars that closed or were corrected by them, in the order in which that was known.

        Of one symbol and instant the shortest timeframe comes first. With `forming`, the newest state of each forming
        bar that changed comes last.
        """
        raise NotImplementedError
