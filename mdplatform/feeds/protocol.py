"""What every feed offers: one stream of events, whatever lies behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, Protocol

from mdplatform.market.events import Event


class Feed(Protocol):
    """A place that events come from. A new one is one file with such a class, and one line in `registry.py`."""

    name: str
    bars_from: Literal["candles", "trades"]
    """Which of its events bars are to be built of: of these alone, so that nothing counts twice."""

    def events(self, since: Mapping[str, int]) -> AsyncIterator[Sequence[Event]]:
        """Give the events of the feed's symbols as they come, many at a time, until the feed ends or is closed.

        `since` says of a symbol from which instant (µs) on nothing is known; what the venue can still tell of the time
        between that and now comes first. So does, after a lost connection, what was missed meanwhile; what was not to
        be had is said as `Lost`. The order within a symbol is the venue's, except for what came late. A `Clock` comes
        at least once a second while the venue is heard.
        """
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """What the feed did: `messages`, `reconnects`, `repeated`, `skipped`, `filled`, … since its start."""
        ...

    async def close(self) -> None:
        """Let go of the venue; `events` ends."""
        ...
