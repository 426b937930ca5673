"""Correlation with another symbol, beta to it, and which of the two leads, in each row of the grid.

1. Closes of the row's symbol and of the reference are put on one grid, and their log returns taken; a hole in either
   leaves a hole, and no return reaches across one. Where the
   reference's bar comes after a row's T, the value is that of the row before, unless that is stale (`gap`).
2. A window of rows slides over them (`features.correlation`). Each computation begins at a row whose number since the
   epoch is a multiple of the window, so that a value has the same bits in whatever partition it is computed.
3. A row in which either has no bar is null (`gap`), so is one whose window has too few rows because of holes; where
   history is too short it is `insufficient_history`, before the reference began `not_available_yet`, and where a
   series is constant `degenerate`. A window that reaches back beyond the beginning of history is `unsettled`.

The reference may be the symbol itself: its correlation and beta are then 1, and its best lag is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import ParameterOutOfRange, UnknownSymbol
from mdplatform.features.correlation import ENGINE
from mdplatform.features.definition import Definition, Parameter
from mdplatform.features.kinds import Need

if TYPE_CHECKING:
    from mdplatform.features.data import Data, Grid, Values
    from mdplatform.features.spec import FeatureSpec
    from mdplatform.features.talib_functions import Floats
    from mdplatform.market.timeframe import Timeframe

_KIND = "correlation"
_REFERENCE = Parameter(
    "reference",
    "text",
    "",
    pattern=r"[A-Z0-9](?!.*\.\.)[A-Z0-9_.\-]{0,31}",
    meaning="a symbol in capitals, such as ETHUSDT",
)
_WINDOW = Parameter("window", "integer", 96, 3, 100_000)
_LEAST = Parameter("min_periods", "integer", 0, 0, 100_000)
_METHOD = Parameter("method", "choice", "pearson", choices=("pearson", "spearman"))
_MAX_LAG = Parameter("max_lag", "integer", 5, 1, 100)


def _lengths(arguments: Mapping[str, Any]) -> tuple[int, int]:
    least = _least(arguments)
    return least, int(arguments["window"]) + int(arguments.get("max_lag", 0)) - least


def _least(arguments: Mapping[str, Any]) -> int:
    """Give the fewest rows of a window; 0 stands for half of it (at least 3)."""
    window, least = int(arguments["window"]), int(arguments["min_periods"])
    if least == 0:
        return max(3, -(-window // 2))
    if not 2 <= least <= window:
        raise ParameterOutOfRange(
            "min_periods of a correlation", value=least, remedy=f"Allowed: 0 (half the window), or from 2 to {window}"
        )
    return least


def _definition(name: str, title: str, parameters: tuple[Parameter, ...], outputs: tuple[str, ...]) -> Definition:
    return Definition(
        name=name,
        title=title,
        group="Correlation",
        is_cumulative=False,
        inputs=(),
        parameters=(_REFERENCE, _WINDOW, *parameters, _LEAST),
        outputs=outputs,
        kind=_KIND,
        engine=ENGINE,
        lengths=_lengths,
        required=("reference",),
    )


DEFINITIONS = (
    _definition("BETA_TO", "Beta of log returns to those of another symbol", (), ("beta",)),
    _definition("CORRELATION", "Correlation of log returns with those of another symbol", (_METHOD,), ("correlation",)),
    _definition(
        "LEAD_LAG",
        "The lag in bars at which log returns correlate most with another symbol's (above 0: the other leads)",
        (_MAX_LAG,),
        ("lag", "correlation"),
    ),
)


def evaluate(specs: Sequence[FeatureSpec], grid: Grid, data: Data) -> dict[FeatureSpec, Values]:
    """Load the bars of both symbols as far back as each spec needs itself, and compute it.

    Raises `UnknownSymbol` for a reference of which the data have no bars.
    """
    for spec in specs:
        _lengths(spec.arguments)
        reference = str(spec.arguments["reference"])
        if reference != grid.symbol and reference not in (known := data.symbols()):
            raise UnknownSymbol(reference, known)
    return {spec: _evaluate(spec, grid, data) for spec in specs}


def reads(spec: FeatureSpec, symbol: str, timeframe: Timeframe) -> frozenset[Need]:
    """The bars of the symbol and of the reference."""
    return frozenset({Need("bars", symbol), Need("bars", str(spec.arguments["reference"]))})


def _evaluate(spec: FeatureSpec, grid: Grid, data: Data) -> Values:
    from mdplatform.features.data import Values
    from mdplatform.features.guard import DEGENERATE, GAP, INSUFFICIENT_HISTORY, NOT_AVAILABLE_YET, UNSETTLED

    given = spec.arguments
    window, lags = int(given["window"]), int(given.get("max_lag", 0))
    step = grid.timeframe.microseconds
    row = (grid.start - grid.timeframe.floor(0)) // step - 1  # the one before the first, which may stand for it
    first = grid.start - (1 + row % window + window + lags) * step
    opens = np.arange(first, grid.end, step)
    own, _, began = _closes(data, grid.symbol, grid.timeframe, opens)
    other, other_known, other_began = _closes(data, str(given["reference"]), grid.timeframe, opens)
    outputs, counts = _kernel(spec, _returns(own), _returns(other))

    rows = (grid.open_time - first) // step
    waits = other_known[rows] > grid.known_at
    is_prompt = grid.known_at - other_known[rows - 1] < step  # else the next one should have been there
    is_gap = np.isnan(own[rows]) | (waits & ~is_prompt)
    rows -= waits & is_prompt
    opens = opens[rows]
    outputs = tuple(each[rows] for each in outputs)
    begins = max(began, other_began)
    statuses = np.zeros(len(grid), np.int8)
    statuses[opens - (window + lags) * step < begins] = UNSETTLED
    few = counts[rows] < _least(given)
    statuses[np.isnan(outputs[0])] = DEGENERATE
    statuses[few] = GAP
    statuses[few & (opens - window * step < begins)] = INSUFFICIENT_HISTORY
    statuses[is_gap | np.isnan(own[rows]) | np.isnan(other[rows])] = GAP
    statuses[opens < other_began] = NOT_AVAILABLE_YET
    outputs = tuple(np.where(statuses <= UNSETTLED, each, np.nan) for each in outputs)
    return Values(outputs, statuses)


def _kernel(spec: FeatureSpec, own: Floats, other: Floats) -> tuple[tuple[Floats, ...], NDArray[np.int64]]:
    """Give the outputs in each row, and the number of common rows at which they have a value."""
    from mdplatform.features.correlation.lead_lag import best_lag
    from mdplatform.features.correlation.pair_kernels import roll_pair, roll_ranks
    from mdplatform.features.correlation.rolling import TOLERANCE

    given = spec.arguments
    window, least = int(given["window"]), _least(given)
    if given.get("method") == "spearman":
        correlation, counts, _ = roll_ranks(own, other, window, least, 1)
        return (correlation,), counts
    if spec.name != "LEAD_LAG":
        correlation, beta, counts, _ = roll_pair(own, other, window, least, 0, 1, TOLERANCE)
        return (beta if spec.name == "BETA_TO" else correlation,), counts
    lags = int(given["max_lag"])
    found = []
    for lag in range(-lags, lags + 1):
        late = own if lag >= 0 else _shifted(own, -lag)
        early = other if lag <= 0 else _shifted(other, lag)
        found.append(roll_pair(late, early, window, least, -lags, 1, TOLERANCE))
    lag_rows, correlation = best_lag(np.stack([each[0] for each in found]), lags)
    at = np.where(np.isnan(correlation), np.nan, lag_rows.astype(np.float64))
    return (at, correlation), np.max(np.stack([each[2] for each in found]), axis=0)


def _closes(
    data: Data, symbol: str, timeframe: Timeframe, opens: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.int64], int]:
    """Give the closes, when each was available, and from when on there is any history."""
    from mdplatform.features.arrival import arrivals

    step = timeframe.microseconds
    bars = data.bars(symbol, timeframe, int(opens[0]), int(opens[-1]) + step)
    closes, known_at = np.full(len(opens), np.nan), opens + step
    if bars.is_empty():
        is_over = not data.bars(symbol, timeframe, None, int(opens[0])).is_empty()
        return closes, known_at, int(opens[0] if is_over else opens[-1] + step)
    began = int(bars["open_time"].dt.epoch("us")[0])
    rows = (bars["open_time"].to_physical().to_numpy() - opens[0]) // step
    known_at[rows] = arrivals(bars)
    known_at[rows[-1] + 1 :] += step  # what has not come yet
    known = bars.filter((pl.col("state") != "gap") & (pl.col("close") > 0) & pl.col("close").is_finite())
    closes[(known["open_time"].dt.epoch("us").to_numpy() - opens[0]) // step] = known["close"].to_numpy()
    return closes, known_at, began


def _returns(closes: Floats) -> Floats:
    found = np.full(len(closes), np.nan)
    found[1:] = np.log(closes[1:] / closes[:-1])
    return found


def _shifted(series: Floats, rows: int) -> Floats:
    found = np.full(len(series), np.nan)
    found[rows:] = series[:-rows]
    return found
