"""Release days have hours, in the agency's own time, with daylight saving."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from mdplatform.sources.release_clock import RELEASES, published_at, release_of


@pytest.mark.parametrize(
    ("day", "hour"),
    [
        ("2025-03-07", 13),
        ("2025-03-08", 13),
        ("2025-03-09", 12),  # clocks go forward at 2:00
        ("2025-03-10", 12),
        ("2025-11-01", 12),
        ("2025-11-02", 13),  # and back
        ("2025-11-03", 13),
        ("1974-01-15", 12),  # daylight saving all winter, against the oil crisis
        ("2006-03-20", 13),  # it began in April then
    ],
)
def test_half_past_eight_in_new_york_is_at_another_hour_in_winter(day: str, hour: int) -> None:
    wanted = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC) + timedelta(hours=hour, minutes=30)
    assert published_at("CPIAUCSL", date.fromisoformat(day)) == wanted


def test_every_day_of_sixty_years_agrees_with_another_librarys_time_zones() -> None:
    days = pl.date_range(date(1970, 1, 1), date(2030, 12, 31), "1d", eager=True)
    local = pl.Series(days).cast(pl.Datetime("us")).dt.offset_by("8h30m").dt.replace_time_zone("America/New_York")
    wanted = local.dt.convert_time_zone("UTC").to_list()
    assert [published_at("PAYEMS", day) for day in days.to_list()] == wanted


@pytest.mark.parametrize("day", ["2025-03-08", "2025-03-09", "2025-11-01", "2025-11-02", "2025-12-31"])
def test_without_an_hour_it_is_the_end_of_the_day_wherever_it_ends_last(day: str) -> None:
    given = date.fromisoformat(day)
    instant = published_at("SP500", given)
    assert instant.astimezone(ZoneInfo("America/Chicago")).replace(tzinfo=None) == datetime.combine(
        given + timedelta(days=1), datetime.min.time()
    )
    for zone in ("UTC", "America/New_York", "Europe/London", "Asia/Tokyo"):
        ends = datetime.combine(given + timedelta(days=1), datetime.min.time(), ZoneInfo(zone))
        assert instant >= ends


@pytest.mark.parametrize(
    ("series", "day", "utc"),
    [
        ("GDP", "2025-07-30", "12:30"),
        ("PCEPILFE", "2025-06-27", "12:30"),
        ("PCEPILFE", "2025-12-05", "15:00"),  # delayed by the shutdown of the government
        ("JTSJOL", "2025-07-01", "14:00"),
        ("DGORDER", "2025-07-03", "14:00"),
        ("HSN1F", "2025-07-24", "14:00"),
        ("M2SL", "2025-07-22", "17:00"),
        ("M2SL", "2019-07-25", "20:30"),  # the H.6 came at half past four then
        ("WALCL", "2025-07-24", "20:30"),
        ("CUSR0000SA0L1E", "2025-07-15", "12:30"),
        ("UMCSENT", "2025-07-25", "14:00"),
    ],
)
def test_known_series_come_at_their_agencys_hour(series: str, day: str, utc: str) -> None:
    assert f"{published_at(series, date.fromisoformat(day)):%Y-%m-%d %H:%M}" == f"{day} {utc}"


def test_no_series_belongs_to_two_releases() -> None:
    named = [name for each in RELEASES for name in each.series.split()]
    assert len(named) == len(set(named))
    for each in RELEASES:
        for name in each.series.split():
            assert release_of(name.rstrip("*")) is each, name


def test_what_is_not_listed_has_no_hour() -> None:
    for series in ("SP500", "VIXCLS", "cpiaucsl", "", "XGDP", "GDPX"):
        assert release_of(series) is None
