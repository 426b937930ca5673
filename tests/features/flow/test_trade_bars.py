"""Bars by what was traded, and CUSUM events, against plain loops; a cut in the trades takes away whole bars alone."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.errors import InvalidTable, ParameterOutOfRange
from mdplatform.features import cusum_events, dollar_bars, imbalance_bars, tick_bars, volume_bars

from .tape import START, rows_of, stored, tapes, trades_of

FEW = settings(max_examples=40, deadline=None)
Row = tuple[int, float, float, bool]


def cut_by_hand(rows: list[Row], amounts: list[float], threshold: float) -> list[list[Row]]:
    bars, held = [], []
    for row, amount in zip(rows, amounts, strict=True):
        held.append((row, amount))
        if math.fsum(each for _, each in held) >= threshold - 1e-9:
            bars.append([each for each, _ in held])
            held = []
    return bars


def expect_bars(found: pl.DataFrame, wanted: list[list[Row]]) -> None:
    assert found["trade_count"].to_list() == [len(bar) for bar in wanted]
    for bar, rows in zip(found.iter_rows(named=True), wanted, strict=True):
        prices = [price for _, price, _, _ in rows]
        assert (bar["open"], bar["close"]) == (prices[0], prices[-1])
        assert (bar["high"], bar["low"]) == (max(prices), min(prices))
        assert bar["volume"] == pytest.approx(sum(quantity for _, _, quantity, _ in rows))
        assert bar["quote_volume"] == pytest.approx(sum(price * quantity for _, price, quantity, _ in rows))
        assert bar["taker_buy_volume"] == pytest.approx(sum(quantity for _, _, quantity, is_buy in rows if is_buy))
        bought = sum(price * quantity for _, price, quantity, is_buy in rows if is_buy)
        assert bar["taker_buy_quote_volume"] == pytest.approx(bought)
        assert bar["available_at"] == bar["close_time"]


@FEW
@given(tapes(), st.integers(1, 9), st.integers(1, 300))
def test_bars_hold_the_trades_that_a_loop_puts_into_them(trades: pl.DataFrame, count: int, tenths: int) -> None:
    rows = rows_of(trades)
    expect_bars(tick_bars(trades, count), cut_by_hand(rows, [1.0] * len(rows), count))
    expect_bars(volume_bars(trades, tenths / 10), cut_by_hand(rows, [each[2] for each in rows], tenths / 10))
    expect_bars(dollar_bars(trades, tenths), cut_by_hand(rows, [each[1] * each[2] for each in rows], tenths))


def imbalance_by_hand(rows: list[Row], count: int, span: int, most: float) -> list[int]:
    alpha, lengths, first = 2 / (span + 1), [], 0
    length = threshold = bias = energy = trades = 0.0
    for at in range(len(rows)):
        held = [quantity if is_buy else -quantity for _, _, quantity, is_buy in rows[first : at + 1]]
        flow, power = sum(held), sum(each * each for each in held)
        if not lengths:
            if len(held) < count:
                continue
            length, bias, energy, trades = len(held), flow, power, len(held)
        else:
            if abs(flow) < threshold * (1 - 1e-12):
                continue
            length, trades = (before + alpha * (len(held) - before) for before in (length, trades))
            bias, energy = bias + alpha * (flow - bias), energy + alpha * (power - energy)
        length = min(max(length, count / most), count * most)
        threshold = max(length * abs(bias / trades), math.sqrt(length * energy / trades))
        lengths.append(len(held))
        first = at + 1
    return lengths


@FEW
@given(tapes(), st.integers(1, 9), st.integers(1, 5), st.sampled_from([1.0, 2.0, 10.0]))
def test_imbalance_bars_close_where_a_loop_closes_them(
    trades: pl.DataFrame, count: int, span: int, most: float
) -> None:
    found = imbalance_bars(trades, "volume", expected_count=count, span=span, most=most)
    assert found["trade_count"].to_list() == imbalance_by_hand(rows_of(trades), count, span, most)
    assert found["imbalance"].to_list() == pytest.approx(
        (2 * found["taker_buy_volume"] - found["volume"]).to_list(), abs=1e-9
    )
    later = found[1:]
    assert (later["imbalance"].abs() >= later["expected_imbalance"] * (1 - 1e-9)).all()


def test_imbalance_bars_of_one_sided_flow_are_as_long_as_expected() -> None:
    trades = trades_of([(START + each, 1.0, 1.0, False) for each in range(1000)])
    for measure in ("tick", "volume", "dollar"):
        assert imbalance_bars(trades, measure, expected_count=50)["trade_count"].to_list() == [50] * 20


MAKERS = {
    "tick": lambda trades: tick_bars(trades, 4),
    "volume": lambda trades: volume_bars(trades, 5),
    "dollar": lambda trades: dollar_bars(trades, 60),
    "imbalance": lambda trades: imbalance_bars(trades, "dollar", expected_count=3),
    "cusum": lambda trades: cusum_events(trades, 0.02),
}


@pytest.mark.parametrize("name", MAKERS)
@FEW
@given(trades=tapes(), share=st.floats(0, 1))
def test_what_comes_later_changes_no_bar(name: str, trades: pl.DataFrame, share: float) -> None:
    cut = int(share * len(trades))
    whole, part = MAKERS[name](trades), MAKERS[name](trades[:cut])
    assert part.equals(whole[: len(part)])
    if len(part) < len(whole) and name != "cusum":
        assert whole["trade_count"][: len(part) + 1].sum() > cut  # nothing that was complete is missing


@FEW
@given(tapes(), st.sampled_from([2.0**-20, 2.0**20]))
def test_bars_know_no_unit(trades: pl.DataFrame, unit: float) -> None:
    scaled = trades.with_columns(pl.col("quantity") * unit)
    assert volume_bars(scaled, 5 * unit)["trade_count"].equals(volume_bars(trades, 5)["trade_count"])
    dearer = trades.with_columns(pl.col("price") * unit)
    assert cusum_events(dearer, 0.02)["row"].to_list() == cusum_events(trades, 0.02)["row"].to_list()


def test_ten_tenths_fill_a_bar_of_one_and_the_last_one_that_is_open_is_not_given() -> None:
    trades = trades_of([(START + each, 1.0, 0.1, False) for each in range(25)])
    assert volume_bars(trades, 1)["trade_count"].to_list() == [10, 10]


def test_a_trade_that_crosses_the_edge_belongs_whole_to_the_bar_that_it_closes() -> None:
    trades = trades_of([(START, 1.0, 2.0, False), (START, 1.0, 7.0, False), (START, 1.0, 3.0, False)])
    assert volume_bars(trades, 3)["volume"].to_list() == [9, 3]


def test_a_bar_is_known_when_the_last_of_its_trades_was_received() -> None:
    trades = trades_of([(START + each, 1.0, 1.0, False) for each in range(4)])
    bars = tick_bars(stored(trades, np.array([500, 0, 0, 30])), 2)
    waited = bars["available_at"] - bars["close_time"]
    assert waited.to_list() == [timedelta(microseconds=499), timedelta(microseconds=30)]


@FEW
@given(tapes(), st.integers(1, 40))
def test_events_are_those_of_the_filter_in_the_book(trades: pl.DataFrame, permille: int) -> None:
    threshold, up, down, wanted = permille / 1000, 0.0, 0.0, []
    prices = trades["price"].to_list()
    for at in range(1, len(prices)):
        change = math.log(prices[at] / prices[at - 1])
        up, down = max(0.0, up + change), min(0.0, down + change)
        if up > threshold - 1e-12:
            up = 0.0
            wanted.append((at, 1))
        elif down < -threshold + 1e-12:
            down = 0.0
            wanted.append((at, -1))
    assert cusum_events(trades, threshold).select("row", "side").rows() == wanted


def test_no_trades_make_no_bars() -> None:
    for make in MAKERS.values():
        assert make(trades_of([])).is_empty()
        assert make(trades_of([(START, 1.0, 0.0, True)])).is_empty()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda trades: tick_bars(trades, 0),
        lambda trades: volume_bars(trades, -1),
        lambda trades: tick_bars(trades, True),
        lambda trades: tick_bars(trades, 2.5),
        lambda trades: imbalance_bars(trades, expected_count=2.5),
        lambda trades: dollar_bars(trades, math.inf), lambda trades: cusum_events(trades, math.nan),
        lambda trades: imbalance_bars(trades, "euro", expected_count=3),
        lambda trades: imbalance_bars(trades, expected_count=0),
        lambda trades: imbalance_bars(trades, expected_count=3, most=0.5),
        lambda trades: imbalance_bars(trades, expected_count=3, span=0),
    ],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(wrong: object) -> None:
    with pytest.raises(ParameterOutOfRange):
        wrong(trades_of([(START, 1.0, 1.0, True)]))


def test_numbers_of_numpy_are_numbers() -> None:
    trades = trades_of([(START + each, 1.0, 1.0, False) for each in range(4)])
    assert tick_bars(trades, np.int64(2)).height == volume_bars(trades, np.float32(2)).height == 2


def test_a_table_without_prices_is_refused() -> None:
    for make in MAKERS.values():
        with pytest.raises(InvalidTable, match="price"):
            make(trades_of([]).drop("price"))
