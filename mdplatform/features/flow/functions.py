"""What the kind `flow` computes of the sums of rows, be they the exchange's bars or made of trades: the same functions.

Each takes the rows of a stretch without a hole and the feature's arguments, and gives its outputs (NaN where there is
no value) and for each row why there is none (a status, or 0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.flow.rows import FlowRows, cumulated, rolling_sum
from mdplatform.features.guard import DIVISION_BY_ZERO
from mdplatform.features.talib_functions import Floats

Outputs = tuple[tuple[Floats, ...], NDArray[np.int8]]
Function = Callable[[FlowRows, NDArray[np.int64], Mapping[str, Any]], Outputs]


def _delta(rows: FlowRows, starts: NDArray[np.int64], given: Mapping[str, Any]) -> Outputs:
    return _plain(rows.delta)


def _cvd(rows: FlowRows, starts: NDArray[np.int64], given: Mapping[str, Any]) -> Outputs:
    return _plain(cumulated(rows.delta, starts))


def _taker_ratio(rows: FlowRows, starts: NDArray[np.int64], given: Mapping[str, Any]) -> Outputs:
    ratio = rows.taker_ratio
    return (ratio,), np.where(np.isnan(ratio), np.int8(DIVISION_BY_ZERO), np.int8(0))


def _taker_imbalance(rows: FlowRows, starts: NDArray[np.int64], given: Mapping[str, Any]) -> Outputs:
    bought, sold = (rolling_sum(each, given["timeperiod"]) for each in (rows.buy, rows.sell))
    with np.errstate(invalid="ignore"):
        imbalance = (bought - sold) / (bought + sold)
    return (imbalance,), np.where(bought + sold == 0, np.int8(DIVISION_BY_ZERO), np.int8(0))


def _amihud(rows: FlowRows, starts: NDArray[np.int64], given: Mapping[str, Any]) -> Outputs:
    from mdplatform.features.flow.liquidity import amihud

    values, reasons = amihud(rows.last, rows.quote, given["timeperiod"])
    return (values,), reasons


def _roll_spread(rows: FlowRows, starts: NDArray[np.int64], given: Mapping[str, Any]) -> Outputs:
    from mdplatform.features.flow.liquidity import roll_spread

    values, reasons = roll_spread(rows.last, given["timeperiod"])
    return (values,), reasons


def _kyle_lambda(rows: FlowRows, starts: NDArray[np.int64], given: Mapping[str, Any]) -> Outputs:
    from mdplatform.features.flow.liquidity import kyle_lambda

    values, reasons = kyle_lambda(rows.change, rows.delta, rows.volume, given["timeperiod"])
    return (values,), reasons


def _trade_flow(rows: FlowRows, starts: NDArray[np.int64], given: Mapping[str, Any]) -> Outputs:
    return _plain(rows.buy, rows.sell, rows.volume, rows.quote, rows.count.astype(np.float64))


def _plain(*outputs: Floats) -> Outputs:
    return outputs, np.zeros(len(outputs[0]), np.int8)


FUNCTIONS: Mapping[str, Function] = {
    "AMIHUD": _amihud,
    "CVD": _cvd,
    "DELTA": _delta,
    "KYLE_LAMBDA": _kyle_lambda,
    "ROLL_SPREAD": _roll_spread,
    "TAKER_IMBALANCE": _taker_imbalance,
    "TAKER_RATIO": _taker_ratio,
    "TRADE_FLOW": _trade_flow,
}
"""Each function by its name; `starts` tells where each row's anchor is, for those that have one."""
