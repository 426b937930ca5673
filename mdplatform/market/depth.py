"""Depth: changes of an order book as a venue sends them, one row a price level of one message."""

from __future__ import annotations

import polars as pl

from mdplatform.market.bars import INSTANT
from mdplatform.market.dataset import Dataset

DEPTH = Dataset(
    name="depth",
    columns={
        "symbol": pl.String(),
        "time": INSTANT,
        "first_update_id": pl.Int64(),
        "last_update_id": pl.Int64(),
        "previous_update_id": pl.Int64(),
        "is_snapshot": pl.Boolean(),
        "is_bid": pl.Boolean(),
        "price": pl.Float64(),
        "quantity": pl.Float64(),
    },
    time="time",
    unique=("last_update_id", "is_snapshot", "is_bid", "price"),
    by=("symbol",),
    period="day",
    meanings={
        "first_update_id": "the first update that the message holds (Binance's `U`); of a snapshot, its `lastUpdateId`",
        "last_update_id": "the last one (`u`)",
        "previous_update_id": "futures: the last update of the message before (`pu`), else null",
        "is_snapshot": "true: the row is part of a whole book, which replaces the one before",
        "quantity": "what rests at the price now, in the base asset; 0 takes the level away",
    },
)
