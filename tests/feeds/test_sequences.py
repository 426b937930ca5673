"""Sequences: in order, each once, and what is missing is filled or said, in whatever order things come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mdplatform.feeds import sequences
from mdplatform.feeds.sequences import BookSequence, Sequence
from mdplatform.market.events import BookChange, Event, Lost, Trade


def trade(number: int) -> Trade:
    return Trade("BTCUSDT", number, number * 1000, 1.0, 1.0, False)


def offer(sequence: Sequence, number: int, out: list[Event], *, is_filled: bool = False) -> None:
    sequence.offer(number, trade(number), number * 1000, out, is_filled=is_filled)


def numbers(out: list[Event]) -> list[int]:
    return [each.trade_id for each in out if isinstance(each, Trade)]


@given(st.permutations(range(1, 12)), st.lists(st.integers(1, 11)))
def test_any_order_with_any_repeats_is_put_in_order(order: list[int], repeats: list[int]) -> None:
    sequence, out = Sequence("BTCUSDT", "trades"), list[Event]()
    sequence.begin(1)
    for number in (*order, *repeats):
        offer(sequence, number, out)
    assert numbers(out) == list(range(1, 12))
    assert sequence.repeated == len(repeats)
    assert not sequence.is_blocked


@given(st.sets(st.integers(1, 30), min_size=1), st.integers(1, 30))
def test_what_is_given_up_is_said_once_a_hole(present: set[int], start: int) -> None:
    sequence, out = Sequence("BTCUSDT", "trades"), list[Event]()
    sequence.begin(start)
    for number in sorted(present, reverse=True):
        offer(sequence, number, out)
    sequence.give_up("gone", out)
    expected = sorted(number for number in present if number >= start)
    assert numbers(out) == expected
    holes = sum(1 for before, after in zip([start - 1, *expected], expected, strict=False) if after != before + 1)
    assert sum(isinstance(each, Lost) for each in out) == holes


def test_after_a_cut_what_follows_shows_that_nothing_was_missed() -> None:
    sequence, out = Sequence("BTCUSDT", "trades"), list[Event]()
    offer(sequence, 5, out)
    sequence.cut()
    assert sequence.is_blocked
    offer(sequence, 6, out)
    assert not sequence.is_blocked
    assert numbers(out) == [5, 6]


def test_a_cut_while_something_is_asked_makes_the_answer_worth_nothing() -> None:
    sequence, out = Sequence("BTCUSDT", "trades"), list[Event]()
    offer(sequence, 5, out)
    sequence.cut()
    asked = sequence.breaks
    sequence.cut()
    sequence.caught_up(asked)
    assert sequence.is_behind
    sequence.caught_up(sequence.breaks)
    assert not sequence.is_behind


def test_no_more_than_a_bound_is_held_and_what_is_let_go_is_fetched_again() -> None:
    sequence, out = Sequence("BTCUSDT", "trades", since=0), list[Event]()
    last = 2 * sequences.MOST_HELD + 10
    for number in range(100, last):
        offer(sequence, number, out)
    assert len(sequence._held) <= sequences.MOST_HELD
    assert sequence.dropped >= sequences.MOST_HELD
    sequence.begin(1)
    for number in range(1, last):
        offer(sequence, number, out, is_filled=True)
    sequence.caught_up(sequence.breaks)
    assert numbers(out) == list(range(1, last))
    assert not sequence.is_blocked


def test_what_is_held_from_before_the_beginning_is_let_go() -> None:
    sequence, out = Sequence("BTCUSDT", "trades", since=5000), list[Event]()
    for number in (3, 4, 5, 6, 8):
        offer(sequence, number, out)
    sequence.begin(5, out)
    assert numbers(out) == [5, 6]
    sequence.caught_up(sequence.breaks)
    offer(sequence, 7, out)
    assert numbers(out) == [5, 6, 7, 8]
    assert not sequence.is_blocked


def test_what_was_given_up_before_anything_was_held_is_said_when_the_next_comes() -> None:
    sequence, out = Sequence("BTCUSDT", "trades"), list[Event]()
    offer(sequence, 5, out)
    sequence.cut()
    sequence.give_up("no answer", out)
    assert not sequence.is_blocked
    offer(sequence, 9, out)
    assert [type(each) for each in out] == [Trade, Lost, Trade]
    assert not sequence.is_blocked


def diff(first: int, last: int) -> BookChange:
    return BookChange("BTCUSDT", last * 1000, first, last, ((1.0, float(last)),), ())


def snapshot(last: int) -> BookChange:
    return BookChange("BTCUSDT", last * 1000, last, last, ((1.0, float(last)),), (), is_snapshot=True)


@given(st.permutations(range(6)), st.integers(0, 12))
def test_a_book_follows_from_its_snapshot_in_any_order(order: list[int], at: int) -> None:
    book, out = BookSequence("BTCUSDT"), list[Event]()
    diffs = [diff(3 * k + 1, 3 * k + 3) for k in range(6)]
    for place, k in enumerate(order):
        if place == 3:
            book.offer(snapshot(at), out)
        book.offer(diffs[k], out)
    if book.is_blocked:
        book.offer(snapshot(18), out)
    last = 0
    for change in out:
        if isinstance(change, BookChange):
            assert change.is_snapshot or change.first_id <= last + 1 <= change.last_id
            last = change.last_id
    assert last == 18
    assert not book.is_blocked


def test_a_snapshot_that_is_older_than_what_is_held_is_not_enough() -> None:
    book, out = BookSequence("BTCUSDT"), list[Event]()
    book.offer(diff(10, 12), out)
    book.offer(snapshot(5), out)
    assert out == []
    assert book.is_blocked
    book.offer(snapshot(11), out)
    assert out == [snapshot(11), diff(10, 12)]


def test_a_book_of_futures_follows_by_the_last_id_of_the_message_before() -> None:
    book, out = BookSequence("BTCUSDT"), list[Event]()
    changes = [
        BookChange("BTCUSDT", 1, first, last, (), (), previous_id=before)
        for first, last, before in ((5, 9, 2), (15, 20, 9), (31, 40, 20), (51, 60, 45))
    ]
    book.offer(snapshot(8), out)
    for change in changes:
        book.offer(change, out)
    assert [each.last_id for each in out if isinstance(each, BookChange)] == [8, 9, 20, 40]
    assert book.is_blocked


def test_a_book_without_snapshots_begins_with_its_first_change_and_waits_only_for_what_is_missing() -> None:
    def change(first: int) -> BookChange:
        return BookChange("BTCUSDT", first * 1000, first, first, (), ())

    book, out = BookSequence("BTCUSDT", has_snapshots=False), list[Event]()
    assert not book.is_blocked
    for number in (4, 5, 7):
        book.offer(change(number), out)
    assert [each.last_id for each in out if isinstance(each, BookChange)] == [4, 5]
    assert [(each.since, each.until) for each in out if isinstance(each, Lost)] == [(0, 4000)]
    assert book.is_blocked
    assert book.skipped == 1


def test_trades_of_which_a_candle_tells_are_missed_only_where_none_of_its_time_came() -> None:
    sequence, out = Sequence("BTCUSDT", "trades"), list[Event]()
    sequence.expect(1000)
    assert not sequence.is_blocked  # nothing was heard of it yet, nor known
    offer(sequence, 5, out)
    sequence.expect(5000)
    assert not sequence.is_blocked
    sequence.expect(5001)
    assert sequence.is_blocked
