"""Quantiles of trade sizes over windows that overlap: against numpy's of each window, and what they read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pytest

from mdplatform.features import Grid, TableData
from mdplatform.features.guard import STATUSES
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe

from ..flow.tape import stored
from .test_flow import DAY, SYMBOL, grid, of_trades, tape, whole


@pytest.mark.parametrize(("period", "part"), [(2, 0.5), (30, 0.9), (30, 0.0), (30, 1.0)])
def test_size_quantiles_of_windows_that_overlap_are_those_of_each_window_s_trades(period: int, part: float) -> None:
    trades, rows = tape(), grid(Timeframe.M30)
    at, sizes = trades["time"].dt.epoch("us").to_numpy(), trades["quantity"].to_numpy()
    values = whole(f"TRADE_SIZE_QUANTILE(q={part},timeperiod={period})", of_trades(trades), rows)
    assert (values.statuses == 0).sum() > 100
    for row in np.flatnonzero(values.statuses == 0).tolist():
        close = int(rows.close_time[row])
        inside = (at >= close - period * 30 * MINUTE_US) & (at < close)
        assert values.outputs[0][row] == pytest.approx(np.quantile(sizes[inside], part), rel=1e-12)


@dataclass
class Asked(TableData):
    """Tells of which spans trades were asked for."""

    spans: list[tuple[int, int]] = field(default_factory=list)

    def trades(self, symbol: str, start: int | None, end: int | None) -> pl.DataFrame:
        self.spans.append((start or 0, end or 0))
        return super().trades(symbol, start, end)


def test_a_long_period_reads_no_trades_for_rows_without_a_value() -> None:
    data = Asked()
    weeks = Grid(SYMBOL, Timeframe.W1, np.arange(47) * 7 * DAY_US + DAY - DAY % (7 * DAY_US) + 4 * DAY_US)
    values = whole("TRADE_SIZE_QUANTILE(timeperiod=1000)", data, weeks)
    assert {STATUSES[each] for each in values.statuses} == {"not_available_yet"}
    assert data.spans == []


def test_a_long_period_reads_each_day_of_trades_a_few_times_at_most() -> None:
    data = Asked(trades_of={SYMBOL: stored(tape(days=6))})
    values = whole("TRADE_SIZE_QUANTILE(timeperiod=60)", data, grid(days=6))
    assert (values.statuses == 0).sum() > 60
    assert sum(end - start for start, end in data.spans) <= 4 * 6 * DAY_US
