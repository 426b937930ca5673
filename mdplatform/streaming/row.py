"""What was known at one instant: a cell for each place of a shape, and their numbers side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdplatform.streaming.cell_status import CellStatus
from mdplatform.streaming.cells import Cell
from mdplatform.streaming.frame_cell import FrameCell
from mdplatform.streaming.known_sentiment import KnownSentiment, Sentiment
from mdplatform.streaming.shape import Fitting, Shape

_GAP = "gap"


class Row:
    """The cells of all places at `time` (microseconds), None where nothing is known; not to be changed."""

    __slots__ = ("_made", "_numbers", "_statuses", "cells", "fitting", "revision", "sentiment", "shape", "time")

    def __init__(
        self,
        shape: Shape,
        time: int,
        cells: tuple[Cell | None, ...],
        fitting: Fitting,
        sentiment: KnownSentiment,
        revision: int = 0,
    ) -> None:
        self.shape = shape
        self.time = time
        self.cells = cells
        self.fitting = fitting
        self.sentiment = sentiment
        self.revision = revision
        self._made: dict[int, FrameCell] = {}
        self._numbers: NDArray[np.float32] | None = None
        self._statuses: tuple[CellStatus, ...] | None = None

    @property
    def statuses(self) -> tuple[CellStatus, ...]:
        """How the cell of each place stands to `time`."""
        if self._statuses is None:
            due = [timeframe.floor(self.time) for timeframe in self.shape.timeframes]
            count = len(due)
            self._statuses = tuple(_status(cell, due[slot % count]) for slot, cell in enumerate(self.cells))
        return self._statuses

    def cell(self, slot: int) -> FrameCell:
        """Give the cell of a place."""
        made = self._made.get(slot)
        if made is None:
            symbol, timeframe = self.shape.slots[slot]
            made = FrameCell(symbol, timeframe, self.statuses[slot], self.cells[slot], self.fitting)
            self._made[slot] = made
        return made

    def sentiment_of(self, symbol: str) -> dict[str, Sentiment]:
        """Give the newest sentiment of a symbol by provider."""
        return {each: self.sentiment.at(each, symbol, self.time) for each in self.shape.providers}

    @property
    def numbers(self) -> NDArray[np.float32]:
        """The numbers that are fresh, symbols × `shape.numbers`; NaN for null and for what is not fresh."""
        if self._numbers is None:
            shape = self.shape
            found = np.full((len(shape.symbols), len(shape.numbers)), np.nan, np.float32)
            wide, places = len(shape.values) + len(shape.columns), list(shape.value_places)
            count = len(shape.timeframes)
            for slot, status in enumerate(self.statuses):
                if status is CellStatus.FRESH:
                    cell, first = self.cell(slot), (slot % count) * wide
                    row = found[slot // count, first : first + wide]
                    row[: len(places)] = np.array(cell.values)[places]
                    row[len(places) :] = cell.numbers
            first = count * wide
            for index, symbol in enumerate(shape.symbols if shape.providers else ()):
                scores = [each.score for each in self.sentiment_of(symbol).values()]
                found[index, first:] = [np.nan if each is None else each for each in scores]
            found.flags.writeable = False
            self._numbers = found
        return self._numbers


def _status(cell: Cell | None, due: int) -> CellStatus:
    if cell is None or cell.state == _GAP:
        return CellStatus.MISSING
    return CellStatus.FRESH if cell.close_time >= due else CellStatus.STALE
