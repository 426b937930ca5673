"""UTC months on the microsecond axis, written `2025-01`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from mdplatform.market.timeframe import DAY_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def month_start(number: int) -> int:
    """Give the first instant (µs) of a month, counted from 0 = January 1970.

    >>> month_start(1)
    2678400000000
    """
    return (datetime(1970 + number // 12, number % 12 + 1, 1, tzinfo=UTC) - _EPOCH).days * DAY_US


def month_number(instant: int) -> int:
    """Give the month that holds `instant` (µs).

    >>> month_number(2678400000000), month_number(2678399999999)
    (1, 0)
    """
    day = datetime.fromtimestamp(instant // 1_000_000, UTC)
    return (day.year - 1970) * 12 + day.month - 1


def month_text(number: int) -> str:
    """Write a month.

    >>> month_text(660)
    '2025-01'
    """
    return f"{1970 + number // 12:04}-{number % 12 + 1:02}"


def months_between(start: int, end: int) -> Iterator[int]:
    """Give the months that `[start, end)` touches, in order.

    >>> [month_text(each) for each in months_between(0, month_start(2))]
    ['1970-01', '1970-02']
    """
    if start < end:
        yield from range(month_number(start), month_number(end - 1) + 1)
