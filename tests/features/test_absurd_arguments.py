"""Arguments that no double can hold, or of another kind altogether: each gets one clear error, before any work."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest

from mdplatform.errors import PlatformError
from mdplatform.features import (
    TableData,
    correlation_matrix,
    order_flow,
    volume_profile,
    volume_profile_of_bars,
)
from mdplatform.features.correlation.beta import beta_to
from mdplatform.features.correlation.reading import correlation_of
from mdplatform.features.flow.trade_bars import cusum_events, imbalance_bars, tick_bars, volume_bars

HUGE: Any = 10**400
NO: Any = None
FIVE: Any = 5
TRADES = pl.DataFrame(
    {
        "time": [datetime(2026, 1, 1, tzinfo=UTC)] * 3,
        "price": [10.0, 11.0, 12.0],
        "quantity": [2.0, 2.0, 1.0],
        "is_buyer_maker": [True, False, True],
    }
)
TINY = TRADES.with_columns(quantity=pl.lit(5e-324))
RETURNS = pl.DataFrame({"A": [0.1, -0.2, 0.3, 0.1], "B": [0.2, -0.1, 0.1, 0.3]})


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: volume_profile(TRADES, row_size=HUGE), "A row size is not a number above zero"),
        (lambda: volume_profile(TRADES, row_size="sNaN"), "A row size is not a number above zero"),
        (lambda: volume_profile(TRADES, row_size=Decimal("sNaN")), "A row size is not a number above zero"),
        (lambda: volume_profile(TINY), "volume that a double can hold"),
        (
            lambda: volume_profile_of_bars(pl.DataFrame({"low": [10.0], "high": [11.0], "volume": [5e-324]})),
            "volume that a double can hold",
        ),
        (lambda: order_flow(TRADES, quantiles=0.5), "several numbers"),  # type: ignore[arg-type]
        (lambda: order_flow(TRADES, quantiles=NO), "several numbers"),
        (lambda: order_flow(TRADES, quantiles=[HUGE]), "quantile is out of range"),
        (lambda: order_flow(TRADES, large_quantity=HUGE), "large_quantity is out of range"),
        (lambda: order_flow(TRADES, bucket_volume=HUGE), "bucket_volume is out of range"),
        (lambda: imbalance_bars(TRADES, expected_count=HUGE), "expected_count is out of range"),
        (lambda: imbalance_bars(TRADES, expected_count=5, span=HUGE), "span is out of range"),
        (lambda: imbalance_bars(TRADES, expected_count=5, most=HUGE), "most is out of range"),
        (lambda: tick_bars(TRADES, HUGE), "count is out of range"),
        (lambda: volume_bars(TRADES, HUGE), "volume is out of range"),
        (lambda: cusum_events(TRADES, HUGE), "threshold is out of range"),
        (lambda: correlation_matrix(RETURNS, method="exponential", half_life=HUGE), "half_life"),
        (lambda: correlation_matrix(RETURNS, min_periods=HUGE), "min_periods"),
        (lambda: correlation_matrix(RETURNS, symbols=FIVE), "Not a list of symbols"),
        (lambda: correlation_of(NO, 10, "1h", data=TableData()), "Not a list of symbols"),
        (lambda: correlation_of([FIVE], 10, "1h", data=TableData()), "Not a symbol"),
        (lambda: beta_to(np.empty((5, 0)), "A"), "needs the names of its columns"),
        (lambda: beta_to(np.empty((5, 0)), "A", symbols=[]), "A panel without symbols"),
        (lambda: beta_to(np.empty((5, 0)), "A", symbols=FIVE), "Not a list of symbols"),
        (lambda: beta_to(RETURNS, "A", symbols=FIVE), "Not a list of symbols"),
    ],
)
def test_it_is_refused_by_name(call: Callable[[], object], told: str) -> None:
    with pytest.raises(PlatformError, match=told):
        call()


def test_a_profile_of_trades_needs_no_times() -> None:
    wanted = volume_profile(TRADES).rows
    assert volume_profile(TRADES.with_columns(time=pl.lit("noon"))).rows.equals(wanted)
    assert volume_profile(TRADES.drop("time")).rows.equals(wanted)
