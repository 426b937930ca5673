"""Warming: what the first request of a kind would wait for is made ready beside the work.

Kernels of order flow, profiles, correlations and ranks are compiled, or their machine code is loaded, when they are
first called: together 6 s on a new machine, 1.3 s after that. So every kind is computed once, on a few bars and trades
that are made up, in a thread beside the loop, once the worker takes requests. It is a thread of the usual priority: one
of a lower one that holds the interpreter's lock would hold up whoever waits for the lock.
"""

from __future__ import annotations

import logging
import threading
import time

import polars as pl

from mdplatform.market.bars import BAR_SCHEMA
from mdplatform.market.trades import TRADES

_SYMBOL, _OTHER = "WARMUSDT", "OTHERUSDT"
_ROWS = 400
_FIRST = 1_735_689_600_000_000
_OTHERS = ("rank(close, 60)", "KYLE_LAMBDA(method=trades)", f"CORRELATION(reference={_OTHER}, method=spearman)")
_log = logging.getLogger(__name__)


def warm_in_background() -> threading.Thread:
    """Begin to warm all kinds in a thread; give the thread, which holds up no exit."""
    thread = threading.Thread(target=_quietly, name="warming", daemon=True)
    thread.start()
    return thread


def _quietly() -> None:
    try:
        warm_kinds()
    except Exception:  # noqa: BLE001 (requests are answered without it, only later)
        _log.exception("The kernels could not be warmed")


def warm_kinds() -> dict[str, float]:
    """Compute every feature that has kernels of ours once; give how many seconds each took."""
    from mdplatform.features import TableData, correlation_matrix, evaluate_on, log_returns, parse_feature
    from mdplatform.features.data import grid_of
    from mdplatform.features.registry import definition, function_names
    from mdplatform.market.timeframe import Timeframe

    bars = {symbol: _bars(symbol, step) for symbol, step in ((_SYMBOL, 7), (_OTHER, 11))}
    data = TableData(bars_of=bars, trades_of={_SYMBOL: _trades(_SYMBOL)})
    grid = grid_of(data.bars(_SYMBOL, Timeframe.M15, None, None))
    arguments = {"DOLLAR_BARS": "size=1000", "VOLUME_BARS": "size=10", "FOOTPRINT_IMBALANCE": "row_size=1"}
    took: dict[str, float] = {}
    names = [each for each in function_names() if definition(each).kind in ("flow", "profile", "correlation")]
    reference = {name: f"reference={_OTHER}" for name in names if definition(name).kind == "correlation"}
    texts = [f"{name}({(arguments | reference).get(name, '')})" for name in names]
    for text in (*texts, *_OTHERS):
        began = time.perf_counter()
        evaluate_on(grid, [parse_feature(text)], data)
        took[text] = time.perf_counter() - began
    for method in ("pearson", "spearman"):
        began = time.perf_counter()
        correlation_matrix(log_returns(bars, Timeframe.M15), method=method)
        took[f"correlation_matrix {method}"] = time.perf_counter() - began
    return took


def _bars(symbol: str, step: int) -> pl.DataFrame:
    """Make bars of 15 minutes whose prices go up and down in steps of their own."""
    row = pl.int_range(_ROWS, eager=True)
    close = (100.0 + (row * step % 13 - row * step % 29)).cast(pl.Float64)
    opens = pl.Series("open_time", row * 900_000_000 + _FIRST).cast(pl.Datetime("us", "UTC"))
    closes = opens.dt.offset_by("15m")
    table = {
        "symbol": [symbol] * _ROWS, "timeframe": ["15m"] * _ROWS, "open_time": opens, "close_time": closes,
        "open": close, "high": close + 1, "low": close - 1, "close": close,
        "volume": close, "quote_volume": close * 100,
        "trade_count": row + 1, "taker_buy_volume": close / 3, "taker_buy_quote_volume": close * 33,
        "is_closed": [True] * _ROWS, "state": ["observed"] * _ROWS, "source": ["warming"] * _ROWS,
        "revision": [0] * _ROWS, "available_at": closes, "ingested_at": closes,
    }  # fmt: skip
    return pl.DataFrame(table).cast(BAR_SCHEMA)


def _trades(symbol: str) -> pl.DataFrame:
    """Make ten trades for each of the bars."""
    row = pl.int_range(10 * _ROWS, eager=True)
    at = pl.Series("time", row * 90_000_000 + _FIRST + 1).cast(pl.Datetime("us", "UTC"))
    table = {
        "symbol": [symbol] * len(row), "trade_id": row, "time": at, "price": 100.0 + row * 7 % 13,
        "quantity": 1.0 + row * 5 % 11, "is_buyer_maker": row * 3 % 7 > 2, "source": ["warming"] * len(row),
        "revision": [0] * len(row), "available_at": at, "ingested_at": at,
    }  # fmt: skip
    return pl.DataFrame(table).cast(TRADES.schema)
