"""Instants and months, held to Python's datetime."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdplatform.market.bars import INSTANT
from mdplatform.market.time import from_us, iso, month_of, month_range, months_between, on_grid, to_us
from mdplatform.market.timeframe import Timeframe

from .rows import EPOCH

instants = st.timedeltas(timedelta(-7300), timedelta(100_000)).map(lambda since: EPOCH + since)  # 1950 to 2243


@given(instants)
def test_an_instant_survives_the_way_through_microseconds(instant: datetime) -> None:
    assert from_us(to_us(instant)) == instant
    assert timedelta(microseconds=to_us(instant)) == instant - EPOCH


def test_another_time_zone_is_the_same_instant() -> None:
    there = datetime(2025, 1, 1, 5, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert to_us(there) == to_us(datetime(2025, 1, 1, tzinfo=UTC))
    assert iso(there) == "2025-01-01T00:00:00Z"


def test_an_instant_without_a_time_zone_is_refused() -> None:
    with pytest.raises(TypeError):
        to_us(datetime(2025, 1, 1))  # noqa: DTZ001


@given(instants)
def test_a_month_holds_its_instants_and_no_others(instant: datetime) -> None:
    month = month_of(to_us(instant))
    assert month == f"{instant.year:04d}-{instant.month:02d}"
    first, after = month_range(month)
    assert first <= to_us(instant) < after
    assert (from_us(first).day, from_us(after).day, month_of(after - 1)) == (1, 1, month)
    assert month_of(after) != month


@given(instants, st.timedeltas(timedelta(0), timedelta(days=900)))
def test_months_between_are_those_of_the_days_between(start: datetime, length: timedelta) -> None:
    end = start + length
    days = [*(start + timedelta(days=n) for n in range(length.days + 1)), end - timedelta(microseconds=1)]
    expected = sorted({f"{day:%Y-%m}" for day in days if start <= day < end})
    assert months_between(to_us(start), to_us(end)) == expected


def test_no_months_lie_between_an_instant_and_itself_or_one_before() -> None:
    now = to_us(datetime(2025, 1, 31, tzinfo=UTC))
    assert months_between(now, now) == months_between(now, now - 1) == []


@given(st.sampled_from(list(Timeframe)), st.lists(st.integers(-(10**16), 10**16), min_size=1, max_size=5))
def test_the_grid_of_a_column_is_the_grid_of_the_timeframe(timeframe: Timeframe, given_: list[int]) -> None:
    opens = given_ + [timeframe.floor(each) for each in given_]
    frame = pl.DataFrame({"open_time": opens}).cast({"open_time": INSTANT})
    told = frame.select(on_grid("open_time", timeframe)).to_series().to_list()
    assert told == [timeframe.is_aligned(each) for each in opens]
