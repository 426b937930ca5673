"""Longer bars while the market is open: those of a batch over the same bars, bit for bit, and those of the exchange."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mdplatform.lake import Lake
from mdplatform.lake.bars import DERIVED
from mdplatform.lake.inbox import Batch
from mdplatform.market.bars import VALUE_COLUMNS
from mdplatform.market.events import Candle
from mdplatform.market.resample import resample
from mdplatform.market.time import months_between, to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.sources.files import read_file
from mdplatform.streaming.bars import LiveBars
from mdplatform.streaming.live_bar import LiveBar
from mdplatform.streaming.parents import Decimals, Parents, child_of

from .trading import D1, DAY, H1, HOUR, M1, M15, MINUTE, W1, newest, raw, table

LATER = datetime(2027, 1, 1, tzinfo=UTC)
EVERY = list(Timeframe)


def candles_of(rows: pl.DataFrame, symbol: str = "AUSDT") -> list[Candle]:
    """Give the 1m rows of a delivery as the venue's closed candles."""
    values = rows.select(pl.col("open_time").dt.epoch("us"), *VALUE_COLUMNS).iter_rows()
    return [Candle(symbol, M1, *row, is_closed=True, time=row[0] + MINUTE) for row in values]


def walk(start: int, minutes: int, seed: int = 7) -> list[Candle]:
    """Give a random walk of candles with amounts as an exchange writes them, some minutes idle."""
    random = np.random.default_rng(seed)
    close = np.round(50_000 * np.exp(np.cumsum(random.normal(0, 0.001, minutes))), 2)
    volume = np.round(random.uniform(0.00001, 400, minutes), 5)
    idle = random.uniform(size=minutes) < 0.05
    found, price = [], 50_000.0
    for n in range(minutes):
        end, amount, count = (
            (price, 0.0, 0) if idle[n] else (float(close[n]), float(volume[n]), int(random.integers(1, 999)))
        )
        quote = round(amount * price, 7)
        part = round(amount / 3, 5), round(quote / 3, 7)
        opened = start + n * MINUTE
        found.append(
            Candle("AUSDT", M1, opened, price, max(price, end), min(price, end), end, amount, quote, count, *part)
        )
        price = end
    return found


def live(candles: list[Candle], timeframes: list[Timeframe] = EVERY) -> list[LiveBar]:
    """Give the bars of all candles, taken in a hundred at a time."""
    bars = LiveBars([candles[0].symbol], timeframes, source="test")
    return [bar for n in range(0, len(candles), 100) for bar in bars.take(candles[n : n + 100])]


def merged(lake: Lake, rows: pl.DataFrame, key: str = "k") -> None:
    """Merge a delivery of 1m as the asset does."""
    for (month,), part in (
        rows.with_columns(pl.col("open_time").dt.strftime("%Y-%m").alias("month"))
        .partition_by("month", as_dict=True, include_key=False, maintain_order=True)
        .items()
    ):
        lake.bars.merge("AUSDT", str(month), [Batch("AUSDT", M1, str(month), "test", key, LATER, part)])


def bits(bar: LiveBar) -> bytes:
    return np.array(bar.values).tobytes()


def assert_as_stored(lake: Lake, found: list[LiveBar]) -> None:
    """Hold bars to all revisions that the lake stores, and to what it builds when asked: values bit for bit."""
    for timeframe in (M1, *DERIVED):
        mine = {(bar.open_time, bar.revision): bar for bar in found if bar.timeframe is timeframe and bar.revision >= 0}
        months = lake.bars.months("AUSDT")
        stored = pl.concat([lake.bars.revisions("AUSDT", month, timeframe) for month in months])
        assert stored["available_at"].equals(stored["close_time"])
        columns = [
            pl.col("open_time").dt.epoch("us"),
            "revision",
            "state",
            "source",
            pl.col(VALUE_COLUMNS).cast(pl.Float64),
        ]
        theirs = {row[:2]: row[2:] for row in stored.select(columns).fill_null(float("nan")).iter_rows()}
        assert mine.keys() == theirs.keys(), timeframe
        for key, (state, source, *values) in theirs.items():
            assert bits(mine[key]) == np.array(values).tobytes(), (timeframe, key)
            assert (mine[key].state, mine[key].source) == (state, source), (timeframe, key)
    for timeframe in set(EVERY) - {M1, *DERIVED}:
        mine = {bar.open_time: bits(bar) for bar in found if bar.timeframe is timeframe and bar.state != "gap"}
        read = lake.bars.read("AUSDT", timeframe).filter(pl.col("state") != "gap")
        rows = read.select(pl.col("open_time").dt.epoch("us"), pl.col(VALUE_COLUMNS).cast(pl.Float64)).iter_rows()
        assert mine == {row[0]: np.array(row[1:]).tobytes() for row in rows}, timeframe


# -- as a batch has them ----------------------------------------------------------------------------------------------


def test_sixteen_real_days_make_the_bars_that_the_lake_has_of_them(tmp_path: Path, shared_data: Path) -> None:
    (path,) = (shared_data / "ready/klines/binance_um_1m").glob("LTC*.parquet")
    (delivery,) = read_file(path)
    rows = delivery.rows.head(16 * 1440)  # from the first of the month, a Sunday
    lake = Lake(tmp_path)
    merged(lake, rows)
    found = live(candles_of(rows))
    assert len([bar for bar in found if bar.timeframe is D1]) == 16
    assert len([bar for bar in found if bar.timeframe is W1]) == 2
    assert_as_stored(lake, found)


def test_real_minutes_make_the_five_minutes_that_another_file_has(shared_data: Path) -> None:
    (path,) = (shared_data / "ready/klines/binance_um_1m").glob("NEAR*.parquet")
    (delivery,) = read_file(path)
    five = shared_data / "klines/lucaserib__Trading-backtest/data/NEARUSDT-5m-2025-02.csv"
    (published,) = read_file(five if five.exists() else five.with_name(f"{five.name}.gz"))
    mine = [bar for bar in live(candles_of(delivery.rows), [Timeframe.M5]) if bar.timeframe is Timeframe.M5]
    assert len(mine) == 8064
    assert raw(mine).select(pl.exclude("close_time")).equals(published.rows.select(pl.exclude("close_time")))


@pytest.mark.parametrize("symbol", ["BTC", "ETH", "ADA", "BNB", "SOL", "XRP"])
def test_real_quarters_of_an_hour_make_the_hours_and_days_of_the_exchange(shared_data: Path, symbol: str) -> None:
    (delivery,) = read_file(shared_data / f"ready/klines/binance_spot_15m/{symbol}USDT.parquet")
    quarters = [
        LiveBar.of("A", M15, row[0], row[1:], state="observed", is_closed=True, revision=0, available_at=0, source="x")
        for row in delivery.rows.select(pl.col("open_time").dt.epoch("us"), *VALUE_COLUMNS).iter_rows()
    ]
    parents = Parents("A", [H1, D1], HOUR)
    found = [bar for quarter in quarters for bar in parents.take([quarter])]
    batch = table(quarters)
    for child, timeframe in pairwise((M15, Timeframe.M30, H1, Timeframe.H4, D1)):
        assert child_of(timeframe) == child
        batch = resample(batch, timeframe)
        if timeframe not in (H1, D1):
            continue
        mine = raw([bar for bar in found if bar.timeframe is timeframe])
        assert len(mine) == len(quarters) * M15.microseconds // timeframe.microseconds
        assert mine.equals(batch.select(mine.columns))
        theirs = shared_data / f"ready/klines/binance_spot_{timeframe}/{symbol}USDT.parquet"
        if theirs.exists():
            (published,) = read_file(theirs)
            beside = mine.join(published.rows, on="open_time", suffix="_theirs")
            assert len(beside) >= 48
            for name in VALUE_COLUMNS:
                apart = (beside[name] - beside[f"{name}_theirs"]).abs() / beside[name].abs()
                exact = "quote" not in name and name != "taker_buy_volume"
                assert (apart > (0 if exact else 1e-15)).sum() == 0, (timeframe, name)


@pytest.mark.parametrize("day", ["2024-02-28", "2024-12-31", "2025-03-02", "2025-03-30", "2025-10-26"])
def test_around_an_odd_midnight_bars_are_those_of_a_batch(tmp_path: Path, day: str) -> None:
    start = to_us(datetime.fromisoformat(day).replace(tzinfo=UTC)) - HOUR
    candles = walk(start, 1440 + 120)
    found = live(candles)
    lake = Lake(tmp_path)
    merged(lake, raw([bar for bar in found if bar.timeframe is M1]))
    assert len(months_between(start, candles[-1].open_time)) == len(lake.bars.months("AUSDT"))
    assert_as_stored(lake, found)
    (whole,) = [bar for bar in found if bar.timeframe is D1]
    assert whole.open_time == start + HOUR


def test_sums_are_those_of_the_decimal_numbers_whatever_was_summed_before() -> None:
    random, sums = np.random.default_rng(5), Decimals()
    for decimals in random.integers(0, 9, 2_000).tolist():
        most = int(10 ** random.uniform(1, 12))  # at eight decimals 10,000
        told = [Decimal(each).scaleb(-decimals) for each in random.integers(0, most, 5).tolist()]
        assert sums.total([float(each) for each in told]) == float(sum(told)), told
    assert np.isnan(sums.total([1.5, float("nan"), 2.5]))
    assert sums.total([2.0**60, 2.0**60, 1.0]) == 2.0**61


def test_a_week_is_from_monday_to_monday() -> None:
    monday = to_us(datetime(2025, 3, 24, tzinfo=UTC))  # the clocks of Europe change in it
    found = live(walk(monday - DAY, 9 * 1440), [Timeframe.W1])
    assert [(bar.open_time, bar.source) for bar in found] == [(monday, "resampled:1d")]


# -- history ----------------------------------------------------------------------------------------------------------


def test_a_feed_that_starts_inside_a_bar_builds_it_from_history() -> None:
    day = to_us(datetime(2025, 3, 26, tzinfo=UTC))
    candles = walk(day, 12 * 60)
    whole = live(candles)
    since = day + 10 * HOUR + 37 * MINUTE
    bars = LiveBars(["AUSDT"], EVERY, source="test")
    bars.seed([bar for bar in whole if bar.timeframe is M1 and bar.close_time <= since])
    found = bars.take([candle for candle in candles if candle.open_time >= since])
    assert found == [bar for bar in whole if bar.close_time > since]
    assert [bar.open_time for bar in found if bar.timeframe is Timeframe.H4] == [day + 8 * HOUR]


def test_longer_bars_of_history_spare_the_minutes_that_they_are_made_of() -> None:
    day = to_us(datetime(2025, 3, 26, tzinfo=UTC))
    candles = walk(day, 12 * 60)
    whole = live(candles)
    since = day + 10 * HOUR + 37 * MINUTE
    bars = LiveBars(["AUSDT"], EVERY, source="test")
    history = [bar for bar in whole if bar.close_time <= since]
    bars.seed([bar for bar in history if bar.timeframe is not M1 or bar.open_time >= day + 9 * HOUR])
    found = bars.take([candle for candle in candles if candle.open_time >= since])
    assert found == [bar for bar in whole if bar.close_time > since]


def test_without_its_beginning_a_longer_bar_is_not_given() -> None:
    day = to_us(datetime(2025, 3, 26, tzinfo=UTC))
    found = live(walk(day + 37 * MINUTE, 240), [H1, Timeframe.H2])
    assert [(bar.timeframe, bar.open_time) for bar in found] == [
        (H1, day + HOUR),
        (H1, day + 2 * HOUR),
        (H1, day + 3 * HOUR),
        (Timeframe.H2, day + 2 * HOUR),
    ]


def test_corrections_after_a_seeded_revision_count_on() -> None:
    day = to_us(datetime(2025, 3, 26, tzinfo=UTC))
    whole = live(walk(day, 10))
    bars = LiveBars(["AUSDT"], [M1, Timeframe.M5], source="test")
    first = next(bar for bar in whole if bar.timeframe is Timeframe.M5)
    later = LiveBar.of(
        *("AUSDT", Timeframe.M5, first.open_time, first.values),
        state="observed", is_closed=True, revision=3, available_at=first.available_at, source=first.source,
    )  # fmt: skip
    bars.seed([later, *[bar for bar in whole if bar.timeframe is M1]])
    (late,) = walk(day + 2 * MINUTE, 1, seed=9)
    found = bars.take([late])
    assert [(bar.timeframe, bar.revision) for bar in found] == [(M1, 1), (Timeframe.M5, 4)]
    assert newest(found)[Timeframe.M5, day].low == min(late.low, first.low)
