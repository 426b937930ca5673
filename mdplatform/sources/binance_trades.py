"""Trades from Binance's public archive: aggregated trades by HTTP, a verified file a day.

Layout: `{base}/data/spot/daily/aggTrades/SYMBOL/SYMBOL-aggTrades-2025-01-31.zip`, each with a `.CHECKSUM`. A day is
there on the day after. What was fetched before, and has the checksum that the archive states, is not fetched again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mdplatform.errors import PlatformError, SourceUnavailable
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import from_us
from mdplatform.market.timeframe import DAY_US
from mdplatform.sources.binance_dumps import BinanceDumps
from mdplatform.sources.table_delivery import TableDelivery, TableOptions
from mdplatform.sources.trade_files import read_trades


class BinanceTrades(BinanceDumps):
    """The dumps of aggregated trades."""

    def deliveries(self, name: str, start: int | None, end: int | None) -> Iterator[TableDelivery]:
        """Give the aggregated trades of the symbol `name` in `[start, end)` (µs), a day at a time.

        Raises `SourceUnavailable` when the archive does not answer, or has nothing at all of what is asked for.
        """
        symbol, now = parse_symbol(name), self._now()
        if start is None:
            raise PlatformError("The archive needs the first day", value=name, remedy="Add --from YYYY-MM-DD")
        end = now if end is None else min(end, now)
        days = [day for day in range(start - start % DAY_US, end, DAY_US) if day + DAY_US <= now]
        found = False
        with self.downloads(symbol, "aggTrades") as downloader:
            for day in days:
                file = f"{symbol}-aggTrades-{from_us(day):%Y-%m-%d}.zip"
                path = downloader.fetch(f"{self.base_url}/data/{self.market}/daily/aggTrades/{symbol}/{file}")
                if path is None:
                    self.on_absent(file)
                    continue
                found = True
                options = TableOptions(
                    symbol, start=max(start, day), end=min(end, day + DAY_US), max_bytes=self.max_bytes
                )
                for delivery in read_trades(path, options):
                    yield replace(delivery, source=f"{self.name}:{file}")
        if not found:
            raise SourceUnavailable(
                f"{self.base_url} has no {self.market} trades of {symbol} in that time",
                value=f"{from_us(start):%Y-%m-%d} to {from_us(max(start, end)):%Y-%m-%d}",
                remedy="Look whether the symbol was listed then; a day appears in the archive on the day after",
            )
