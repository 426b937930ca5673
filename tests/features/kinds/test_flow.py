"""The kind `flow`: its values against the plain functions and plain Python, and the reason where there is none."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.errors import ParameterOutOfRange, UnknownParameter
from mdplatform.features import (
    Grid,
    TableData,
    Truncated,
    Values,
    evaluate_on,
    footprint,
    order_flow,
    parse_feature,
)
from mdplatform.features.guard import STATUSES
from mdplatform.features.kinds import Need
from mdplatform.features.panel import reads
from mdplatform.market.bars import BAR_SCHEMA, INSTANT
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe

from ..flow.tape import START, stored, tapes, trades_of
from . import world

DAY = world.BEGIN + 3 * DAY_US
SYMBOL = "BTCUSDT"


def tape(days: int = 3, seed: int = 4, each: int = 400) -> pl.DataFrame:
    """Make trades of some days from `DAY` on, a price in hundredths and sizes in thousandths."""
    random = np.random.default_rng(seed)
    times = np.sort(DAY + random.integers(0, days * DAY_US, days * each))
    prices = np.round(100 + np.cumsum(random.normal(0, 0.05, len(times))), 2)
    sizes = np.round(random.exponential(2, len(times)), 3)
    return trades_of(list(zip(times.tolist(), prices.tolist(), sizes.tolist(), random.random(len(times)) < 0.5)))  # noqa: B905


def grid(timeframe: Timeframe = Timeframe.H1, first: int = DAY, days: float = 3) -> Grid:
    return Grid(SYMBOL, timeframe, np.arange(first, first + int(days * DAY_US), timeframe.microseconds))


def value(feature: str, data: TableData, rows: Grid) -> tuple[list[list[float]], list[str]]:
    values = whole(feature, data, rows)
    return [each.tolist() for each in values.outputs], [STATUSES[each] for each in values.statuses]


def whole(feature: str, data: TableData, rows: Grid) -> Values:
    spec = parse_feature(feature)
    return evaluate_on(rows, [spec], data)[spec]


def of_trades(trades: pl.DataFrame, delays: np.ndarray | None = None) -> TableData:
    return TableData(trades_of={SYMBOL: stored(trades, delays)})


def bars_of(trades: pl.DataFrame) -> TableData:
    return TableData(bars_of={SYMBOL: world._bars(SYMBOL, stored(trades))}, trades_of={SYMBOL: stored(trades)})


# -- the two methods --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feature", ["DELTA", "CVD", "CVD week", "TAKER_RATIO", "TAKER_IMBALANCE", "KYLE_LAMBDA"])
def test_bars_and_trades_say_the_same(feature: str) -> None:
    name, *anchor = feature.split()
    data, rows = bars_of(tape()), grid(Timeframe.M5)
    found = {}
    for method in ("bars", "trades"):
        given = {"method": method, **({"anchor": anchor[0]} if anchor else {})}
        spec = parse_feature({"name": name, "parameters": given})
        found[method] = evaluate_on(rows, [spec], data)[spec]
    assert (found["bars"].method, found["trades"].method) == ("bars:5m", "trades")
    both = (found["bars"].statuses <= 1) & (found["trades"].statuses <= 1)
    assert both.sum() > 500
    left, right = (each.outputs[0][both] for each in found.values())
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9)


def test_rows_hold_what_the_plain_function_says() -> None:
    trades, rows = tape(), grid()
    frame = order_flow(trades, timeframe="1h", quantiles=(0.5,)).frame
    assert frame is not None
    data = of_trades(trades)
    (bought, sold, volume, quote, count), _ = value("TRADE_FLOW", data, rows)
    for name, found in (
        ("taker_buy_volume", bought), ("taker_sell_volume", sold), ("volume", volume), ("quote_volume", quote),
        ("trade_count", count), ("delta", value("DELTA(method=trades)", data, rows)[0][0]),
        ("cvd", value("CVD(method=trades)", data, rows)[0][0]),
        ("taker_ratio", value("TAKER_RATIO(method=trades)", data, rows)[0][0]),
        ("size_p50", value("TRADE_SIZE_QUANTILE(0.5)", data, rows)[0][0]),
    ):  # fmt: skip
        wanted = frame[name].cast(pl.Float64).to_numpy()
        np.testing.assert_allclose(np.array(found), wanted, rtol=1e-12, atol=1e-12, err_msg=name)


def test_a_timeframe_s_footprint_imbalances_are_those_of_its_rows() -> None:
    trades = tape()
    made = footprint(trades, 0.05, "1h", 2).rows
    outputs, _ = value("FOOTPRINT_IMBALANCE(row_size=0.05,ratio=2)", of_trades(trades), grid())
    for at, (open_time, *found) in enumerate(zip(grid().open_time.tolist(), *outputs, strict=True)):
        rows = made.filter(pl.col("open_time").dt.epoch("us") == open_time)
        counts = [rows["buy_imbalance"].sum(), rows["sell_imbalance"].sum()]
        assert found == [*counts, rows["buy_stack"].max() or 0, rows["sell_stack"].max() or 0], at


@pytest.mark.parametrize("buckets", [5, 50])
def test_vpin_is_of_buckets_since_the_start_of_the_day_before(buckets: int) -> None:
    trades = tape()
    values = whole(f"VPIN(buckets={buckets})", of_trades(trades), grid())
    times = trades["time"].dt.epoch("us")
    for at, close in enumerate(grid().close_time.tolist()):
        begin = (close - 1) // DAY_US * DAY_US - DAY_US
        if begin < DAY:
            assert STATUSES[values.statuses[at]] == "insufficient_history"
            continue
        bucket = trades.filter((times >= begin) & (times < begin + DAY_US))["quantity"].sum() / buckets
        seen = trades.filter((times >= begin) & (times < close))
        wanted = order_flow(seen, buckets=buckets, bucket_volume=bucket).vpin
        if wanted is None:
            assert STATUSES[values.statuses[at]] == "insufficient_history"
        else:
            assert values.outputs[0][at] == pytest.approx(wanted, abs=1e-9)
    assert (values.statuses == 0).sum() > 40


def test_large_trades_are_ranked_among_the_sizes_of_the_days_before() -> None:
    trades = tape()
    times = trades["time"].dt.epoch("us")
    (bought, sold), told = value("LARGE_TRADE_VOLUME(quantile=0.9,days=2)", of_trades(trades), grid())
    assert told[:48] == ["insufficient_history"] * 48
    least = np.quantile(trades.filter(times < DAY + 2 * DAY_US)["quantity"], 0.9)
    for at in range(48, 72):
        inside = trades.filter((times >= DAY + at * 60 * MINUTE_US) & (times < DAY + (at + 1) * 60 * MINUTE_US))
        large = inside.filter(pl.col("quantity") >= least)
        assert bought[at] == pytest.approx(large.filter(~pl.col("is_buyer_maker"))["quantity"].sum())
        assert sold[at] == pytest.approx(large.filter(pl.col("is_buyer_maker"))["quantity"].sum())
    (bought, sold), told = value("LARGE_TRADE_VOLUME(min_quantity=3)", of_trades(trades), grid())
    assert set(told) == {"settled"}
    assert sum(bought) + sum(sold) == pytest.approx(trades.filter(pl.col("quantity") >= 3)["quantity"].sum())


# -- which trades a row has -------------------------------------------------------------------------------------------


def test_a_trade_counts_where_it_became_known() -> None:
    hour = 60 * MINUTE_US
    trades = trades_of(
        [(DAY + hour - 1, 1.0, 1.0, False), (DAY + hour - 1, 1.0, 10.0, False), (DAY + hour, 1.0, 100.0, False)]
    )
    rows = grid(days=1 / 12)

    def deltas(delay: int) -> list[float]:
        return value("DELTA(method=trades)", of_trades(trades, np.array([0, delay, 0])), rows)[0][0]

    assert deltas(0) == deltas(1) == [11, 100]  # the latter is known at the close
    assert deltas(2) == deltas(hour) == [1, 110]
    assert deltas(hour + 1) == [1, 100]


def test_a_day_without_trades_is_a_gap_and_so_is_what_touches_it() -> None:
    trades = tape(days=4)
    days = trades["time"].dt.epoch("us") // DAY_US - DAY // DAY_US
    data = of_trades(trades.filter(days != 1))
    rows = grid(Timeframe.H12, DAY - DAY_US, 5)
    one, two, anchored = (value(each, data, rows)[1] for each in (
        "DELTA(method=trades)", "TAKER_IMBALANCE(timeperiod=2,method=trades)", "CVD(method=trades,anchor=week)",
    ))  # fmt: skip
    before = ["not_available_yet"] * 2
    assert one == [*before, "settled", "settled", "gap", "gap", *["settled"] * 4]
    assert two == [*before, "insufficient_history", "settled", "gap", "gap", "gap", *["settled"] * 3]
    assert anchored == [*before, "unsettled", "unsettled", *["gap"] * 6]
    assert value("DELTA(method=trades)", TableData(), rows)[1] == ["not_available_yet"] * 10


def test_no_trade_soon_after_one_means_none() -> None:
    data, rows = of_trades(trades_of([(DAY + 5, 1.0, 2.0, False)])), grid(Timeframe.M30, days=1 / 24)
    assert value("DELTA(method=trades)", data, rows) == ([[2, 0]], ["settled"] * 2)
    assert value("TAKER_RATIO(method=trades)", data, rows)[1] == ["settled", "division_by_zero"]
    assert value("TRADE_SIZE_QUANTILE", data, rows)[1] == ["settled", "degenerate"]
    assert value("TAKER_IMBALANCE(2,method=trades)", data, rows)[1] == ["insufficient_history", "settled"]


def test_trades_whose_side_nobody_told_are_missing_volume() -> None:
    trades = trades_of([(DAY + hour * 60 * MINUTE_US, 1.0, 2.0, False) for hour in range(30)])
    trades = trades.with_columns(
        is_buyer_maker=pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise("is_buyer_maker")
    )
    data, rows = of_trades(trades), grid(days=30 / 24)
    assert [at for at, each in enumerate(value("DELTA(method=trades)", data, rows)[1]) if each != "settled"] == [3]
    told = value("CVD(method=trades)", data, rows)[1]
    assert told == ["settled"] * 3 + ["missing_volume"] * 21 + ["settled"] * 6
    assert set(value("TRADE_SIZE_QUANTILE", data, rows)[1]) == {"settled"}


OF_TRADES = (
    "TRADE_FLOW", "CVD(method=trades)", "TAKER_IMBALANCE(3,method=trades)", "KYLE_LAMBDA(5,method=trades)",
    "TRADE_SIZE_QUANTILE(0.3,timeperiod=2)", "LARGE_TRADE_VOLUME(quantile=0.5)", "LARGE_TRADE_VOLUME(min_quantity=2)",
    "VPIN(buckets=3)", "VPIN(buckets=2,bucket_volume=7)", "FOOTPRINT_IMBALANCE(row_size=0.1)",
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(tapes(least=1), st.lists(st.sampled_from([0, 0, 3, 70_000_000, 4_000_000_000]), min_size=60), st.integers(0, 47))
def test_no_row_knows_what_was_not_known_at_its_close(trades: pl.DataFrame, delays: list[int], at: int) -> None:
    data = of_trades(trades, np.array(delays[: len(trades)]))
    rows = grid(Timeframe.M15, START // DAY_US * DAY_US + 20 * 60 * MINUTE_US, 1 / 2)
    row = Grid(SYMBOL, Timeframe.M15, rows.open_time[at : at + 1])
    specs = [parse_feature(each) for each in OF_TRADES]
    whole, alone = evaluate_on(rows, specs, data), evaluate_on(row, specs, Truncated(data, int(row.close_time[0])))
    for spec in specs:
        assert alone[spec].statuses[0] == whole[spec].statuses[at], spec
        for found, wanted in zip(alone[spec].outputs, whole[spec].outputs, strict=True):
            np.testing.assert_allclose(found[0], wanted[at], rtol=1e-9, atol=1e-9, err_msg=str(spec))
    vpin = whole[specs[8]].outputs[0]
    assert ((vpin >= 0) & (vpin <= 1) | np.isnan(vpin)).all()


# -- bars -------------------------------------------------------------------------------------------------------------


def made_bars(**columns: list[float | None]) -> TableData:
    """Make hourly bars of the columns given, an hour each from `DAY` on."""
    count = len(next(iter(columns.values())))
    opens = pl.Series(np.arange(DAY, DAY + count * 60 * MINUTE_US, 60 * MINUTE_US)).cast(INSTANT)
    given = {"close": [1.0] * count, "volume": [1.0] * count, "taker_buy_volume": [0.5] * count, **columns}
    made = pl.DataFrame({name: pl.Series(each, dtype=pl.Float64) for name, each in given.items()}).with_columns(
        symbol=pl.lit(SYMBOL), timeframe=pl.lit("1h"), open_time=opens, close_time=opens + timedelta(hours=1),
        open=pl.col("close"), high=pl.col("close"), low=pl.col("close"), trade_count=1,
        quote_volume=pl.col("volume") * pl.col("close"), taker_buy_quote_volume=pl.lit(None), is_closed=pl.lit(True),
        state=pl.lit("observed"), source=pl.lit("test"), revision=0, available_at=opens + timedelta(hours=1),
        ingested_at=opens + timedelta(hours=1),
    ).select(pl.col(name).cast(kind) for name, kind in BAR_SCHEMA.items())  # fmt: skip
    return TableData(bars_of={SYMBOL: made})


def test_bars_without_taker_columns_are_missing_volume() -> None:
    data, rows = made_bars(taker_buy_volume=[0.5, None, 1.0, 0.0]), grid(days=4 / 24)
    assert value("DELTA", data, rows)[1] == ["settled", "missing_volume", "settled", "settled"]
    assert value("TAKER_IMBALANCE(2)", data, rows)[1] == ["insufficient_history", *["missing_volume"] * 2, "settled"]
    assert value("TAKER_IMBALANCE(2)", data, rows)[0][0][3] == 0
    assert set(value("ROLL_SPREAD(2)", data, rows)[1]) == {
        "insufficient_history",
        "degenerate",
    }  # it reads prices alone


def test_a_running_sum_has_no_value_from_a_hole_to_its_next_anchor() -> None:
    taken = [1.0] * 30
    taken[5] = None  # type: ignore[call-overload]
    outputs, told = value("CVD", made_bars(taker_buy_volume=taken), grid(days=30 / 24))
    assert told == ["settled"] * 5 + ["missing_volume"] * 19 + ["settled"] * 6
    assert outputs[0][:5] == [1, 2, 3, 4, 5]
    assert outputs[0][24:] == [1, 2, 3, 4, 5, 6]
    assert value("CVD(anchor=year)", made_bars(taker_buy_volume=[1.0] * 3), grid(days=3 / 24))[1] == ["unsettled"] * 3


def test_takers_who_bought_more_than_all_by_rounding_bought_all() -> None:
    data = made_bars(volume=[1.0], taker_buy_volume=[1.0 + 1e-10])
    assert value("TAKER_RATIO", data, grid(days=1 / 24)) == ([[1.0]], ["settled"])


def test_amihud_and_roll_are_those_of_the_bars() -> None:
    random = np.random.default_rng(8)
    close = np.round(100 + random.choice([-0.5, 0.5], 40) + random.normal(0, 0.1, 40), 2).tolist()
    volume = random.integers(0, 3, 40).astype(float).tolist()
    data, rows = made_bars(close=close, volume=volume), grid(days=40 / 24)
    (amihud,), told = value("AMIHUD(5)", data, rows)
    assert told[:5] == ["insufficient_history"] * 5
    for at in range(5, 40):
        ratios = [abs(close[row] / close[row - 1] - 1) / (volume[row] * close[row])
                  for row in range(at - 4, at + 1) if volume[row]]  # fmt: skip
        assert amihud[at] == (pytest.approx(np.mean(ratios)) if ratios else pytest.approx(np.nan, nan_ok=True))
    (spread,), told = value("ROLL_SPREAD(20)", data, rows)
    assert told[:21] == ["insufficient_history"] * 21
    steps = np.diff(close[18:])
    assert spread[39] == pytest.approx(2 * np.sqrt(-np.cov(steps[:-1], steps[1:], ddof=0)[0, 1]))


# -- declarations -----------------------------------------------------------------------------------------------------


def needs(feature: str) -> frozenset[Need]:
    return reads([parse_feature(feature)], SYMBOL, Timeframe.H1)


def test_a_feature_reads_what_its_method_says() -> None:
    assert needs("DELTA") == needs("AMIHUD") == {Need("bars", SYMBOL)}
    assert needs("DELTA(method=trades)") == needs("VPIN") == {Need("trades", SYMBOL), Need("bars", SYMBOL)}
    assert parse_feature("DELTA").id != parse_feature("DELTA(method=trades)").id


@pytest.mark.parametrize(
    "wrong",
    ["DELTA(method=guess)", "VPIN(buckets=0)", "VPIN(bucket_volume=-1)", "TRADE_SIZE_QUANTILE(q=2)", "KYLE_LAMBDA(2)",
     "FOOTPRINT_IMBALANCE", "FOOTPRINT_IMBALANCE(row_size=0)", "FOOTPRINT_IMBALANCE(row_size=1,ratio=0.5)",
     "LARGE_TRADE_VOLUME(days=31)", "CVD(anchor=decade)", "AMIHUD(100000)"],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(wrong: str) -> None:
    with pytest.raises(ParameterOutOfRange):
        parse_feature(wrong)


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(UnknownParameter):
        parse_feature("VPIN(bucket=3)")


def test_row_sizes_that_are_no_decimals_are_refused() -> None:
    with pytest.raises(ParameterOutOfRange, match="row_size of FOOTPRINT_IMBALANCE"):
        parse_feature({"name": "FOOTPRINT_IMBALANCE", "parameters": {"row_size": 1 / 3}})
