"""What a consumer reads from the lake: the past of a shape, and sentiment. A consumer without a lake sees nothing."""

from __future__ import annotations

from mdplatform.errors import NoData, PlatformError, UnknownSymbol
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData
from mdplatform.market.time import month_range
from mdplatform.market.timeframe import DAY_US
from mdplatform.settings import Settings
from mdplatform.streaming.cells import Layout, Packet
from mdplatform.streaming.known_sentiment import NOTHING_KNOWN, KnownSentiment
from mdplatform.streaming.past import Past, providers_of
from mdplatform.streaming.shape import Shape

_PROVIDERS_FROM = 60 * DAY_US
"""How far back (microseconds) the providers are looked for where none are named."""


class LakeView:
    """The lake of the home, read only; its methods block, so they are called in threads."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.lake_dir
        self._lake = Lake(settings.lake_dir)
        self._data = LakeData(self._lake)

    @property
    def is_there(self) -> bool:
        """Whether there is a lake."""
        return self._folder.is_dir()

    @property
    def sentiment_changed(self) -> int:
        """A number that is another one once sentiment was taken in."""
        try:
            return (self._folder / "sentiment").stat().st_mtime_ns
        except OSError:
            return 0

    def providers(self, start: int | None, end: int) -> tuple[str, ...]:
        """Give the providers of sentiment that there were until `end` (microseconds)."""
        return providers_of(self._data, end - _PROVIDERS_FROM if start is None else start - _PROVIDERS_FROM, end)

    def sentiment(self, shape: Shape, start: int, end: int) -> KnownSentiment:
        """Give the sentiment that was known from `start` to `end`."""
        return Past(self._data, shape).sentiment(start, end) if self.is_there else NOTHING_KNOWN

    def past(self, shape: Shape) -> Past:
        """Give the past of a shape."""
        return Past(self._data, shape)

    def newest(self, shape: Shape) -> int | None:
        """Give the newest close (microseconds) of the shape's clock in the lake."""
        return max(self.heads(shape).values(), default=None)

    def heads(self, shape: Shape) -> dict[str, int]:
        """Give the newest close (microseconds) of the shape's clock by symbol, of those that have any."""
        tails = {symbol: self._lake.bars.tail(symbol, shape.clock, 1) for symbol in shape.symbols}
        return {symbol: int(bars["close_time"].to_physical()[-1]) for symbol, bars in tails.items() if bars.height}

    def oldest(self, shape: Shape) -> int | None:
        """Give where the first month begins (microseconds) of which there are bars."""
        months = [month for symbol in shape.symbols for month in self._lake.bars.months(symbol)[:1]]
        return min((month_range(each)[0] for each in months), default=None)

    def refuse_unknown(self, shape: Shape) -> None:
        """Raise `UnknownSymbol` with its field for one of which the lake holds nothing."""
        for index, symbol in enumerate(shape.symbols):
            if not self._lake.bars.months(symbol):
                refused = UnknownSymbol(symbol, self._lake.bars.symbols())
                refused.field = f"symbols[{index}]"
                raise refused

    def seed(self, shape: Shape, until: int) -> tuple[Layout, list[Packet]]:
        """Give what a feed would have sent of the shape's window until `until`, and the layout of it.

        What the lake does not have is not there; what a feature refuses is raised.
        """
        past = self.past(shape)
        if not self.is_there:
            return past.layout, []
        first = until - (shape.window - 1) * shape.clock.microseconds
        try:
            return past.layout, [packet for piece in past.packets(first, until) for packet in piece]
        except NoData:
            return past.layout, []
        except PlatformError as refused:
            refused.field = refused.field or "indicators"
            raise
