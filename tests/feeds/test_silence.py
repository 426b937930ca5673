"""How long a line may be silent, by how it was lately."""

from __future__ import annotations

from mdplatform.feeds.silence import Cadence


def test_a_busy_line_may_be_silent_for_the_least_and_a_quiet_one_for_twice_what_it_was() -> None:
    cadence = Cadence(least=10.0, most=70.0)
    assert cadence.allowed == 10.0
    for second in range(100):
        cadence.note(2.0, now=2.0 * second)
    assert cadence.allowed == 10.0
    cadence.note(8.0, now=208.0)
    assert cadence.allowed == 16.0
    cadence.note(3_000.0, now=3_208.0)
    assert cadence.allowed == 70.0


def test_a_long_silence_is_forgotten_after_a_while_of_talk() -> None:
    cadence = Cadence(least=10.0, most=70.0)
    cadence.note(30.0, now=30.0)
    assert cadence.allowed == 60.0
    for minute in range(1, 12):
        cadence.note(1.0, now=30.0 + 60.0 * minute)
    assert cadence.allowed == 60.0
    for minute in range(12, 24):
        cadence.note(1.0, now=30.0 + 60.0 * minute)
    assert cadence.allowed == 10.0


def test_the_least_stands_where_it_is_longer_than_the_most() -> None:
    assert Cadence(least=90.0, most=70.0).allowed == 90.0
