"""A delivery: the bars of one symbol and timeframe as a source gave them, with nothing repaired."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl

from mdplatform.errors import InvalidBars
from mdplatform.market.bars import RAW_SCHEMA
from mdplatform.market.timeframe import Timeframe


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """Bars of one `symbol` and `timeframe` in the order delivered, duplicates and bad rows included.

    `rows` has the columns of `RAW_SCHEMA`; `source` says where they come from, such as `file:BTCUSDT-1m-2025-01.zip`;
    `content_hash` is 32 hexadecimal digits that depend on symbol, timeframe and rows alone.
    """

    symbol: str
    timeframe: Timeframe
    source: str
    rows: pl.DataFrame
    content_hash: str

    @classmethod
    def of(cls, symbol: str, timeframe: Timeframe, source: str, rows: pl.DataFrame) -> Delivery:
        """Make a delivery and work out its `content_hash`. Raises `InvalidBars` where `rows` are not raw bars."""
        if rows.schema != RAW_SCHEMA:
            raise InvalidBars("Not a table of raw bars", value=dict(rows.schema))
        return cls(symbol, timeframe, source, rows, _content_hash(symbol, timeframe, rows))


def _content_hash(symbol: str, timeframe: Timeframe, rows: pl.DataFrame) -> str:
    """Hash values and nulls column by column, so that neither chunks nor versions of a library matter."""
    digest = hashlib.blake2b(f"{symbol}\0{timeframe.value}\0{rows.height}\0".encode(), digest_size=16)
    for column in rows.iter_columns():
        floats = column.dtype == pl.Float64
        values = (column if floats else column.cast(pl.Int64)).fill_null(0).to_numpy()
        digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
        digest.update(np.ascontiguousarray(values, dtype="<f8" if floats else "<i8").tobytes())
    return digest.hexdigest()
