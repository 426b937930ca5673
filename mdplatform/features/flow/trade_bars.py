"""Bars that close by what was traded, not by the clock, and CUSUM events; all from trades, one by one.

- `tick_bars`, `volume_bars`, `dollar_bars` close with the trade by which the count, the base or the quote volume since
  the bar before reaches a threshold.
- `imbalance_bars` close when takers lean to one side by more than was to be expected (see there).
- `cusum_events` marks the trades at which the price has run away by a threshold.

Sides are the takers' own, where the literature has to guess them by the tick rule. A trade belongs whole to the bar
that it closes, and the next begins at zero: what was too much is not carried over. The unfinished last bar is not
given. A bar is known at its `close_time`, the time of its last trade, or when that trade was received: `available_at`.
Every bar depends on the trades before it, back to the first one given: begin at a fixed instant, such as 00:00 UTC.

López de Prado: Advances in Financial Machine Learning (2018), ch. 2.
"""

from __future__ import annotations

from numbers import Integral

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import ParameterOutOfRange
from mdplatform.features.talib_functions import Floats
from mdplatform.features.trade_arrays import TradeArrays, TradesLike, positive, read_trades, trades_frame
from mdplatform.market.bars import INSTANT

MEASURES = ("tick", "volume", "dollar")


def tick_bars(trades: TradesLike, count: int) -> pl.DataFrame:
    """Give bars of `count` trades each; columns as `volume_bars` has them. Raises what that raises."""
    return _threshold_bars(trades, "tick", _whole("count", count))


def volume_bars(trades: TradesLike, volume: float) -> pl.DataFrame:
    """Give bars of at least `volume` (base asset) each.

    Takes any table with `time, price, quantity, is_buyer_maker`, ascending by time. Columns: `open_time` and
    `close_time` (of the first and the last trade), `open, high, low, close, volume, quote_volume, trade_count,
    taker_buy_volume, taker_buy_quote_volume, available_at`. Raises `InvalidTable` and `ParameterOutOfRange`.

    >>> from datetime import UTC, datetime
    >>> trades = {"time": [datetime(2026, 1, 1, tzinfo=UTC)] * 3, "price": [10.0, 11.0, 12.0]}
    >>> trades = pl.DataFrame({**trades, "quantity": [2.0, 2.0, 1.0], "is_buyer_maker": [True, False, True]})
    >>> volume_bars(trades, 3).select("open", "close", "volume", "taker_buy_volume").rows()
    [(10.0, 11.0, 4.0, 2.0)]
    """
    return _threshold_bars(trades, "volume", positive("volume", volume))


def dollar_bars(trades: TradesLike, quote_volume: float) -> pl.DataFrame:
    """Give bars of at least `quote_volume` (quote asset) each; columns and errors as `volume_bars` has them."""
    return _threshold_bars(trades, "dollar", positive("quote_volume", quote_volume))


def imbalance_bars(
    trades: TradesLike, measure: str = "tick", *, expected_count: int, span: int = 20, most: float = 5.0
) -> pl.DataFrame:
    """Give imbalance bars: each closes when the signed flow within it leaves what the bars before it let expect.

    With b = +1 for a taker's buy and −1 for a sell, and v = 1, the quantity or the turnover of a trade (`measure` tick,
    volume or dollar), a bar closes at the first trade with |Σ b v| ≥ max(E[T] |E[b v]|, √(E[T] E[v²])), where

    - E[T] is the exponentially weighted mean of the lengths (in trades) of the bars before, α = 2 / (`span` + 1), kept
      within `expected_count` / `most` and `expected_count` · `most`, without which it is known to run away;
    - E[b v] and E[v²] are means over the trades of the bars before, each bar weighted likewise;
    - the first bar has nothing before it: it closes after `expected_count` trades, and E[T] begins there.

    The second term, which is not in the book, is how far flow of random sides strays in E[T] trades: without it, bars
    shrink to a trade each wherever flow is balanced.
    So a bar's threshold is known at the close of the bar before: nothing looks ahead. López de Prado (2018), 2.3.2.1
    and 2.3.2.2. Columns are those of `volume_bars`, and `imbalance` (Σ b v) and `expected_imbalance` (the threshold,
    null in the first bar). Raises `InvalidTable` and `ParameterOutOfRange`.
    """
    if measure not in MEASURES:
        raise ParameterOutOfRange("Not a measure", value=measure, remedy=f"Allowed: {', '.join(MEASURES)}")
    count = _whole("expected_count", expected_count)
    if positive("most", most) < 1:
        raise ParameterOutOfRange("most is out of range", value=most, remedy="Allowed: a number from 1 on")
    alpha = 2 / (positive("span", span) + 1)
    from mdplatform.features.flow.trade_bar_kernels import imbalance_ends

    frame = trades_frame(trades)
    arrays = read_trades(frame)
    amounts = amounts_of(arrays, measure)
    signed = np.where(arrays.is_buy, amounts, -amounts)
    ends, sums, thresholds = imbalance_ends(signed, count, min(alpha, 1.0), most)
    return _bars(frame, arrays, ends).with_columns(
        pl.Series("imbalance", sums), pl.Series("expected_imbalance", thresholds, nan_to_null=True)
    )


def cusum_events(trades: TradesLike, threshold: float) -> pl.DataFrame:
    """Give the trades at which the symmetric CUSUM filter on log returns fires.

    With r the log return from the trade before, S⁺ = max(0, S⁺ + r) and S⁻ = min(0, S⁻ + r); an event is a trade with
    S⁺ ≥ `threshold` (side 1) or S⁻ ≤ −`threshold` (side −1), whereupon that sum begins again at zero. Columns: `row`
    (of the table, from 0), `time`, `price`, `side`. López de Prado (2018), 2.5.2.1. Raises `InvalidTable` and
    `ParameterOutOfRange`.
    """
    limit = positive("threshold", threshold)
    from mdplatform.features.flow.trade_bar_kernels import cusum_rows

    arrays = read_trades(trades)
    rows, sides = cusum_rows(np.log(arrays.price), limit)
    return pl.DataFrame(
        {
            "row": rows,
            "time": pl.Series(arrays.time[rows]).cast(INSTANT),
            "price": arrays.price[rows],
            "side": sides,
        }
    )


def _threshold_bars(trades: TradesLike, measure: str, threshold: float) -> pl.DataFrame:
    from mdplatform.features.flow.trade_bar_kernels import threshold_ends

    frame = trades_frame(trades)
    arrays = read_trades(frame)
    return _bars(frame, arrays, threshold_ends(amounts_of(arrays, measure), threshold))


def amounts_of(trades: TradeArrays, measure: str) -> Floats:
    """Give what each trade counts for by one of `MEASURES`: 1, its quantity or its turnover."""
    if measure == "tick":
        return np.ones(len(trades))
    return trades.quantity if measure == "volume" else trades.quantity * trades.price


def _bars(frame: pl.DataFrame, trades: TradeArrays, ends: NDArray[np.int64]) -> pl.DataFrame:
    """Lay out the bars whose last trades are those before the rows `ends` (ascending)."""
    starts = np.append(0, ends)[:-1]
    whole = trades[: int(ends[-1]) if len(ends) else 0]
    bought = np.where(whole.is_buy, whole.quantity, 0.0)
    closed = pl.Series(trades.time[ends - 1]).cast(INSTANT)
    known = closed
    if isinstance(frame.schema.get("available_at"), pl.Datetime):
        received = frame["available_at"].cast(INSTANT).to_physical().fill_null(0).to_numpy()[: len(whole)]
        latest = _reduced(np.maximum, received, starts)
        known = pl.Series(np.maximum(latest, trades.time[ends - 1])).cast(INSTANT)
    return pl.DataFrame(
        {
            "open_time": pl.Series(trades.time[starts]).cast(INSTANT),
            "close_time": closed,
            "open": trades.price[starts],
            "high": _reduced(np.maximum, whole.price, starts),
            "low": _reduced(np.minimum, whole.price, starts),
            "close": trades.price[ends - 1],
            "volume": _reduced(np.add, whole.quantity, starts),
            "quote_volume": _reduced(np.add, whole.price * whole.quantity, starts),
            "trade_count": ends - starts,
            "taker_buy_volume": _reduced(np.add, bought, starts),
            "taker_buy_quote_volume": _reduced(np.add, bought * whole.price, starts),
            "available_at": known,
        }
    )


def _reduced(function: np.ufunc, values: NDArray[np.generic], starts: NDArray[np.int64]) -> NDArray[np.generic]:
    return np.asarray(function.reduceat(values, starts)) if len(starts) else values[:0]


def _whole(name: str, given: int) -> float:
    if not isinstance(given, Integral):
        raise ParameterOutOfRange(f"{name} is out of range", value=given, remedy="Allowed: an integer above 0")
    return positive(name, given)
