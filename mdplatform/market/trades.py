"""Trades: what takers bought and sold, one row a trade (or an aggregate of fills at one price, as Binance gives it)."""

from __future__ import annotations

import polars as pl

from mdplatform.market.bars import INSTANT
from mdplatform.market.dataset import Dataset

TRADES = Dataset(
    name="trades",
    columns={
        "symbol": pl.String(),
        "trade_id": pl.Int64(),
        "time": INSTANT,
        "price": pl.Float64(),
        "quantity": pl.Float64(),
        "is_buyer_maker": pl.Boolean(),
    },
    time="time",
    unique=("trade_id",),
    by=("symbol",),
    period="day",
    meanings={
        "trade_id": "the venue's number of the trade or aggregate; ascends with time",
        "time": "when it was executed, by the venue's clock",
        "price": "price in the quote asset",
        "quantity": "amount in the base asset",
        "is_buyer_maker": "true: the buyer's order was resting, so the taker sold",
        "available_at": "when a strategy could have known it: its time, or when it was received if that is later",
    },
)
