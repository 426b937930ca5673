"""Questions: a method for each type of request, with the arguments that it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from mdplatform.strategy.pending import Callback

if TYPE_CHECKING:
    from typing import Unpack

    from mdplatform.features import FeatureLike
    from mdplatform.requests.making import Common, Features, Names
    from mdplatform.requests.request import RequestType


class Questions(ABC):
    """Makes a request of what each method is given, for `request` to send; the arguments they share are told there."""

    @abstractmethod
    async def request(self, /, type: RequestType | str, callback: Callback | None = None, **fields: Any) -> str:
        """Send a request of that type with the arguments of its method; give its id."""

    async def request_technical_indicators(
        self,
        strategy_id: str,
        symbols: Names,
        indicators: Features,
        timeframes: Names,
        *,
        callback: Callback | None = None,
        **common: Unpack[Common],
    ) -> str:
        """Ask for indicators, or features of any kind, of each symbol in rows of each timeframe; give the request's id.

        Each indicator is a text (`RSI(14)`, `MACD.macdhist`, `ATR@1d`, `close / EMA(close, 50) - 1`) or a mapping
        `{"name": "RSI", "parameters": {"period": 14}}`. Raises a `PlatformError` with its `field`.
        """
        return await self.request(
            "TECHNICAL_INDICATORS", callback, strategy_id=strategy_id, symbols=symbols, indicators=indicators,
            timeframes=timeframes, **common,
        )  # fmt: skip

    async def request_custom_composite_indicator(
        self,
        strategy_id: str,
        symbols: Names,
        formula: str,
        timeframes: Names,
        input_indicators: Sequence[FeatureLike] = (),
        *,
        callback: Callback | None = None,
        **common: Unpack[Common],
    ) -> str:
        """Ask for a formula of indicators and columns of bars, which uses its inputs by name; give the request's id.

        `MACD_HISTOGRAM` and other outputs take the parameters of the input that they are of. Raises a `PlatformError`;
        what is wrong in the formula is pointed at.
        """
        return await self.request(
            "CUSTOM_COMPOSITE", callback, strategy_id=strategy_id, symbols=symbols, formula=formula,
            timeframes=timeframes, input_indicators=input_indicators, **common,
        )  # fmt: skip

    async def request_volume_profile(
        self,
        strategy_id: str,
        symbols: Names,
        timeframes: Names,
        *,
        session_hours: int | None = None,
        hours: int | None = None,
        row_size: float | None = None,
        value_area_pct: float | None = None,
        algorithm: Literal["two_row", "one_row"] | None = None,
        callback: Callback | None = None,
        **common: Unpack[Common],
    ) -> str:
        """Ask for point of control and value area; give the request's id.

        They are of the session of `session_hours` (by default 24) so far, or of the last `hours`. `row_size` is in
        units of the price, by default chosen from the prices; `value_area_pct` is 0.7 by default.
        """
        return await self.request(
            "VOLUME_PROFILE", callback, strategy_id=strategy_id, symbols=symbols, timeframes=timeframes,
            session_hours=session_hours, hours=hours, row_size=row_size, value_area_pct=value_area_pct,
            algorithm=algorithm, **common,
        )  # fmt: skip

    async def request_sentiment_data(
        self,
        strategy_id: str,
        symbols: Names,
        timeframes: Names,
        providers: Names,
        *,
        measures: Names = ("score",),
        hours: float | None = None,
        half_life_hours: float | None = None,
        max_staleness_hours: float | None = None,
        scope: Literal["market", "symbol"] | None = None,
        callback: Callback | None = None,
        **common: Unpack[Common],
    ) -> str:
        """Ask for measures of sentiment, by what each provider's documents said; give the request's id.

        Measures are `score` (the newest), `mean`, `count` and `dispersion` (over `hours`), `decayed` (by
        `half_life_hours`) and `age`. `scope` tells documents on the market from those on the symbol.
        """
        return await self.request(
            "SENTIMENT_DATA", callback, strategy_id=strategy_id, symbols=symbols, timeframes=timeframes,
            providers=providers, measures=measures, hours=hours, half_life_hours=half_life_hours,
            max_staleness_hours=max_staleness_hours, scope=scope, **common,
        )  # fmt: skip

    async def request_macro_indicators(
        self,
        strategy_id: str,
        series: Names,
        symbols: Names = (),
        timeframes: Names = (),
        *,
        transforms: Names | None = None,
        mode: Literal["as_of", "first_release", "latest"] | None = None,
        periods: int | None = None,
        missing: Literal["keep", "skip"] | None = None,
        max_staleness_days: int | None = None,
        callback: Callback | None = None,
        **common: Unpack[Common],
    ) -> str:
        """Ask for macro series; give the request's id.

        They are joined to the rows of symbols as they were known at each close; without symbols the answer has the
        newest periods of each series. `transforms` are `value` (the default), `diff`, `pct`, `yoy` and `zscore`.
        """
        return await self.request(
            "MACRO_INDICATORS", callback, strategy_id=strategy_id, series=series, symbols=symbols,
            timeframes=timeframes, transforms=transforms, mode=mode, periods=periods, missing=missing,
            max_staleness_days=max_staleness_days, **common,
        )  # fmt: skip

    async def request_correlation_matrix(
        self,
        strategy_id: str,
        symbols: Names,
        timeframes: Names,
        window: int = 96,
        *,
        of: Literal["returns", "levels"] | None = None,
        method: Literal["pearson", "spearman", "exponential"] | None = None,
        half_life: float | None = None,
        sample: Literal["pairwise", "common"] | None = None,
        min_periods: int | None = None,
        shrinkage: Literal["ledoit_wolf", "constant_correlation"] | None = None,
        repair: Literal["nearest_psd"] | None = None,
        callback: Callback | None = None,
        **common: Unpack[Common],
    ) -> str:
        """Ask for the correlations of log returns over the last `window` bars, a matrix a timeframe; give the id.

        The options are those of `features.correlation_matrix`. `end` gives the window that was the last one then.
        """
        return await self.request(
            "CORRELATION_MATRIX", callback, strategy_id=strategy_id, symbols=symbols, timeframes=timeframes,
            window=window, of=of, method=method, half_life=half_life, sample=sample, min_periods=min_periods,
            shrinkage=shrinkage, repair=repair, **common,
        )  # fmt: skip
