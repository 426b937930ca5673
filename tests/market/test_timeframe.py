"""Timeframes: names, lengths and the grid, held to the calendar of Python's datetime."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdplatform.errors import InvalidSymbol, UnknownTimeframe
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.timeframe import Timeframe

from .rows import EPOCH

NAMES = ["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "1w"]
UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

timeframes = st.sampled_from(list(Timeframe))
instants = st.integers(-(10**17), 10**17)  # from before 1970 (negative) to after 5000


def at(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def test_the_names_are_those_of_the_conventions_shortest_first() -> None:
    assert [each.value for each in Timeframe] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_length_is_what_its_name_says(name: str) -> None:
    length = int(name[:-1]) * UNITS[name[-1]]
    assert timedelta(microseconds=Timeframe.parse(name).microseconds) == length


@pytest.mark.parametrize("text", ["15M", "1D", "60m", "", " 1h", "1h ", "1mo", "1W", "0m", "-1m"])
def test_any_other_name_is_refused_with_the_whole_list(text: str) -> None:
    with pytest.raises(UnknownTimeframe) as refused:
        Timeframe.parse(text)
    assert " ".join(NAMES) in str(refused.value)


@given(timeframes, instants)
def test_an_instant_lies_in_the_bar_of_its_floor(timeframe: Timeframe, instant: int) -> None:
    opened = timeframe.floor(instant)
    assert opened <= instant < opened + timeframe.microseconds
    assert timeframe.is_aligned(opened)
    assert timeframe.floor(opened) == opened


@given(timeframes, instants)
def test_the_ceiling_is_the_first_open_time_not_before_the_instant(timeframe: Timeframe, instant: int) -> None:
    following = timeframe.ceil(instant)
    assert instant <= following < instant + timeframe.microseconds
    assert timeframe.is_aligned(following)
    assert timeframe.is_aligned(instant) == (following == instant == timeframe.floor(instant))


@given(timeframes, st.integers(-(6 * 10**16), 10**17))
def test_open_times_fall_on_the_calendar(timeframe: Timeframe, instant: int) -> None:
    opened = at(timeframe.floor(instant))
    midnight = datetime(opened.year, opened.month, opened.day, tzinfo=UTC)
    if timeframe is Timeframe.W1:
        assert (opened.weekday(), opened) == (0, midnight)
    else:
        assert (opened - midnight) % timedelta(microseconds=timeframe.microseconds) == timedelta(0)


@given(timeframes, timeframes, instants)
def test_bars_that_divide_others_never_straddle_them(child: Timeframe, parent: Timeframe, instant: int) -> None:
    if child.divides(parent):
        opened = child.floor(instant)
        assert parent.floor(opened) == parent.floor(opened + child.microseconds - 1)
        assert child.is_aligned(parent.floor(instant))


def test_what_divides_what_is_a_short_list() -> None:
    assert [each.value for each in Timeframe if each.divides(Timeframe.D1)] == NAMES[:-2]
    assert [each.value for each in Timeframe if each.divides(Timeframe.W1)] == NAMES[:-1]
    assert [each.value for each in Timeframe if each.divides(Timeframe.H12)] == NAMES[:9]
    assert not any(each.divides(each) for each in Timeframe)


@pytest.mark.parametrize(
    ("text", "symbol"), [("btcusdt", "BTCUSDT"), (" ETH-PERP ", "ETH-PERP"), ("1INCH.X", "1INCH.X")]
)
def test_a_symbol_is_trimmed_and_in_capitals(text: str, symbol: str) -> None:
    assert parse_symbol(text) == symbol


@pytest.mark.parametrize(
    "text", ["", " ", "../ETC", "A/B", "-A", ".A", "A..B", "A" * 33, "A B", "ßTC", "ıNJ", "A\x00", "БТЦ"]
)
def test_what_is_no_safe_file_name_is_no_symbol(text: str) -> None:
    with pytest.raises(InvalidSymbol):
        parse_symbol(text)
