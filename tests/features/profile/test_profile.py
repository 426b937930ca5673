"""Volume profiles of tables, against exact arithmetic by hand, and the laws that hold for all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.errors import InvalidBars, InvalidTable, ParameterOutOfRange, PlatformError
from mdplatform.features import VolumeProfile, volume_profile, volume_profile_of_bars
from mdplatform.features.profile.volume_profile import ALGORITHMS, automatic_row_size

from .oracle import Levels, Rows, levels, rows_of_bars, rows_of_trades

Trade = tuple[int, int, bool]
Bar = tuple[int, int, int]

TRADES = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 6), st.booleans()), min_size=1, max_size=30).filter(
    lambda trades: any(quantity for _, quantity, _ in trades)
)
BARS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9), st.integers(0, 6)), min_size=1, max_size=15).filter(
    lambda bars: any(volume for *_, volume in bars)
)
PLACES = st.sampled_from([0, 1, 2, 5])
ROWS_HIGH = st.sampled_from([1, 2, 3, 5])
SHARES = st.sampled_from(["0.7", "0.68", "0.5", "1", "0.01"])


def number(digits: int, places: int) -> float:
    return float(Decimal(digits).scaleb(-places))


def table(trades: Sequence[Trade], places: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "price": [number(price, places) for price, _, _ in trades],
            "quantity": [number(quantity, places) for _, quantity, _ in trades],
            "is_buyer_maker": [sold for *_, sold in trades],
        }
    )


def of_bars(bars: Sequence[Bar], places: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "low": [number(low, places) for low, _, _ in bars],
            "high": [number(low + more, places) for low, more, _ in bars],
            "volume": [number(volume, places) for *_, volume in bars],
        }
    )


def expect(profile: VolumeProfile, rows: Rows, wanted: Levels, size: Fraction) -> None:
    """Compare a profile with what was found by hand: prices to the last bit."""
    first, last = min(rows), max(rows)
    assert profile.rows["price_low"].to_list() == [float(row * size) for row in range(first, last + 1)]
    assert profile.rows["price_high"].to_list() == [float((row + 1) * size) for row in range(first, last + 1)]
    volumes = [float(rows.get(row, Fraction(0))) for row in range(first, last + 1)]
    assert profile.rows["volume"].to_list() == pytest.approx(volumes, rel=1e-12, abs=1e-15)
    assert profile.volume == pytest.approx(float(sum(rows.values())), rel=1e-12)
    assert profile.poc == float((wanted.control + Fraction(1, 2)) * size)
    assert profile.val == float(wanted.low * size)
    assert profile.vah == float((wanted.high + 1) * size)


@settings(max_examples=150, deadline=None)
@given(TRADES, PLACES, ROWS_HIGH, SHARES, st.sampled_from(ALGORITHMS))
def test_a_profile_of_trades_is_the_one_found_by_hand(
    trades: list[Trade], places: int, high: int, share: str, algorithm: str
) -> None:
    profile = volume_profile(table(trades, places), number(high, places), float(share), algorithm)
    unit = Fraction(1, 10**places)
    size = high * unit
    rows = rows_of_trades([(price * unit, quantity * unit) for price, quantity, _ in trades], size)
    expect(profile, rows, levels(rows, Fraction(share), algorithm), size)
    sold = rows_of_trades([(price * unit, quantity * unit) for price, quantity, sold in trades if sold], size)
    wanted = [float(sold.get(row, Fraction(0))) for row in range(min(rows), max(rows) + 1)]
    assert profile.rows["taker_sell_volume"].to_list() == wanted
    both = profile.rows["taker_buy_volume"] + profile.rows["taker_sell_volume"]
    assert both.to_list() == pytest.approx(profile.rows["volume"].to_list(), rel=1e-12)


@settings(max_examples=150, deadline=None)
@given(BARS, PLACES, ROWS_HIGH, SHARES, st.sampled_from(ALGORITHMS))
def test_a_profile_of_bars_is_the_one_found_by_hand(
    bars: list[Bar], places: int, high: int, share: str, algorithm: str
) -> None:
    profile = volume_profile_of_bars(of_bars(bars, places), number(high, places), float(share), algorithm)
    unit = Fraction(1, 10**places)
    rows = rows_of_bars([(low * unit, (low + more) * unit, volume * unit) for low, more, volume in bars], high * unit)
    expect(profile, rows, levels(rows, Fraction(share), algorithm), high * unit)


@settings(max_examples=100, deadline=None)
@given(TRADES, st.randoms(use_true_random=False))
def test_the_order_of_trades_does_not_matter_to_the_last_bit(trades: list[Trade], random: Any) -> None:
    shuffled = list(trades)
    random.shuffle(shuffled)
    one, other = (volume_profile(table(each, 1), 0.3) for each in (trades, shuffled))
    assert one.rows.equals(other.rows)
    assert (one.poc, one.vah, one.val, one.hvn, one.lvn) == (other.poc, other.vah, other.val, other.hvn, other.lvn)


@settings(max_examples=100, deadline=None)
@given(TRADES, st.sampled_from([2.0, 10.0, 0.001]), st.sampled_from([2.0, 0.5, 1000.0]))
def test_a_profile_scales_with_its_prices_and_its_quantities(
    trades: list[Trade], price_by: float, quantity_by: float
) -> None:
    plain = table(trades, 1)
    scaled = plain.with_columns(pl.col("price") * price_by, pl.col("quantity") * quantity_by)
    one, other = volume_profile(plain, 0.2), volume_profile(scaled, 0.2 * price_by)
    for name in ("poc", "vah", "val"):
        assert getattr(other, name) == pytest.approx(getattr(one, name) * price_by, rel=1e-12)
    assert list(other.hvn) == pytest.approx([each * price_by for each in one.hvn], rel=1e-12)
    assert other.rows["volume"].to_list() == pytest.approx((one.rows["volume"] * quantity_by).to_list(), rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-6, 1e9), st.floats(1e-9, 1e12)), min_size=1, max_size=40),
    st.floats(0.01, 1),
    st.sampled_from(ALGORITHMS),
)
def test_any_numbers_keep_the_total_and_the_bounds(
    trades: list[tuple[float, float]], share: float, algorithm: str
) -> None:
    low, high = min(price for price, _ in trades), max(price for price, _ in trades)
    size = automatic_row_size(high)
    frame = pl.DataFrame(trades, schema=["price", "quantity"], orient="row")
    profile = volume_profile(frame, size, share, algorithm)
    assert profile.rows["volume"].sum() == pytest.approx(sum(quantity for _, quantity in trades), rel=1e-9)
    assert low - size * 1.001 <= profile.val <= profile.poc <= profile.vah <= high + size * 1.001
    inside = profile.rows.filter(pl.col("price_low").is_between(profile.val, profile.vah, closed="left"))
    assert inside["volume"].sum() >= share * profile.volume * (1 - 1e-9)


def test_equal_rows_go_to_the_middle_then_to_the_lower_and_the_value_area_to_the_upper() -> None:
    at_the_ends = pl.DataFrame({"price": [10.0, 14.0], "quantity": [1.0, 1.0]})
    assert volume_profile(at_the_ends, 1).poc == 10.5
    three = pl.DataFrame({"price": [10.0, 11.0, 14.0], "quantity": [1.0, 1.0, 1.0]})
    assert volume_profile(three, 1).poc == 11.5
    around = pl.DataFrame({"price": [10.0, 11.0, 12.0], "quantity": [1.0, 2.0, 1.0]})
    profile = volume_profile(around, 1, 0.75, "one_row")
    assert (profile.val, profile.vah) == (11.0, 13.0)


def test_two_rows_at_a_time_and_one_row_differ_where_they_should() -> None:
    frame = pl.DataFrame({"price": [9.0, 10.0, 11.0, 12.0, 13.0], "quantity": [6.0, 1.0, 10.0, 4.0, 0.5]})
    by_two, by_one = (volume_profile(frame, 1, 0.7, each) for each in ALGORITHMS)
    assert (by_two.algorithm, by_two.val, by_two.vah) == ("two_row", 9.0, 12.0)
    assert (by_one.algorithm, by_one.val, by_one.vah) == ("one_row", 9.0, 13.0)


def test_rows_without_volume_count_as_rows() -> None:
    frame = pl.DataFrame({"price": [10.0, 13.0, 14.0], "quantity": [5.0, 3.0, 2.0]})
    profile = volume_profile(frame, 1, 0.75)
    assert profile.rows["volume"].to_list() == [5.0, 0.0, 0.0, 3.0, 2.0]
    assert (profile.poc, profile.val, profile.vah) == (10.5, 10.0, 15.0)


def test_one_trade_is_a_profile_of_one_row() -> None:
    profile = volume_profile(pl.DataFrame({"price": [0.1 + 0.2], "quantity": [2]}), 0.1)
    assert (profile.poc, profile.val, profile.vah, profile.volume) == (0.35, 0.3, 0.4, 2.0)
    assert (profile.hvn, profile.lvn) == ((0.35,), ())
    assert profile.rows.height == 1


def test_nodes_are_the_turns_of_the_smoothed_profile() -> None:
    volumes = [1, 5, 20, 5, 1, 1, 2, 9, 30, 9, 2, 3, 2]
    frame = pl.DataFrame({"price": np.arange(10, 10 + len(volumes)) + 0.0, "quantity": volumes})
    profile = volume_profile(frame, 1)
    assert profile.hvn == (12.5, 18.5)
    assert profile.lvn == (15.5,)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=60).filter(any))
def test_between_two_nodes_of_high_volume_lies_one_of_low_volume(volumes: list[int]) -> None:
    frame = pl.DataFrame({"price": np.arange(1.0, len(volumes) + 1), "quantity": volumes})
    profile = volume_profile(frame, 1)
    first, held = profile.rows["price_low"][0], [0, *profile.rows["volume"].to_list(), 0]
    smooth = [sum(held[row : row + 3]) for row in range(len(held) - 2)]
    highs, lows = ([round(price - 0.5 - first) for price in each] for each in (profile.hvn, profile.lvn))
    assert len(lows) == len(highs) - 1
    assert max(smooth[row] for row in highs) == max(smooth)
    for low, left, right in zip(lows, highs, highs[1:], strict=False):
        assert left < low < right
        assert smooth[low] == min(smooth[left : right + 1])
        assert min(smooth[left], smooth[right]) - smooth[low] >= 0.1 * max(smooth)


def test_any_table_will_do_and_is_not_written_to() -> None:
    frame = pl.DataFrame({"price": [1.0, 1.5, 3.2], "quantity": [1.0, 2.0, 1.5], "is_buyer_maker": [True, False, True]})
    before = frame.clone()
    wanted = volume_profile(frame, 0.5).rows
    for other in (frame.to_pandas(), frame.to_arrow(), frame.lazy(), frame.cast({"quantity": pl.Decimal(10, 2)})):
        assert volume_profile(other, 0.5).rows.equals(wanted)  # type: ignore[arg-type]
    assert frame.equals(before)
    assert volume_profile(frame, 0.5).to_pandas()["volume"].tolist() == wanted["volume"].to_list()


def test_single_precision_is_read_as_the_decimals_that_it_stands_for() -> None:
    frame = pl.DataFrame(
        {"price": [0.3, 0.7], "quantity": [0.1, 0.2]}, schema={"price": pl.Float32, "quantity": pl.Float32}
    )
    profile = volume_profile(frame, 0.1)
    assert profile.rows["price_low"].to_list() == [0.3, 0.4, 0.5, 0.6, 0.7]
    assert profile.volume == 0.3


def test_without_sides_they_are_null() -> None:
    profile = volume_profile(pl.DataFrame({"price": [1.0], "quantity": [1.0]}))
    assert profile.rows["taker_buy_volume"].to_list() == [None]
    assert profile.method == "trades"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"price": [1.0]}, "lack columns: 'quantity'"),
        ({"price": [], "quantity": []}, "needs a trade"),
        ({"price": [1.0], "quantity": [0.0]}, "needs a trade"),
        ({"price": [1.0, math.nan], "quantity": [1.0, 1.0]}, "price is not a finite"),
        ({"price": [1.0, math.inf], "quantity": [1.0, 1.0]}, "price is not a finite"),
        ({"price": [0.0], "quantity": [1.0]}, "price is not a finite"),
        ({"price": [1.0, None], "quantity": [1.0, 1.0]}, "price is not a finite"),
        ({"price": [1.0], "quantity": [-1.0]}, "quantity is not a finite"),
        ({"price": [1.0], "quantity": [math.inf]}, "quantity is not a finite"),
        ({"price": ["x"], "quantity": [1.0]}, "price is not numbers"),
        ({"price": [1.0], "quantity": [1.0], "is_buyer_maker": [None]}, "is_buyer_maker is null"),
        ({"price": [1.0], "quantity": [1.0], "is_buyer_maker": ["true"]}, "is_buyer_maker is not true or false"),
    ],
)
def test_trades_that_are_none_are_refused(columns: dict[str, list[Any]], said: str) -> None:
    with pytest.raises(InvalidTable, match=said):
        volume_profile(pl.DataFrame(columns, strict=False))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"row_size": 0}, "row size"),
        ({"row_size": 1e-9}, "makes 1,000,000,001 rows"),
        ({"value_area_pct": 0}, "value_area_pct"),
        ({"value_area_pct": 70}, "value_area_pct"),
        ({"value_area_pct": math.nan}, "value_area_pct"),
        ({"value_area_pct": "0.7"}, "value_area_pct"),
        ({"value_area_pct": True}, "value_area_pct"),
        ({"algorithm": "three_row"}, "Unknown algorithm"),
        ({"algorithm": None}, "Unknown algorithm"),
    ],
)
def test_parameters_that_are_none_are_refused(arguments: dict[str, Any], said: str) -> None:
    frame = pl.DataFrame({"price": [1.0, 2.0], "quantity": [1.0, 1.0]})
    with pytest.raises(ParameterOutOfRange, match=said):
        volume_profile(frame, **arguments)
    bars = pl.DataFrame({"low": [1.0], "high": [2.0], "volume": [1.0]})
    with pytest.raises(ParameterOutOfRange, match=said):
        volume_profile_of_bars(bars, **arguments)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"high": 0.5}, "high is below its low"),
        ({"volume": None}, "volume is not a finite"),
        ({"volume": 0.0}, "needs a bar"),
        ({"taker_buy_volume": 3.0}, "Takers bought more"),
        ({"low": -1.0}, "low is not a finite"),
    ],
)
def test_bars_that_are_none_are_refused(change: dict[str, Any], said: str) -> None:
    good: dict[str, Any] = {"low": 1.0, "high": 2.0, "volume": 1.0}
    with pytest.raises(InvalidTable, match=said):
        volume_profile_of_bars(pl.DataFrame([good | change], schema_overrides={"volume": pl.Float64}))


def test_what_is_no_table_is_refused() -> None:
    for wrong in (None, [1, 2], {"price": [1.0]}):
        with pytest.raises(PlatformError):
            volume_profile(wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidBars):
            volume_profile_of_bars(wrong)  # type: ignore[arg-type]
    two = pl.DataFrame({"low": [1.0] * 2, "high": [1.0] * 2, "volume": [1.0] * 2, "timeframe": ["1m", "5m"]})
    with pytest.raises(InvalidTable, match="more than one timeframe"):
        volume_profile_of_bars(two)


def test_gaps_are_left_out_of_a_profile_of_bars_and_the_method_names_the_timeframe() -> None:
    bars = pl.DataFrame(
        {
            "low": [1.0, None],
            "high": [2.0, None],
            "volume": [3.0, None],
            "taker_buy_volume": [1.0, None],
            "timeframe": ["1m", "1m"],
            "state": ["observed", "gap"],
        }
    )
    profile = volume_profile_of_bars(bars, 1)
    assert profile.method == "bars:1m"
    assert profile.rows["volume"].to_list() == [1.5, 1.5]
    assert profile.rows["taker_buy_volume"].to_list() == [0.5, 0.5]


@settings(deadline=None)
@given(st.floats(1e-8, 1e9))
def test_the_automatic_row_size_is_the_largest_step_below_a_thousandth(price: float) -> None:
    size = automatic_row_size(price)
    steps = {1: 2, 2: 2.5, 5: 2}
    digit = int(f"{size:e}"[0])
    assert f"{size:.11e}" == f"{digit}.00000000000" + f"{size:.11e}"[13:]
    assert size <= price / 1000 * (1 + 1e-9)
    assert size * steps[digit] > price / 1000 * (1 - 1e-9)


def test_the_profile_of_real_trades_holds_the_volume_of_the_exchange_s_own_bars(shared_data: Path) -> None:
    trades = pl.read_parquet(shared_data / "ready/ticks/binance_spot_aggtrades_XRPETH_20191011-13.parquet")
    bars = pl.read_ipc(shared_data / "ticks/freqtrade__freqtrade/tests/testdata/XRP_ETH-1m.feather")
    minutes = trades.select(pl.col("transact_time") // 60_000)["transact_time"]
    own = bars.filter(pl.col("date").dt.epoch("ms").is_between(minutes.min() * 60_000, minutes.max() * 60_000))  # type: ignore[operator]
    of_trades, of_bars = volume_profile(trades, "0.000001"), volume_profile_of_bars(own, "0.000001")
    assert of_trades.volume == own["volume"].sum() == of_trades.rows["volume"].sum()
    assert of_bars.volume == of_trades.volume
    assert of_bars.rows["volume"].sum() == pytest.approx(of_trades.volume, rel=1e-12)
    assert of_bars.rows["price_low"].to_list() == of_trades.rows["price_low"].to_list()
    unit = Fraction(1, 1_000_000)
    exact = [
        (Fraction(str(price)), Fraction(str(quantity))) for price, quantity in trades[["price", "quantity"]].rows()
    ]
    rows = rows_of_trades(exact, unit)
    expect(of_trades, rows, levels(rows, Fraction(7, 10), "two_row"), unit)


def test_the_profile_of_a_day_of_real_bars_is_the_one_found_by_hand(shared_data: Path) -> None:
    bars = pl.read_parquet(shared_data / "ready/klines/binance_spot_15m/BTCUSDT.parquet")[96 : 96 * 2]
    profile = volume_profile_of_bars(bars, 50)
    exact = [tuple(Fraction(str(each)) for each in row) for row in bars[["low", "high", "volume"]].rows()]
    rows = rows_of_bars(exact, Fraction(50))  # type: ignore[arg-type]
    expect(profile, rows, levels(rows, Fraction(7, 10), "two_row"), Fraction(50))
