"""Binance's public archive: kline dumps by HTTP, a file a month, and a file a day where there is none of the month.

Layout: `{base}/data/{spot|futures/um}/{monthly|daily}/klines/SYMBOL/1m/SYMBOL-1m-2025-01[-31].zip`, each with a
`.CHECKSUM`. Months that are over are asked for whole; the running month, and a month without a file, day by day.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from mdplatform.errors import SourceUnavailable
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import from_us, month_range, months_between
from mdplatform.market.timeframe import DAY_US, Timeframe
from mdplatform.sources.binance_dumps import BinanceDumps
from mdplatform.sources.delivery import Delivery
from mdplatform.sources.download import Downloader
from mdplatform.sources.files import by_month, read_file


class BinanceArchive(BinanceDumps):
    """The dumps of bars."""

    def bars(self, symbol: str, timeframe: Timeframe, start: int, end: int) -> Iterator[Delivery]:
        """Give the bars that open in `[start, end)` (µs), one delivery a month.

        Raises `SourceUnavailable` when the archive does not answer, or has nothing at all of what is asked for.
        """
        symbol, now = parse_symbol(symbol), self._now()
        found = False
        with self.downloads(symbol, timeframe) as downloader:
            for month in months_between(start, min(end, now)):
                paths = self._files_of(month, downloader, f"{symbol}/{timeframe}/{symbol}-{timeframe}", start, end)
                if not paths:
                    continue
                found = True
                read = [read_file(path, symbol, timeframe, self.max_bytes)[0] for path in paths]
                names = " ".join(dict.fromkeys((paths[0].name, paths[-1].name)))
                rows = pl.concat([delivery.rows for delivery in read])
                yield from by_month(Delivery.of(symbol, timeframe, f"{self.name}:{names}", rows), start, end)
        if not found:
            raise SourceUnavailable(
                f"{self.base_url} has no {self.market} bars of {symbol} {timeframe} in that time",
                value=f"{from_us(start):%Y-%m-%d} to {from_us(end):%Y-%m-%d}",
                remedy="Look whether the symbol was listed then; a day appears in the archive on the day after",
            )

    def _files_of(self, month: str, downloader: Downloader, stem: str, start: int, end: int) -> list[Path]:
        """Give local copies of the month's file, or of its days' files, oldest first; none where there are none."""
        now = self._now()
        first, after = month_range(month)
        over = after <= now
        if over and (path := self._fetch(downloader, "monthly", f"{stem}-{month}.zip")):
            return [path]
        midnights = range(max(first, Timeframe.D1.floor(start)), min(after, end), DAY_US)
        days = [from_us(day).strftime("%Y-%m-%d") for day in midnights if day + DAY_US <= now]
        # A month without a file is mostly one before the symbol was listed: three looks tell, not thirty.
        looks = list(dict.fromkeys((days[0], days[-1], days[len(days) // 2]))) if over and days else []
        files = {day: self._fetch(downloader, "daily", f"{stem}-{day}.zip") for day in looks}
        if over and not any(files.values()):
            self.on_absent(f"{stem}-{month}.zip".rsplit("/", 1)[-1])
            return []
        for day in days:
            if day not in files:
                files[day] = self._fetch(downloader, "daily", f"{stem}-{day}.zip")
            if files[day] is None:
                self.on_absent(f"{stem}-{day}.zip".rsplit("/", 1)[-1])
        return [path for _, path in sorted(files.items()) if path is not None]

    def _fetch(self, downloader: Downloader, period: str, place: str) -> Path | None:
        return downloader.fetch(f"{self.base_url}/data/{self.market}/{period}/klines/{place}")
