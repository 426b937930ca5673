"""A simulated market: seeded, correlated, with outages, and with a known answer for tests.

The same seed gives the same bars whatever range is asked for, in whatever order, process or machine; how they are drawn
is told in `simulation.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from mdplatform.market.bars import AMOUNT_COLUMNS, INSTANT, RAW_SCHEMA
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import month_range, months_between
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.settings import Settings
from mdplatform.sources.delivery import Delivery
from mdplatform.sources.simulation import Floats, character_of, factor_path, minutes_of, month_number

DEFAULT_SEED = 7


@dataclass(frozen=True, slots=True)
class Truth:
    """The known answer of one symbol and month: `beta` to the factor, and the open times (µs) of the minutes that are
    `missing` (the outage) and of those with `no_trade`; `tick` is the price grid's step."""

    symbol: str
    month: str
    beta: float
    tick: float
    missing: tuple[int, ...]
    no_trade: tuple[int, ...]


class SimulatedMarket:
    """The embedded source: any symbol, any month from 2005-01 to 2099-11, no network and no clock.

    >>> market = SimulatedMarket(seed=7)
    >>> january = next(market.bars("BTCUSDT", Timeframe.M1, *month_range("2025-01")))
    >>> january.rows.height + len(market.truth("BTCUSDT", "2025-01").missing) == 31 * 1440
    True
    """

    name = "simulated"

    def __init__(self, seed: int = DEFAULT_SEED) -> None:
        self.seed = int(seed)

    @classmethod
    def from_settings(cls, settings: Settings) -> SimulatedMarket:
        """Make the market of the demo."""
        return cls()

    def bars(self, symbol: str, timeframe: Timeframe, start: int, end: int) -> Iterator[Delivery]:
        """Give the bars that open at or after `start` and are closed by `end` (µs), one delivery a month.

        Longer bars are exact sums of the one-minute bars; those that an outage touches are left out.
        """
        symbol = parse_symbol(symbol)
        months = months_between(start, end)
        for month in (*months[:1], *months[-1:]):
            month_number(month)
        for month in months:
            month_first, month_end = month_range(month)
            first = timeframe.ceil(max(start, month_first))
            last = min(end, month_end - 1 + timeframe.microseconds)
            stop = timeframe.floor(last)  # bars of this month are closed by then
            if first >= stop:
                continue
            rows = self._minute_rows(symbol, first, stop)
            if timeframe is not Timeframe.M1:
                rows = _aggregate(rows, timeframe)
            if rows.height:
                yield Delivery.of(symbol, timeframe, self.name, rows)

    def truth(self, symbol: str, month: str) -> Truth:
        """Give the known answer of a `month` such as `2025-01`."""
        symbol = parse_symbol(symbol)
        minutes = minutes_of(self.seed, symbol, month_number(month))
        character = character_of(self.seed, symbol)
        return Truth(
            symbol=symbol,
            month=month,
            beta=character.beta,
            tick=10.0**-character.price_decimals,
            missing=tuple(minutes.open_time[~minutes.present].tolist()),
            no_trade=tuple(minutes.open_time[minutes.no_trade].tolist()),
        )

    def factor_returns(self, month: str) -> Floats:
        """Give the market factor's log returns of each minute of a `month`; symbols move by `beta` times these."""
        start, path = factor_path(self.seed, month_number(month))
        return np.diff(path, prepend=start)

    def _minute_rows(self, symbol: str, start: int, stop: int) -> pl.DataFrame:
        """Give the one-minute bars that open in `[start, stop)`."""
        parts = []
        for month in months_between(start, stop):
            minutes = minutes_of(self.seed, symbol, month_number(month))
            wanted = minutes.present & (minutes.open_time >= start) & (minutes.open_time < stop)
            opens = minutes.open_time[wanted]
            columns: dict[str, object] = {"open_time": opens, "close_time": opens + MINUTE_US}
            columns |= {name: values[wanted] for name, values in minutes.values.items()}
            parts.append(
                pl.DataFrame(columns).with_columns(
                    pl.col("open_time", "close_time").cast(pl.Datetime("us")).cast(INSTANT)
                )
            )
        return pl.concat(parts).select(RAW_SCHEMA.names()).cast(RAW_SCHEMA)


def _aggregate(minutes: pl.DataFrame, timeframe: Timeframe) -> pl.DataFrame:
    """Give the bars of which every minute is there."""
    length = timeframe.microseconds
    origin = timeframe.floor(0) + length
    opens = pl.col("open_time").cast(pl.Int64)
    return (
        minutes.group_by((opens - (opens - origin) % length).alias("bar"), maintain_order=True)
        .agg(
            pl.len().alias("minutes"),
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            *(pl.col(name).sum() for name in AMOUNT_COLUMNS),
        )
        .filter(pl.col("minutes") == length // MINUTE_US)
        .with_columns(
            pl.col("bar").cast(pl.Datetime("us")).cast(INSTANT).alias("open_time"),
            (pl.col("bar") + length).cast(pl.Datetime("us")).cast(INSTANT).alias("close_time"),
        )
        .select(RAW_SCHEMA.names())
        .cast(RAW_SCHEMA)
    )
