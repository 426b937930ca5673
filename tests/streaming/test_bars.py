"""Bars of 1m from trades, candles, losses and the clock: what closes when, and what corrects it."""

from __future__ import annotations

import pytest

from mdplatform.errors import PlatformError
from mdplatform.market.events import BookChange, Clock, Lost, Trade
from mdplatform.market.timeframe import Timeframe

from .trading import DAY, H1, HOUR, M1, M3, M5, MINUTE, NOON, SECOND, bars_of, candle, taken, trade, values_by_hand


def clock(seconds: float) -> Clock:
    return Clock(NOON + round(seconds * SECOND))


def lost(since: float, until: float, kind: str = "trades") -> Lost:
    return Lost("AUSDT", kind, NOON + round(since * SECOND), NOON + round(until * SECOND), "test")  # type: ignore[arg-type]


# -- closing ----------------------------------------------------------------------------------------------------------


def test_a_bar_closes_when_the_venues_time_has_passed_its_end_and_the_grace() -> None:
    bars = bars_of()
    trades = [trade(1, 0.0, 100.0), trade(2, 30.0, 103.5, 0.1), trade(3, 59.999999, 99.0, 0.2, is_buyer_maker=True)]
    assert bars.take([*trades, trade(4, 60.0), trade(5, 60.499999)]) == []
    (bar,) = bars.take([trade(6, 60.5)])
    assert bar.values == values_by_hand(trades) == (100.0, 103.5, 99.0, 99.0, 1.3, 130.15, 3.0, 1.1, 110.35)
    assert (bar.timeframe, bar.open_time, bar.close_time) == (M1, NOON, NOON + MINUTE)
    assert (bar.state, bar.is_closed, bar.revision, bar.source) == ("observed", True, 0, "test")
    assert bar.available_at == bar.close_time == bars.closed_until("AUSDT")


def test_a_closed_candle_closes_its_bar_at_once() -> None:
    bars = bars_of()
    assert taken(bars, candle(0, 100.5, is_closed=False, time=NOON + 3 * SECOND)) == []
    assert taken(bars, candle(0, 100.7)) == [("1m", 0, "observed", 0, 100.7)]


def test_a_candle_that_was_never_called_closed_closes_with_the_clock() -> None:
    bars = bars_of()
    forming = candle(0, 100.5, is_closed=False, time=NOON + 58 * SECOND)
    assert taken(bars, forming, clock(60.4)) == []
    assert taken(bars, clock(60.5)) == [("1m", 0, "observed", 0, 100.5)]
    assert taken(bars, candle(0, 100.6)) == [("1m", 0, "observed", 1, 100.6)]


def test_an_idle_symbol_closes_flat_at_its_last_price() -> None:
    bars = bars_of()
    found = bars.take([trade(1, 10, 100.0), trade(2, 20, 102.0), clock(180.5)])
    assert [bar.state for bar in found] == ["observed", "no_trade", "no_trade"]
    assert [bar.values for bar in found[1:]] == [(102.0, 102.0, 102.0, 102.0, 0.0, 0.0, 0.0, 0.0, 0.0)] * 2


def test_before_any_price_is_known_there_is_nothing() -> None:
    bars = bars_of()
    assert taken(bars, clock(0), clock(600)) == []
    assert taken(bars, trade(1, 610), clock(720.5)) == [
        ("1m", 10, "observed", 0, 100.0),
        ("1m", 11, "no_trade", 0, 100.0),
    ]


def test_a_clock_that_is_set_back_changes_nothing() -> None:
    bars = bars_of()
    assert len(taken(bars, trade(1, 0), clock(120.5))) == 2
    assert taken(bars, clock(-3600), clock(60.5), clock(120.5)) == []
    assert taken(bars, clock(180.5)) == [("1m", 2, "no_trade", 0, 100.0)]


def test_this_machines_clock_closes_nothing() -> None:
    bars = bars_of()
    assert taken(bars, trade(1, 0, received_at=NOON + DAY), trade(2, 1, received_at=NOON - HOUR)) == []


@pytest.mark.parametrize("grace", [0, 60 * SECOND])
def test_the_grace_is_what_was_asked_for(grace: int) -> None:
    bars = bars_of(grace_us=grace)
    assert taken(bars, trade(1, 0), Clock(NOON + MINUTE + grace - 1)) == []
    assert taken(bars, Clock(NOON + MINUTE + grace)) == [("1m", 0, "observed", 0, 100.0)]


@pytest.mark.parametrize("grace", [-1, 60 * SECOND + 1])
def test_a_grace_that_cannot_be_is_refused(grace: int) -> None:
    with pytest.raises(PlatformError, match="grace"):
        bars_of(grace_us=grace)


# -- late, repeated, reordered ----------------------------------------------------------------------------------------


def test_a_late_trade_inside_the_grace_is_in_the_bar() -> None:
    bars = bars_of()
    assert taken(bars, trade(1, 59, 100.0), trade(3, 60.4, 103.0), trade(2, 59.9, 101.0)) == []
    assert taken(bars, clock(60.5)) == [("1m", 0, "observed", 0, 101.0)]


def test_a_trade_after_the_grace_corrects_the_bar_and_the_idle_ones_after_it() -> None:
    bars = bars_of(M1, M3, M5)
    bars.take([trade(1, -115), trade(2, 10, 100.0), trade(4, 190, 105.0), clock(240.5)])
    assert taken(bars, trade(3, 30, 101.5)) == [
        ("1m", 0, "observed", 1, 101.5),
        ("1m", 1, "no_trade", 1, 101.5),
        ("1m", 2, "no_trade", 1, 101.5),
        ("3m", 0, "observed", 1, 101.5),
    ]
    assert taken(bars, clock(300.5))[-1] == ("5m", 0, "observed", 0, 105.0)
    assert bars.counts["late"] == 1
    assert bars.counts["corrected"] == 3


def test_repeated_events_change_nothing() -> None:
    bars = bars_of(M1, M3)
    events = [trade(1, 10), trade(2, 70, 101.0), candle(2, 102.0), clock(250)]
    assert len(bars.take(events)) == 5
    assert bars.take(events * 3) == []
    assert bars.counts["repeated"] == 9
    assert bars.counts["corrected"] == 0


def test_an_older_candle_does_not_undo_a_newer_one() -> None:
    bars = bars_of()
    newer = candle(0, 100.7, is_closed=False, time=NOON + 40 * SECOND)
    older = candle(0, 100.2, is_closed=False, time=NOON + 20 * SECOND)
    assert taken(bars, newer, older, clock(60.5)) == [("1m", 0, "observed", 0, 100.7)]
    assert taken(bars, candle(0, 100.9), older, candle(0, 100.1, time=NOON + 50 * SECOND)) == [
        ("1m", 0, "observed", 1, 100.9)
    ]


def test_a_trade_can_come_long_after_its_minute_but_not_for_ever() -> None:
    bars = bars_of()
    bars.take([trade(1, 10), clock(HOUR / SECOND)])
    assert taken(bars, trade(3, 15, 101.0))[0] == ("1m", 0, "observed", 1, 101.0)
    bars.take([clock(HOUR / SECOND + 120)])
    assert taken(bars, trade(2, 12, 300.0), candle(0, 300.0)) == []
    assert bars.counts["too_late"] == 2


def test_trades_of_before_the_first_minute_make_no_partial_bar() -> None:
    bars = bars_of()
    assert taken(bars, trade(9, 10), trade(8, -55, 99.0), clock(60.5)) == [("1m", 0, "observed", 0, 100.0)]
    assert bars.counts["too_late"] == 1


# -- candles and trades together --------------------------------------------------------------------------------------


def test_where_there_is_a_candle_trades_are_not_added() -> None:
    bars = bars_of()
    (bar,) = bars.take([trade(1, 5), candle(0, is_closed=False, time=NOON + 7 * SECOND), trade(2, 9), candle(0)])
    assert bar.volume == 5.0
    assert taken(bars, trade(3, 30), clock(61)) == []


def test_a_minute_without_a_candle_is_made_of_its_trades() -> None:
    bars = bars_of()
    assert taken(bars, candle(0), trade(1, 65, 102.0), clock(120.5)) == [
        ("1m", 0, "observed", 0, 100.0),
        ("1m", 1, "observed", 0, 102.0),
    ]
    assert taken(bars, candle(1, 102.0, volume=4.0)) == [("1m", 1, "observed", 1, 102.0)]


def test_a_candle_that_only_says_more_keeps_what_was_known() -> None:
    bars = bars_of()
    nothing_more = {"quote_volume": None, "taker_buy_volume": None, "taker_buy_quote_volume": None}
    (bar,) = bars.take([candle(0, trade_count=None, **nothing_more)])
    assert [value == value for value in bar.values] == [True] * 5 + [False] * 4
    (bar,) = bars.take([candle(0, time=NOON + 2 * MINUTE, trade_count=7, **nothing_more)])
    assert (bar.revision, bar.trade_count, bar.volume) == (1, 7.0, 5.0)
    assert bars.take([candle(0, time=NOON + 3 * MINUTE, trade_count=None, **nothing_more)]) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"open": 0.0}, {"close": -1.0}, {"high": float("inf")}, {"low": float("nan")}, {"high": 99.5}, {"low": 100.5},
        {"volume": -1.0}, {"quote_volume": float("inf")}, {"trade_count": -1}, {"taker_buy_volume": 6.0},
        {"taker_buy_quote_volume": 501.0}, {"open_time": NOON + 1}, {"open_time": -MINUTE}, {"open_time": 2**60},
    ],
)  # fmt: skip
def test_a_candle_that_breaks_a_rule_is_refused_and_counted(wrong: dict[str, float]) -> None:
    bars = bars_of()
    assert bars.take([candle(0, **wrong), clock(300)]) == []
    assert bars.counts["invalid"] + bars.counts["ahead"] == 1


@pytest.mark.parametrize(
    "wrong", [{"price": 0.0}, {"price": float("nan")}, {"quantity": -1.0}, {"quantity": float("inf")}]
)
def test_a_trade_that_breaks_a_rule_is_refused_and_counted(wrong: dict[str, float]) -> None:
    bars = bars_of()
    bars.take([trade(1, 0)])
    (bar,) = bars.take([trade(2, 1, **wrong), trade(3, 2), clock(61)])
    assert bar.volume == 2.0
    assert bars.counts["invalid"] == 1


def test_what_makes_no_bar_is_passed_over() -> None:
    bars = bars_of()
    book = BookChange("AUSDT", NOON + DAY, 1, 2, (), ())
    other = trade(1, 0, symbol="BUSDT")
    assert bars.take([book, other, candle(0, timeframe=Timeframe.M5), lost(0, 60, "book"), clock(61)]) == []
    assert (bars.counts["unknown_symbol"], bars.counts["other_timeframe"]) == (1, 1)


# -- losses -----------------------------------------------------------------------------------------------------------


def test_bars_that_a_loss_touches_are_gaps_until_a_candle_tells_them() -> None:
    bars = bars_of(M1, M3)
    bars.take([trade(1, 10)])
    assert taken(bars, lost(30, 70), trade(5, 75, 101.0), trade(6, 130, 102.0), clock(180.5)) == [
        ("1m", 0, "gap", -1, 0.0),
        ("1m", 1, "gap", -1, 0.0),
        ("1m", 2, "observed", 0, 102.0),
    ]
    assert taken(bars, candle(0, 100.5)) == [("1m", 0, "observed", 0, 100.5)]
    assert taken(bars, candle(1, 101.5)) == [("1m", 1, "observed", 0, 101.5), ("3m", 0, "observed", 0, 102.0)]
    assert bars.counts["gaps"] == 2


def test_a_gap_has_no_number_at_all() -> None:
    bars = bars_of()
    (bar,) = bars.take([trade(1, 10), lost(30, 40), clock(60.5)])
    assert all(value != value for value in bar.values)
    assert (bar.state, bar.is_closed) == ("gap", True)


def test_filled_trades_give_a_correction_when_the_last_one_is_there() -> None:
    bars = bars_of(M1, M3)
    bars.take([trade(1, 10), lost(30, 70), trade(5, 75, 101.0), clock(180.5)])
    assert taken(bars, trade(2, 31, 103.0), trade(4, 69, 99.0)) == []
    assert taken(bars, trade(3, 50, 104.0)) == [
        ("1m", 0, "observed", 0, 104.0),
        ("1m", 1, "observed", 0, 101.0),
        ("1m", 2, "no_trade", 0, 101.0),
        ("3m", 0, "observed", 0, 101.0),
    ]


def test_a_loss_that_the_ids_show_to_be_none_makes_no_gap() -> None:
    bars = bars_of()
    assert taken(bars, trade(1, 10), lost(20, 30), trade(2, 31, 101.0), clock(60.5)) == [
        ("1m", 0, "observed", 0, 101.0)
    ]


def test_an_idle_minute_after_a_gap_is_not_known_either() -> None:
    bars = bars_of()
    bars.take([trade(1, 10), lost(30, 50)])
    assert [each[2] for each in taken(bars, clock(120.5))] == ["gap", "gap"]
    assert taken(bars, candle(0, 100.5)) == [("1m", 0, "observed", 0, 100.5), ("1m", 1, "no_trade", 0, 100.5)]


def test_a_loss_that_is_told_late_withdraws_bars_and_what_was_built_of_them() -> None:
    bars = bars_of(M1, M3)
    bars.take([trade(1, 10), trade(2, 130, 101.0), clock(180.5)])
    assert taken(bars, lost(65, 185)) == [
        ("1m", 1, "gap", 1, 0.0),
        ("1m", 2, "gap", 1, 0.0),
        ("3m", 0, "gap", 1, 0.0),
    ]
    assert taken(bars, candle(1, 100.5), candle(2, 101.0)) == [
        ("1m", 1, "observed", 2, 100.5),
        ("1m", 2, "observed", 2, 101.0),
        ("3m", 0, "observed", 2, 101.0),
    ]


def test_lost_candles_leave_a_gap_unless_one_follows_or_trades_tell_the_minute() -> None:
    bars = bars_of()
    forming = candle(0, is_closed=False, time=NOON + 10 * SECOND)
    assert taken(bars, forming, lost(20, 65, "candles"), clock(60.5)) == [("1m", 0, "gap", -1, 0.0)]
    again = candle(1, 103.0, is_closed=False, time=NOON + 70 * SECOND)
    assert taken(bars, again, clock(120.5)) == [("1m", 1, "observed", 0, 103.0)]
    assert taken(bars, trade(1, 125, 104.0), lost(130, 140, "candles"), clock(180.5)) == [
        ("1m", 2, "observed", 0, 104.0)
    ]
    assert taken(bars, lost(0, 180, "candles")) == [("1m", 1, "gap", 1, 0.0)]
    assert taken(bars, candle(2, 104.5), lost(0, 180, "candles")) == [("1m", 2, "observed", 1, 104.5)]


@pytest.mark.parametrize(("since", "until"), [(10, 10), (20, 10), (0, 2 * 86_400)])
def test_a_loss_that_cannot_be_is_refused(since: float, until: float) -> None:
    bars = bars_of()
    assert taken(bars, trade(1, 0), lost(since, until), clock(60.5)) == [("1m", 0, "observed", 0, 100.0)]
    assert bars.counts["invalid"] == 1


# -- wrong dates and bounds -------------------------------------------------------------------------------------------


def test_what_is_dated_ahead_of_all_clocks_is_refused_and_counted() -> None:
    bars = bars_of()
    bars.take([trade(1, 0, received_at=NOON), clock(1)])
    year = 365 * 86_400
    wrong = [
        trade(2, year), trade(2, year, received_at=NOON), trade(2, 62, received_at=NOON), candle(365 * 1440),
        candle(1, is_closed=True, received_at=NOON), trade(2, 10**9), clock(2 * 86_400),
    ]  # fmt: skip
    assert bars.take(wrong) == []
    assert bars.counts["ahead"] == len(wrong)
    assert taken(bars, trade(2, 30, 101.0), clock(60.5)) == [("1m", 0, "observed", 0, 101.0)]


def test_a_machine_whose_clock_was_set_back_loses_nothing() -> None:
    bars = bars_of()
    trades = [trade(n, 20 * n, received_at=NOON + 20 * n * SECOND - (n > 5) * HOUR) for n in range(20)]
    assert len(bars.take(trades)) == 6
    assert bars.counts["ahead"] == 0


def test_a_silence_of_days_is_not_filled_with_made_up_minutes() -> None:
    bars = bars_of()
    days = 5 * 86_400
    bars.take([trade(1, 10)])
    found = taken(bars, trade(2, days, 105.0, received_at=NOON + days * SECOND), clock(days + 60.5))
    assert found == [("1m", 0, "observed", 0, 100.0), ("1m", 7200, "observed", 0, 105.0)]
    assert bars.counts["minutes_skipped"] == 5 * 1440 - 1


def test_state_stays_bounded_whatever_comes() -> None:
    bars = bars_of(*Timeframe)
    for n in range(400):
        bars.take([trade(1 + 3 * n, n * 31), lost(n * 31 + 5, n * 31 + 6), trade(2 * n + 2, n * 31 - 1800, 99.0)])
    (minutes,), (parents,) = bars._minutes.values(), bars._parents.values()
    assert len(minutes._kept) <= 64
    assert len(minutes._losses._losses) <= 128
    assert len(minutes._ids._holes) <= 256
    assert sum(len(level.bars) for level in parents._levels.values()) < 250


# -- history ----------------------------------------------------------------------------------------------------------


def test_a_seeded_feed_goes_on_as_if_it_had_never_stopped() -> None:
    events = [*(candle(n, 100 + n / 100) for n in range(-43, 60)), clock(3700)]
    whole = bars_of(M1, H1, M5)
    all_of_it = whole.take(events)
    again = bars_of(M1, H1, M5)
    again.seed([bar for bar in all_of_it if bar.timeframe == M1][:80])
    assert again.take(events) == [bar for bar in all_of_it if bar.close_time > NOON + 37 * MINUTE]
    assert (again.counts["repeated"], again.counts["too_late"]) == (60, 20)  # an hour back it is compared


def test_a_seeded_bar_is_corrected_by_a_candle_and_not_by_trades() -> None:
    bars = bars_of()
    (bar,) = bars_of().take([candle(0)])
    bars.seed([bar])
    assert taken(bars, trade(9, 20, 107.0), clock(60.5)) == []
    assert taken(bars, candle(0, 100.4)) == [("1m", 0, "observed", 1, 100.4)]
    assert taken(bars, clock(120.5)) == [("1m", 1, "no_trade", 0, 100.4)]


def test_a_forming_bar_is_no_history() -> None:
    (bar,) = bars_of(forming=True).take([trade(1, 1)])
    with pytest.raises(PlatformError, match="forming"):
        bars_of().seed([bar])


# -- forming ----------------------------------------------------------------------------------------------------------


def test_forming_bars_come_last_and_only_when_they_changed() -> None:
    bars = bars_of(M1, M3, forming=True)
    found = bars.take([trade(1, 10), trade(2, 60.6, 101.0)])
    assert [(bar.timeframe, bar.open_time - NOON, bar.is_closed) for bar in found] == [
        (M1, 0, True),
        (M1, MINUTE, False),
        (M3, 0, False),
    ]
    assert [bar.available_at - NOON for bar in found[1:]] == [60_600_000, 60_600_000]
    assert found[2].values == values_by_hand([trade(1, 10), trade(2, 60.6, 101.0)])
    assert bars.take([trade(2, 60.6, 101.0), clock(61)]) == []
    assert [bar.close for bar in bars.take([trade(3, 70, 99.0)])] == [99.0, 99.0]


def test_a_forming_bar_whose_beginning_is_not_known_is_not_given() -> None:
    bars = bars_of(M1, M5, forming=True)
    assert [bar.timeframe for bar in bars.take([trade(1, 130)])] == [M1]
    assert bars.take([lost(131, 132)]) == []


def test_forming_bars_can_be_asked_for_when_they_are_wanted() -> None:
    bars = bars_of(M1, M3)
    bars.take([trade(1, 10)])
    assert [bar.timeframe for bar in bars.changed("AUSDT")] == [M1, M3]
    assert bars.changed("AUSDT") == []
    bars.take([trade(2, 11, 101.0)])
    assert [(bar.close, bar.is_closed) for bar in bars.changed("AUSDT")] == [(101.0, False)] * 2


def test_the_minute_in_whose_midst_trades_begin_is_a_gap_until_it_is_known() -> None:
    bars = bars_of()
    bars.join("AUSDT")
    assert taken(bars, trade(7, 10), trade(8, 70, 101.0), clock(120.5)) == [
        ("1m", 0, "gap", -1, 0.0),
        ("1m", 1, "observed", 0, 101.0),
    ]
    assert taken(bars, candle(0, 102.0)) == [("1m", 0, "observed", 0, 102.0)]


@pytest.mark.parametrize("first", [trade(0, 10), trade(7, 0)])
def test_trades_that_begin_with_a_minute_or_with_the_first_of_all_make_it(first: Trade) -> None:
    bars = bars_of()
    bars.join("AUSDT")
    assert taken(bars, first, clock(60.5)) == [("1m", 0, "observed", 0, 100.0)]


def test_earlier_trades_make_up_for_a_beginning_in_the_midst_of_a_minute() -> None:
    bars = bars_of()
    bars.join("AUSDT")
    assert taken(bars, trade(7, 10), clock(60.5)) == [("1m", 0, "gap", -1, 0.0)]
    bars.take([trade(6, 5, 99.0)])
    assert taken(bars, trade(5, -3), trade(8, 61)) == [("1m", 0, "observed", 0, 100.0)]


def test_only_the_bar_that_closes_next_is_given_as_it_forms() -> None:
    bars = bars_of(M1, M5)

    def opened() -> list[tuple[str, int]]:
        return [(bar.timeframe.value, (bar.open_time - NOON) // MINUTE) for bar in bars.changed("AUSDT")]

    bars.take([trade(0, 0), trade(1, 250)])
    assert opened() == [("1m", 4), ("5m", 0)]
    bars.take([trade(2, 300.2, 101.0)])  # in the grace of the minute before
    assert opened() == []
    bars.take([clock(300.6)])
    assert opened() == [("1m", 5), ("5m", 5)]
