"""The lake as what features are computed from (`mdplatform.features.data.Data`)."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from mdplatform.errors import UnknownSeries
from mdplatform.features.composites import Composite
from mdplatform.lake.lake import Lake
from mdplatform.lake.tables import TableStore
from mdplatform.market.time import from_us, month_of, to_us
from mdplatform.market.timeframe import DAY_US, Timeframe
from mdplatform.settings import Settings

_LISTED_FROM = 31 * DAY_US
"""From how long a range on (microseconds) the days that there are get listed, where shorter ones are tried."""


class LakeData:
    """The rows of `lake`, the newest revisions or those that were known at `as_of`. Reads by key, never by a glob."""

    def __init__(self, lake: Lake, as_of: datetime | None = None) -> None:
        self.lake = lake
        self.as_of = as_of

    def bars(self, symbol: str, timeframe: Timeframe, start: int | None, end: int | None) -> pl.DataFrame:
        """Give closed bars on a complete grid."""
        return self.lake.bars.read(symbol, timeframe, start, end, self.as_of)

    def trades(self, symbol: str, start: int | None, end: int | None) -> pl.DataFrame:
        """Give trades, ascending."""
        return self._by_day(self.lake.table("trades"), symbol, start, end)

    def trade_days(self, symbol: str) -> list[str]:
        """Give the days of which there are trades, with an `as_of` those of which one was known by then."""
        store = self.lake.table("trades")
        return [key.rpartition("/")[2] for key in store.keys(f"{symbol}/") if self._is_known(store, key)]

    def depth(self, symbol: str, start: int | None, end: int | None) -> pl.DataFrame:
        """Give book messages, ascending."""
        return self._by_day(self.lake.table("depth"), symbol, start, end)

    def sentiment(self, start: int | None, end: int | None) -> pl.DataFrame:
        """Give scored documents, ascending by `available_at`."""
        store = self.lake.table("sentiment")
        first, last = (None if each is None else month_of(each) for each in (start, end))
        held = store.keys()
        months = [month for month in held if (first is None or month >= first) and (last is None or month <= last)]
        return store.read(months, start, end, self.as_of)

    def macro(self, series: str) -> pl.DataFrame:
        """Give every vintage of a series. Raises `UnknownSeries` for one of which there never was anything."""
        store = self.lake.table("macro")
        if store.partition(series) is None:
            unknown = UnknownSeries(series, store.keys())
            unknown.remedy += f". Take it in: mdplatform ingest fred:{series}"
            raise unknown
        return store.read([series], as_of=self.as_of)

    def symbols(self) -> list[str]:
        """Give the symbols of which there are bars."""
        return self.lake.bars.symbols()

    def composites(self) -> list[Composite]:
        """Give the composites that the home keeps."""
        return self.lake.composites.all()

    def _is_known(self, store: TableStore, key: str) -> bool:
        if self.as_of is None:
            return True
        day = to_us(datetime.fromisoformat(key.rpartition("/")[2]).replace(tzinfo=UTC))
        if day > to_us(self.as_of):
            return False
        ends = (day + DAY_US // 24, None)  # a day's first hour is nearly always enough
        return any(not store.read([key], None, end, self.as_of).is_empty() for end in ends)

    def _by_day(self, store: TableStore, symbol: str, start: int | None, end: int | None) -> pl.DataFrame:
        if start is None or end is None or end - start > _LISTED_FROM:
            keys = store.keys(f"{symbol}/")
            first, last = (f"{symbol}/{from_us(each):%Y-%m-%d}" if each is not None else None for each in (start, end))
            keys = [key for key in keys if (first is None or key >= first) and (last is None or key <= last)]
        else:
            first_day = start - start % DAY_US
            keys = [f"{symbol}/{from_us(day):%Y-%m-%d}" for day in range(first_day, max(end, start), DAY_US)]
        return store.read(keys, start, end, self.as_of)


def of_home(as_of: datetime | None = None) -> LakeData:
    """Give the data of the home that the settings name."""
    return LakeData(Lake(Settings.load().lake_dir), as_of)
