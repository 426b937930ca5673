"""Order flow of real trades: it adds up to the exchange's bars, and to what others computed from the same trades."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mdplatform.features import (
    Grid,
    TableData,
    Truncated,
    cusum_events,
    dollar_bars,
    evaluate_on,
    footprint,
    imbalance_bars,
    order_flow,
    parse_feature,
    tick_bars,
    volume_bars,
)
from mdplatform.market.bars import INSTANT
from mdplatform.market.timeframe import DAY_US, Timeframe
from mdplatform.market.trades import TRADES
from mdplatform.sources.recording import read_recording
from mdplatform.sources.table_delivery import TableOptions

from .tape import stored, xrpeth

FEATURES = (
    "DELTA(method=trades)", "CVD(method=trades)", "CVD(method=trades,anchor=week)", "TAKER_IMBALANCE(30,method=trades)",
    "KYLE_LAMBDA(30,method=trades)", "TRADE_SIZE_QUANTILE(0.9,timeperiod=10)", "LARGE_TRADE_VOLUME", "VPIN",
    "VPIN(buckets=10,bucket_volume=20000)", "FOOTPRINT_IMBALANCE(row_size=0.000001)",
)  # fmt: skip


def test_each_minute_s_trades_are_the_exchange_s_bar(shared_data: Path) -> None:
    frame = order_flow(xrpeth(shared_data), timeframe="1m").frame
    assert frame is not None
    path = shared_data / "ticks" / "freqtrade__freqtrade" / "tests" / "testdata" / "XRP_ETH-1m.feather"
    bars = pl.read_ipc(path.read_bytes()).select(pl.col("date").cast(INSTANT).alias("open_time"), "volume")
    traded = frame.filter(pl.col("trade_count") > 0).join(bars, on="open_time", suffix="_of_bar")
    assert traded.height > 2400
    assert traded.select((pl.col("volume") - pl.col("volume_of_bar")).abs().max()).item() == 0


def test_bars_of_any_kind_hold_all_volume_but_the_open_one(shared_data: Path) -> None:
    trades = xrpeth(shared_data)
    made = [tick_bars(trades, 50), volume_bars(trades, 30_000), dollar_bars(trades, 40)]
    made += [imbalance_bars(trades, measure, expected_count=100) for measure in ("tick", "volume", "dollar")]
    for bars in made:
        assert bars.height > 50
        held = trades[: bars["trade_count"].sum()]
        assert bars["volume"].sum() == held["quantity"].sum()
        assert bars["taker_buy_volume"].sum() == held.filter(~pl.col("is_buyer_maker"))["quantity"].sum()
        assert bars["quote_volume"].sum() == pytest.approx((held["quantity"] * held["price"]).sum())
        assert all(close <= opened for (close, opened) in zip(bars["close_time"], bars["open_time"][1:], strict=False))
    events = cusum_events(trades, 0.005)
    assert events.height > 100
    assert set(events["side"]) == {-1, 1}


def test_a_footprint_of_all_days_has_all_volume_and_its_imbalances(shared_data: Path) -> None:
    trades = xrpeth(shared_data)
    rows = footprint(trades, "0.000001", "1h").rows
    assert rows["volume"].sum() == trades["quantity"].sum()
    assert rows["price"].round(6).equals(rows["price"])
    assert 0.1 < rows["buy_imbalance"].mean() < 0.9  # type: ignore[operator]


def test_values_do_not_depend_on_what_came_later_or_on_which_rows_are_asked_for(shared_data: Path) -> None:
    data = TableData(trades_of={"XRPETH": stored(xrpeth(shared_data))})
    first = int(data.trades_of["XRPETH"]["time"].dt.epoch("us")[0]) // DAY_US * DAY_US
    opens = np.arange(first, first + 2 * DAY_US, Timeframe.M5.microseconds)
    specs = [parse_feature(each) for each in FEATURES]
    whole = evaluate_on(Grid("XRPETH", Timeframe.M5, opens), specs, data)
    for begin, end in pairwise([0, 1, 200, 288, 289, 500, len(opens)]):
        rows = Grid("XRPETH", Timeframe.M5, opens[begin:end])
        known = Truncated(data, int(rows.close_time[-1]))
        part = evaluate_on(rows, specs[::-1], known)
        for spec in specs:
            np.testing.assert_array_equal(part[spec].statuses, whole[spec].statuses[begin:end], err_msg=str(spec))
            for output, wanted in zip(part[spec].outputs, whole[spec].outputs, strict=True):
                np.testing.assert_allclose(output, wanted[begin:end], rtol=1e-9, atol=1e-12, err_msg=str(spec))
    vpin = whole[parse_feature("VPIN")].outputs[0][288:]
    assert np.isfinite(vpin).mean() > 0.95
    assert np.nanmin(vpin) >= 0
    assert np.nanmax(vpin) <= 1


def test_the_footprint_is_that_which_freqtrade_computed(shared_data: Path) -> None:
    folder = shared_data / "ticks" / "freqtrade__freqtrade" / "tests" / "testdata" / "orderflow"
    raw = pl.read_csv(folder / "public_trades_list.csv").sort("timestamp", maintain_order=True)
    trades = raw.select(
        pl.from_epoch("timestamp", "ms").alias("time"),
        "price",
        pl.col("amount").alias("quantity"),
        (pl.col("side") == "sell").alias("is_buyer_maker"),
    )
    # its rows are centred on the multiples of 0.05, and its own tests (tests/data/test_converter_orderflow.py) say this
    rows = footprint(trades.with_columns((pl.col("price") + 0.025).round(3)), 0.05).rows
    columns = ("taker_sell_volume", "taker_buy_volume", "delta")
    assert rows.height == 23
    assert rows.select(columns).row(0) == pytest.approx((197.512, 88.98, -108.532))
    assert rows.select(columns).row(-1) == pytest.approx((50.659, 108.21, 57.551))
    assert (rows["trade_count"][0], rows["trade_count"][-1]) == (32 + 26, 3 + 44)
    assert order_flow(trades).delta == pytest.approx(rows["delta"].sum())


def test_a_recording_of_one_venue_s_socket_is_whole(shared_data: Path) -> None:
    folder = shared_data / "live" / "nkaz001__hftbacktest" / "examples" / "spot"
    parts = [
        each.rows
        for day in ("20240808", "20240809")
        for each in read_recording(folder / f"btcusdt_{day}.gz", TableOptions(symbol="BTCUSDT"))
        if each.dataset is TRADES
    ]
    trades = pl.concat(parts)
    flow = order_flow(trades, timeframe="1m")
    assert flow.trade_count == 19_904
    assert flow.frame is not None
    assert flow.frame["volume"].sum() == pytest.approx(flow.volume) == pytest.approx(trades["quantity"].sum())
    assert flow.frame["delta"].sum() == pytest.approx(flow.delta)
    of_first_day = trades["time"].dt.day() == trades["time"].dt.day()[0]
    assert flow.cvd[of_first_day.sum() - 1] == pytest.approx(flow.frame["cvd"][5])
    assert flow.frame["cvd"][6] == pytest.approx(flow.frame["delta"][6])
    assert 0 < flow.taker_ratio < 1
    assert 0 < flow.vpin < 1
    assert flow.kyle_lambda > 0
    assert flow.roll_spread is None or flow.roll_spread > 0
