"""A small world in which every kind of feature has something to compute: made of seeds, the same in every process.

Twelve days from Monday 2025-01-27 on, so that a week and a month end in it:

- trades of three symbols, and their 5m bars: the very sums of the trades. Each symbol has an outage, in which there is
  neither (the bars are gaps), and quiet bars without a trade;
- six hours of one symbol's order book: two snapshots, and diffs of which one is lost;
- scored texts since three weeks before, with syndicated copies, about the market and about symbols;
- a monthly macro series whose values are revised and one that is published each day, with a value that is missing.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mdplatform.features import Grid, TableData
from mdplatform.features.data import grid_of
from mdplatform.lake import Lake
from mdplatform.market.bars import BAR_SCHEMA, INSTANT, RAW_SCHEMA
from mdplatform.market.dataset import Dataset
from mdplatform.market.depth import DEPTH
from mdplatform.market.macro import MACRO
from mdplatform.market.sentiment import SENTIMENT
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe
from mdplatform.market.trades import TRADES

SYMBOLS = ("ADAUSDT", "BTCUSDT", "ETHUSDT")
SYMBOL = "BTCUSDT"
BEGIN = to_us(datetime(2025, 1, 27, tzinfo=UTC))
DAYS = 12
END = BEGIN + DAYS * DAY_US
HOUR_US = 60 * MINUTE_US
STEP = 5 * MINUTE_US
BOOK = (BEGIN + 10 * DAY_US + 9 * HOUR_US, BEGIN + 10 * DAY_US + 15 * HOUR_US)
"""When the order book was recorded."""
OUTAGES = {
    "ADAUSDT": (BEGIN + 3 * DAY_US + 5 * HOUR_US, BEGIN + 3 * DAY_US + 6 * HOUR_US),
    "BTCUSDT": (BEGIN + 8 * DAY_US + 22 * HOUR_US, BEGIN + 9 * DAY_US + HOUR_US + 10 * MINUTE_US),
    "ETHUSDT": (BEGIN + 10 * DAY_US + 3 * HOUR_US, BEGIN + 10 * DAY_US + 3 * HOUR_US + 5 * MINUTE_US),
}
_PRICES = {"ADAUSDT": 40.0, "BTCUSDT": 100.0, "ETHUSDT": 60.0}


def grid(timeframe: str = "15m", first: int = 0, last: int | None = None, symbol: str = SYMBOL) -> Grid:
    """Give rows of a symbol: the world's last four days, from the row `first` of them to the one before `last`."""
    bars = data().bars(symbol, Timeframe.parse(timeframe), END - 4 * DAY_US, END)
    return grid_of(bars[first:last])


@cache
def data() -> TableData:
    """Give the world; there is one in a process."""
    return build()


def build() -> TableData:
    """Make the world."""
    trades = {symbol: _trades(number, symbol) for number, symbol in enumerate(SYMBOLS)}
    return TableData(
        bars_of={symbol: _bars(symbol, rows) for symbol, rows in trades.items()},
        trades_of=trades,
        depth_of={SYMBOL: _depth()},
        macro_of={"CPIAUCSL": _monthly(), "DGS10": _daily()},
        sentiment_rows=_sentiment(),
    )


@cache
def untouched() -> TableData:
    """Give another world, which nobody computes from."""
    return build()


@cache
def turned() -> TableData:
    """Give the world with its tables in the opposite order."""
    held = data()
    tables = {name: dict(reversed(getattr(held, name).items())) for name in ("bars_of", "trades_of", "macro_of")}
    return replace(held, **tables)


@cache
def scaled(price: float, volume: float) -> TableData:
    """Give the world with all prices and all amounts so many times as large."""
    amounts = {"volume": volume, "taker_buy_volume": volume}
    worth = {"quote_volume": price * volume, "taker_buy_quote_volume": price * volume}
    bars = {**dict.fromkeys(("open", "high", "low", "close"), price), **amounts, **worth}
    of, each = data(), {"price": price, "quantity": volume}

    def times(tables: Mapping[str, pl.DataFrame], by: Mapping[str, float]) -> dict[str, pl.DataFrame]:
        return {
            key: rows.with_columns(pl.col(name) * factor for name, factor in by.items()) for key, rows in tables.items()
        }

    return replace(
        of, bars_of=times(of.bars_of, bars), trades_of=times(of.trades_of, each), depth_of=times(of.depth_of, each)
    )


def since(instant: int) -> TableData:
    """Give the world as if its markets had opened at that instant."""

    def cut(tables: Mapping[str, pl.DataFrame], time: str) -> dict[str, pl.DataFrame]:
        return {key: rows.filter(pl.col(time).dt.epoch("us") >= instant) for key, rows in tables.items()}

    of = data()
    return replace(
        of, bars_of=cut(of.bars_of, "open_time"), trades_of=cut(of.trades_of, "time"), depth_of=cut(of.depth_of, "time")
    )


LATE = BEGIN + 9 * DAY_US + 6 * HOUR_US
"""When the one bar opens that comes five hours late, among bars that are `delayed`."""


def delayed(bars: pl.DataFrame, seconds: int) -> pl.DataFrame:
    """Give bars each of which is available so many seconds after its close, and that of `LATE` five hours after it."""
    late = pl.when(pl.col("open_time").dt.epoch("us") == LATE).then(5 * 3600).otherwise(seconds)
    return bars.with_columns(available_at=pl.col("close_time") + late * pl.duration(seconds=1))


def lake_in(folder: Path) -> Lake:
    """Give a lake in `folder` that holds the world (of the trades, those of one symbol).

    It is written once in a process; files are shared by hard links, which is safe since the lake replaces them whole.
    """
    first = _written()
    for path in first.rglob("*.parquet"):
        target = folder / path.relative_to(first)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    return Lake(folder)


@cache
def _written() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mdplatform-world-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    lake, staged_at = Lake(folder), from_us(END)
    for symbol, bars in data().bars_of.items():
        rows = bars.filter(pl.col("state") != "gap").select(list(RAW_SCHEMA))
        for batch in lake.inbox.stage(symbol, Timeframe.M5, "world", "0" * 64, rows, staged_at):
            lake.bars.merge(symbol, batch.month, [batch])
    tables = {"trades": [data().trades_of[SYMBOL]], "depth": [*data().depth_of.values()]}
    tables |= {"macro": [*data().macro_of.values()], "sentiment": [data().sentiment(None, None)]}
    for name, parts in tables.items():
        store = lake.table(name)
        for part in parts:
            for key in store.stage(part.select(list(store.dataset.delivered)), "world", staged_at):
                store.merge(key)
    return folder


def _trades(seed: int, symbol: str) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    count = DAYS * 288 * 3
    times = np.sort(BEGIN + random.integers(0, DAYS * DAY_US // 1000, count) * 1000)
    first, last = OUTAGES[symbol]
    quiet = (times // STEP) % 41 == seed  # whole bars without a trade
    times = times[((times < first) | (times >= last)) & ~quiet]
    moves = random.normal(0, 0.0008, len(times)) + 0.0004 * np.sin(np.arange(len(times)) / 500)
    prices = np.round(_PRICES[symbol] * np.exp(np.cumsum(moves)), 2)
    return _table(
        TRADES,
        symbol=[symbol] * len(times),
        trade_id=np.arange(len(times)) + 1,
        time=times,
        price=prices,
        quantity=np.round(random.lognormal(0, 1, len(times)), 3) + 0.001,
        is_buyer_maker=random.random(len(times)) < 0.5 - np.sign(moves) * 0.2,
        available_at=times + np.where(random.random(len(times)) < 0.02, random.integers(0, 90_000_000, len(times)), 0),
    )


def _bars(symbol: str, trades: pl.DataFrame) -> pl.DataFrame:
    opens = pl.col("time").dt.epoch("us") // STEP * STEP
    bought = ~pl.col("is_buyer_maker")
    worth = pl.col("price") * pl.col("quantity")
    made = trades.group_by(opens.alias("open_time"), maintain_order=True).agg(
        open=pl.first("price"),
        high=pl.max("price"),
        low=pl.min("price"),
        close=pl.last("price"),
        volume=pl.sum("quantity"),
        quote_volume=worth.sum(),
        trade_count=pl.len(),
        taker_buy_volume=pl.col("quantity").filter(bought).sum(),
        taker_buy_quote_volume=worth.filter(bought).sum(),
    )
    rows = pl.DataFrame({"open_time": np.arange(BEGIN, END, STEP)}).join(
        made, on="open_time", how="left", maintain_order="left"
    )
    at, (first, last) = pl.col("open_time"), OUTAGES[symbol]
    is_gap = (at >= first) & (at < last)
    rests = pl.col("volume").is_null() & ~is_gap
    before = pl.col("close").forward_fill().backward_fill()
    rows = rows.with_columns(
        state=pl.when(is_gap).then(pl.lit("gap")).when(rests).then(pl.lit("no_trade")).otherwise(pl.lit("observed")),
        **{name: pl.when(rests).then(before).otherwise(pl.col(name)) for name in ("open", "high", "low", "close")},
        **{
            name: pl.when(rests).then(0.0).otherwise(pl.col(name))
            for name in ("volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")
        },
        symbol=pl.lit(symbol),
        timeframe=pl.lit("5m"),
        close_time=at + STEP,
        available_at=at + STEP,
        ingested_at=at + STEP,
        is_closed=pl.lit(True),
        source=pl.lit("world"),
        revision=pl.lit(0),
    )
    return rows.select(list(BAR_SCHEMA)).cast(dict(BAR_SCHEMA))


def _depth() -> pl.DataFrame:
    random = np.random.default_rng(11)
    rows: list[tuple[int, int, int, bool, bool, float, float]] = []

    def snapshot(at: int, update: int) -> None:
        for level in range(1, 21):
            for is_bid, price in ((True, 100 - level / 100), (False, 100 + level / 100)):
                rows.append((at, update, update, True, is_bid, round(price, 2), float(random.integers(1, 50))))

    update = 1000
    snapshot(BOOK[0], update)
    for number, at in enumerate(range(BOOK[0] + 10_000_000, BOOK[1], 10_000_000)):
        if number == 1200:
            update += 7  # these were lost
        if number == 1300:
            update += 1
            snapshot(at - 2_500_000, update)
        changes = {(bool(random.integers(2)), int(random.integers(1, 21))) for _ in range(3)}
        for is_bid, level in sorted(changes):
            price = round(100 - level / 100 if is_bid else 100 + level / 100, 2)
            left = float(random.integers(0, 50)) if level > 1 else float(random.integers(1, 50))
            rows.append((at, update + 1, update + len(changes), False, is_bid, price, left))
        update += len(changes)
    times, first, last, whole, bids, prices, quantities = (list(each) for each in zip(*rows, strict=True))
    return _table(
        DEPTH,
        symbol=[SYMBOL] * len(rows),
        time=times,
        first_update_id=first,
        last_update_id=last,
        previous_update_id=[None] * len(rows),
        is_snapshot=whole,
        is_bid=bids,
        price=prices,
        quantity=quantities,
        available_at=[each + 40_000 for each in times],
    )


def _sentiment() -> pl.DataFrame:
    random = np.random.default_rng(21)
    count = 600
    published = np.sort(BEGIN - 21 * DAY_US + random.integers(0, 33 * 86_400, count) * 1_000_000)
    seen = published + random.integers(0, 5_400, count) * 1_000_000
    hashes = [f"text {number if number % 7 else max(number - 3, 0)}" for number in range(count)]
    symbols = random.choice(["", SYMBOL, f"{SYMBOL},ETHUSDT", "ETHUSDT"], count, p=[0.5, 0.3, 0.1, 0.1])
    rows = _table(
        SENTIMENT,
        provider=np.where(np.arange(count) % 11 == 0, "fear_greed", "news"),
        doc_id=[f"{number:04d}" for number in range(count)],
        symbols=symbols,
        score=np.round(random.uniform(-1, 1, count), 4),
        label=["neutral"] * count,
        confidence=np.round(random.random(count), 3),
        model=["world"] * count,
        text_hash=hashes,
        published_at=published,
        seen_at=seen,
        available_at=np.maximum(published, seen),
    )
    return rows.sort("available_at", "provider", "doc_id")


def _monthly() -> pl.DataFrame:
    random = np.random.default_rng(31)
    rows = []
    months = [datetime(2019 + number // 12, number % 12 + 1, 1, tzinfo=UTC) for number in range(12 * 6 + 1)]
    for number, month in enumerate(months):
        value = 250 * 1.002**number + random.normal(0, 0.4)
        for revision, days in enumerate((36, 66)):  # the first figure, and the one that comes a month later
            vintage = to_us(month) + days * DAY_US
            rows.append((to_us(month), round(value + revision * random.normal(0, 0.2), 3), vintage))
    rows = [each for each in rows if each[2] < END]
    return _vintages("CPIAUCSL", rows, 13 * HOUR_US + 30 * MINUTE_US)


def _daily() -> pl.DataFrame:
    random = np.random.default_rng(32)
    rows: list[tuple[int, float | None, int]] = []
    for day in range(BEGIN - 400 * DAY_US, END, DAY_US):
        value = (
            None if random.random() < 0.05 else round(4 + 0.3 * np.sin(day / DAY_US / 40) + random.normal(0, 0.05), 2)
        )
        rows.append((day, value, day))
        if random.random() < 0.4 and day + 2 * DAY_US < END:
            rows.append((day, round(4 + random.normal(0, 0.3), 2), day + 2 * DAY_US))
    return _vintages("DGS10", rows, 21 * HOUR_US + 15 * MINUTE_US)


def _vintages(series: str, rows: list[tuple[int, Any, int]], clock: int) -> pl.DataFrame:
    periods, values, vintages = (list(each) for each in zip(*rows, strict=True))
    known = [vintage + clock for vintage in vintages]
    made = _table(
        MACRO,
        series_id=[series] * len(rows),
        ref_period=periods,
        value=values,
        published_at=known,
        vintage=vintages,
        available_at=known,
    )
    return made.sort("available_at", "ref_period", "vintage")


def _table(dataset: Dataset, **columns: Any) -> pl.DataFrame:
    schema = dataset.delivered
    made = pl.DataFrame({name: pl.Series(name, values).cast(schema[name]) for name, values in columns.items()})
    times = {"available_at": INSTANT, "ingested_at": INSTANT}
    return made.with_columns(
        source=pl.lit("world"), revision=pl.lit(0), ingested_at=pl.col("available_at").cast(times["ingested_at"])
    ).select(pl.col(name).cast(kind) for name, kind in dataset.schema.items())
