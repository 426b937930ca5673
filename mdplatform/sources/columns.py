"""Columns: which of a file's columns is which of a bar, whatever its writer called it, and their numbers.

Names are compared folded (`Quote asset volume` = `quote_asset_volume` = `quoteAssetVolume`). Columns that are none of a
bar's are left out; a file that lacks one of time, open, high, low, close and volume is refused, saying what its columns
look like.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import polars as pl

from mdplatform.errors import UnknownColumns, UnknownFormat
from mdplatform.market.bars import RAW_SCHEMA, VALUE_COLUMNS

Place = Callable[[int], str]
"""Says where the row of that index is, such as `line 17`."""

DUMP_COLUMNS = (
    "open_time", "open", "high", "low", "close", "volume", "close_time",
    "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip
"""The twelve fields of Binance's dumps and REST klines, in their order."""

REQUIRED = ("open_time", "open", "high", "low", "close", "volume")
TIMES = ("open_time", "close_time")
LABELS = ("symbol", "timeframe")

_SPELLINGS = {
    "open_time": "open_time open_timestamp timestamp ts datetime date time",
    "close_time": "close_time close_timestamp",
    "open": "open open_price",
    "high": "high high_price",
    "low": "low low_price",
    "close": "close close_price",
    "volume": "volume vol base_volume base_asset_volume",
    "quote_volume": "quote_volume quote_asset_volume quote_av quote_vol",
    "trade_count": "trade_count count trades number_of_trades num_trades n_trades trades_count",
    "taker_buy_volume": "taker_buy_volume taker_buy_base taker_base_volume taker_buy_base_asset_volume tb_base_av "
    "taker_buy_base_volume",
    "taker_buy_quote_volume": "taker_buy_quote_volume taker_buy_quote taker_quote_volume "
    "taker_buy_quote_asset_volume tb_quote_av",
    "symbol": "symbol",
    "timeframe": "timeframe interval",
    "is_closed": "is_closed",
}
OF_A_BOOK = {"first_update_id", "last_update_id", "update_type", "is_snapshot"}
"""Columns that only tables of an order book's levels have."""
_OTHERS = {
    "aggregated trades": {"agg_trade_id", "first_trade_id", "agg_id"},
    "trades": {"is_buyer_maker", "trade_id"},
    "funding rates": {"last_funding_rate", "funding_rate", "funding_interval_hours"},
    "best bids and asks": {"best_bid_price", "best_ask_price", "bid_price"},
    "order book depth": {"percentage", "depth"},
    "an order book": OF_A_BOOK,
    "open interest": {"sum_open_interest", "open_interest"},
}


def fold(name: str) -> str:
    """Write a column's name in one way.

    >>> fold(" Taker buy base_asset volume"), fold("takerBuyBaseAssetVolume")
    ('takerbuybaseassetvolume', 'takerbuybaseassetvolume')
    """
    return re.sub(r"[\W_]+", "", name.casefold())


def find_columns(names: Sequence[str], path: str) -> dict[str, int]:
    """Give the position of each of a bar's columns among `names`. Raises `UnknownColumns`."""
    folded = [fold(name) for name in names]
    found: dict[str, int] = {}
    for column, spellings in _SPELLINGS.items():
        for spelling in map(fold, spellings.split()):
            if folded.count(spelling) > 1:
                raise UnknownColumns(f"{path} has two columns for {column}", value=spelling)
            if spelling in folded:
                found[column] = folded.index(spelling)
                break
    missing = [column for column in REQUIRED if column not in found]
    if missing:
        raise UnknownColumns(
            f"{path} is not a table of bars: {' '.join(missing)} missing{looks_like(folded)}",
            value=", ".join(names)[:200],
            remedy=f"Allowed: {' '.join(REQUIRED)}, and where there are any {' '.join(RAW_SCHEMA.names()[1:])} "
            "or Binance's names for these",
        )
    return found


def find_positions(count: int, first_row: Sequence[str], path: str) -> dict[str, int]:
    """Give the positions in rows without a header: Binance's twelve fields, or the first six of them."""
    if any(cell.strip().casefold() in ("true", "false") for cell in first_row):
        raise UnknownColumns(f"{path} is not a table of bars, and its columns look like trades", value=list(first_row))
    if count not in (6, 11, 12):
        raise UnknownColumns(
            f"{path} has no header and {count} columns",
            value=", ".join(first_row)[:200],
            remedy=f"Allowed without a header: {' '.join(DUMP_COLUMNS)}, or the first 6 of them",
        )
    return {name: at for at, name in enumerate(DUMP_COLUMNS[:count]) if name != "ignore"}


def looks_like(folded: Sequence[str]) -> str:
    """Say what kind of file has such columns, where that can be told."""
    for kind, marks in _OTHERS.items():
        if not set(map(fold, marks)).isdisjoint(folded):
            return f", and its columns look like {kind}"
    return ""


def has_name(cells: Sequence[str]) -> bool:
    """Tell whether a first line is a header: one of its cells is neither a number, a time, a truth value nor empty."""
    return any(
        cell.strip() and not re.fullmatch(r"[-+\d].*|(?i:true|false|nan|null|none)", cell.strip()) for cell in cells
    )


def to_numbers(frame: pl.DataFrame, path: str, place: Place) -> pl.DataFrame:
    """Give the nine value columns as raw bars have them, absent ones as nulls. Raises `UnknownFormat` for text."""
    return pl.DataFrame(
        [
            _number(frame.get_column(name), path, place)
            if name in frame.columns
            else pl.Series(name, [None] * frame.height, dtype=RAW_SCHEMA[name])
            for name in VALUE_COLUMNS
        ]
    )


def _number(column: pl.Series, path: str, place: Place) -> pl.Series:
    if column.dtype.is_nested() or column.dtype.is_temporal() or column.dtype == pl.Boolean:
        raise UnknownColumns(f"{path}: column {column.name} has no numbers", value=str(column.dtype))
    if column.dtype == pl.String:
        column = as_null(column)
        numbers = column.cast(pl.Float64, strict=False)
        refuse_first(column, numbers.is_null() & column.is_not_null(), "is not a number", path, place)
    elif column.dtype == pl.Int64:
        numbers = column
    else:
        numbers = column.cast(pl.Float64)
    if column.name != "trade_count":
        return numbers.cast(pl.Float64)
    if numbers.dtype == pl.Float64:
        numbers = numbers.fill_nan(None)
        broken = (numbers != numbers.round()) | (numbers.abs() > 2.0**53)
        refuse_first(column, broken.fill_null(False), "is not a count", path, place)
    return numbers.cast(pl.Int64)


def as_null(column: pl.Series) -> pl.Series:
    """Trim a text column, and take the usual words for nothing as null."""
    trimmed = column.str.strip_chars()
    nothing = trimmed.str.to_lowercase().is_in(["", "null", "none", "nan", "na"])
    return trimmed.to_frame().select(pl.when(~nothing).then(pl.first()).alias(column.name)).to_series()


def refuse_first(column: pl.Series, broken: pl.Series, what: str, path: str, place: Place) -> None:
    """Raise `UnknownFormat` for the first row that is `broken`, with its place, column and text."""
    if broken.any():
        row = int(broken.arg_true()[0])
        raise UnknownFormat(f"{path}, {place(row)}: {column.name} {what}", value=str(column[row])[:80])
