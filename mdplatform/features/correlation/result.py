"""What a correlation matrix comes with: pair counts, the estimator's name, reasons of nulls, and its eigenvalues."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.features.correlation.nearest_psd import slack, smallest_eigenvalue
from mdplatform.features.correlation.panels import place_of
from mdplatform.features.guard import DEGENERATE, INSUFFICIENT_HISTORY, STATUSES
from mdplatform.features.talib_functions import Floats

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_WORDS = pl.Series([None, *STATUSES[1:]], dtype=pl.String)


@dataclass(frozen=True, eq=False, repr=False)
class Correlations:
    """The correlation of each pair of `symbols`.

    `matrix` is symmetric to the last bit, within [−1, 1], 1 on its diagonal; NaN where it is null: where there are
    fewer than `min_periods` common rows (`insufficient_history`), or a series is constant on them (`degenerate`).
    `observations` counts the common rows of each pair, or the rows that all have in common where `sample` is `common`.
    `rows` is the window. `open_time` is that of its last row where times are known, `available_at` when that closed.
    """

    symbols: tuple[str, ...]
    matrix: Floats
    observations: NDArray[np.int64]
    method: str
    sample: str
    min_periods: int
    rows: int
    half_life: float | None = None
    shrinkage: str | None = None
    shrinkage_intensity: float | None = None
    repaired: bool = False
    timeframe: str | None = None
    open_time: datetime | None = None
    available_at: datetime | None = None

    def __post_init__(self) -> None:
        self.matrix.flags.writeable = False
        self.observations.flags.writeable = False

    def __repr__(self) -> str:
        until = "" if self.available_at is None else f" to {self.available_at:%Y-%m-%d %H:%M} UTC"
        return f"<Correlations of {len(self.symbols)} symbols over {self.rows} rows{until}: {self.estimator}>"

    @property
    def estimator(self) -> str:
        """Name all of how it was computed, as in `pearson, pairwise` or `exponential(half_life=96), pairwise`."""
        parts = [self.method if self.half_life is None else f"{self.method}(half_life={self.half_life:g})", self.sample]
        if self.shrinkage_intensity is not None:
            parts.append(f"{self.shrinkage}(intensity={self.shrinkage_intensity:.6g})")
        return ", ".join([*parts, "nearest_psd"] if self.repaired else parts)

    @property
    def statuses(self) -> NDArray[np.int8]:
        """The status of each pair, as an index in `STATUSES`: 0 where there is a value, else the reason why not."""
        reasons = np.where(self.observations < self.min_periods, INSUFFICIENT_HISTORY, DEGENERATE)
        return np.where(np.isnan(self.matrix), reasons, 0).astype(np.int8)

    @cached_property
    def min_eigenvalue(self) -> float | None:
        """The smallest eigenvalue, of the symbols that have a correlation; None where some of their pairs are null."""
        known = self._known
        part = self.matrix[np.ix_(known, known)]
        return None if not len(part) or np.isnan(part).any() else smallest_eigenvalue(part)

    @property
    def is_psd(self) -> bool | None:
        """Whether it is positive semi-definite but for rounding; None where that cannot be told (null pairs)."""
        smallest = self.min_eigenvalue
        return None if smallest is None else smallest >= -slack(len(self._known))

    def value(self, left: str, right: str) -> float | None:
        """Give the correlation of two symbols, None where it is null. Raises `UnknownSymbol`."""
        found = float(self.matrix[place_of(self.symbols, left), place_of(self.symbols, right)])
        return None if np.isnan(found) else found

    def whole(self) -> Correlations:
        """Give the same of those symbols that have no null pair; the ones with the most are left out first."""
        null = np.isnan(self.matrix)
        kept = list(range(len(self.symbols)))
        while (counts := null[np.ix_(kept, kept)].sum(axis=1)).any():
            worst = max(range(len(kept)), key=lambda at: (counts[at], self.symbols[kept[at]]))
            kept.pop(worst)
        return self.of([self.symbols[at] for at in kept])

    def of(self, symbols: list[str] | tuple[str, ...]) -> Correlations:
        """Give the same of some symbols, in that order. Raises `UnknownSymbol`."""
        kept = [place_of(self.symbols, each) for each in symbols]
        places = np.ix_(kept, kept)
        return replace(
            self, symbols=tuple(symbols), matrix=self.matrix[places], observations=np.array(self.observations[places])
        )

    def pairs(self) -> pl.DataFrame:
        """Give each pair once: `symbol_a`, `symbol_b` (in the symbols' order), correlation, observations, reason."""
        left, right = np.triu_indices(len(self.symbols), 1)
        names = pl.Series(self.symbols, dtype=pl.String)
        return pl.DataFrame(
            {
                "symbol_a": names.gather(left),
                "symbol_b": names.gather(right),
                "correlation": pl.Series(self.matrix[left, right], dtype=pl.Float64, nan_to_null=True),
                "observations": pl.Series(self.observations[left, right], dtype=pl.Int64),
                "reason": _WORDS.gather(self.statuses[left, right]),
            }
        )

    def to_pandas(self) -> pd.DataFrame:
        """Give the matrix as a pandas frame, NaN where it is null."""
        import pandas

        return pandas.DataFrame(self.matrix.copy(), index=list(self.symbols), columns=list(self.symbols))

    def to_arrow(self) -> pa.Table:
        """Give `pairs` as an Arrow table, the estimator and the eigenvalue in its metadata."""
        table = self.pairs().to_arrow()
        smallest = self.min_eigenvalue
        told = {"estimator": self.estimator, "min_eigenvalue": "" if smallest is None else repr(smallest)}
        return table.replace_schema_metadata(told | {"is_psd": str(self.is_psd)})

    @property
    def _known(self) -> NDArray[np.int64]:
        return np.flatnonzero(~np.isnan(np.diagonal(self.matrix)))
