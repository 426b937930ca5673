"""Checks of bars: after every materialization, what is in the lake is read back and held against the rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

import dagster as dg
import polars as pl

from mdplatform.assets.partitions import Cell
from mdplatform.errors import PlatformError
from mdplatform.lake import Lake
from mdplatform.market.bars import BAR_SCHEMA
from mdplatform.market.revisions import newest
from mdplatform.market.time import from_us, month_range, on_grid
from mdplatform.market.timeframe import Timeframe

BAR_CHECKS = {
    "schema": "The file has the columns of the conventions, with their types, and can be read.",
    "grid": "Every bar opens on the grid of its timeframe, inside its month, and closes at open time + timeframe.",
    "ohlc": "High and low enclose open and close; no price is null or below zero; takers bought no more than traded.",
    "duplicates": "Each open time has each revision once, counted from 0 without a hole.",
    "freshness": "The newest bar is at most two days older than the end of its month, or than now.",
}
SOURCE_CHECK = "source"
_NOT_BLOCKING = ("freshness", SOURCE_CHECK)
_STALE_AFTER = timedelta(days=2)
_SLACK = 1 + 1e-9


def bar_check_specs(asset: str) -> list[dg.AssetCheckSpec]:
    """Declare the checks; all but those of freshness and of the sources stop what lies downstream."""
    declared = BAR_CHECKS | {SOURCE_CHECK: "Every source that was asked has delivered."}
    return [
        dg.AssetCheckSpec(name, asset=asset, description=said, blocking=name not in _NOT_BLOCKING)
        for name, said in declared.items()
    ]


def check_bars(lake: Lake, cells: Iterable[Cell], now: datetime) -> Iterator[dg.AssetCheckResult]:
    """Read the partitions back and give one result a check, with what broke it where."""
    broken: dict[str, dict[str, int]] = {name: {} for name in BAR_CHECKS}
    for cell in cells:
        for name, count in _violations(lake, cell, now).items():
            if count:
                broken[name][cell.key] = count
    for name, found in broken.items():
        severity = dg.AssetCheckSeverity.WARN if name == "freshness" else dg.AssetCheckSeverity.ERROR
        yield dg.AssetCheckResult(
            check_name=name,
            passed=not found,
            severity=severity,
            metadata={"rows_broken": sum(found.values()), "partitions_broken": found},
        )


def _violations(lake: Lake, cell: Cell, now: datetime) -> dict[str, int]:
    try:
        partition = lake.bars.partition(cell.symbol, cell.month)
        if partition is None:
            return {"freshness": 1}
        frames = {Timeframe.parse(name): partition.read(name) for name in partition.header.groups}
    except PlatformError:
        return {"schema": 1}
    counts = dict.fromkeys(BAR_CHECKS, 0)
    start, end = (from_us(instant) for instant in month_range(cell.month))
    for timeframe, bars in frames.items():
        if bars.schema != BAR_SCHEMA:
            counts["schema"] += 1
            continue
        close_time = pl.col("open_time") + pl.duration(microseconds=timeframe.microseconds)
        inside = pl.col("open_time").is_between(start, end, closed="left")
        counts["grid"] += _count(
            bars, ~on_grid("open_time", timeframe) | (pl.col("close_time") != close_time) | ~inside
        )
        prices = pl.any_horizontal(
            pl.col("open", "high", "low", "close").is_null() | (pl.col("open", "high", "low", "close") <= 0)
        )
        counts["ohlc"] += _count(
            newest(bars),
            prices
            | (pl.col("high") < pl.max_horizontal("open", "low", "close"))
            | (pl.col("low") > pl.min_horizontal("open", "high", "close"))
            | (pl.col("taker_buy_volume") > pl.col("volume") * _SLACK),
        )
        expected = pl.int_range(pl.len()).over("open_time")
        counts["duplicates"] += _count(bars, pl.col("revision") != expected)
    closes = [bars["close_time"].max() for bars in frames.values()]
    last = max((each for each in closes if isinstance(each, datetime)), default=start)
    counts["freshness"] = int(min(end, now) - last > _STALE_AFTER)
    return counts


def _count(bars: pl.DataFrame, broken: pl.Expr) -> int:
    return int(bars.select(broken.fill_null(False).sum()).item())
