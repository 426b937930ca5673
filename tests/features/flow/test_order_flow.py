"""Order flow from trades, against plain Python: sums, CVD, VPIN, trading costs, footprints."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mdplatform.errors import InvalidTable, ParameterOutOfRange, UnknownTimeframe
from mdplatform.features import footprint, order_flow
from mdplatform.features.compiled import compiled
from mdplatform.features.flow.liquidity import amihud, kyle_lambda, roll_spread
from mdplatform.features.flow.vpin import vpin_after
from mdplatform.features.trade_arrays import read_trades
from mdplatform.market.timeframe import DAY_US, MINUTE_US

from .tape import START, rows_of, tapes, trades_of

NOON = START - START % DAY_US + DAY_US // 2
FEW = settings(max_examples=40, deadline=None)


# -- oracles: written apart from the kernels, in exact fractions ------------------------------------------------------


def exact(number: float) -> Fraction:
    return Fraction(number).limit_denominator(10_000)


def vpin_by_hand(rows: list[tuple[int, float, float, bool]], bucket: Fraction, buckets: int) -> Fraction | None:
    """Lay all volume on a line and cut it; a bucket's sides are what of the line each trade covers of it."""
    spans, at = [], Fraction(0)
    for _, _, quantity, is_buy in rows:
        spans.append((at, at + exact(quantity), is_buy))
        at += exact(quantity)
    full = int(at / bucket)
    if full < buckets:
        return None
    total = Fraction(0)
    for number in range(full - buckets, full):
        low, high = number * bucket, (number + 1) * bucket
        sides = {True: Fraction(0), False: Fraction(0)}
        for begin, end, is_buy in spans:
            sides[is_buy] += max(Fraction(0), min(end, high) - max(begin, low))
        total += abs(sides[True] - sides[False])
    return total / (buckets * bucket)


# -- sums -------------------------------------------------------------------------------------------------------------


@FEW
@given(tapes())
def test_sums_ratio_and_cvd_are_those_of_a_loop(trades: pl.DataFrame) -> None:
    flow, rows = order_flow(trades), rows_of(trades)
    bought = sum(exact(quantity) for _, _, quantity, is_buy in rows if is_buy)
    sold = sum(exact(quantity) for _, _, quantity, is_buy in rows if not is_buy)
    assert flow.trade_count == len(rows)
    assert flow.taker_buy_volume == pytest.approx(float(bought))
    assert flow.taker_sell_volume == pytest.approx(float(sold))
    assert flow.volume == pytest.approx(float(bought + sold))
    assert flow.delta == pytest.approx(float(bought - sold), abs=1e-9)
    assert flow.quote_volume == pytest.approx(sum(price * quantity for _, price, quantity, _ in rows))
    assert flow.taker_ratio == (pytest.approx(float(bought / (bought + sold))) if bought + sold else None)
    running, day, cvd = Fraction(0), None, []
    for time, _, quantity, is_buy in rows:
        running = Fraction(0) if time // DAY_US != day else running
        day = time // DAY_US
        running += exact(quantity) if is_buy else -exact(quantity)
        cvd.append(float(running))
    assert flow.cvd.tolist() == pytest.approx(cvd, abs=1e-9)


@FEW
@given(tapes(least=1), st.sampled_from(["1m", "5m", "1h"]), st.sampled_from(["day", "week", "8h"]))
def test_the_bars_of_a_frame_hold_the_trades_of_their_time(trades: pl.DataFrame, timeframe: str, anchor: str) -> None:
    flow = order_flow(trades, timeframe=timeframe, anchor=anchor, quantiles=(0.25,))
    frame = flow.frame
    assert frame is not None
    length = {"1m": 1, "5m": 5, "1h": 60}[timeframe] * MINUTE_US
    period = {"day": DAY_US, "week": 7 * DAY_US, "8h": DAY_US // 3}[anchor]
    origin = 4 * DAY_US if anchor == "week" else 0
    running, begun = 0.0, None
    for bar in frame.with_columns(pl.col("open_time").dt.epoch("us")).iter_rows(named=True):
        inside = [each for each in rows_of(trades) if bar["open_time"] <= each[0] < bar["open_time"] + length]
        bought = sum(each[2] for each in inside if each[3])
        volume = sum(each[2] for each in inside)
        if (bar["open_time"] - origin) // period != begun:
            running, begun = 0.0, (bar["open_time"] - origin) // period
        running += 2 * bought - volume
        assert bar["trade_count"] == len(inside)
        assert (bar["volume"], bar["taker_buy_volume"]) == (pytest.approx(volume), pytest.approx(bought))
        assert bar["delta"] == pytest.approx(2 * bought - volume, abs=1e-9)
        assert bar["cvd"] == pytest.approx(running, abs=1e-9)
        assert (bar["taker_ratio"] is None) == (volume == 0)
        sizes = [each[2] for each in inside]
        assert bar["size_p25"] == (pytest.approx(np.quantile(sizes, 0.25)) if sizes else None)
    assert frame["volume"].sum() == pytest.approx(flow.volume)
    assert frame["large_volume"].sum() == pytest.approx(flow.large_trades["quantity"].sum())


@FEW
@given(tapes(), st.sampled_from([0.25, 8.0]), st.sampled_from([0.5, 4.0]))
def test_units_of_price_and_quantity_go_where_they_belong(trades: pl.DataFrame, price: float, quantity: float) -> None:
    flow = order_flow(trades)
    other = order_flow(trades.with_columns(pl.col("price") * price, pl.col("quantity") * quantity))
    np.testing.assert_array_equal(other.cvd, flow.cvd * quantity)
    scales = {
        "volume": quantity, "delta": quantity, "large_quantity": quantity, "quote_volume": price * quantity,
        "taker_ratio": 1, "vpin": 1, "kyle_lambda": price / quantity, "amihud": 1 / (price * quantity),
        "roll_spread": price,
    }  # fmt: skip
    for name, scale in scales.items():
        before, after = getattr(flow, name), getattr(other, name)
        assert after == (None if before is None else before * scale), name
    assert other.reasons == flow.reasons


@FEW
@given(tapes())
def test_whoever_sells_where_others_bought_turns_delta_around(trades: pl.DataFrame) -> None:
    flow, other = order_flow(trades), order_flow(trades.with_columns(~pl.col("is_buyer_maker")))
    np.testing.assert_array_equal(other.cvd, -flow.cvd)
    assert (other.delta, other.volume, other.vpin) == (-flow.delta, pytest.approx(flow.volume), flow.vpin)


def test_cvd_begins_anew_at_its_anchor() -> None:
    trades = trades_of(
        [(NOON, 1.0, 2.0, False), (NOON + DAY_US, 1.0, 3.0, True), (NOON + 40 * DAY_US, 1.0, 1.0, False)]
    )
    assert order_flow(trades).cvd.tolist() == [2, -3, 1]
    assert order_flow(trades, anchor="year").cvd.tolist() == [2, -1, 0]


def test_the_sides_are_those_of_the_conventions() -> None:
    flow = order_flow(trades_of([(NOON, 1.0, 2.0, True)]))
    assert (flow.taker_sell_volume, flow.taker_buy_volume, flow.delta) == (2.0, 0.0, -2.0)


def test_large_trades_are_the_rows_themselves_from_the_size_on() -> None:
    trades = trades_of([(NOON, 1.0, float(size), False) for size in (1, 5, 3, 5)])
    assert order_flow(trades, large_quantity=5).large_trades["quantity"].to_list() == [5, 5]
    assert order_flow(trades).large_quantity == pytest.approx(np.quantile([1, 5, 3, 5], 0.99))
    assert order_flow(trades).size_quantiles[0.5] == 4


def test_nothing_was_traded() -> None:
    flow = order_flow(trades_of([]), timeframe="1m")
    assert (flow.volume, flow.delta, flow.trade_count, flow.cvd.tolist()) == (0, 0, 0, [])
    assert (flow.taker_ratio, flow.vpin, flow.kyle_lambda, flow.amihud, flow.roll_spread) == (None,) * 5
    assert flow.reasons == {
        "taker_ratio": "division_by_zero",
        **dict.fromkeys(("vpin", "kyle_lambda", "amihud", "roll_spread"), "insufficient_history"),
    }
    assert flow.frame is not None
    assert flow.frame.is_empty()
    assert footprint(trades_of([]), 1).rows.is_empty()


def test_any_kind_of_table_gives_the_same() -> None:
    trades = trades_of([(NOON + step, 1.0 + step, 2.0, step % 2 == 0) for step in range(5)])
    pandas = pd.DataFrame({name: trades[name].to_list() for name in trades.columns})
    kinds = [trades.lazy(), trades.to_arrow(), pandas, pandas.set_index("time")]
    kinds.append(trades.with_columns(pl.col("time").dt.replace_time_zone(None).dt.cast_time_unit("ns")))
    for each in kinds:
        flow = order_flow(each, timeframe="1m")
        assert flow.cvd.tolist() == order_flow(trades).cvd.tolist()
        assert_frame_equal(flow.frame, order_flow(trades, timeframe="1m").frame)


GOOD = trades_of([(NOON, 1.0, 2.0, True), (NOON + 1, 1.5, 1.0, False)])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (GOOD.drop("price"), "lack columns: 'price'"),
        (
            GOOD.with_columns(price=pl.Series([1.0, math.nan])),
            "price is not a finite number above 0; the first is row 1",
        ),
        (GOOD.with_columns(price=pl.Series([0.0, 1.0])), "price is not a finite number above 0; the first is row 0"),
        (GOOD.with_columns(price=pl.Series([1.0, math.inf])), "price is not a finite"),
        (GOOD.with_columns(quantity=pl.Series([-1.0, 1.0])), "quantity is not a finite number 0 or more"),
        (GOOD.with_columns(quantity=pl.Series([1.0, 1e300])), "quantity is not a finite number"),
        (GOOD.with_columns(quantity=pl.Series([None, 1.0])), "quantity is not a finite number"),
        (GOOD.with_columns(quantity=pl.Series(["1", "2"])), "quantity is not numbers"),
        (GOOD.with_columns(is_buyer_maker=pl.Series([None, True])), "is_buyer_maker is null; the first is row 0"),
        (GOOD.with_columns(is_buyer_maker=pl.Series([1, 0])), "is not true or false"),
        (GOOD.with_columns(time=pl.Series([1, 2])), "not a column of instants"),
        (GOOD[::-1], "time is out of order; the first is row 1"),
        ({"time": []}, "a frame of polars or pandas"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(wrong: object, said: str) -> None:
    for function in (order_flow, lambda trades: footprint(trades, 1)):
        with pytest.raises(InvalidTable, match=said):
            function(wrong)


@pytest.mark.parametrize(
    "given_so",
    [
        {"anchor": "decade"}, {"quantiles": (1.5,)}, {"quantiles": (True,)}, {"buckets": 0}, {"buckets": 2.5},
        {"bucket_volume": 0}, {"bucket_volume": math.nan}, {"large_quantity": -1},
    ],
)  # fmt: skip
def test_a_parameter_out_of_range_is_refused(given_so: dict[str, object]) -> None:
    with pytest.raises(ParameterOutOfRange):
        order_flow(GOOD, **given_so)


def test_unknown_timeframes_and_endless_frames_are_refused() -> None:
    for given_so in ({"timeframe": "7m"}, {"interval": "1M"}):
        with pytest.raises(UnknownTimeframe):
            order_flow(GOOD, **given_so)
    ages = trades_of([(0, 1.0, 1.0, True), (60 * 365 * DAY_US, 1.0, 1.0, True)])
    with pytest.raises(ParameterOutOfRange, match="too many bars"):
        order_flow(ages, timeframe="1m")


# -- VPIN -------------------------------------------------------------------------------------------------------------


@FEW
@given(tapes(), st.integers(1, 400), st.integers(1, 5))
def test_vpin_is_that_of_volume_laid_on_a_line(trades: pl.DataFrame, tenths: int, buckets: int) -> None:
    arrays, rows = read_trades(trades), rows_of(trades)
    counts = np.arange(len(rows) + 1)
    found = vpin_after(arrays.quantity, arrays.is_buy, counts, tenths / 10, buckets)
    for count in counts.tolist():
        wanted = vpin_by_hand(rows[:count], Fraction(tenths, 10), buckets)
        assert found[count] == pytest.approx(math.nan if wanted is None else float(wanted), nan_ok=True, abs=1e-7)


@FEW
@given(tapes(), st.floats(1e-9, 1e9), st.integers(1, 60), st.floats(1e-6, 1e12))
def test_vpin_lies_in_zero_and_one_and_knows_no_unit(
    trades: pl.DataFrame, bucket: float, buckets: int, unit: float
) -> None:
    arrays, counts = read_trades(trades), np.arange(len(trades) + 1)
    found = vpin_after(arrays.quantity * unit, arrays.is_buy, counts, bucket, buckets)
    known = found[~np.isnan(found)]
    assert ((known >= 0) & (known <= 1)).all()
    doubled = vpin_after(arrays.quantity * unit * 1024, arrays.is_buy, counts, bucket * 1024, buckets)
    np.testing.assert_array_equal(found, doubled)
    turned = vpin_after(arrays.quantity * unit, ~arrays.is_buy, counts, bucket, buckets)
    np.testing.assert_array_equal(found, turned)


def test_a_trade_of_more_buckets_than_can_be_counted_takes_no_longer() -> None:
    quantity, is_buy = np.array([0.5, 1e90, 1.0]), np.array([True, False, True])
    assert vpin_after(quantity, is_buy, np.array([2, 3]), 1e-9, 50).tolist()[0] == 1.0


def test_the_open_bucket_is_not_reported() -> None:
    quantity, is_buy = np.array([1.0, 0.5, 0.4999, 0.0001]), np.array([True, True, False, False])
    found = vpin_after(quantity, is_buy, np.arange(5), 1.0, 2)
    assert np.isnan(found[:4]).all()
    assert found[4] == pytest.approx(0.5)


# -- what trading costs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [3, 7, 40])
def test_the_costs_of_each_window_are_those_of_numpy(rows: int) -> None:
    random = np.random.default_rng(rows)
    close = np.round(100 * np.exp(np.cumsum(random.normal(0, 0.01, 90))), 2)
    volume = np.round(random.exponential(5, 90), 3) * (random.random(90) < 0.9)
    delta = volume * random.uniform(-1, 1, 90)
    change = 0.02 * delta + random.normal(0, 0.1, 90)
    slopes, why = kyle_lambda(change, delta, volume, rows)
    ratios, _ = amihud(close, volume * close, rows)
    spreads, reasons = roll_spread(close, rows)
    for last in range(90):
        window = slice(last - rows + 1, last + 1)
        if last >= rows - 1:
            traded = volume[window] > 0
            if traded.sum() >= 3:
                assert slopes[last] == pytest.approx(np.polyfit(delta[window][traded], change[window][traded], 1)[0])
            else:
                assert why[last]
        if last >= rows and (volume[window] > 0).any():
            moves = np.abs(np.diff(close[last - rows : last + 1]) / close[last - rows : last])
            traded = volume[window] > 0
            assert ratios[last] == pytest.approx((moves[traded] / (volume * close)[window][traded]).mean())
        if last > rows:
            steps = np.diff(close[last - rows - 1 : last + 1])
            covariance = np.cov(steps[1:], steps[:-1], ddof=0)[0, 1]
            if covariance < 0:
                assert spreads[last] == pytest.approx(2 * math.sqrt(-covariance))
            else:
                assert np.isnan(spreads[last])
                assert reasons[last]


def test_a_bouncing_price_has_the_spread_that_it_bounces_over() -> None:
    side = np.random.default_rng(2).choice([-0.5, 0.5], 200_000)
    spreads, _ = roll_spread(100 + side, len(side) - 2)
    assert spreads[-1] == pytest.approx(1.0, rel=0.01)


def test_flat_and_steady_prices_have_no_spread() -> None:
    for prices in (np.full(30, 7.3), 0.1 * np.arange(1, 31)):
        assert np.isnan(roll_spread(prices, 10)[0]).all()


def test_kyle_s_lambda_is_the_slope_that_is_there() -> None:
    rows = []
    for minute, (quantity, is_sell) in enumerate([(1, False), (2, False), (4, True), (3, False), (5, True)]):
        moved = (-quantity if is_sell else quantity) * 0.25
        rows += [(NOON + minute * MINUTE_US, 100.0, 0.0, False)]
        rows += [(NOON + minute * MINUTE_US + 1, 100.0 + moved, float(quantity), is_sell)]
    assert order_flow(trades_of(rows)).kyle_lambda == pytest.approx(0.25)


# -- footprint --------------------------------------------------------------------------------------------------------


@FEW
@given(tapes(), st.sampled_from(["0.1", "0.3", "1"]), st.sampled_from([1.0, 2.0, 3.0]))
def test_the_footprint_is_that_of_a_dictionary(trades: pl.DataFrame, size: str, ratio: float) -> None:
    made = footprint(trades, size, "5m", ratio)
    bars: dict[int, dict[int, dict[bool, Fraction]]] = {}
    for time, price, quantity, is_buy in rows_of(trades):
        row = math.floor(exact(price) / Fraction(size))
        cell = bars.setdefault(time // (5 * MINUTE_US), {}).setdefault(row, {True: Fraction(0), False: Fraction(0)})
        cell[is_buy] += exact(quantity)
    wanted = []
    for bar, cells in sorted(bars.items()):
        for row, cell in sorted(cells.items()):
            nothing = {True: Fraction(0), False: Fraction(0)}
            below, above = cells.get(row - 1, nothing)[False], cells.get(row + 1, nothing)[True]
            buys = row > min(cells) and cell[True] > 0 and cell[True] >= Fraction(ratio) * below
            sells = row < max(cells) and cell[False] > 0 and cell[False] >= Fraction(ratio) * above
            wanted.append((bar * 5 * MINUTE_US, row, float(cell[True]), float(cell[False]), buys, sells))
    columns = ("row", "taker_buy_volume", "taker_sell_volume", "buy_imbalance", "sell_imbalance")
    found = made.rows.select(pl.col("open_time").dt.epoch("us"), *columns).rows()
    assert [(*each[:2], *each[4:]) for each in found] == [(*each[:2], *each[4:]) for each in wanted]
    assert [each[2:4] for each in found] == [pytest.approx(each[2:4]) for each in wanted]
    assert made.rows["volume"].sum() == pytest.approx(trades["quantity"].sum())
    assert made.rows["trade_count"].sum() == len(trades)


def test_imbalances_are_diagonal_by_volume_and_against_the_next_tick() -> None:
    def row(price: float, buy: float, sell: float) -> list[tuple[int, float, float, bool]]:
        return [(NOON, price, buy, False), (NOON, price, sell, True)]

    trades = trades_of([*row(1.0, 9, 1), *row(1.1, 3, 4), *row(1.2, 11.9, 5), *row(1.4, 2, 0), *row(1.5, 0.4, 7)])
    rows = footprint(trades, 0.1).rows
    # 1.1: 3 against the 1 below; 1.2: 11.9 is not three times 4; 1.4: nobody traded at 1.3; 1.5: 0.4 against 0
    assert rows["buy_imbalance"].to_list() == [False, True, False, True, True]
    # 1.2: 5 against nothing at 1.3; 1.5 is the highest, and nobody could sell above it
    assert rows["sell_imbalance"].to_list() == [False, False, True, False, False]
    assert rows["buy_stack"].to_list() == [0, 1, 0, 2, 2]
    assert rows["sell_stack"].to_list() == [0, 0, 1, 0, 0]


def test_tenths_that_do_not_add_up_in_doubles_are_three_times_a_tenth() -> None:
    trades = trades_of([(NOON, 1.0, 0.1, True), *[(NOON, 2.0, size, False) for size in (0.1, 0.1, 0.1)]])
    assert footprint(trades, 1).rows["buy_imbalance"].to_list() == [False, True]


@pytest.mark.parametrize(
    "given_so", [{"row_size": 0}, {"row_size": 1 / 3}, {"row_size": 1, "imbalance_ratio": 0.5},
                 {"row_size": 1, "imbalance_ratio": math.inf}]
)  # fmt: skip
def test_footprints_that_make_no_sense_are_refused(given_so: dict[str, float]) -> None:
    with pytest.raises(ParameterOutOfRange):
        footprint(GOOD, **given_so)


def test_kernels_are_compiled_where_no_machine_code_can_be_kept() -> None:
    made: dict[str, object] = {}
    exec(compile("def twice(number):\n    return 2 * number\n", "nowhere", "exec"), made)
    assert compiled(made["twice"])(21) == 42  # type: ignore[arg-type, operator]
