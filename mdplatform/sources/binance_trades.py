"""Trades from Binance's public archive: aggregated trades by HTTP, a verified file a day.

Layout: `{base}/data/spot/daily/aggTrades/SYMBOL/SYMBOL-aggTrades-2025-01-31.zip`, each with a `.CHECKSUM`. A day is
there on the day after. What was fetched before, and has the checksum that the archive states, is not fetched again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from mdplatform.errors import PlatformError, SourceUnavailable
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import DAY_US
from mdplatform.settings import Settings
from mdplatform.sources.download import Downloader, Progress
from mdplatform.sources.files import DEFAULT_MAX_BYTES
from mdplatform.sources.table_delivery import TableDelivery, TableOptions
from mdplatform.sources.trade_files import read_trades


class BinanceTrades:
    """The dumps under `base_url`, kept in `folder`; arguments as those of `sources.binance_archive.BinanceArchive`."""

    name = "binance_archive"

    def __init__(
        self,
        base_url: str,
        folder: Path,
        *,
        market: str = "spot",
        retries: int = 5,
        timeout_seconds: float = 30.0,
        max_bytes: int = DEFAULT_MAX_BYTES,
        progress: Progress | None = None,
        on_absent: Callable[[str], None] | None = None,
        now: Callable[[], int] = lambda: to_us(datetime.now(UTC)),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.folder = folder
        self.market = market
        self.retries = retries
        self.timeout_seconds = timeout_seconds
        self.max_bytes = max_bytes
        self.progress = progress
        self.on_absent = on_absent or (lambda name: None)
        self._now = now
        self._sleep = sleep

    @classmethod
    def from_settings(cls, settings: Settings) -> BinanceTrades:
        """Make the archive that the settings name, with its downloads under the platform's home."""
        return cls(
            settings.archive_url,
            settings.home / "downloads" / "binance",
            retries=settings.archive_retries,
            timeout_seconds=settings.archive_timeout_seconds,
            max_bytes=settings.max_file_bytes,
        )

    def deliveries(self, name: str, start: int | None, end: int | None) -> Iterator[TableDelivery]:
        """Give the aggregated trades of the symbol `name` in `[start, end)` (µs), a day at a time.

        Raises `SourceUnavailable` when the archive does not answer, or has nothing at all of what is asked for.
        """
        symbol, now = parse_symbol(name), self._now()
        if start is None:
            raise PlatformError("The archive needs the first day", value=name, remedy="Add --from YYYY-MM-DD")
        end = now if end is None else min(end, now)
        days = [day for day in range(start - start % DAY_US, end, DAY_US) if day + DAY_US <= now]
        downloader = Downloader(
            self.folder / self.market / symbol / "aggTrades",
            retries=self.retries,
            timeout_seconds=self.timeout_seconds,
            max_bytes=self.max_bytes,
            progress=self.progress,
            sleep=self._sleep,
        )
        found = False
        try:
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
        finally:
            downloader.close()
        if not found:
            raise SourceUnavailable(
                f"{self.base_url} has no {self.market} trades of {symbol} in that time",
                value=f"{from_us(start):%Y-%m-%d} to {from_us(max(start, end)):%Y-%m-%d}",
                remedy="Look whether the symbol was listed then; a day appears in the archive on the day after",
            )
