"""The footprint: volume by price row and taker's side, and where one side outweighs the other diagonally.

Buyers lift offers one tick above the bids that sellers hit, so sides are compared diagonally, by volume:

- *buy imbalance* of row n: its buy volume is at least `imbalance_ratio` times the sell volume of row n − 1, the next
  tick below;
- *sell imbalance* of row n: its sell volume is at least so many times the buy volume of row n + 1, the next tick above.

The next tick is the neighbouring row, whether anybody traded in it or not. Against a neighbour that has no volume of
the other side any volume at all is an imbalance, as long as that neighbour lies within the bar's traded range; beyond
the lowest and the highest traded row there is nothing to compare with, and so no imbalance. A row without own volume of
the side has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from math import inf
from numbers import Real

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import ParameterOutOfRange
from mdplatform.features.talib_functions import Floats
from mdplatform.features.ticks import checked_row_size, to_prices, to_rows
from mdplatform.features.trade_arrays import TradeArrays, TradesLike, read_trades
from mdplatform.market.bars import INSTANT
from mdplatform.market.timeframe import Timeframe

_NOISE = 1e-12
"""The share by which sums may miss the ratio through rounding: 0.1 + 0.2 is three times 0.1."""


@dataclass(frozen=True)
class Footprint:
    """A footprint: how it was made, and `rows`, one for each price row of each bar in which something was traded.

    Its columns: `open_time` (only with a timeframe), `row`, `price` (the row's lower edge), `taker_buy_volume`,
    `taker_sell_volume`, `volume`, `delta` (base asset), `trade_count`, `buy_imbalance`, `sell_imbalance` (truth
    values), `buy_stack`, `sell_stack` (how many neighbouring rows with that imbalance the row is one of, else 0).
    """

    row_size: float
    imbalance_ratio: float
    timeframe: Timeframe | None
    rows: pl.DataFrame


@dataclass(frozen=True)
class Cells:
    """The traded rows of each bar, ascending by bar and row: volume of either side (base asset) and trades."""

    bar: NDArray[np.int64]
    row: NDArray[np.int64]
    buy: Floats
    sell: Floats
    count: NDArray[np.int64]


def footprint(
    trades: TradesLike,
    row_size: float | Decimal | str,
    timeframe: Timeframe | str | None = None,
    imbalance_ratio: float = 3.0,
) -> Footprint:
    """Give the footprint of `trades`, of each bar of `timeframe` or of all of them together.

    Takes any table with `time, price, quantity, is_buyer_maker`. `row_size` is in the quote asset. Raises
    `InvalidTable`, `ParameterOutOfRange` and `UnknownTimeframe`.

    >>> from datetime import UTC, datetime
    >>> noon = [datetime(2026, 1, 1, 12, tzinfo=UTC)] * 3
    >>> trades = {"time": noon, "price": [10.0, 10.5, 10.5], "quantity": [1.0, 3.0, 2.0]}
    >>> made = footprint(pl.DataFrame({**trades, "is_buyer_maker": [True, False, True]}), row_size=0.5)
    >>> made.rows.select("price", "delta", "buy_imbalance").rows()
    [(10.0, -1.0, False), (10.5, 1.0, True)]
    """
    size = checked_row_size(row_size)
    ratio = checked_ratio(imbalance_ratio)
    length = None if timeframe is None else Timeframe.parse(timeframe)
    arrays = read_trades(trades)
    opens = (
        arrays.time - (arrays.time - length.floor(0)) % length.microseconds if length else np.zeros_like(arrays.time)
    )
    cells = to_cells(arrays, opens, size)
    buys, sells = imbalances(cells, ratio)
    rows = pl.DataFrame(
        {
            "open_time": pl.Series(cells.bar).cast(INSTANT),
            "row": cells.row,
            "price": to_prices(cells.row, size),
            "taker_buy_volume": cells.buy,
            "taker_sell_volume": cells.sell,
            "volume": cells.buy + cells.sell,
            "delta": cells.buy - cells.sell,
            "trade_count": cells.count,
            "buy_imbalance": buys,
            "sell_imbalance": sells,
            "buy_stack": stacks(cells, buys),
            "sell_stack": stacks(cells, sells),
        }
    )
    return Footprint(size, ratio, length, rows if length else rows.drop("open_time"))


def checked_ratio(ratio: float) -> float:
    """Give the ratio of imbalances. Raises `ParameterOutOfRange` unless it is a finite number above 1 or 1."""
    if isinstance(ratio, bool) or not isinstance(ratio, Real) or not 1 <= ratio < inf:
        raise ParameterOutOfRange("imbalance_ratio is out of range", value=ratio, remedy="Allowed: a number from 1 on")
    return float(ratio)


def to_cells(trades: TradeArrays, bar: NDArray[np.int64], row_size: float) -> Cells:
    """Sum trades by bar (a number for each trade) and price row."""
    frame = pl.DataFrame(
        {"bar": bar, "row": to_rows(trades.price, row_size), "quantity": trades.quantity, "is_buy": trades.is_buy}
    )
    quantity, is_buy = pl.col("quantity"), pl.col("is_buy")
    summed = (
        frame.group_by("bar", "row", maintain_order=True)
        .agg(
            buy=pl.when(is_buy).then(quantity).otherwise(0.0).sum(),
            sell=pl.when(is_buy).then(0.0).otherwise(quantity).sum(),
            count=pl.len().cast(pl.Int64),
        )
        .sort("bar", "row")
    )
    return Cells(*(summed[name].to_numpy() for name in ("bar", "row", "buy", "sell", "count")))


def imbalances(cells: Cells, ratio: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which rows have a buy imbalance, and which a sell imbalance (see the module)."""
    same_bar = cells.bar[1:] == cells.bar[:-1]
    neighbours = same_bar & (cells.row[1:] == cells.row[:-1] + 1)
    buys, sells = np.zeros(len(cells.bar), np.bool_), np.zeros(len(cells.bar), np.bool_)
    least = ratio * (1 - _NOISE)
    below = np.where(neighbours, cells.sell[:-1], 0.0)
    above = np.where(neighbours, cells.buy[1:], 0.0)
    buys[1:] = same_bar & (cells.buy[1:] > 0) & (cells.buy[1:] >= least * below)
    sells[:-1] = same_bar & (cells.sell[:-1] > 0) & (cells.sell[:-1] >= least * above)
    return buys, sells


def stacks(cells: Cells, imbalance: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Give for each row with the imbalance how many neighbouring rows with it, itself one, stand together; else 0."""
    if not len(imbalance):
        return np.zeros(0, np.int64)
    joined = (cells.bar[1:] == cells.bar[:-1]) & (cells.row[1:] == cells.row[:-1] + 1) & imbalance[1:] & imbalance[:-1]
    run = np.append(0, np.cumsum(~joined))
    return np.where(imbalance, np.bincount(run)[run], 0)
