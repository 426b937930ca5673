"""The strategy's reader: features by name, from wherever the platform has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType
    from typing import Any, Self

    import polars as pl

    from mdplatform.features import Correlations, FeatureLike
    from mdplatform.serving.async_reader import AsyncReader
    from mdplatform.serving.reader import Reader
    from mdplatform.serving.result import FeatureResult
    from mdplatform.settings import Settings


class FeatureReader:
    """Reads the newest values of features; thread-safe.

    Without `settings` they are read from the environment (`MDPLATFORM_HOME`, `MDPLATFORM_REDIS_URL`, …). Close it, or
    use it in a `with`. If Redis is down it still answers, from the lake, and says so in `notes`.

        with FeatureReader() as reader:
            bands = reader.latest("ETHUSDT", "BBANDS(period=20)", timeframe="1h", n=100)
            bands.values          # numpy, shape (100, 3); a missing value is NaN
            bands.to_pandas()     # index open_time (UTC); upperband, middleband, lowerband, available_at, status
            bands.source          # "cache" or "computed"; also .method and .ages, for the kinds that have them
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._reader = _make_reader(settings)

    def latest(self, symbol: str, feature: FeatureLike, timeframe: str | None = None, n: int = 1) -> FeatureResult:
        """Give the newest `n` rows of a feature, oldest first; fewer where history is shorter.

        `feature` is a text such as `RSI(timeperiod=14)` or a mapping `{"name": "RSI", "parameters": {"period": 14}}`,
        of any kind; `timeframe` is that of the rows: by default the feature's own, else `15m`; `n` is 1 to 1,000,000.
        A feature of another symbol or timeframe (`{"name": "RSI", "symbol": "ETHUSDT"}`) is joined as of each close.

        Raises `InvalidSymbol`, `UnknownSymbol`, `UnknownFeature`, `UnknownParameter`, `ParameterOutOfRange`,
        `UnknownTimeframe` or `NoData`, all of them `mdplatform.errors.PlatformError`, which say what to do.

            macd = reader.latest("BTCUSDT", {"name": "MACD", "parameters": {"fast": 8}}, timeframe="1h", n=3)
            macd.rows[-1]["macdhist"]
        """
        return self._reader.latest(symbol, feature, timeframe, n)

    def latest_many(self, questions: Iterable[tuple[str, FeatureLike, str | None]], n: int = 1) -> list[FeatureResult]:
        """Answer many questions with one round trip, in their order.

        reader.latest_many([("BTCUSDT", "RSI", "15m"), ("ETHUSDT", "ATR", "1h")])
        """
        return self._reader.latest_many(questions, n)

    def between(
        self,
        symbol: str,
        feature: FeatureLike,
        timeframe: str | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        as_of: datetime | str | None = None,
    ) -> FeatureResult:
        """Give the rows with `start <= open_time < end` from the lake, computed from bars as they were known at
        `as_of`.

        Times are datetimes or ISO 8601 texts, UTC where they name no zone.

            reader.between("BTCUSDT", "RSI", "1d", start="2024-01-01", end="2024-04-01")
        """
        return self._reader.between(symbol, feature, timeframe, start, end, as_of)

    def frame(
        self,
        symbols: Iterable[str] | str,
        features: Iterable[FeatureLike] | FeatureLike,
        timeframe: str,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        as_of: datetime | str | None = None,
        *,
        ages: bool = False,
        statuses: bool = False,
    ) -> pl.DataFrame:
        """Give one aligned polars frame of features of any kind from the lake, such as a training set.

        A row for each bar with `start <= open_time < end` of each symbol: `symbol, open_time, close_time`, then each
        output by its canonical text, each cell made of what was available at its row's close; with `statuses` also
        `<feature>.status`, with `ages` also `<feature>.age`. `as_of` leaves out what became known later than that. The
        values are those that `latest` gives for the same rows.

            reader.frame(["BTCUSDT", "ETHUSDT"], ["RSI", "MACRO(series=CPIAUCSL)"], "1h", start="2025-01-01")
        """
        return self._reader.frame(symbols, features, timeframe, start, end, as_of, ages=ages, statuses=statuses)

    def correlation_matrix(
        self,
        symbols: Sequence[str],
        window: int,
        timeframe: str,
        end: datetime | str | None = None,
        as_of: datetime | str | None = None,
        **options: Any,
    ) -> Correlations:
        """Give the correlations of the log returns of `symbols` over the last `window` bars known at `end`.

        `options` are those of `features.correlation_matrix`, such as `method="spearman"`.

            reader.correlation_matrix(["BTCUSDT", "ETHUSDT", "ADAUSDT"], 96, "15m").to_pandas()
        """
        return self._reader.correlation_matrix(symbols, window, timeframe, end, as_of, **options)

    def close(self) -> None:
        """Let go of Redis; the embedded server ends when nobody uses it."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncFeatureReader:
    """The same for asyncio, inside one event loop; reads of one tick of the loop share one round trip.

    async with AsyncFeatureReader() as reader:
        rsi, atr = await asyncio.gather(
            reader.latest("BTCUSDT", "RSI", timeframe="15m"), reader.latest("BTCUSDT", "ATR", timeframe="15m")
        )
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._reader = _make_async_reader(settings)

    async def latest(
        self, symbol: str, feature: FeatureLike, timeframe: str | None = None, n: int = 1
    ) -> FeatureResult:
        """Give the newest `n` rows of a feature, as `FeatureReader.latest` does."""
        return await self._reader.latest(symbol, feature, timeframe, n)

    async def latest_many(
        self, questions: Iterable[tuple[str, FeatureLike, str | None]], n: int = 1
    ) -> list[FeatureResult]:
        """Answer many questions with one round trip, as `FeatureReader.latest_many` does."""
        return await self._reader.latest_many(questions, n)

    async def between(
        self,
        symbol: str,
        feature: FeatureLike,
        timeframe: str | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        as_of: datetime | str | None = None,
    ) -> FeatureResult:
        """Give the rows of a range, as `FeatureReader.between` does."""
        return await self._reader.between(symbol, feature, timeframe, start, end, as_of)

    async def frame(
        self,
        symbols: Iterable[str] | str,
        features: Iterable[FeatureLike] | FeatureLike,
        timeframe: str,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        as_of: datetime | str | None = None,
        *,
        ages: bool = False,
        statuses: bool = False,
    ) -> pl.DataFrame:
        """Give one aligned frame of features, as `FeatureReader.frame` does."""
        return await self._reader.frame(symbols, features, timeframe, start, end, as_of, ages=ages, statuses=statuses)

    async def correlation_matrix(
        self,
        symbols: Sequence[str],
        window: int,
        timeframe: str,
        end: datetime | str | None = None,
        as_of: datetime | str | None = None,
        **options: Any,
    ) -> Correlations:
        """Give the correlations of symbols, as `FeatureReader.correlation_matrix` does."""
        return await self._reader.correlation_matrix(symbols, window, timeframe, end, as_of, **options)

    async def close(self) -> None:
        """Let go of Redis; the embedded server ends when nobody uses it."""
        await self._reader.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


# Imports of the serving room cost half a second, so they wait until a reader is made.


def _make_reader(settings: Settings | None) -> Reader:
    from mdplatform.serving.reader import Reader
    from mdplatform.settings import Settings

    return Reader(settings if settings is not None else Settings.load())


def _make_async_reader(settings: Settings | None) -> AsyncReader:
    from mdplatform.serving.async_reader import AsyncReader
    from mdplatform.settings import Settings

    return AsyncReader(settings if settings is not None else Settings.load())
