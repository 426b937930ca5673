"""Revisions, held to a dictionary of lists, and the states of bars."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mdplatform.market.bars import BAR_SCHEMA, VALUE_COLUMNS, empty_bars
from mdplatform.market.revisions import merge, newest, with_states
from mdplatform.market.timeframe import Timeframe

from .rows import EPOCH, LATER, MINUTE, NOON, bar_row, bars

HOUR = timedelta(hours=1)

closes = st.sampled_from([11.0, 11.0 * (1 + 4e-16), 11.5, 10.0])
volumes = st.sampled_from([None, 5.0, 6.0])
counts = st.sampled_from([None, 7, 8])
rows_ = st.tuples(st.integers(0, 4), closes, volumes, counts)
deliveries_ = st.lists(st.lists(rows_, max_size=7), max_size=6)


def delivered(rows: list[tuple[int, float, float | None, int | None]], number: int) -> list[dict[str, Any]]:
    return [
        bar_row(
            NOON + n * MINUTE, close=close, volume=volume, trade_count=count,
            taker_buy_volume=None, source=f"delivery {number}", ingested_at=LATER + number * HOUR,
        )
        for n, close, volume, count in rows
    ]  # fmt: skip


class Oracle:
    """The revisions of each minute as lists, and the counts, by the words of the conventions."""

    def __init__(self) -> None:
        self.revisions: dict[int, list[tuple[Any, ...]]] = {}
        self.taken = self.unchanged = self.corrected = 0

    def deliver(self, rows: list[tuple[int, float, float | None, int | None]], number: int) -> None:
        for minute, *values in rows:
            known = self.revisions.setdefault(minute, [])
            if not known:
                known.append((*values, number))
                self.taken += 1
                continue
            now = known[-1][:3]
            pairs = list(zip(values, now, strict=True))
            if any(a is not None and b is not None and not math.isclose(a, b, rel_tol=1e-12) for a, b in pairs):
                known.append((*values, number))
                self.corrected += 1
            elif any(a is not None and b is None for a, b in pairs):
                known.append((*(b if a is None else a for a, b in pairs), number))
                self.corrected += 1
            else:
                self.unchanged += 1

    def rows(self) -> list[tuple[Any, ...]]:
        return [
            (minute, revision, *values)
            for minute, revisions in sorted(self.revisions.items())
            for revision, values in enumerate(revisions)
        ]


def rows_of(table: Any) -> list[tuple[Any, ...]]:
    return [
        (
            (row["open_time"] - NOON) // MINUTE, row["revision"], row["close"], row["volume"], row["trade_count"],
            (row["ingested_at"] - LATER) // HOUR,
        )
        for row in table.iter_rows(named=True)
    ]  # fmt: skip


@given(deliveries_)
@hypothesis_settings(max_examples=40, deadline=None)
def test_merging_is_what_lists_of_revisions_say(deliveries: list[list[Any]]) -> None:
    oracle, stored = Oracle(), empty_bars()
    taken = unchanged = corrected = 0
    for number, rows in enumerate(deliveries):
        oracle.deliver(rows, number)
        merged = merge(stored, bars(delivered(rows, number)))
        stored = merged.bars
        taken, unchanged, corrected = (
            taken + merged.taken, unchanged + merged.unchanged, corrected + merged.corrected,
        )  # fmt: skip
        assert merged.taken + merged.unchanged + merged.corrected == len(rows)
    assert stored.schema == BAR_SCHEMA
    assert rows_of(stored) == oracle.rows()
    assert (taken, unchanged, corrected) == (oracle.taken, oracle.unchanged, oracle.corrected)
    known = list(oracle.revisions.items())
    assert rows_of(newest(stored)) == [(k, len(v) - 1, *v[-1]) for k, v in sorted(known)]
    for number in range(len(deliveries) + 1):
        then = [row for row in oracle.rows() if row[1] == 0 or row[-1] < number]  # or a correction not yet stored
        expected = list({row[0]: row for row in then}.values())
        assert rows_of(newest(stored, LATER + number * HOUR - MINUTE)) == expected
        if number:
            assert rows_of(newest(stored, LATER + (number - 1) * HOUR)) == expected


@given(deliveries_)
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_delivery_without_repeats_is_unchanged_when_it_comes_again(deliveries: list[list[Any]]) -> None:
    stored = empty_bars()
    for number, rows in enumerate(deliveries):
        distinct = list({row[0]: row for row in rows}.values())
        stored = merge(stored, bars(delivered(distinct, number))).bars
        again = merge(stored, bars(delivered(distinct, 99)))
        assert again.unchanged == len(distinct)
        assert again.bars.equals(stored)


@pytest.mark.parametrize("name", VALUE_COLUMNS)
def test_a_change_of_any_one_value_is_a_correction(name: str) -> None:
    row = bar_row()
    changed = merge(bars([row]), bars([row | {name: row[name] + 1}]))
    assert (changed.taken, changed.unchanged, changed.corrected) == (0, 0, 1)
    assert changed.bars[name].to_list() == [row[name], row[name] + 1]


@pytest.mark.parametrize(("factor", "corrected"), [(1 + 5e-13, 0), (1 - 5e-13, 0), (1 + 3e-12, 1), (1 - 3e-12, 1)])
@pytest.mark.parametrize("size", [1e-7, 1.0, 1e11])
def test_rounding_is_no_correction(factor: float, corrected: int, size: float) -> None:
    row = bar_row(quote_volume=size)
    assert merge(bars([row]), bars([row | {"quote_volume": size * factor}])).corrected == corrected


def test_zero_is_a_value_and_differs_from_another() -> None:
    row = bar_row(volume=0.0)
    assert merge(bars([row]), bars([row])).unchanged == 1
    assert merge(bars([row]), bars([row | {"volume": -0.0}])).unchanged == 1
    assert merge(bars([row]), bars([row | {"volume": 1e-300}])).corrected == 1


def test_what_one_delivery_lacks_is_kept_from_the_other() -> None:
    without_taker = bar_row(taker_buy_volume=None)
    without_quote = bar_row(quote_volume=None, source="other")
    merged = merge(bars([without_taker]), bars([without_quote]))
    assert merged.corrected == 1
    last = merged.bars.row(1, named=True)
    assert (last["quote_volume"], last["taker_buy_volume"], last["source"]) == (52.5, 2.0, "other")


def test_a_correction_does_not_mix_amounts_of_two_states_of_a_bar() -> None:
    half = bar_row(volume=2.5)
    final = bar_row(volume=5.0, taker_buy_volume=None)
    last = merge(bars([half]), bars([final])).bars.row(1, named=True)
    assert (last["volume"], last["taker_buy_volume"]) == (5.0, None)


def test_a_bar_at_the_epoch_is_a_bar() -> None:
    stored = bars([bar_row(EPOCH - MINUTE), bar_row(EPOCH)])
    assert newest(stored)["open_time"].to_list() == [EPOCH - MINUTE, EPOCH]


def test_nothing_merged_with_nothing_is_nothing() -> None:
    merged = merge(empty_bars(), empty_bars())
    assert (merged.bars.height, merged.taken, merged.unchanged, merged.corrected) == (0, 0, 0, 0)


IDLE = {"open": 11.0, "high": 11.0, "low": 11.0, "close": 11.0, "volume": 0.0, "trade_count": 0}


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({}, "no_trade"),
        ({"trade_count": None}, "no_trade"),
        ({"volume": 0.1}, "observed"),
        ({"volume": None}, "observed"),
        ({"trade_count": 1}, "observed"),
        ({"high": 11.5}, "observed"),
        ({"open": 10.9, "high": 10.9, "low": 10.9, "close": 10.9}, "observed"),
    ],
)
def test_no_trade_is_no_volume_at_the_close_before(values: dict[str, Any], state: str) -> None:
    stored = bars([bar_row(), bar_row(NOON + MINUTE, **(IDLE | values))])
    assert with_states(stored, Timeframe.M1)["state"].to_list() == ["observed", state]


def test_the_close_before_is_that_of_the_newest_revision() -> None:
    first = [bar_row(close=10.0), bar_row(close=11.0, revision=1)]
    states = with_states(bars([*first, bar_row(NOON + MINUTE, **IDLE)]), Timeframe.M1)["state"]
    assert states.to_list() == ["observed", "observed", "no_trade"]


def test_an_idle_bar_after_a_hole_is_no_trade_where_it_is_flat() -> None:
    states = with_states(bars([bar_row(close=10.0), bar_row(NOON + 5 * MINUTE, **IDLE)]), Timeframe.M1)["state"]
    assert states.to_list() == ["observed", "no_trade"]
