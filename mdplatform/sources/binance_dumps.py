"""What the kinds of dumps of Binance's public archive have in common: where they are, and how they are fetched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from mdplatform.errors import ParameterOutOfRange
from mdplatform.market.time import to_us
from mdplatform.settings import Settings
from mdplatform.sources.download import Downloader, Progress
from mdplatform.sources.files import DEFAULT_MAX_BYTES

MARKETS = ("spot", "futures/um")


class BinanceDumps:
    """The dumps under `base_url`, kept in `folder` so that a verified file is fetched once.

    `progress` is called as `(bytes_done, bytes_total, file_name)`; `on_absent` with the name of each file that the
    archive does not have; `now` gives the present (µs), which decides what the archive can have by now.
    """

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
        if market not in MARKETS:
            raise ParameterOutOfRange("Unknown market", value=market, remedy=f"Allowed: {' '.join(MARKETS)}")
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
    def from_settings(
        cls,
        settings: Settings,
        *,
        progress: Progress | None = None,
        on_absent: Callable[[str], None] | None = None,
    ) -> Self:
        """Make the archive that the settings name, with its downloads under the platform's home."""
        return cls(
            settings.archive_url,
            settings.home / "downloads" / "binance",
            retries=settings.archive_retries,
            timeout_seconds=settings.archive_timeout_seconds,
            max_bytes=settings.max_file_bytes,
            progress=progress,
            on_absent=on_absent,
        )

    @contextmanager
    def downloads(self, *folder: str) -> Iterator[Downloader]:
        """Fetch into a folder below that of the market."""
        downloader = Downloader(
            self.folder.joinpath(self.market, *folder),
            retries=self.retries,
            timeout_seconds=self.timeout_seconds,
            max_bytes=self.max_bytes,
            progress=self.progress,
            sleep=self._sleep,
        )
        try:
            yield downloader
        finally:
            downloader.close()
