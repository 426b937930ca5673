"""A frame: several symbols and timeframes in step at one instant T, as a strategy gets it.

It is immutable and shared by all subscriptions of its shape; what is read of it is worked out when it is first read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from mdplatform.errors import UnknownName
from mdplatform.market.time import from_us
from mdplatform.streaming import cursor
from mdplatform.streaming.cell_status import CellStatus
from mdplatform.streaming.frame_cell import FrameCell
from mdplatform.streaming.known_sentiment import Sentiment
from mdplatform.streaming.row import Row
from mdplatform.streaming.shape import Shape

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from mdplatform.streaming.tensor import Tensor


class UnknownPlace(UnknownName):
    """A symbol or timeframe that the frame does not have."""

    kind = "place of the frame"


class MissingCell(NamedTuple):
    """A place of a frame without the bar that is due: `status` is `stale` or `missing`."""

    symbol: str
    timeframe: str
    status: CellStatus


class Frame:
    """What was known at `time`; times are UTC.

    `frame["BTCUSDT", "5m"]` is a `FrameCell`. `revision` counts the corrections of this frame from 0. `is_closed` is
    false for a frame of bars that are still forming. `sent_at` and `received_at` are of the message that completed it,
    by the feed's clock (microseconds, 0 where there is none). `over` is T up to which there were frames when it was
    made, later than its own where it is corrected. The first `behind` of `rows`, to which more may be added, are its
    past.
    """

    __slots__ = (
        "_behind", "_over", "_places", "_row", "_rows", "is_closed", "received_at", "revision", "sent_at", "time_us",
    )  # fmt: skip

    def __init__(
        self,
        row: Row,
        rows: Sequence[Row] = (),
        behind: int = 0,
        places: Mapping[str, str] | None = None,
        *,
        sent_at: int = 0,
        received_at: int = 0,
        is_closed: bool = True,
        over: int = 0,
    ) -> None:
        self._row = row
        self._over = over
        self._rows = rows
        self._behind = behind
        self._places = places
        self.time_us = row.time
        self.revision = row.revision
        self.sent_at = sent_at
        self.received_at = received_at
        self.is_closed = is_closed

    def __repr__(self) -> str:
        told = "complete" if self.is_complete else f"{len(self.missing)} of {len(self._row.cells)} not fresh"
        corrected = f" revision {self.revision}" if self.revision else ""
        return f"<Frame {self.time:%Y-%m-%dT%H:%M:%S}Z{corrected} {told}>"

    @property
    def shape(self) -> Shape:
        """What the frame is made of."""
        return self._row.shape

    @property
    def time(self) -> datetime:
        """T."""
        return from_us(self.time_us)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols, as they were subscribed."""
        return self.shape.symbols

    @property
    def timeframes(self) -> tuple[str, ...]:
        """The timeframes, shortest first."""
        return tuple(each.value for each in self.shape.timeframes)

    def __getitem__(self, place: tuple[str, str]) -> FrameCell:
        try:
            return self._row.cell(self.shape.slot_of[place])
        except (KeyError, TypeError):
            known = [f"{symbol}, {timeframe}" for symbol, timeframe in self.shape.slots]
            told = ", ".join(map(str, place)) if isinstance(place, tuple) else str(place)
            raise UnknownPlace(told, known) from None

    def __iter__(self) -> Iterator[FrameCell]:
        """Give all cells, by symbol and then by timeframe."""
        return (self._row.cell(slot) for slot in range(len(self._row.cells)))

    def __len__(self) -> int:
        return len(self._row.cells)

    @property
    def is_complete(self) -> bool:
        """Whether every cell is fresh."""
        return all(each is CellStatus.FRESH for each in self._row.statuses)

    @property
    def missing(self) -> tuple[MissingCell, ...]:
        """The places whose due bar is not there."""
        return tuple(
            MissingCell(symbol, timeframe.value, status)
            for (symbol, timeframe), status in zip(self.shape.slots, self._row.statuses, strict=True)
            if status is not CellStatus.FRESH
        )

    @property
    def quality(self) -> float | None:
        """The lowest of the cells' qualities, None where none was assessed."""
        return min((each.quality for each in self if each.quality is not None), default=None)

    @property
    def available_at(self) -> datetime:
        """The first instant at which all that is in it could have been known: T, or later where bars came late."""
        return from_us(max([self.time_us, *(each.available_at for each in self._row.cells if each is not None)]))

    def sentiment(self, symbol: str) -> dict[str, Sentiment]:
        """Give the newest sentiment known at T by provider: score, age, and the reason where there is none."""
        if symbol not in self.shape.symbols:
            raise UnknownPlace(symbol, self.shape.symbols)
        return self._row.sentiment_of(symbol)

    @property
    def cursor(self) -> str:
        """A text from which a subscription goes on behind this frame, in this process or another.

        That of a corrected frame goes on behind the last one that came before the correction.
        """
        return cursor.encode(max(self.time_us, self._over), self._places or {})

    def to_tensor(self, window: int = 64) -> Tensor:
        """Give the numbers of the last `window` instants, this one last: float32, symbols × time × features, a mask.

        Features are those of all timeframes, as of each instant of the shortest one's clock (`tensor.features`). The
        mask is true where a number is known and fresh; elsewhere it is NaN. Raises `InvalidRequest` for a window that
        is longer than the subscription's.
        """
        from mdplatform.streaming.tensor import tensor

        first = max(0, self._behind - self.shape.window + 1)
        return tensor(self._row, self._rows[first : self._behind], window)

    def to_polars(self) -> pl.DataFrame:
        """Give a table with a row a symbol and timeframe: times, status, the columns that were subscribed."""
        from mdplatform.streaming.table import table

        return table(self)

    def to_arrow(self) -> pa.Table:
        """Give the same as an Arrow table."""
        return self.to_polars().to_arrow()

    def to_pandas(self) -> pd.DataFrame:
        """Give the same as a pandas frame on `symbol` and `timeframe`; nulls are NaN."""
        return self.to_arrow().to_pandas().set_index(["symbol", "timeframe"])
