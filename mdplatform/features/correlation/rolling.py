"""Correlation in a window that slides over a panel, at every row or every so many.

1. A pair's sums slide by one row: what enters is added and what leaves is taken away, which for all pairs together is a
   rank-one update of each of their matrices of sums (`pair_kernels.roll_pair`).
2. A pair is computed anew, over its window and about its own mean, once in a window's length, and whenever the
   roundings that its updates may have left exceed 1e-13 of a variance: so also when an outlier leaves the window. Drift
   stays under 1e-12, however long the series.
3. Where only a few rows are wanted, each one's matrix is computed by itself (`matrix`), which is quicker then.

Spearman's correlation keeps each window sorted, and takes time in proportion to rows × window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import ParameterOutOfRange, UnknownSymbol
from mdplatform.features.correlation.matrix import LEAST_PERIODS, check_least, correlation_matrix
from mdplatform.features.correlation.panels import Panel, PanelLike, panel_of
from mdplatform.features.correlation.result import Correlations
from mdplatform.features.guard import DEGENERATE, INSUFFICIENT_HISTORY, STATUSES
from mdplatform.features.talib_functions import Floats
from mdplatform.market.bars import INSTANT

TOLERANCE = 1e-13
"""The share of a variance that roundings may reach before a pair is computed anew."""
LARGEST_WINDOW = 1_000_000
MOST_VALUES = 50_000_000
_ROWS_FOR_A_MATRIX = 50
_WORDS = pl.Series([None, *STATUSES[1:]], dtype=pl.String)


@dataclass(frozen=True, eq=False)
class RollingCorrelations:
    """Correlations of `pairs` in the window that ends with each of `rows` (numbers of rows of the panel, ascending).

    `values`, `observations` and `statuses` (indices in `STATUSES`) are rows × pairs; NaN stands for null.
    """

    symbols: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    rows: NDArray[np.int64]
    values: Floats
    observations: NDArray[np.int64]
    statuses: NDArray[np.int8]
    window: int
    method: str
    min_periods: int
    open_time: NDArray[np.int64] | None = None

    def series(self, left: str, right: str) -> Floats:
        """Give the values of one pair, a number for each of `rows`. Raises `UnknownSymbol` if it was not asked for."""
        pair = (left, right) if (left, right) in self.pairs else (right, left)
        if pair not in self.pairs:
            raise UnknownSymbol(f"{left}, {right}", [", ".join(each) for each in self.pairs])
        found: Floats = self.values[:, self.pairs.index(pair)]
        return found

    def matrix(self, at: int) -> Correlations:
        """Give the matrix of the `at`-th of `rows`; pairs that were not asked for are null."""
        size = len(self.symbols)
        matrix, observations = np.full((size, size), np.nan), np.zeros((size, size), np.int64)
        for column, (left, right) in enumerate(self.pairs):
            i, j = self.symbols.index(left), self.symbols.index(right)
            matrix[i, j] = matrix[j, i] = self.values[at, column]
            observations[i, j] = observations[j, i] = self.observations[at, column]
            for each in (i, j):
                if not np.isnan(self.values[at, column]):
                    matrix[each, each] = 1.0
                observations[each, each] = max(observations[each, each], observations[i, j])
        time = None if self.open_time is None else pl.Series([int(self.open_time[at])]).cast(INSTANT)[0]
        return Correlations(
            self.symbols, matrix, observations, self.method, "pairwise", self.min_periods, self.window, open_time=time
        )

    def frame(self) -> pl.DataFrame:
        """Give a long frame: `open_time` (or `row`), `symbol_a`, `symbol_b`, correlation, observations, reason."""
        count = len(self.pairs)
        told = self.rows if self.open_time is None else self.open_time
        when = pl.Series("row" if self.open_time is None else "open_time", np.repeat(told, count))
        left, right = (pl.Series([pair[side] for pair in self.pairs], dtype=pl.String) for side in (0, 1))
        again = np.tile(np.arange(count), len(self.rows))
        return pl.DataFrame(
            [
                when if self.open_time is None else when.cast(INSTANT),
                left.gather(again).alias("symbol_a"),
                right.gather(again).alias("symbol_b"),
                pl.Series("correlation", self.values.ravel(), dtype=pl.Float64, nan_to_null=True),
                pl.Series("observations", self.observations.ravel(), dtype=pl.Int64),
                _WORDS.gather(self.statuses.ravel()).alias("reason"),
            ]
        )


def rolling_correlation(
    returns: PanelLike,
    window: int,
    step: int = 1,
    *,
    pairs: Iterable[tuple[str, str]] | None = None,
    symbols: Sequence[str] | None = None,
    method: str = "pearson",
    min_periods: int | None = None,
) -> RollingCorrelations:
    """Give the correlation of pairs (all, unless named) over the last `window` rows, at every `step`-th row.

    The last row of the panel is always among them. Rows in which either series is missing are left out of a window;
    with fewer than `min_periods` others (3, or a shorter window's length) it is null. Rows near the start see as many
    as there are. `method` is `pearson` or `spearman`. Raises `InvalidTable`, `UnknownSymbol` and `ParameterOutOfRange`.
    """
    check_window(window)
    min_periods = min(LEAST_PERIODS, window) if min_periods is None else min_periods
    check_least(min_periods, most=window)
    if not isinstance(step, int | np.integer) or isinstance(step, bool) or step < 1:
        raise ParameterOutOfRange("step of a rolling window", value=step, remedy="Allowed: an integer from 1")
    if method not in ("pearson", "spearman"):
        raise ParameterOutOfRange(
            "Unknown method of a rolling correlation", value=method, remedy="Allowed: pearson, spearman"
        )
    panel = panel_of(returns, symbols)
    wanted = tuple(combinations(panel.symbols, 2)) if pairs is None else tuple(map(_pair, pairs))
    places = np.array([(panel.index(a), panel.index(b)) for a, b in wanted], np.int64).reshape(-1, 2)
    rows = np.arange((len(panel) - 1) % step, len(panel), step) if len(panel) else np.empty(0, np.int64)
    shape = (len(rows), len(wanted))
    if shape[0] * shape[1] > MOST_VALUES:
        raise ParameterOutOfRange(
            "Too many values at once", value=f"{shape[0]} rows × {shape[1]} pairs", remedy="Name pairs, or take a step"
        )
    values, counts = np.full(shape, np.nan, order="F"), np.zeros(shape, np.int64, order="F")
    constant = np.zeros(shape, np.bool_, order="F")
    if pairs is None and method == "pearson" and window <= _ROWS_FOR_A_MATRIX * step and len(wanted) > 1:
        for at, answer in enumerate(matrices(panel, window, rows.tolist(), min_periods=min_periods)):
            values[at] = answer.matrix[places[:, 0], places[:, 1]]
            counts[at] = answer.observations[places[:, 0], places[:, 1]]
        constant = np.isnan(values) & (counts >= min_periods)
    elif len(rows):
        from mdplatform.features.correlation.pair_kernels import roll_pair, roll_ranks

        columns = np.ascontiguousarray(panel.values.T)
        for at, (i, j) in enumerate(places.tolist()):
            if method == "pearson":
                found = roll_pair(columns[i], columns[j], window, min_periods, 0, step, TOLERANCE)
                values[:, at], _, counts[:, at], is_constant = found
            else:
                values[:, at], counts[:, at], is_constant = roll_ranks(
                    columns[i], columns[j], window, min_periods, step
                )
            constant[:, at] = is_constant > 0
    statuses = np.where(counts < min_periods, INSUFFICIENT_HISTORY, DEGENERATE)
    statuses = np.where(np.isnan(values), statuses, 0).astype(np.int8)
    times = None if panel.open_time is None else panel.open_time[rows]
    return RollingCorrelations(
        panel.symbols, wanted, rows, values, counts, statuses, window, method, min_periods, times
    )


def matrices(panel: Panel, window: int, rows: Iterable[int], **options: object) -> Iterator[Correlations]:
    """Give the whole matrix (`correlation_matrix` with `options`) of the window that ends with each of `rows`."""
    for row in rows:
        part = panel.rows(max(0, row + 1 - window), row + 1)
        yield replace(correlation_matrix(part, **options), rows=window)  # type: ignore[arg-type]


def _pair(given: tuple[str, str]) -> tuple[str, str]:
    if isinstance(given, str) or len(given) != 2:
        raise ParameterOutOfRange("Not a pair of symbols", value=given, remedy="Write it as ('BTCUSDT', 'ETHUSDT')")
    return given[0], given[1]


def check_window(window: object) -> None:
    """Refuse a window that makes no sense. Raises `ParameterOutOfRange`."""
    is_count = isinstance(window, int | np.integer) and not isinstance(window, bool)
    if not is_count or not 2 <= window <= LARGEST_WINDOW:  # type: ignore[operator]
        raise ParameterOutOfRange(
            "window of a correlation", value=window, remedy=f"Allowed: an integer from 2 to {LARGEST_WINDOW}"
        )
