"""Fractional differencing: stationary, and with as much memory of the level as can be kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdplatform.strategy.preprocessing import kernels
from mdplatform.strategy.preprocessing.columnwise import Columnwise
from mdplatform.strategy.preprocessing.parameters import check_share
from mdplatform.strategy.preprocessing.refusal import refused
from mdplatform.strategy.preprocessing.step import Fitted
from mdplatform.strategy.preprocessing.table import Floats

WIDEST = 20_000


class FractionalDifference(Columnwise):
    """(1 - B)^order over a window of fixed width, by symbol; the first rows, up to its width, are missing.

    The weights are w[0] = 1, w[k] = -w[k - 1] (order - k + 1) / k, up to the last whose size is at least `threshold`.
    Source: M. López de Prado, Advances in Financial Machine Learning (2018), section 5.5, fixed-width window.
    `logs` takes the logarithm first, as is meant for prices. A missing value makes those missing whose window it is in.
    """

    def __init__(
        self, order: float = 0.4, threshold: float = 1e-4, logs: bool = False, columns: Sequence[str] | None = None
    ) -> None:
        self.order = order
        self.threshold = threshold
        self.logs = logs
        self.columns = columns

    @property
    def rows_before(self) -> int:
        return len(weights(self.order, self.threshold)) - 1

    def _check_parameters(self) -> None:
        check_share(self.order, "order", 0.0, 2.0)
        check_share(self.threshold, "threshold", 1e-12, 0.5)
        weights(self.order, self.threshold)

    def _learn(self, values: Floats, names: Sequence[str]) -> Fitted:
        if self.logs and (values <= 0).any():
            at = int(np.nonzero((values <= 0).any(axis=0))[0][0])
            raise refused("A logarithm needs values above zero", field=names[at], remedy="Name the prices in `columns`")
        return {}

    def _compute(self, values: Floats, fitted: Fitted, first: int) -> Floats:
        levels = values
        if self.logs:
            levels = np.log(np.ascontiguousarray(np.where(values > 0, values, np.nan)))
        return kernels.weighted_sum(levels, weights(self.order, self.threshold))


def weights(order: float, threshold: float) -> Floats:
    """Give the weights, that of the row itself first.

    >>> weights(1.0, 1e-4).tolist(), weights(0.5, 0.05).tolist()
    ([1.0, -1.0], [1.0, -0.5, -0.125, -0.0625])
    """
    made = [1.0]
    while True:
        following = -made[-1] * (order - len(made) + 1) / len(made)
        if abs(following) < threshold:
            return np.array(made)
        made.append(following)
        if len(made) > WIDEST:
            raise refused(
                f"The window would be wider than {WIDEST:,} rows", field="threshold", value=threshold, remedy="Raise it"
            )
