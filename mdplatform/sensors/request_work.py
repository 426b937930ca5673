"""Work: what requests want from runs, coalesced by partition into as few runs as will do.

1. Each partition that somebody wants is one, whoever else wants it, with all the requests that wait for it.
2. A partition that a run has already been asked for needs no other: the requests *join* that run.
3. The others become ranges: partitions of a symbol that follow one another, at most a year of months, a month of days.
   Symbols that want the same periods with the same urgency, and stand side by side among the registered, share a run.
   A range has no partition in it that nobody wants.
4. What no run can bring (a period outside the calendar, a symbol without source) is told with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby

from mdplatform.assets.partitions import DAY_BY_SYMBOL, FIRST_MONTH, MONTH_BY_SYMBOL, SERIES
from mdplatform.assets.plan import Group, partition_key, plan
from mdplatform.errors import InvalidSymbol
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import day_range, from_us, month_range, to_us
from mdplatform.messaging.priority import DataPriority
from mdplatform.requests.wanted import RunWanted

DEFINITION_OF = {"bars": MONTH_BY_SYMBOL, "trades": DAY_BY_SYMBOL, "macro_series": SERIES}
"""The assets that a request may want partitions of."""
MOST_PARTITIONS = 24
_RANGE_OF = {"bars": month_range, "trades": day_range}
_SERIES = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")


@dataclass(frozen=True)
class Work:
    """One run: the partitions `keys` (of the lake) of an asset, and which requests wait for any of them.

    `first` and `last` are Dagster's keys of the range.
    """

    asset: str
    first: str
    last: str
    keys: tuple[str, ...]
    requests: tuple[RunWanted, ...]

    @property
    def priority(self) -> DataPriority:
        """The class of the most urgent request."""
        return min((each.priority for each in self.requests), key=lambda each: each.rank)


@dataclass
class Demand:
    """What a tick has to do: runs to ask for, requests that join others, and what cannot be had (by request id)."""

    work: list[Work] = field(default_factory=list)
    joins: dict[str, dict[str, RunWanted]] = field(default_factory=dict)
    """The requests that join a run, by its id and theirs."""
    refused: dict[str, str] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    """The names to be registered as partitions, by dimension (`symbol`, `series`), in the order that ranges go by."""


def coalesce(
    wanted: Iterable[RunWanted],
    asked: Mapping[tuple[str, str], str],
    registered: Mapping[str, Sequence[str]],
    reason_against: Callable[[str, str], str | None],
) -> Demand:
    """Give what is to be done for `wanted`.

    `asked` are the runs by (asset, partition) that were asked for already; `registered` are the symbols and the series
    that are partitions, in their order; `reason_against(asset, key)` says why a run would not bring one, if so.
    """
    demand = Demand()
    waiting: dict[str, dict[str, list[RunWanted]]] = {}
    for each in wanted:
        for asset, key in sorted({(asset, key) for asset, keys in each.partitions.items() for key in keys}):
            run = asked.get((asset, key))
            if run is not None:
                demand.joins.setdefault(run, {})[each.request_id] = each
            elif (reason := _malformed(asset, key) or reason_against(asset, key)) is not None:
                demand.refused.setdefault(each.request_id, reason)
            else:
                waiting.setdefault(asset, {}).setdefault(key, []).append(each)
    for asset, of_asset in waiting.items():
        new = demand.names.setdefault(dimension(asset), [])
        known = {*registered.get(dimension(asset), ()), *new}
        new += [name for name in dict.fromkeys(map(_name, of_asset)) if name not in known]
    for asset, of_asset in waiting.items():
        names = [*registered.get(dimension(asset), ()), *demand.names[dimension(asset)]]
        demand.work += _work(asset, of_asset, {name: at for at, name in enumerate(names)})
    demand.work.sort(key=lambda work: (work.priority.rank, work.asset, work.first))
    return demand


def fitting_prefix(count: int, most: int, runs_of: Callable[[int], int]) -> int:
    """Give how many of `count` entries, at least one, need at most so many runs; `runs_of(n)` says it of the first n.

    >>> fitting_prefix(10, 7, lambda n: 2 * n), fitting_prefix(10, 1, lambda n: 2 * n)
    (3, 1)
    """
    if runs_of(count) <= most:
        return count
    low, high = 1, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if runs_of(middle) <= most else (low, middle)
    return low


def _malformed(asset: str, key: str) -> str | None:
    if asset not in DEFINITION_OF:
        return f"no run fetches {asset}"
    if asset not in _RANGE_OF:
        return None if _SERIES.fullmatch(key) else f"{key!r} is no series"
    symbol, _, period = key.partition("/")
    try:
        start, _ = _RANGE_OF[asset](period)
        sound = parse_symbol(symbol) == symbol and f"{from_us(start):%Y-%m-%d}"[: len(period)] == period
    except (ValueError, InvalidSymbol):
        sound = False
    if not sound:
        return f"{key!r} is no partition of {asset}"
    now = datetime.now(UTC)
    if not month_range(FIRST_MONTH)[0] <= start <= to_us(now):
        return f"{key} is outside of {FIRST_MONTH} … {now:%Y-%m}"
    return None


def dimension(asset: str) -> str:
    """Give the dynamic dimension of an asset's partitions: `symbol` or `series`."""
    return "series" if DEFINITION_OF[asset] == SERIES else "symbol"


def _name(key: str) -> str:
    return key.rpartition("/")[0] or key


def _work(asset: str, waiting: Mapping[str, list[RunWanted]], place: Mapping[str, int]) -> list[Work]:
    names = sorted(dict.fromkeys(map(_name, waiting)), key=place.__getitem__)
    if DEFINITION_OF[asset] == SERIES:
        return [_series_work(asset, run, waiting) for run in _side_by_side(names, place)]
    of_name: dict[str, list[str]] = {}
    for key in waiting:
        of_name.setdefault(_name(key), []).append(key)
    ranges: dict[tuple[tuple[str, ...], int], list[str]] = {}
    for name in names:
        for periods in _ranges(asset, of_name[name]):
            urgency = min(each.priority.rank for period in periods for each in waiting[f"{name}/{period}"])
            ranges.setdefault((periods, urgency), []).append(name)
    found = []
    for (periods, _), of_range in ranges.items():
        for run in _side_by_side(of_range, place, max(1, MOST_PARTITIONS // len(periods))):
            keys = [f"{name}/{period}" for name in run for period in periods]
            first, last = partition_key(run[0], periods[0]), partition_key(run[-1], periods[-1])
            found.append(Work(asset, first, last, tuple(keys), _requests(waiting, keys)))
    return found


def _series_work(asset: str, series: Sequence[str], waiting: Mapping[str, list[RunWanted]]) -> Work:
    return Work(asset, series[0], series[-1], tuple(series), _requests(waiting, series))


def _requests(waiting: Mapping[str, list[RunWanted]], keys: Iterable[str]) -> tuple[RunWanted, ...]:
    found = {each.request_id: each for key in keys for each in waiting[key]}
    return tuple(found.values())


def _ranges(asset: str, keys: Sequence[str]) -> list[tuple[str, ...]]:
    """Give the periods of one symbol's partitions, in groups without a hole."""
    periods = sorted(key.rpartition("/")[2] for key in keys)
    planned = plan([Group(DEFINITION_OF[asset], (asset,), sorted(keys))], ())
    found, at = [], 0
    for run in planned:
        found.append(tuple(periods[at : at + run.partitions]))
        at += run.partitions
    return found


def _side_by_side(names: Sequence[str], place: Mapping[str, int], most: int = MOST_PARTITIONS) -> list[list[str]]:
    """Group names that follow one another in `place`, at most so many."""
    groups: list[list[str]] = []
    for _, together in groupby(enumerate(names), key=lambda numbered: place[numbered[1]] - numbered[0]):
        run = [name for _, name in together]
        groups += [run[at : at + most] for at in range(0, len(run), most)]
    return groups
