"""Outliers and scales: winsorizing, the robust z-score, the rolling z-score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdplatform.strategy.preprocessing import kernels
from mdplatform.strategy.preprocessing.columnwise import Columnwise
from mdplatform.strategy.preprocessing.parameters import check_count, check_share
from mdplatform.strategy.preprocessing.refusal import refused
from mdplatform.strategy.preprocessing.step import Fitted
from mdplatform.strategy.preprocessing.table import Floats

MAD_TO_DEVIATION = 1.4826022185056018
"""1 / Φ⁻¹(3/4): by which the median absolute deviation of a normal variable makes its standard deviation."""
IQR_TO_DEVIATION = 1.3489795003921634
"""2 Φ⁻¹(3/4): the interquartile range of a normal variable, in standard deviations."""
SCALES = ("mad", "iqr")
LONGEST = 100_000


class Winsorize(Columnwise):
    """Values beyond two quantiles of the training rows become those quantiles (linear between rows, as numpy's)."""

    def __init__(
        self, lower: float = 0.01, upper: float = 0.99, by_symbol: bool = False, columns: Sequence[str] | None = None
    ) -> None:
        self.lower = lower
        self.upper = upper
        self.by_symbol = by_symbol
        self.columns = columns

    def _check_parameters(self) -> None:
        check_share(self.lower, "lower", 0.0, 1.0)
        check_share(self.upper, "upper", 0.0, 1.0)
        if self.lower >= self.upper:
            raise refused("It is not below `upper`", field="lower", value=self.lower)

    def _learn(self, values: Floats, names: Sequence[str]) -> Fitted:
        check_there(values, names)
        lowest, highest = np.nanquantile(values, [self.lower, self.upper], axis=0)
        return {"lowest": lowest, "highest": highest}

    def _compute(self, values: Floats, fitted: Fitted, first: int) -> Floats:
        return np.clip(values, fitted["lowest"], fitted["highest"])


class RobustZScore(Columnwise):
    """(x - median) / scale, both of the training rows.

    `scale` is `mad`, the median absolute deviation, or `iqr`, the interquartile range, each made comparable with the
    standard deviation of a normal variable. A column whose scale is 0 is refused by `fit`.
    """

    def __init__(self, scale: str = "mad", by_symbol: bool = False, columns: Sequence[str] | None = None) -> None:
        self.scale = scale
        self.by_symbol = by_symbol
        self.columns = columns

    def _check_parameters(self) -> None:
        if self.scale not in SCALES:
            raise refused("Unknown scale", field="scale", value=self.scale, remedy=f"Known: {', '.join(SCALES)}")

    def _learn(self, values: Floats, names: Sequence[str]) -> Fitted:
        check_there(values, names)
        centre = np.nanmedian(values, axis=0)
        if self.scale == "mad":
            scale = np.nanmedian(np.abs(values - centre), axis=0) * MAD_TO_DEVIATION
        else:
            low, high = np.nanquantile(values, [0.25, 0.75], axis=0)
            scale = (high - low) / IQR_TO_DEVIATION
        for name, each in zip(names, scale, strict=True):
            if not each > 0:
                other = "leave the column out" if self.scale == "iqr" else "use scale='iqr', or leave the column out"
                raise refused(
                    f"Half of the training rows are equal, so that the {self.scale} is 0",
                    field=name,
                    remedy=other.capitalize(),
                )
        return {"centre": centre, "scale": scale}

    def _compute(self, values: Floats, fitted: Fitted, first: int) -> Floats:
        scaled: Floats = (values - fitted["centre"]) / fitted["scale"]
        return scaled


class RollingZScore(Columnwise):
    """(x[t] - mean) / standard deviation (the population's) over the last `window` rows, x[t] among them; by symbol.

    Missing values are left out, and a row is missing where fewer than `least` (by default all of the window) are there
    or where all of them are equal.
    """

    def __init__(self, window: int = 96, least: int | None = None, columns: Sequence[str] | None = None) -> None:
        self.window = window
        self.least = least
        self.columns = columns

    @property
    def rows_before(self) -> int:
        return self.window - 1

    def _check_parameters(self) -> None:
        check_count(self.window, "window", 2, LONGEST)
        if self.least is not None:
            check_count(self.least, "least", 2, self.window)

    def _compute(self, values: Floats, fitted: Fitted, first: int) -> Floats:
        return kernels.rolling_z(values, self.window, self.window if self.least is None else self.least, first)


def check_there(values: Floats, names: Sequence[str]) -> None:
    """Refuse a column of which the training rows have no value."""
    for name, is_missing in zip(names, np.atleast_1d(np.isnan(values).all(axis=0)), strict=True):
        if is_missing:
            raise refused("All training rows lack this value", field=name, remedy="Leave the column out")
