"""Trades to test with: made ones, from hypothesis or a seed, and real ones."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import strategies as st

from mdplatform.market.bars import INSTANT
from mdplatform.market.time import to_us
from mdplatform.market.trades import TRADES

START = to_us(datetime(2025, 1, 30, 23, 50, tzinfo=UTC))


def trades_of(rows: list[tuple[int, float, float, bool]]) -> pl.DataFrame:
    """Make a table of `(microseconds, price, quantity, is_buyer_maker)`."""
    times, prices, quantities, sides = (list(each) for each in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return pl.DataFrame(
        {
            "time": pl.Series(times, dtype=pl.Int64).cast(INSTANT),
            "price": pl.Series(prices, dtype=pl.Float64),
            "quantity": pl.Series(quantities, dtype=pl.Float64),
            "is_buyer_maker": pl.Series(sides, dtype=pl.Boolean),
        }
    )


def tapes(least: int = 0, most: int = 60) -> st.SearchStrategy[pl.DataFrame]:
    """Give tables of trades: some at one instant, minutes and a midnight apart, prices in ticks, sizes in lots."""
    row = st.tuples(
        st.sampled_from([0, 1, 1_000, 20_000_000, 61_000_000, 400_000_000]),
        st.integers(90, 110),
        st.integers(0, 40) | st.integers(1, 5_000),
        st.booleans(),
    )

    def build(rows: list[tuple[int, int, int, bool]]) -> pl.DataFrame:
        at, made = START, []
        for step, ticks, lots, side in rows:
            at += step
            made.append((at, ticks / 10, lots / 10, side))
        return trades_of(made)

    return st.lists(row, min_size=least, max_size=most).map(build)


def stored(trades: pl.DataFrame, delays: np.ndarray | None = None) -> pl.DataFrame:
    """Give a table as the lake has it; each trade is available so many microseconds after it was made."""
    late = np.zeros(len(trades), np.int64) if delays is None else delays
    known = (trades["time"].dt.epoch("us") + pl.Series(late)).cast(INSTANT)
    return trades.with_columns(
        symbol=pl.lit("BTCUSDT"),
        trade_id=pl.int_range(pl.len()),
        source=pl.lit("test"),
        revision=pl.lit(0),
        available_at=known,
        ingested_at=known,
    ).select(pl.col(name).cast(kind) for name, kind in TRADES.schema.items())


def rows_of(trades: pl.DataFrame) -> list[tuple[int, float, float, bool]]:
    """Give `(microseconds, price, quantity, taker bought)` of each trade, for oracles in plain Python."""
    told = trades.select(pl.col("time").dt.epoch("us"), "price", "quantity", ~pl.col("is_buyer_maker"))
    return list(told.iter_rows())


def xrpeth(shared_data: Path) -> pl.DataFrame:
    """Read the complete aggregated trades of XRPETH, 2019-10-11 to 13."""
    raw = pl.read_parquet(shared_data / "ready" / "ticks" / "binance_spot_aggtrades_XRPETH_20191011-13.parquet")
    return raw.select(
        pl.from_epoch("transact_time", "ms").dt.replace_time_zone("UTC").cast(INSTANT).alias("time"),
        "price",
        "quantity",
        "is_buyer_maker",
    )
