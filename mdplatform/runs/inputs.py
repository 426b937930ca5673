"""Inputs: of which partitions there is anything to materialize an asset from.

What enters the platform enters it by an asset of its own: bars, trades, depth, sentiment, macro series. It can be
materialized where it has rows, or some that wait. An asset that follows has inputs where it says itself that a
partition is possible (`sensors.automation.FOLLOWED`), or where the same command makes before what it is made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from mdplatform.assets.partitions import DAY_BY_SYMBOL, MONTH_BY_SYMBOL, SERIES
from mdplatform.assets.plan import fitting
from mdplatform.lake import Lake
from mdplatform.market.time import from_us, month_range, months_between, to_us
from mdplatform.runs.runner import Runs
from mdplatform.sensors.automation import FOLLOWED

ASSET_OF = {"trades": "trades", "depth": "depth", "sentiment": "sentiment", "macro": "macro_series"}
"""The asset that merges what is delivered of each dataset."""
_MADE_OF = {"order_flow": {"trades"}, "composite_indicators": {"bars"}}
"""What gives an asset its rows, where it follows from more than that: bars are what order flow is checked against, and
composites are of rows of bars, whatever else their formulas read."""
_DATASET_OF = {asset: dataset for dataset, asset in ASSET_OF.items()}


@dataclass(frozen=True)
class Asked:
    """Which partitions a caller asks for; None means all. `first` and `last` are months or days, both included.

    With `fetch` a month of bars needs no rows yet: the symbol's source will be asked for them.
    """

    symbols: Sequence[str] | None = None
    series: Sequence[str] | None = None
    first: str | None = None
    last: str | None = None
    fetch: bool = False


def keys_for_each(runs: Runs, lake: Lake, assets: Iterable[str], asked: Asked) -> dict[str, list[str]]:
    """Give the lake's keys of what is asked for and has inputs, for each of `assets`, which come upstream first."""
    planned: dict[str, list[str]] = {}
    for asset in assets:
        planned[asset] = keys_for(runs, lake, asset, asked, planned)
    return planned


def keys_for(
    runs: Runs, lake: Lake, asset: str, asked: Asked, planned: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Give the lake's keys of those partitions of `asset` that are asked for and have inputs, ascending.

    `planned` are those that the same command makes before it, by asset.
    """
    definition = runs.definition_of(asset)
    entered = runs.upstream(asset)
    keys = keys_of(lake, entered)
    if "macro_series" in entered and definition != SERIES and keys == keys_of(lake, ["macro_series"]):
        keys = _months_of_series(lake, runs, definition)
    if asked.fetch and "bars" in entered:
        keys |= _to_fetch(asked, runs, keys)
    if definition == DAY_BY_SYMBOL and "bars" in entered:
        keys |= {day for key in keys_of(lake, ["bars"]) for day in _days_of(key)}
    fitted = fitting(definition, keys)
    if asset in FOLLOWED and definition != SERIES:
        made_of = _MADE_OF.get(asset, runs.upstream(asset) - {asset}) & set(planned or ())
        coming = {each for name in made_of for each in (planned or {})[name]}
        if definition == DAY_BY_SYMBOL and "bars" in made_of:
            coming |= {day for key in (planned or {})["bars"] for day in _days_of(key)}
        possible = {*FOLLOWED[asset].possible(lake), *fitting(definition, coming)}
        fitted = [key for key in fitted if key in possible]
    return [key for key in fitted if _is_asked(key, definition, asked)]


def _is_asked(key: str, definition: dg.PartitionsDefinition[str], asked: Asked) -> bool:
    if definition == SERIES:
        return asked.series is None or key in asked.series
    symbol, _, period = key.rpartition("/")
    if asked.symbols is not None and symbol and symbol not in asked.symbols:
        return False
    first, last = (None if each is None else each[: len(period)] for each in (asked.first, asked.last))
    return (first is None or period[: len(first)] >= first) and (last is None or period[: len(last)] <= last)


def _to_fetch(asked: Asked, runs: Runs, keys: set[str]) -> set[str]:
    symbols = runs.symbols() if asked.symbols is None else asked.symbols
    if asked.first is None and asked.last is None:
        return set()
    months = {key.rpartition("/")[2] for key in keys}
    first = (asked.first or min(months, default=asked.last or ""))[:7]
    last = (asked.last or f"{datetime.now(UTC):%Y-%m}")[:7]
    return {
        f"{each}/{month}" for each in symbols for month in months_between(month_range(first)[0], month_range(last)[1])
    }


def _days_of(key: str) -> list[str]:
    symbol, _, month = key.partition("/")
    start, end = month_range(month)
    end = min(end, to_us(datetime.now(UTC)))
    first = from_us(start).date()
    days = (first + timedelta(days=each) for each in range(31))
    return [f"{symbol}/{day.isoformat()}" for day in days if _midnight(day) < end]


def _midnight(day: date) -> int:
    return to_us(datetime(day.year, day.month, day.day, tzinfo=UTC))


def _months_of_series(lake: Lake, runs: Runs, definition: dg.PartitionsDefinition[str]) -> set[str]:
    """Give the months since the first macro observation was known, of each symbol where the asset is by symbol."""
    store = lake.table("macro")
    headers = (partition.header for key in list(store.keys()) if (partition := store.partition(key)) is not None)
    starts = [header.groups["rows"].bounds[0][0] for header in headers if "rows" in header.groups]
    if not starts:
        return set()
    earliest = max(min(starts), month_range(runs.first_month)[0])
    months = months_between(earliest, to_us(datetime.now(UTC)))
    return (
        {f"{each}/{month}" for each in runs.symbols() for month in months}
        if definition == MONTH_BY_SYMBOL
        else set(months)
    )


def keys_of(lake: Lake, assets: Iterable[str]) -> set[str]:
    """Give the lake's keys of what entered by `assets`, and of what waits for them; other assets have none."""
    keys: set[str] = set()
    for asset in assets:
        if asset == "bars":
            symbols = {*lake.bars.symbols(), *lake.inbox.symbols()}
            keys |= {
                f"{each}/{month}" for each in symbols for month in (*lake.bars.months(each), *lake.inbox.months(each))
            }
        elif asset in _DATASET_OF:
            store = lake.table(_DATASET_OF[asset])
            keys |= {*store.keys(), *store.waiting()}
    return keys
