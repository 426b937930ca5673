"""Order flow: who was in a hurry, told from trades with the taker's side.

`order_flow` is the plain function for notebooks; the kind `flow` and the asset `order_flow` use the same kernels.
`delta` is taker buys less taker sells, and `is_buyer_maker = true` means that the taker sold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
from numbers import Integral, Real
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import ParameterOutOfRange
from mdplatform.features.anchors import starts_of
from mdplatform.features.definition import ANCHORS
from mdplatform.features.flow.rows import cumulated, sum_rows
from mdplatform.features.guard import DIVISION_BY_ZERO, INSUFFICIENT_HISTORY, STATUSES
from mdplatform.features.talib_functions import Floats
from mdplatform.features.trade_arrays import TradeArrays, TradesLike, positive, read_trades, trades_frame
from mdplatform.market.bars import INSTANT
from mdplatform.market.timeframe import Timeframe

_MOST_ROWS = 10_000_000
_EVER = (-(2**62), 2**62)


@dataclass(frozen=True)
class OrderFlow:
    """What takers did. What could not be computed is None, and `reasons` says why.

    - `taker_buy_volume`, `taker_sell_volume`, `volume`, `delta` (base asset), `quote_volume` (quote asset),
      `trade_count`, `taker_ratio` (taker buys / volume, in [0, 1])
    - `cvd`: running delta after each trade, which begins anew at each start of `anchor`
    - `size_quantiles`: trade size (base asset) by quantile, linear between trades
    - `large_trades`: the rows of the table whose quantity is at least `large_quantity`
    - `vpin` after the last trade, of the last `buckets` full buckets of `bucket_volume` (base asset)
    - `kyle_lambda` (quote asset for each unit of the base asset) and `amihud` (1 / quote asset) over all intervals,
      `roll_spread` (quote asset) over all trades' prices; `mdplatform.features.flow.liquidity` says how
    - `frame`: with a timeframe, a row for each of its bars from the first trade to the last one, else None
    """

    trade_count: int
    volume: float
    quote_volume: float
    taker_buy_volume: float
    taker_sell_volume: float
    delta: float
    taker_ratio: float | None
    cvd: Floats
    anchor: str
    size_quantiles: Mapping[float, float]
    large_trades: pl.DataFrame
    large_quantity: float | None
    vpin: float | None
    buckets: int
    bucket_volume: float | None
    kyle_lambda: float | None
    amihud: float | None
    roll_spread: float | None
    frame: pl.DataFrame | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)


def order_flow(
    trades: TradesLike,
    *,
    timeframe: Timeframe | str | None = None,
    anchor: str = "day",
    interval: Timeframe | str = "1m",
    quantiles: Iterable[float] = (0.5, 0.9, 0.99),
    large_quantity: float | None = None,
    buckets: int = 50,
    bucket_volume: float | None = None,
) -> OrderFlow:
    """Give the order flow of `trades`: any table with `time, price, quantity, is_buyer_maker`, ascending by time.

    `anchor` is where CVD begins anew: `day`, `week`, `month`, `year` (UTC), or a session such as `8h`. `interval` is
    what Kyle's lambda and Amihud's illiquidity count as one observation. A trade is large from `large_quantity` on,
    else from the 0.99 quantile of these very trades. A bucket of VPIN holds `bucket_volume`, else a `buckets`-th of
    these trades' volume; both defaults describe the table as a whole, and are no features for its own rows.

    The frame of `timeframe` has `open_time, close_time, taker_buy_volume, taker_sell_volume, volume, quote_volume,
    delta, cvd, taker_ratio, trade_count`, the size quantiles as `size_p50` …, `large_volume` (base asset) and `vpin`,
    null where there is none; a bar without a trade is a row with volume 0.

    Raises `InvalidTable`, `ParameterOutOfRange` and `UnknownTimeframe`, before any work.

    >>> from datetime import UTC, datetime
    >>> noon = [datetime(2026, 1, 1, 12, tzinfo=UTC)] * 2
    >>> trades = {"time": noon, "price": [10.0, 10.5], "quantity": [1.0, 3.0], "is_buyer_maker": [True, False]}
    >>> flow = order_flow(pl.DataFrame(trades))
    >>> flow.delta, flow.taker_ratio, flow.cvd.tolist()
    (2.0, 0.75, [-1.0, 2.0])
    >>> flow.kyle_lambda, flow.reasons["kyle_lambda"]
    (None, 'degenerate')
    """
    length = None if timeframe is None else Timeframe.parse(timeframe)
    step = Timeframe.parse(interval)
    parts = _quantiles(quantiles)
    least = None if large_quantity is None else positive("large_quantity", large_quantity)
    bucket = None if bucket_volume is None else positive("bucket_volume", bucket_volume)
    if isinstance(buckets, bool) or not isinstance(buckets, Integral) or not 1 <= buckets <= 10_000:
        raise ParameterOutOfRange(
            "buckets is out of range", value=buckets, remedy="Allowed: an integer from 1 to 10000"
        )
    table = trades_frame(trades)
    arrays = read_trades(table)
    starts = anchor_starts(arrays.time, anchor)
    total = sum_rows(arrays, np.array([_EVER[0], _EVER[1]]))
    volume = float(total.volume[0])
    if bucket is None:
        bucket = volume / buckets
    if least is None and len(arrays):
        least = float(np.quantile(arrays.quantity, 0.99))
    measured = {
        "taker_ratio": (float(total.buy[0]) / volume if volume > 0 else np.nan, DIVISION_BY_ZERO),
        "vpin": (_vpin(arrays, np.array([len(arrays)]), bucket, buckets)[0], INSUFFICIENT_HISTORY),
        **_costs(arrays, step),
    }
    known = {name: float(number) if isfinite(number) else None for name, (number, _) in measured.items()}
    reasons = {name: STATUSES[reason] for name, (_, reason) in measured.items() if known[name] is None}
    sizes = np.quantile(arrays.quantity, parts).tolist() if len(arrays) else []
    return OrderFlow(
        trade_count=len(arrays),
        volume=volume,
        quote_volume=float(total.quote[0]),
        taker_buy_volume=float(total.buy[0]),
        taker_sell_volume=float(total.sell[0]),
        delta=float(total.delta[0]),
        cvd=cumulated(np.where(arrays.is_buy, arrays.quantity, -arrays.quantity), starts),
        anchor=anchor,
        size_quantiles=MappingProxyType(dict(zip(parts, sizes, strict=False))),
        large_trades=table.filter(pl.Series(arrays.quantity >= (inf if least is None else least))),
        large_quantity=least,
        buckets=buckets,
        bucket_volume=bucket or None,
        frame=None if length is None else _frame(arrays, length, anchor, parts, least, bucket, buckets),
        reasons=MappingProxyType(reasons),
        **known,
    )


def anchor_starts(instants: NDArray[np.int64], anchor: str) -> NDArray[np.int64]:
    """Give the start of each instant's period: of the calendar, or of a session as long as a timeframe.

    Raises `ParameterOutOfRange`.
    """
    if anchor in ANCHORS:
        return starts_of(instants, anchor)
    if anchor not in [each.value for each in Timeframe]:
        allowed = f"Allowed: {', '.join(ANCHORS)}, or a session: {' '.join(Timeframe)}"
        raise ParameterOutOfRange("Not an anchor", value=anchor, remedy=allowed)
    length = Timeframe.parse(anchor)
    return instants - (instants - length.floor(0)) % length.microseconds


def _vpin(trades: TradeArrays, counts: NDArray[np.int64], bucket_volume: float, buckets: int) -> Floats:
    from mdplatform.features.flow.vpin import vpin_after

    if bucket_volume <= 0:
        return np.full(len(counts), np.nan)
    return vpin_after(trades.quantity, trades.is_buy, counts, bucket_volume, buckets)


def _costs(trades: TradeArrays, step: Timeframe) -> dict[str, tuple[float, int]]:
    """Give Kyle's lambda, Amihud's illiquidity and Roll's spread, each with the reason that counts if it is NaN."""
    from mdplatform.features.flow.liquidity import amihud, kyle_lambda, roll_spread

    opens = trades.time - (trades.time - step.floor(0)) % step.microseconds
    starts = opens[np.append(True, opens[1:] != opens[:-1])[: len(opens)]]
    rows = sum_rows(trades, np.append(starts, _EVER[1]))
    given = {
        "kyle_lambda": (1, kyle_lambda, (rows.change, rows.delta, rows.volume)),
        "amihud": (2, amihud, (rows.last, rows.quote)),
        "roll_spread": (3, roll_spread, (trades.price,)),
    }
    costs: dict[str, tuple[float, int]] = {}
    for name, (least, function, arrays) in given.items():
        count = len(arrays[0])
        if count < least:
            costs[name] = (np.nan, INSUFFICIENT_HISTORY)
            continue
        values, why = function(*arrays, count - least + 1)  # type: ignore[operator]
        costs[name] = (float(values[-1]), int(why[-1]))
    return costs


def _frame(
    trades: TradeArrays,
    length: Timeframe,
    anchor: str,
    parts: tuple[float, ...],
    least: float | None,
    bucket: float,
    buckets: int,
) -> pl.DataFrame:
    from mdplatform.features.flow.kernels import size_quantiles

    edges = _grid(trades, length)
    rows = sum_rows(trades, edges)
    counts = np.searchsorted(trades.time, edges)
    large = np.where(trades.quantity >= (inf if least is None else least), trades.quantity, 0.0)
    of_row = np.repeat(np.arange(len(rows.count)), rows.count)
    columns = {
        "taker_buy_volume": rows.buy,
        "taker_sell_volume": rows.sell,
        "volume": rows.volume,
        "quote_volume": rows.quote,
        "delta": rows.delta,
        "cvd": cumulated(rows.delta, anchor_starts(edges[:-1], anchor)),
        "taker_ratio": rows.taker_ratio,
        "trade_count": rows.count,
        **{f"size_p{part * 100:g}": size_quantiles(trades.quantity, counts[:-1], counts[1:], part) for part in parts},
        "large_volume": np.bincount(of_row, large, minlength=len(rows.count)),
        "vpin": _vpin(trades, counts[1:], bucket, buckets),
    }
    times = [pl.Series("open_time", edges[:-1]).cast(INSTANT), pl.Series("close_time", edges[1:]).cast(INSTANT)]
    return pl.DataFrame([*times, *(pl.Series(name, values, nan_to_null=True) for name, values in columns.items())])


def _grid(trades: TradeArrays, length: Timeframe) -> NDArray[np.int64]:
    if not len(trades):
        return np.zeros(1, np.int64)
    first, last = length.floor(int(trades.time[0])), int(trades.time[-1])
    if (last - first) // length.microseconds >= _MOST_ROWS:
        raise ParameterOutOfRange(
            "The trades span too many bars",
            value=length.value,
            remedy=f"At most {_MOST_ROWS:,}: take a longer timeframe",
        )
    return np.arange(first, last + 1 + length.microseconds, length.microseconds)


def _quantiles(given: Iterable[float]) -> tuple[float, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ParameterOutOfRange("quantiles are several numbers", value=given, remedy="Such as (0.5, 0.99)")
    return tuple(_quantile(each) for each in given)


def _quantile(given: float) -> float:
    if isinstance(given, bool) or not isinstance(given, Real) or not 0 <= given <= 1:
        raise ParameterOutOfRange("A quantile is out of range", value=given, remedy="Allowed: a number from 0 to 1")
    return float(given)
