"""Partitions: the calendar months, the symbols, and how one asset's partitions depend on another's.

What follows from bars is partitioned by month × symbol, what follows from trades by day × symbol, cross-sections and
sentiment by month, and macro by series. A month of indicators needs bars from before it: how many
months follows from the standing catalogue's slowest timeframe.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby

import dagster as dg

from mdplatform.features.catalogue import standing_catalogue
from mdplatform.settings import Settings

FIRST_MONTH = Settings.load().first_month
SYMBOL = dg.DynamicPartitionsDefinition(name="symbol")
MONTH = dg.MonthlyPartitionsDefinition(start_date=FIRST_MONTH, fmt="%Y-%m", end_offset=1)
DAY = dg.DailyPartitionsDefinition(start_date=f"{FIRST_MONTH}-01", end_offset=1)
SERIES = dg.DynamicPartitionsDefinition(name="series")
MONTH_BY_SYMBOL = dg.MultiPartitionsDefinition({"month": MONTH, "symbol": SYMBOL})
DAY_BY_SYMBOL = dg.MultiPartitionsDefinition({"day": DAY, "symbol": SYMBOL})

_SHORTEST_MONTH = timedelta(days=28)


def months_of_history() -> int:
    """Give how many months before its own a month of the standing indicators depends on."""
    catalogue = standing_catalogue()
    longest = max(catalogue.history(timeframe) for timeframe in catalogue.timeframes)
    return -(-longest // _SHORTEST_MONTH)


def with_history() -> dg.PartitionMapping:
    """Map a month × symbol to the same symbol's month and the months of history before it."""
    months = dg.TimeWindowPartitionMapping(
        start_offset=-months_of_history(), allow_nonexistent_upstream_partitions=True
    )
    return dg.MultiPartitionMapping(
        {
            "month": dg.DimensionPartitionMapping("month", months),
            "symbol": dg.DimensionPartitionMapping("symbol", dg.IdentityPartitionMapping()),
        }
    )


def month_of_day() -> dg.PartitionMapping:
    """Map a day × symbol to the month × symbol that it lies in."""
    return dg.MultiPartitionMapping(
        {
            "month": dg.DimensionPartitionMapping("day", dg.TimeWindowPartitionMapping()),
            "symbol": dg.DimensionPartitionMapping("symbol", dg.IdentityPartitionMapping()),
        }
    )


def days_of_month() -> dg.PartitionMapping:
    """Map a month × symbol to the days of that month of the same symbol; days to come are none of them."""
    days = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
    return dg.MultiPartitionMapping(
        {
            "day": dg.DimensionPartitionMapping("month", days),
            "symbol": dg.DimensionPartitionMapping("symbol", dg.IdentityPartitionMapping()),
        }
    )


def with_day_before() -> dg.PartitionMapping:
    """Map a day × symbol to the same symbol's day and the day before it."""
    days = dg.TimeWindowPartitionMapping(start_offset=-1, allow_nonexistent_upstream_partitions=True)
    return dg.MultiPartitionMapping(
        {
            "day": dg.DimensionPartitionMapping("day", days),
            "symbol": dg.DimensionPartitionMapping("symbol", dg.IdentityPartitionMapping()),
        }
    )


def partition_key(key: str) -> str:
    """Give Dagster's key of the partition that the lake files under `key`.

    >>> str(partition_key("BTCUSDT/2025-01")), str(partition_key("BTCUSDT/2025-01-31")), partition_key("2025-01")
    ('2025-01|BTCUSDT', '2025-01-31|BTCUSDT', '2025-01')
    """
    symbol, _, time = key.rpartition("/")
    if not symbol:
        return time
    return dg.MultiPartitionKey({"month" if len(time) == len("2025-01") else "day": time, "symbol": symbol})


@dataclass(frozen=True)
class Cell:
    """One partition of an asset by month × symbol."""

    month: str
    symbol: str

    @property
    def key(self) -> dg.MultiPartitionKey:
        """Give the partition's key for Dagster."""
        return dg.MultiPartitionKey({"month": self.month, "symbol": self.symbol})


def cells(keys: Iterable[str]) -> dict[str, list[Cell]]:
    """Give the partitions of a run by symbol, each symbol's months oldest first."""
    of_run = sorted((_cell(key) for key in keys), key=lambda cell: (cell.symbol, cell.month))
    return {symbol: list(of_symbol) for symbol, of_symbol in groupby(of_run, key=lambda cell: cell.symbol)}


def _cell(key: str) -> Cell:
    assert isinstance(key, dg.MultiPartitionKey)
    return Cell(month=key.keys_by_dimension["month"], symbol=key.keys_by_dimension["symbol"])
