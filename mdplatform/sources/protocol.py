"""What every source of bars offers: one call, whatever lies behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

from mdplatform.market.timeframe import Timeframe
from mdplatform.sources.delivery import Delivery


class Source(Protocol):
    """A place that bars come from. A new source is one file with such a class, and one line in `registry.py`."""

    name: str

    def bars(self, symbol: str, timeframe: Timeframe, start: int, end: int) -> Iterator[Delivery]:
        """Give the bars that open in `[start, end)` (µs since the epoch), one delivery a UTC month that has any."""
        ...


@runtime_checkable
class Downloads(Protocol):
    """A source that fetches files, and tells of them whoever sets these.

    `progress` is called with bytes done, bytes in all (None where that is not known) and the file's name; `on_absent`
    with the name of each file that is not there.
    """

    progress: Callable[[int, int | None, str], None] | None
    on_absent: Callable[[str], None]
