"""Longer bars from shorter ones, and the grid on which bars lie.

A longer bar is built only when every one of its children is there and none is a gap; partial bars are never given.
Amounts are decimal numbers on the exchange, so their sums are rounded to the decimals of what was summed: the sum of a
bar's children is then the very number which the exchange itself published. A longer bar depends on its own children
alone, never on what else is in the table: it is the same bar, bit for bit, in whatever part of history it is built, and
while the market is open (`streaming.parents`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl

from mdplatform.market.bars import BAR_SCHEMA, INSTANT, VALUE_COLUMNS
from mdplatform.market.timeframe import Timeframe

_SUMMED = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
_MOST_DECIMALS = 10
_POWERS = pl.Series([10.0**n for n in range(_MOST_DECIMALS + 1)])  # a power that is computed may be inexact
_EXACT = 2.0**53  # from here on a double cannot hold every integer, nor every last decimal

RESAMPLED = "resampled:"
"""How the `source` of a bar begins that was built from shorter ones."""


def resample(bars: pl.DataFrame, timeframe: Timeframe) -> pl.DataFrame:
    """Build bars of `timeframe` from `bars` (one symbol and one shorter timeframe, ascending, newest revisions alone).

    Gives the complete ones alone, ascending. A child without an amount (null) leaves the parent without it. Raises
    `ValueError` where `timeframe` is no multiple of theirs.
    """
    if bars.is_empty():
        return bars
    child = Timeframe.parse(bars["timeframe"][0])
    if not child.divides(timeframe):
        raise ValueError(f"{timeframe} bars cannot be built from {child} bars")
    steps = _Steps.of(child, timeframe)
    decimals = [_decimals(bars[name]).alias(f"{name}_decimals") for name in _SUMMED]
    parents = (
        bars.with_columns(decimals)
        .filter(pl.col("state") != "gap")
        .group_by(steps.parent, maintain_order=True)
        .agg(steps.sums)
        .filter(pl.col("children") == timeframe.microseconds // child.microseconds)
    )
    return parents.select(steps.columns)


@dataclass(frozen=True)
class _Steps:
    """The expressions of building one timeframe from another, made once: on a few bars, making them is the work."""

    parent: pl.Expr
    sums: list[pl.Expr]
    columns: list[pl.Expr]

    @classmethod
    @cache
    def of(cls, child: Timeframe, timeframe: Timeframe) -> _Steps:
        length, origin = timeframe.microseconds, timeframe.floor(0)
        opens = pl.col("open_time").dt.epoch("us")
        sums = [
            pl.first("symbol", "open"),
            pl.max("high", "available_at", "ingested_at", *(f"{name}_decimals" for name in _SUMMED)),
            pl.min("low"),
            pl.last("close"),
            *(_sum_or_null(name) for name in (*_SUMMED, "trade_count")),
            pl.when((pl.col("state") == "no_trade").all())
            .then(pl.lit("no_trade"))
            .otherwise(pl.lit("observed"))
            .alias("state"),
            pl.len().alias("children"),
        ]
        made = {name: pl.col(name) for name in BAR_SCHEMA} | {
            "timeframe": pl.lit(timeframe.value),
            "open_time": pl.col("parent"),
            "close_time": pl.col("parent") + pl.duration(microseconds=length),
            **{name: _rounded(name) for name in _SUMMED},
            "is_closed": pl.lit(True),
            "source": pl.lit(f"{RESAMPLED}{child.value}"),
            "revision": pl.lit(0),
        }
        columns = [made[name].cast(kind).alias(name) for name, kind in BAR_SCHEMA.items()]
        return cls((opens - (opens - origin) % length).cast(INSTANT).alias("parent"), sums, columns)


def _sum_or_null(name: str) -> pl.Expr:
    return pl.when(pl.col(name).is_not_null().all()).then(pl.col(name).sum()).alias(name)


def _rounded(name: str) -> pl.Expr:
    total, power = pl.col(name), pl.lit(_POWERS).gather(pl.col(f"{name}_decimals").cast(pl.UInt32))
    return pl.when(total * power < _EXACT).then((total * power).round() / power).otherwise(total).alias(name)


def _decimals(amounts: pl.Series) -> pl.Series:
    """Give how many decimals each amount has, at most ten; none for those that are too large to tell."""
    values = amounts.to_numpy()
    decimals = np.zeros(len(values), np.int8)
    undecided = ~np.isnan(values)
    with np.errstate(over="ignore"):
        for power in _POWERS[:-1].to_list():
            scaled = values * power
            undecided &= ~((np.rint(scaled) / power == values) | (scaled >= _EXACT))
            if not undecided.any():
                break
            decimals += undecided
    return pl.Series(decimals)


def complete_grid(
    bars: pl.DataFrame,
    timeframe: Timeframe,
    symbol: str | None = None,
    start: int | None = None,
    end: int | None = None,
) -> pl.DataFrame:
    """Put a `gap` row (null prices and amounts) wherever the grid of `timeframe` has no bar.

    The grid runs over `[start, end)` (microseconds, on the grid), or from the first bar to the last one. `symbol` names
    the gaps' symbol where there may be no bar at all.
    """
    if bars.is_empty() and (symbol is None or start is None or end is None):
        return bars
    opens = bars["open_time"].dt.epoch("us")
    first = opens[0] if start is None else start
    after = opens[-1] + timeframe.microseconds if end is None else end
    if (after - first) // timeframe.microseconds == len(bars):
        return bars
    grid = pl.select(pl.int_range(first, after, timeframe.microseconds).cast(INSTANT).alias("open_time"))
    close_time = pl.col("open_time") + pl.duration(microseconds=timeframe.microseconds)
    return grid.join(bars, on="open_time", how="left", maintain_order="left").select(
        pl.lit(symbol or bars["symbol"][0]).alias("symbol"),
        pl.lit(timeframe.value).alias("timeframe"),
        pl.col("open_time"),
        close_time.alias("close_time"),
        pl.col(VALUE_COLUMNS),
        pl.lit(True).alias("is_closed"),
        pl.col("state").fill_null("gap"),
        pl.col("source"),
        pl.col("revision").fill_null(0),
        pl.col("available_at").fill_null(close_time),
        pl.col("ingested_at"),
    )
