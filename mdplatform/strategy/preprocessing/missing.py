"""What becomes of missing values, told by a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdplatform.strategy.preprocessing import kernels
from mdplatform.strategy.preprocessing.columnwise import Columnwise
from mdplatform.strategy.preprocessing.parameters import check_count
from mdplatform.strategy.preprocessing.refusal import refused
from mdplatform.strategy.preprocessing.scaling import check_there
from mdplatform.strategy.preprocessing.step import Fitted, Pasts
from mdplatform.strategy.preprocessing.table import PRESENT, Floats, Table

POLICIES = ("drop", "fill", "carry")
STATISTICS = ("median", "mean", "zero")
LONGEST = 10_000


class MissingData(Columnwise):
    """Fills or drops what is missing, and never in silence.

    `drop` leaves out each row that lacks a value (`kept` tells which stay). `fill` puts in the `statistic` of the
    training rows (`median`, `mean` or `zero`). `carry` puts in the symbol's newest value of at most `most` rows before;
    what is older stays missing. These two add a column `<name>.present`, 1 where the value was there, and 0 where it
    was not; steps that follow leave such columns alone, and a second policy leaves a first one's mask as it is.
    """

    def __init__(
        self,
        policy: str = "fill",
        statistic: str = "median",
        most: int = 1,
        by_symbol: bool = False,
        columns: Sequence[str] | None = None,
    ) -> None:
        self.policy = policy
        self.statistic = statistic
        self.most = most
        self.by_symbol = by_symbol
        self.columns = columns

    @property
    def rows_before(self) -> int:
        return self.most if self.policy == "carry" else 0

    def kept(self, X: Any) -> NDArray[np.bool_]:  # noqa: N803
        """Tell which rows `transform` gives: with `drop` those that lack nothing, else all. To cut a target alike."""
        table = Table.of(X, self._names_of(X))
        self.check_table(table)
        return self._kept(table)

    def run(self, table: Table, pasts: Pasts) -> Table:
        """Transform a table, as any step does."""
        if self.policy == "drop":
            self.check_table(table)
            return table.take(self._kept(table))
        made = super().run(table, pasts)
        names = self._names_out(table.names)
        new = [name for name in names if name not in table.names]
        origins = [table.names.index(name.removesuffix(PRESENT)) for name in new]
        masks = (~np.isnan(table.values[:, origins])).astype(np.float64)
        return made.with_values(np.concatenate([made.values, masks], axis=1), names)

    def _kept(self, table: Table) -> NDArray[np.bool_]:
        if self.policy != "drop":
            return np.ones(len(table), dtype=np.bool_)
        return np.asarray(~np.isnan(table.values[:, self._chosen(table.names)]).any(axis=1), dtype=np.bool_)

    def _check_parameters(self) -> None:
        if self.policy not in POLICIES:
            raise refused("Unknown policy", field="policy", value=self.policy, remedy=f"Known: {', '.join(POLICIES)}")
        if self.statistic not in STATISTICS:
            known = f"Known: {', '.join(STATISTICS)}"
            raise refused("Unknown statistic", field="statistic", value=self.statistic, remedy=known)
        check_count(self.most, "most", 1, LONGEST)

    def _learn(self, values: Floats, names: Sequence[str]) -> Fitted:
        if self.policy != "fill":
            return {}
        if self.statistic == "zero":
            return {"filling": np.zeros(values.shape[1])}
        check_there(values, names)
        filling = np.nanmedian(values, axis=0) if self.statistic == "median" else np.nanmean(values, axis=0)
        return {"filling": filling}

    def _compute(self, values: Floats, fitted: Fitted, first: int) -> Floats:
        if self.policy == "carry":
            return kernels.carried(values, self.most)
        return np.where(np.isnan(values), fitted["filling"], values)

    def _names_out(self, names: Sequence[str]) -> list[str]:
        if self.policy == "drop":
            return list(names)
        masks = [f"{names[at]}{PRESENT}" for at in self._chosen(names)]
        return [*names, *(each for each in masks if each not in names)]
