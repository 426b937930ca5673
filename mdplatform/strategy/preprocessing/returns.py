"""Log returns."""

from __future__ import annotations

from collections.abc import Sequence

from mdplatform.strategy.preprocessing import kernels
from mdplatform.strategy.preprocessing.columnwise import Columnwise
from mdplatform.strategy.preprocessing.parameters import check_count
from mdplatform.strategy.preprocessing.refusal import refused
from mdplatform.strategy.preprocessing.step import Fitted
from mdplatform.strategy.preprocessing.table import Floats

LONGEST = 100_000


class LogReturns(Columnwise):
    """ln(x[t] / x[t - periods]) of prices, by symbol; the first `periods` rows are missing.

    A value that is not above zero is refused by `fit`, and makes what follows from it missing in `transform`.
    """

    def __init__(self, periods: int = 1, columns: Sequence[str] | None = None) -> None:
        self.periods = periods
        self.columns = columns

    @property
    def rows_before(self) -> int:
        return self.periods

    def _check_parameters(self) -> None:
        check_count(self.periods, "periods", 1, LONGEST)

    def _learn(self, values: Floats, names: Sequence[str]) -> Fitted:
        for at, name in enumerate(names):
            wrong = values[:, at] <= 0
            if wrong.any():
                raise refused(
                    "A log return needs values above zero",
                    field=name,
                    value=float(values[wrong, at][0]),
                    remedy="Name the columns of prices in `columns`",
                )
        return {}

    def _compute(self, values: Floats, fitted: Fitted, first: int) -> Floats:
        return kernels.log_returns(values, self.periods)
