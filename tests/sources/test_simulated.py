"""The simulated market against its own known answer, and against what makes a market plausible."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from mdplatform.errors import InvalidSymbol, ParameterOutOfRange
from mdplatform.market.bars import RAW_SCHEMA, VALUE_COLUMNS
from mdplatform.market.time import month_range
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.sources.simulated import SimulatedMarket
from mdplatform.sources.simulation import FACTOR_VOLATILITY, minutes_of

JANUARY = month_range("2025-01")
KNOWN = ("BTCUSDT", "ETHUSDT", "ADAUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT")


def minutes(symbol: str, start: int, end: int, seed: int = 7) -> pl.DataFrame:
    return pl.concat([each.rows for each in SimulatedMarket(seed).bars(symbol, Timeframe.M1, start, end)])


def opens_of(rows: pl.DataFrame) -> np.ndarray:
    return rows.get_column("open_time").cast(pl.Int64).to_numpy()


@pytest.mark.parametrize("symbol", [*KNOWN, "PEPEUSDT", "A"])
def test_bars_of_any_symbol_keep_every_rule_of_a_bar(symbol: str) -> None:
    rows = minutes(symbol, *JANUARY)
    assert rows.schema == RAW_SCHEMA
    assert rows.null_count().sum_horizontal().item() == 0
    values = {name: rows.get_column(name).to_numpy() for name in VALUE_COLUMNS}
    assert (values["high"] >= np.maximum(values["open"], values["close"])).all()
    assert (values["low"] <= np.minimum(values["open"], values["close"])).all()
    assert (values["low"] > 0).all()
    assert (values["taker_buy_volume"] <= values["volume"]).all()
    assert (values["taker_buy_quote_volume"] <= values["quote_volume"]).all()
    traded = values["volume"] > 0
    average = values["quote_volume"][traded] / values["volume"][traded]
    assert (average <= values["high"][traded] * (1 + 1e-12)).all()
    assert (average >= values["low"][traded] * (1 - 1e-12)).all()
    assert (values["trade_count"][traded] >= 1).all()
    assert ((opens_of(rows) % MINUTE_US) == 0).all()
    assert (np.diff(opens_of(rows)) > 0).all()
    assert (rows["close_time"].cast(pl.Int64).to_numpy() - opens_of(rows) == MINUTE_US).all()


def test_the_missing_minutes_are_the_stated_outage_and_nothing_else() -> None:
    for month in ("2025-01", "2024-07", "2031-01"):
        start, end = month_range(month)
        truth = SimulatedMarket().truth("ETHUSDT", month)
        every = set(range(start, end, MINUTE_US))
        assert every - set(opens_of(minutes("ETHUSDT", start, end)).tolist()) == set(truth.missing)
        assert 10 <= len(truth.missing) <= 40
        assert max(truth.missing) - min(truth.missing) == (len(truth.missing) - 1) * MINUTE_US


def test_months_other_than_january_and_july_have_no_outage() -> None:
    start, end = month_range("2024-02")
    assert SimulatedMarket().truth("ETHUSDT", "2024-02").missing == ()
    assert opens_of(minutes("ETHUSDT", start, end)).tolist() == list(range(start, end, MINUTE_US))


def test_minutes_without_a_trade_are_the_stated_ones_and_flat_at_the_previous_close() -> None:
    truth = SimulatedMarket().truth("SOLUSDT", "2025-01")
    rows = minutes("SOLUSDT", *JANUARY)
    quiet = rows.filter(pl.col("volume") == 0)
    assert tuple(opens_of(quiet).tolist()) == truth.no_trade
    assert len(truth.no_trade) >= 3
    before = rows.filter(pl.col("open_time").cast(pl.Int64).is_in([each - MINUTE_US for each in truth.no_trade]))
    for price in ("open", "high", "low", "close"):
        assert quiet[price].to_list() == before["close"].to_list()
    assert quiet.select("quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume").sum().row(0) == (
        0.0, 0, 0.0, 0.0,
    )  # fmt: skip


def test_prices_lie_on_the_stated_tick() -> None:
    for symbol in ("BTCUSDT", "ADAUSDT", "DOGEUSDT"):
        tick = SimulatedMarket().truth(symbol, "2025-01").tick
        prices = minutes(symbol, *JANUARY).select("open", "high", "low", "close").to_numpy()
        assert np.abs(prices / tick - np.rint(prices / tick)).max() < 1e-4


def test_each_month_opens_where_the_one_before_it_closed() -> None:
    start, middle = JANUARY
    end = month_range("2025-02")[1]
    rows = minutes("BTCUSDT", start, end)
    before, after = rows.filter(pl.col("open_time").cast(pl.Int64).is_in([middle - MINUTE_US, middle])).iter_rows(
        named=True
    )
    assert before["close"] == after["open"]
    gaps = np.diff(opens_of(rows)) != MINUTE_US
    jumps = rows["open"].to_numpy()[1:] != rows["close"].to_numpy()[:-1]
    assert not jumps[~gaps].any()


def test_one_range_equals_months_in_any_order_and_parts_of_days() -> None:
    start, end = JANUARY[0], month_range("2025-03")[1]
    whole = minutes("ADAUSDT", start, end)
    parts = {month: minutes("ADAUSDT", *month_range(month)) for month in ("2025-03", "2025-01", "2025-02")}
    assert whole.equals(pl.concat([parts[month] for month in sorted(parts)]))
    minutes_of.cache_clear()
    some = minutes("ADAUSDT", start + 7 * MINUTE_US, start + 1000 * MINUTE_US)
    opens = whole["open_time"].cast(pl.Int64)
    assert some.equals(whole.filter((opens >= start + 7 * MINUTE_US) & (opens < start + 1000 * MINUTE_US)))


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_another_process_with_another_hash_seed_gives_the_same_bars(hash_seed: str) -> None:
    code = (
        "from mdplatform.sources.simulated import *\n"
        "print(next(SimulatedMarket(3).bars('XYZUSDT', Timeframe.M15, *month_range('2024-06'))).content_hash)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
    )
    here = next(SimulatedMarket(3).bars("XYZUSDT", Timeframe.M15, *month_range("2024-06"))).content_hash
    assert said.stdout.strip() == here


def test_the_bars_of_a_seed_stay_what_they_were() -> None:
    # Written down once: whoever changes this changes every demonstration and every figure made from it.
    assert next(SimulatedMarket().bars("BTCUSDT", Timeframe.M1, *JANUARY)).content_hash == (
        "235883469bc0165c5d92b0391b2ff869"
    )


def test_another_seed_or_symbol_gives_another_market() -> None:
    hashes = {
        next(SimulatedMarket(seed).bars(symbol, Timeframe.H1, *JANUARY)).content_hash
        for seed in (1, 2)
        for symbol in ("BTCUSDT", "ETHUSDT", "NEWUSDT")
    }
    assert len(hashes) == 6


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT", "ADAUSDT"])
def test_regressing_returns_on_the_factor_finds_the_stated_beta(symbol: str) -> None:
    market = SimulatedMarket()
    start = JANUARY[0]
    rows = minutes(symbol, *JANUARY)
    at = (opens_of(rows) - start) // MINUTE_US
    returns = np.log(rows["close"].to_numpy() / rows["open"].to_numpy())
    factor = market.factor_returns("2025-01")[at]
    still = set(market.truth(symbol, "2025-01").no_trade)
    usual = np.array([each not in still and each - MINUTE_US not in still for each in opens_of(rows).tolist()])
    found = np.dot(returns[usual], factor[usual]) / np.dot(factor[usual], factor[usual])
    assert found == pytest.approx(market.truth(symbol, "2025-01").beta, rel=0.03)


def test_symbols_are_correlated_and_volatility_clusters() -> None:
    hours = {
        symbol: pl.concat(
            [each.rows for each in SimulatedMarket().bars(symbol, Timeframe.H1, JANUARY[0], month_range("2025-06")[1])]
        )
        for symbol in ("BTCUSDT", "ETHUSDT")
    }
    joined = hours["BTCUSDT"].join(hours["ETHUSDT"], on="open_time", suffix="_eth")
    btc, eth = (np.log(joined[f"close{end}"].to_numpy() / joined[f"open{end}"].to_numpy()) for end in ("", "_eth"))
    assert np.corrcoef(btc, eth)[0, 1] > 0.7
    size = np.abs(btc)
    assert np.corrcoef(size[:-1], size[1:])[0, 1] > 0.1
    assert abs(np.corrcoef(btc[:-1], btc[1:])[0, 1]) < 0.06
    assert np.std(btc) == pytest.approx(FACTOR_VOLATILITY * np.sqrt(60), rel=0.5)


def test_takers_buy_more_where_prices_rise() -> None:
    rows = minutes("BTCUSDT", *JANUARY).filter(pl.col("volume") > 0)
    share = (rows["taker_buy_volume"] / rows["volume"]).to_numpy()
    move = (rows["close"] / rows["open"] - 1).to_numpy()
    assert np.corrcoef(share, np.sign(move))[0, 1] > 0.3


@pytest.mark.parametrize("timeframe", ["3m", "15m", "1h", "12h", "1d", "1w"])
def test_longer_bars_are_exact_sums_of_their_minutes_and_none_lacks_one(timeframe: str) -> None:
    length = Timeframe.parse(timeframe).microseconds
    start, end = JANUARY[0], month_range("2025-02")[1]
    by_minute = {
        row["open_time"]: row
        for row in minutes("BNBUSDT", start, end).with_columns(pl.col("open_time").cast(pl.Int64)).iter_rows(named=True)
    }
    bars = pl.concat([each.rows for each in SimulatedMarket().bars("BNBUSDT", Timeframe(timeframe), start, end)])
    origin = 4 * 86_400_000_000 if timeframe == "1w" else 0
    first = start + (origin - start) % length
    whole = [
        at
        for at in range(first, end - length + 1, length)
        if all(minute in by_minute for minute in range(at, at + length, MINUTE_US))
    ]
    assert opens_of(bars).tolist() == whole
    for bar in bars.head(50).with_columns(pl.col("open_time").cast(pl.Int64)).iter_rows(named=True):
        children = [by_minute[minute] for minute in range(bar["open_time"], bar["open_time"] + length, MINUTE_US)]
        assert bar["open"] == children[0]["open"]
        assert bar["close"] == children[-1]["close"]
        assert bar["high"] == max(child["high"] for child in children)
        assert bar["low"] == min(child["low"] for child in children)
        assert bar["trade_count"] == sum(child["trade_count"] for child in children)
        for name in ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume"):
            assert bar[name] == pytest.approx(sum(child[name] for child in children), rel=1e-12)


@pytest.mark.parametrize("timeframe", ["1m", "15m", "1d", "1w"])
def test_no_bar_is_delivered_before_it_is_closed_nor_one_that_opened_before_the_start(timeframe: str) -> None:
    start, end = JANUARY[0] + 30_000_000, JANUARY[1] - 30_000_000
    for delivery in SimulatedMarket().bars("BTCUSDT", Timeframe(timeframe), start, end):
        assert opens_of(delivery.rows).min() >= start
        assert delivery.rows["close_time"].cast(pl.Int64).max() <= end


def test_an_empty_range_gives_nothing() -> None:
    assert list(SimulatedMarket().bars("BTCUSDT", Timeframe.M1, JANUARY[0], JANUARY[0])) == []


def test_a_bad_symbol_and_a_month_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidSymbol):
        list(SimulatedMarket().bars("../x", Timeframe.M1, *JANUARY))
    with pytest.raises(ParameterOutOfRange, match="2005-01"):
        list(SimulatedMarket().bars("BTCUSDT", Timeframe.M1, *month_range("2004-12")))
    for month in ("2100-01", "2025-13", "x", "2025"):
        with pytest.raises(ParameterOutOfRange):
            SimulatedMarket().truth("BTCUSDT", month)
