"""Vintages for tests, and the plainest reading of what was known: filter by instant, and work it out from scratch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import strategies as st

from mdplatform.features.macro import YEAR_SLACK_US
from mdplatform.market.macro import MACRO
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import DAY_US

Vintage = tuple[datetime, int, int, float | None]
"""The period, the vintage's day, how many days later it was available, the value."""

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)


def month(number: int) -> datetime:
    """Give the first instant of a month, 0 for January 2020."""
    return datetime(2020 + number // 12, number % 12 + 1, 1, tzinfo=UTC)


def table(vintages: Iterable[Vintage], series: str = "X") -> pl.DataFrame:
    """Give vintages as rows of `MACRO.schema`, in the order given."""
    rows = []
    for period, day, late, value in vintages:
        vintage = BEGIN + timedelta(days=day)
        known = vintage + timedelta(days=late)
        rows.append((series, period, value, known, vintage, "test", 0, known, known))
    return pl.DataFrame(rows, schema=MACRO.schema, orient="row")


@st.composite
def vintages(draw: st.DrawFn) -> list[Vintage]:
    """Vintages of months or days, some revised, some missing, some late; a period and vintage comes once."""
    daily = draw(st.booleans())
    values = st.one_of(
        st.none(), st.sampled_from([0.0, 1.0, 2.0, 2.0, -3.5]), st.integers(-10_000, 10_000).map(lambda each: each / 8)
    )
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 40), st.integers(0, 60), st.sampled_from([0, 0, 0, 1, 9]), values),
            max_size=16,
            unique_by=lambda row: row[:2],
        )
    )
    first = datetime(2020, 2, 20, tzinfo=UTC)
    places = [first + timedelta(days=each * 10 if each < 38 else each * 9 + 30) for each in range(41)]
    return [(places[at] if daily else month(at), day * 20, late, value) for at, day, late, value in rows]


def known_at(rows: pl.DataFrame, at: int, mode: str = "as_of") -> dict[int, float]:
    """Give the value of each period as known at an instant, NaN for one that has none."""
    found: dict[int, tuple[int, float]] = {}
    told = sorted(
        (to_us(row["available_at"]), to_us(row["vintage"]), to_us(row["ref_period"]), row["value"])
        for row in rows.iter_rows(named=True)
    )
    for known, vintage, period, value in told:
        number = math.nan if value is None else value
        if mode == "latest":
            first = min(each[0] for each in told if each[2] == period)
            if first <= at and vintage >= found.get(period, (vintage,))[0]:
                found[period] = (vintage, number)
        elif known <= at and mode == "first_release":
            if period not in found or math.isnan(found[period][1]):
                found[period] = (vintage, number)
        elif known <= at and vintage >= found.get(period, (vintage,))[0]:
            found[period] = (vintage, number)
    return {period: value for period, (_, value) in sorted(found.items())}


def transformed(known: dict[int, float], transform: str, periods: int, *, skip: bool) -> tuple[float | None, str]:
    """Give a transform of what is known, or the reason why there is none."""
    held = {period: value for period, value in known.items() if not (skip and math.isnan(value))}
    if not held:
        return None, "gap" if known else "not_available_yet"
    newest = max(held)
    value = held[newest]
    if transform in ("diff", "pct"):
        if len(held) <= periods:
            return None, "insufficient_history"
        before = held[sorted(held)[-1 - periods]]
        if math.isnan(value) or math.isnan(before):
            return None, "gap"
        return (value - before, "settled") if transform == "diff" else _ratio(value, before)
    if math.isnan(value):
        return None, "gap"
    if transform == "value":
        return value, "settled"
    if transform == "yoy":
        ago = year_before(newest)
        near = [each for each in held if ago - YEAR_SLACK_US < each <= ago and not math.isnan(held[each])]
        if near:
            return _ratio(value, held[max(near)])
        return None, "gap" if min(held) <= ago else "insufficient_history"
    window = [held[each] for each in sorted(held) if not math.isnan(held[each])][-periods:]
    if len(window) < periods:
        return None, "insufficient_history"
    if len(set(window)) == 1:
        return None, "degenerate"
    mean = math.fsum(window) / periods
    return (value - mean) / math.sqrt(math.fsum((each - mean) ** 2 for each in window) / periods), "settled"


def year_before(period: int) -> int:
    """Give the instant a calendar year before; of 29 February the 28th."""
    day = datetime.fromtimestamp(period // 1_000_000, UTC)
    leap_day = (day.month, day.day) == (2, 29)
    return to_us(day.replace(year=day.year - 1, day=28 if leap_day else day.day))


def instants(rows: pl.DataFrame) -> list[int]:
    """Give instants before, at, just before and after each at which something became available."""
    known = {to_us(each) for each in rows["available_at"].to_list()}
    return sorted({each + off for each in known for off in (-1, 0, DAY_US)} | {to_us(BEGIN)})


def _ratio(value: float, before: float) -> tuple[float | None, str]:
    if before == 0:
        return None, "division_by_zero" if value else "degenerate"
    return value / before - 1, "settled"
