"""Bars: the columns that a table of bars has everywhere, in their order, and what each means.

A bar covers `[open_time, close_time)`; all times are UTC microseconds. `state` is `observed`, `no_trade` (venue up,
volume 0, flat at the previous close) or `gap` (unknown: null prices, never fed to a computation).
"""

from __future__ import annotations

import polars as pl

INSTANT = pl.Datetime("us", "UTC")

BAR_SCHEMA = pl.Schema(
    {
        "symbol": pl.String(),
        "timeframe": pl.String(),
        "open_time": INSTANT,
        "close_time": INSTANT,
        "open": pl.Float64(),
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "volume": pl.Float64(),
        "quote_volume": pl.Float64(),
        "trade_count": pl.Int64(),
        "taker_buy_volume": pl.Float64(),
        "taker_buy_quote_volume": pl.Float64(),
        "is_closed": pl.Boolean(),
        "state": pl.String(),
        "source": pl.String(),
        "revision": pl.Int32(),
        "available_at": INSTANT,
        "ingested_at": INSTANT,
    }
)
COLUMN_MEANINGS = {
    "symbol": "the venue's own name, in capitals",
    "timeframe": "the bar's length: 1m … 1w",
    "open_time": "the first instant of the bar, inclusive; the bar's key",
    "close_time": "open time + timeframe, exclusive",
    "open": "first price",
    "high": "highest price",
    "low": "lowest price",
    "close": "last price",
    "volume": "amount traded, in the base asset",
    "quote_volume": "amount traded, in the quote asset",
    "trade_count": "number of trades",
    "taker_buy_volume": "amount bought by takers, in the base asset",
    "taker_buy_quote_volume": "amount bought by takers, in the quote asset",
    "is_closed": "false only for a bar that is still forming, which the lake never holds",
    "state": "observed, no_trade (no volume, flat at the close before) or gap (unknown)",
    "source": "what delivered it, or resampled:<timeframe>",
    "revision": "0 for the first delivery, one more for each correction; the highest wins",
    "available_at": "the first instant at which a strategy could have known it",
    "ingested_at": "when this platform took it in",
}
"""What each column of `BAR_SCHEMA` says."""

PRICE_COLUMNS = ("open", "high", "low", "close")
AMOUNT_COLUMNS = ("volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")
VALUE_COLUMNS = PRICE_COLUMNS + AMOUNT_COLUMNS
STATES = ("observed", "no_trade", "gap")

RAW_SCHEMA = pl.Schema(
    {"open_time": INSTANT, "close_time": INSTANT, **{name: BAR_SCHEMA[name] for name in VALUE_COLUMNS}}
)
"""What a source delivers of each bar; `close_time` (exclusive) and the amounts may be null where it has none."""

QUARANTINE_SCHEMA = pl.Schema(
    {**{name: pl.String() for name in ("symbol", "timeframe", "source", "rule")}, **RAW_SCHEMA}
)
"""A row that broke a rule, as it was delivered, with the rule's name."""


def empty_bars() -> pl.DataFrame:
    """Give a table of bars with no rows."""
    return pl.DataFrame(schema=BAR_SCHEMA)
