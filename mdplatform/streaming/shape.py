"""The shape of frames: their symbols, timeframes and columns. Subscriptions of one shape share their frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mdplatform.features import parse_feature
from mdplatform.features.guard import NOT_AVAILABLE_YET
from mdplatform.market.bars import AMOUNT_COLUMNS, PRICE_COLUMNS, VALUE_COLUMNS
from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming.cells import Layout

SENTIMENT = "sentiment:"
"""What stands before a provider's name in the columns of tables and tensors."""


class DataType(StrEnum):
    """What a subscription wants to have in its frames."""

    PRICE = "price"
    VOLUME = "volume"
    INDICATORS = "indicators"
    SENTIMENT = "sentiment"


@dataclass(frozen=True)
class Shape:
    """What frames are made of; made by `Shape.of`.

    `timeframes` ascend: the first one is the clock. `features` are canonical texts and `columns` their outputs, in
    order; `providers` are those of sentiment. `window` is how many instants back `Frame.to_tensor` can reach, `grace`
    how long a frame waits for what is due (seconds). `forming` asks for frames of forming bars too.
    """

    symbols: tuple[str, ...]
    timeframes: tuple[Timeframe, ...]
    data_types: tuple[DataType, ...]
    features: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    window: int = 64
    grace: float = 2.0
    forming: bool = False

    @classmethod
    def of(
        cls,
        symbols: Sequence[str],
        timeframes: Sequence[Timeframe | str],
        data_types: Sequence[DataType | str] = ("price", "volume"),
        features: Sequence[str] = (),
        providers: Sequence[str] = (),
        window: int = 64,
        grace: float = 2.0,
        forming: bool = False,
    ) -> Shape:
        """Make a shape; what it is made of was checked before.

        >>> Shape.of(["BTCUSDT"], ["1h", "5m"], ["price"], ["RSI(timeperiod=14)"]).numbers
        ('open@5m', 'high@5m', 'low@5m', 'close@5m', 'open@1h', 'high@1h', 'low@1h', 'close@1h')
        """
        wanted = {DataType(each) for each in data_types}
        texts = tuple(dict.fromkeys(features)) if DataType.INDICATORS in wanted else ()
        return cls(
            tuple(dict.fromkeys(symbols)),
            tuple(sorted({Timeframe.parse(each) for each in timeframes}, key=lambda each: each.microseconds)),
            tuple(each for each in DataType if each in wanted),
            texts,
            tuple(dict.fromkeys(column for text in texts for column in columns_of(text))),
            tuple(providers) if DataType.SENTIMENT in wanted else (),
            window,
            grace,
            forming,
        )

    @property
    def clock(self) -> Timeframe:
        """The shortest timeframe, at whose closes frames are due."""
        return self.timeframes[0]

    @cached_property
    def slots(self) -> tuple[tuple[str, Timeframe], ...]:
        """The places of a frame, in the order of its cells."""
        return tuple((symbol, timeframe) for symbol in self.symbols for timeframe in self.timeframes)

    @cached_property
    def slot_of(self) -> dict[tuple[str, str], int]:
        """The index of each place."""
        return {place: index for index, place in enumerate(self.slots)}

    @cached_property
    def values(self) -> tuple[str, ...]:
        """The columns of bars that are wanted, as in `VALUE_COLUMNS`."""
        prices = PRICE_COLUMNS if DataType.PRICE in self.data_types else ()
        return prices + (AMOUNT_COLUMNS if DataType.VOLUME in self.data_types else ())

    @cached_property
    def value_places(self) -> tuple[int, ...]:
        """Where in the nine values of a bar those columns are."""
        return tuple(VALUE_COLUMNS.index(each) for each in self.values)

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """The names of all numbers of a symbol at an instant: columns by timeframe, then sentiment by provider."""
        own = (*self.values, *self.columns)
        placed = tuple(f"{column}@{timeframe}" for timeframe in self.timeframes for column in own)
        return placed + tuple(f"{SENTIMENT}{each}" for each in self.providers)


def columns_of(text: str) -> tuple[str, ...]:
    """Give the columns of a feature.

    >>> columns_of("AROON(timeperiod=14)")
    ('AROON(timeperiod=14).aroondown', 'AROON(timeperiod=14).aroonup')
    """
    spec = parse_feature(text)
    return tuple(f"{each}{spec.place}" for each in spec.columns)


class Fitting:
    """Picks the columns of a shape out of the numbers of cells, whatever their layouts."""

    def __init__(self, columns: tuple[str, ...], layouts: dict[str, Layout]) -> None:
        self.columns = columns
        self._layouts = layouts
        self._places: dict[str, tuple[NDArray[np.intp], NDArray[np.intp]]] = {}

    def adds(self, layout: str, to: str) -> bool:
        """Tell whether a layout has all the columns of the shape that another has, and some that this one lacks."""
        if layout == to or not self.columns or layout not in self._layouts:
            return False
        old = self._layouts[to].columns if to in self._layouts else ()
        had = set(self.columns).intersection(old)
        return had < set(self.columns).intersection(self._layouts[layout].columns)

    def pick(
        self, layout: str, numbers: NDArray[np.float64], statuses: NDArray[np.int8]
    ) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        """Give the number and the status (index in `features.guard.STATUSES`) of each column.

        What a cell does not have, since the feed does not compute it yet, is `not_available_yet`.
        """
        if not self.columns:
            return np.empty(0), np.empty(0, np.int8)
        known = self._places.get(layout)
        if known is None:
            if layout not in self._layouts:
                return np.full(len(self.columns), np.nan), np.full(len(self.columns), NOT_AVAILABLE_YET, np.int8)
            known = self._places[layout] = _places(self.columns, self._layouts[layout])
        places, features = known
        if len(numbers) != len(self._layouts[layout].columns):
            numbers = np.full(len(self._layouts[layout].columns), np.nan)
            statuses = np.full(len(self._layouts[layout].features), NOT_AVAILABLE_YET, np.int8)
        absent = places < 0
        picked = np.append(numbers, np.nan)[places]
        told = np.append(statuses, np.int8(NOT_AVAILABLE_YET))[features]
        picked[absent] = np.nan
        return picked, told.astype(np.int8)


def _places(columns: tuple[str, ...], layout: Layout) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Give for each column its place in the numbers and that of its feature in the statuses; −1 where it is not."""
    place = {name: index for index, name in enumerate(layout.columns)}
    feature_of = [index for index, count in enumerate(layout.counts) for _ in range(count)]
    found = [place.get(each, -1) for each in columns]
    features = [feature_of[each] if each >= 0 else -1 for each in found]
    return np.array(found, np.intp), np.array(features, np.intp)
