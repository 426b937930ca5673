"""Instants and months: UTC, microseconds, and the calendar months by which bars are filed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import polars as pl

from mdplatform.market.timeframe import Timeframe

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(instant: datetime) -> int:
    """Give `instant` (with a time zone) as microseconds since the epoch.

    >>> to_us(datetime(2025, 1, 1, tzinfo=UTC))
    1735689600000000
    """
    return (instant - EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """Give the instant that many microseconds after the epoch, in UTC."""
    return EPOCH + microseconds * _MICROSECOND


def iso(instant: datetime) -> str:
    """Write an instant as ISO 8601 in UTC.

    >>> iso(from_us(1735689600000000))
    '2025-01-01T00:00:00Z'
    """
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def month_of(instant: int) -> str:
    """Give the calendar month (UTC) that holds `instant`, as `YYYY-MM`.

    >>> month_of(1735689600000000 - 1)
    '2024-12'
    """
    return from_us(instant).strftime("%Y-%m")


def month_range(month: str) -> tuple[int, int]:
    """Give the first instant of `month` and of the month after it.

    >>> [month_of(instant) for instant in month_range("2024-12")]
    ['2024-12', '2025-01']
    """
    first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    after = (first + timedelta(days=32)).replace(day=1)
    return to_us(first), to_us(after)


def day_range(day: str) -> tuple[int, int]:
    """Give the first instant of `day` (`YYYY-MM-DD`) and of the day after it.

    >>> [iso(from_us(instant)) for instant in day_range("2024-02-29")]
    ['2024-02-29T00:00:00Z', '2024-03-01T00:00:00Z']
    """
    first = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    return to_us(first), to_us(first + timedelta(days=1))


def months_between(start: int, end: int) -> list[str]:
    """Give every month that `[start, end)` touches, oldest first.

    >>> months_between(month_range("2024-11")[0], month_range("2025-01")[0])
    ['2024-11', '2024-12']
    """
    months = []
    while start < end:
        months.append(month_of(start))
        start = month_range(months[-1])[1]
    return months


def consecutive(months: Iterable[str], most: int | None = None) -> list[list[str]]:
    """Group months into runs without a hole, each of at `most` so many, oldest first.

    >>> consecutive(["2025-02", "2024-12", "2025-01", "2025-04"], most=2)
    [['2024-12', '2025-01'], ['2025-02'], ['2025-04']]
    """
    runs: list[list[str]] = []
    for month in sorted(months):
        follows = bool(runs) and month_range(runs[-1][-1])[1] == month_range(month)[0]
        if follows and (most is None or len(runs[-1]) < most):
            runs[-1].append(month)
        else:
            runs.append([month])
    return runs


def on_grid(column: str, timeframe: Timeframe) -> pl.Expr:
    """Tell of each instant whether a bar of `timeframe` opens at it."""
    return (pl.col(column).dt.epoch("us") - timeframe.floor(0)) % timeframe.microseconds == 0
