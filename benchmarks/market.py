"""The simulated market that the benchmarks run on, and the lake that they put it into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl

from mdplatform.lake import Lake
from mdplatform.market.time import from_us, month_of, month_range
from mdplatform.market.timeframe import Timeframe
from mdplatform.sources.delivery import Delivery
from mdplatform.sources.simulated import SimulatedMarket

FIRST_MONTH = "2025-01"


def symbols(count: int) -> list[str]:
    """Give that many symbols.

    >>> symbols(2)
    ['COIN00USDT', 'COIN01USDT']
    """
    return [f"COIN{number:02d}USDT" for number in range(count)]


def months(count: int) -> list[str]:
    """Give that many months from `FIRST_MONTH` on.

    >>> months(3)
    ['2025-01', '2025-02', '2025-03']
    """
    found = [FIRST_MONTH]
    while len(found) < count:
        found.append(month_of(month_range(found[-1])[1]))
    return found


def deliveries(symbol: str, timeframe: Timeframe, of: Sequence[str]) -> Iterator[Delivery]:
    """Give the simulated bars of those consecutive months, a delivery each."""
    return SimulatedMarket().bars(symbol, timeframe, month_range(of[0])[0], month_range(of[-1])[1])


def take_in(lake: Lake, symbol: str, timeframe: Timeframe, of: Sequence[str]) -> None:
    """Put those months into the lake, in the way that the asset `bars` does."""
    for each in deliveries(symbol, timeframe, of):
        batches = lake.inbox.stage(symbol, timeframe, each.source, each.content_hash, each.rows, datetime.now(UTC))
        for batch in batches:
            lake.bars.merge(symbol, batch.month, [batch])
            lake.inbox.clear(batch)


def longest_stretch(rows: pl.DataFrame, timeframe: Timeframe) -> pl.DataFrame:
    """Give the longest run of rows in which no bar is missing."""
    opens = rows["open_time"].dt.epoch("us").to_numpy()
    edges = np.concatenate([[0], np.flatnonzero(np.diff(opens) != timeframe.microseconds) + 1, [len(opens)]])
    longest = int(np.argmax(np.diff(edges)))
    return rows[int(edges[longest]) : int(edges[longest + 1])]


def ends_at(rows: pl.DataFrame) -> str:
    """Say when the last of the rows opens, for a message."""
    return f"{from_us(int(rows['open_time'].dt.epoch('us')[-1])):%Y-%m-%d %H:%M}"
