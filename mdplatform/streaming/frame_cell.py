"""One place of a frame: what is known of a symbol in a timeframe at T."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdplatform.errors import UnknownName
from mdplatform.features import FeatureLike, parse_feature
from mdplatform.features.guard import STATUSES, UNSETTLED
from mdplatform.market.bars import VALUE_COLUMNS
from mdplatform.market.time import from_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming.cell_status import CellStatus
from mdplatform.streaming.cells import Cell, numbers
from mdplatform.streaming.shape import Fitting


class UnknownColumn(UnknownName):
    """A column or feature that the frame does not have."""

    kind = "column of the frame"


class FrameCell:
    """A bar with its features, not to be changed; of a `missing` one all values are None.

    `cell["close"]`, `cell["RSI"]`, `cell["MACD.macdhist"]` and `cell[{"name": "RSI", "parameters": {"period": 14}}]`
    give numbers, None where there is none (`cell.reason` says why); a feature with several outputs gives a mapping.
    """

    __slots__ = ("_cell", "_fitting", "_picked", "_values", "status", "symbol", "timeframe")

    def __init__(
        self, symbol: str, timeframe: Timeframe, status: CellStatus, cell: Cell | None, fitting: Fitting
    ) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self.status = status
        self._cell = cell
        self._fitting = fitting
        self._values: tuple[float, ...] | None = None
        self._picked: tuple[NDArray[np.float64], NDArray[np.int8]] | None = None

    def __repr__(self) -> str:
        told = f"{self.symbol} {self.timeframe} {self.status}"
        if self._cell is None:
            return f"<FrameCell {told}>"
        return f"<FrameCell {told} closed {self.close_time:%Y-%m-%dT%H:%M}Z close={self.close}>"

    @property
    def values(self) -> tuple[float, ...]:
        """The nine numbers of the bar, in the order of `VALUE_COLUMNS`, NaN for null."""
        if self._values is None:
            cell = self._cell
            known = cell is not None and self.status is not CellStatus.MISSING
            given = numbers(cell.bar) if cell is not None and known else np.full(len(VALUE_COLUMNS), np.nan)
            self._values = tuple(given.tolist())
        return self._values

    @property
    def numbers(self) -> NDArray[np.float64]:
        """The numbers of the features' columns, NaN for null."""
        return self._features()[0]

    @property
    def columns(self) -> tuple[str, ...]:
        """The canonical names of the features' columns."""
        return self._fitting.columns

    @property
    def features(self) -> dict[str, float | None]:
        """The features by canonical name, None for null."""
        return {name: _known(each) for name, each in zip(self.columns, self.numbers.tolist(), strict=True)}

    @property
    def reasons(self) -> dict[str, str]:
        """Why each feature that is null is so, by canonical name."""
        found, statuses = self._features()
        return {
            name: STATUSES[status]
            for name, number, status in zip(self.columns, found.tolist(), statuses.tolist(), strict=True)
            if math.isnan(number)
        }

    def reason(self, feature: FeatureLike) -> str | None:
        """Say why a feature is null; None if it is not."""
        reasons = self.reasons
        return next((reasons[each] for each in self._named(feature) if each in reasons), None)

    def is_settled(self, feature: FeatureLike) -> bool:
        """Tell whether a value no longer depends on where history began."""
        statuses = dict(zip(self.columns, self._features()[1].tolist(), strict=True))
        return all(statuses[each] < UNSETTLED for each in self._named(feature))

    def __getitem__(self, name: FeatureLike) -> Any:
        if isinstance(name, str) and name in VALUE_COLUMNS:
            return _known(self.values[VALUE_COLUMNS.index(name)])
        named = self._named(name)
        found = self.features
        if len(named) == 1:
            return found[named[0]]
        return {each.rpartition(".")[2]: found[each] for each in named}

    def get(self, name: FeatureLike, default: Any = None) -> Any:
        """Give what `cell[name]` gives, or `default` where the frame has no such column."""
        try:
            return self[name]
        except UnknownColumn:
            return default

    @property
    def open(self) -> float | None:
        """The first price."""
        return _known(self.values[0])

    @property
    def high(self) -> float | None:
        """The highest price."""
        return _known(self.values[1])

    @property
    def low(self) -> float | None:
        """The lowest price."""
        return _known(self.values[2])

    @property
    def close(self) -> float | None:
        """The last price."""
        return _known(self.values[3])

    @property
    def volume(self) -> float | None:
        """The amount traded, in the base asset."""
        return _known(self.values[4])

    @property
    def open_time(self) -> datetime | None:
        """When the bar opened (UTC)."""
        return None if self._cell is None else from_us(self._cell.open_time)

    @property
    def close_time(self) -> datetime | None:
        """The bar's exclusive end (UTC)."""
        return None if self._cell is None else from_us(self._cell.close_time)

    @property
    def available_at(self) -> datetime | None:
        """The first instant at which the bar could have been known (UTC)."""
        return None if self._cell is None else from_us(self._cell.available_at)

    @property
    def state(self) -> str | None:
        """`observed`, `no_trade` or `gap`."""
        return None if self._cell is None else self._cell.state

    @property
    def is_closed(self) -> bool:
        """False for a bar that is still forming."""
        return self._cell is None or self._cell.is_closed

    @property
    def revision(self) -> int | None:
        """How often the bar was corrected, from 0; a gap that is filled has not been."""
        return None if self._cell is None else max(self._cell.revision, 0)

    @property
    def quality(self) -> float | None:
        """From 0 to 1, None where it was not assessed."""
        return None if self._cell is None else self._cell.quality

    def _features(self) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        if self._picked is None:
            cell = self._cell
            if cell is None or self.status is CellStatus.MISSING:
                self._picked = self._fitting.pick("", np.empty(0), np.empty(0, np.int8))
            else:
                statuses = np.frombuffer(cell.statuses, np.int8)
                self._picked = self._fitting.pick(cell.layout, numbers(cell.numbers), statuses)
            for each in self._picked:
                each.flags.writeable = False
        return self._picked

    def _named(self, feature: FeatureLike) -> tuple[str, ...]:
        """Give the columns of the frame that a feature means. Raises `UnknownColumn`, and what `parse_feature` does."""
        if isinstance(feature, str) and feature in self.columns:
            return (feature,)
        spec = parse_feature(feature)
        named = tuple(f"{each}{spec.place}" for each in spec.columns)
        if not set(named) <= set(self.columns):
            raise UnknownColumn(str(feature), [*self.columns, *VALUE_COLUMNS])
        return named


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number
