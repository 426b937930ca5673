"""Plans: which runs materialize which partitions, in ranges of bounded length.

1. Assets of the same partitions go together, unless one of them follows from an asset that comes later.
2. Of the keys asked for, each definition takes those that it can file: `BTCUSDT/2025-01-31` is a day of a symbol, and
   lies in the month `2025-01` of that symbol and of all.
3. Keys that follow one another become one range, of at most so many partitions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import dagster as dg

from mdplatform.assets.partitions import DAY_BY_SYMBOL, MONTH, MONTH_BY_SYMBOL, SERIES
from mdplatform.market.time import consecutive

_MOST_MONTHS, _MOST_DAYS, _MOST_SERIES = 12, 31, 50
_MONTH, _DAY = r"\d{4}-\d{2}", r"\d{4}-\d{2}-\d{2}"

FORMS: dict[dg.PartitionsDefinition[str], str] = {
    MONTH_BY_SYMBOL: "BTCUSDT/2025-01",
    DAY_BY_SYMBOL: "BTCUSDT/2025-01-31",
    MONTH: "2025-01",
    SERIES: "CPIAUCSL",
}
"""How the lake's keys of each definition look."""


@dataclass(frozen=True)
class Group:
    """Assets of one definition that are materialized together, and the lake's keys of their partitions, ascending."""

    definition: dg.PartitionsDefinition[str]
    assets: tuple[str, ...]
    keys: list[str]


@dataclass(frozen=True)
class Planned:
    """One run: its assets, the first and last partition of its range, and how many there are."""

    what: str
    assets: tuple[str, ...]
    first: str
    last: str
    partitions: int


def fitting(definition: dg.PartitionsDefinition[str], keys: Iterable[str]) -> list[str]:
    """Give those of the lake's `keys` (see `FORMS`) that `definition` files, or the longer periods they lie in.

    >>> fitting(MONTH_BY_SYMBOL, ["BTCUSDT/2025-01-31", "BTCUSDT/2025-01-30", "2025-02"])
    ['BTCUSDT/2025-01']
    """
    patterns: dict[dg.PartitionsDefinition[str], str] = {
        MONTH_BY_SYMBOL: rf"([^/]+/{_MONTH})(?:-\d\d)?",
        DAY_BY_SYMBOL: rf"([^/]+/{_DAY})",
        MONTH: rf"(?:[^/]+/)?({_MONTH})(?:-\d\d)?",
        SERIES: rf"((?!{_MONTH}(?:-\d\d)?$)[^/]+)",
    }
    found = (re.fullmatch(patterns[definition], key) for key in keys)
    return sorted({match[1] for match in found if match})


def plan(groups: Iterable[Group], registered_series: Sequence[str]) -> list[Planned]:
    """Give the runs for `groups`, one group after the other."""
    runs: list[Planned] = []
    for group in groups:
        if group.definition == SERIES:
            runs += _of_series(group, registered_series)
        elif group.definition == MONTH:
            runs += [_planned(group.assets, "", run) for run in consecutive(group.keys, _MOST_MONTHS)]
        else:
            by_symbol: dict[str, list[str]] = {}
            for key in group.keys:
                symbol, _, period = key.partition("/")
                by_symbol.setdefault(symbol, []).append(period)
            periods = _days if group.definition == DAY_BY_SYMBOL else _months
            runs += [_planned(group.assets, symbol, run) for symbol, of in by_symbol.items() for run in periods(of)]
    return runs


def _months(months: list[str]) -> list[list[str]]:
    return consecutive(months, _MOST_MONTHS)


def _days(days: list[str]) -> list[list[str]]:
    runs: list[list[str]] = []
    for day in days:
        follows = bool(runs) and date.fromisoformat(runs[-1][-1]) + timedelta(days=1) == date.fromisoformat(day)
        if follows and len(runs[-1]) < _MOST_DAYS:
            runs[-1].append(day)
        else:
            runs.append([day])
    return runs


def _planned(assets: Sequence[str], symbol: str, run: Sequence[str]) -> Planned:
    first, last = (partition_key(symbol, period) for period in (run[0], run[-1]))
    what = f"{', '.join(assets)} {symbol}".strip()
    return Planned(what, tuple(assets), first, last, len(run) * len(assets))


def partition_key(symbol: str, period: str) -> str:
    """Give Dagster's key of a month or day, of a symbol if there is one."""
    if not symbol:
        return period
    return str(dg.MultiPartitionKey({"month" if len(period) == 7 else "day": period, "symbol": symbol}))


def _of_series(group: Group, registered: Sequence[str]) -> list[Planned]:
    """Ranges of dynamic partitions go by the order in which they were registered."""
    place: Mapping[str, int] = {series: at for at, series in enumerate(registered)}
    runs: list[list[str]] = []
    for series in sorted(group.keys, key=lambda each: place[each]):
        if runs and place[runs[-1][-1]] + 1 == place[series] and len(runs[-1]) < _MOST_SERIES:
            runs[-1].append(series)
        else:
            runs.append([series])
    return [
        Planned(f"{', '.join(group.assets)} {run[0]}", group.assets, run[0], run[-1], len(run) * len(group.assets))
        for run in runs
    ]
