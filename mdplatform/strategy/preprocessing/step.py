"""A step of preprocessing, in the manner of scikit-learn: `fit`, `transform`, `get_params`, `get_feature_names_out`.

scikit-learn itself is not needed, nor imported. A step says how many rows before a row its value looks back on
(`rows_before`), what it learns from the training rows (`_learn`), and runs over a table behind what came before it
(`run`). The rest is here, once for all steps: rows become a `Table`, and `transform` is the live path from a cold
start, so that there is no second way to a number. `columnwise` is the base of the steps that put numbers in the place
of numbers; `Windows` makes samples of rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from mdplatform.errors import UnknownColumns
from mdplatform.strategy.preprocessing.parameters import Parameters
from mdplatform.strategy.preprocessing.refusal import refused
from mdplatform.strategy.preprocessing.table import PRESENT, Floats, Table

Fitted = dict[str, Floats]
"""What a step has learned: by name, a number for each of its columns."""
ALL = ""
"""Under which that stands which holds for all symbols."""


@dataclass(frozen=True)
class Past:
    """The last rows of a symbol that a step has seen, and the unbroken run that they are of."""

    run: int
    rows: Floats


Pasts = dict[str, Past]


class State(msgspec.Struct):
    """What a fitted step knows, in plain words: the columns that come in, and by symbol and name what it learned."""

    columns_in: list[str]
    learned: dict[str, dict[str, list[float]]]


class Transformed(Protocol):
    """What a step gives: a `Table`, or the `Samples` of `Windows`."""

    def __len__(self) -> int: ...

    def like(self, rows: Any) -> Any:
        """Give it in the form of the rows that it was made of."""


class Step(Parameters, ABC):
    """The base of the steps; see the module. After `fit`: `feature_names_in_`, `n_features_in_`, `fitted_`."""

    columns: Sequence[str] | None = None
    by_symbol: bool = False
    fitted_: dict[str, Fitted]
    feature_names_in_: NDArray[np.object_]
    n_features_in_: int

    # What each step says of itself.

    @property
    def rows_before(self) -> int:
        """How many rows before a row its value looks back on."""
        return 0

    def _check_parameters(self) -> None:
        """Refuse parameters that make no sense, before any work."""

    def _learn(self, values: Floats, names: Sequence[str]) -> Fitted:
        return {}

    @abstractmethod
    def run(self, table: Table, pasts: Pasts) -> Transformed:
        """Transform a table whose symbols' rows go on from `pasts`, and bring those up to date."""

    def _names_out(self, names: Sequence[str]) -> list[str]:
        return list(names)

    # What scikit-learn asks.

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Learn from these rows, and from no others. Raises `InvalidPreprocessing`."""
        return self.fit_table(Table.of(X).closed())

    def transform(self, X: Any) -> Any:  # noqa: N803
        """Give these rows transformed, in the form that they came in. Raises `SchemaMismatch`."""
        return self.run(Table.of(X, self._names_of(X)).closed(), {}).like(X)

    def fit_transform(self, X: Any, y: Any = None) -> Any:  # noqa: N803
        """Learn from these rows and give them transformed."""
        return self.fit(X, y).transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Give the names of the columns that come out."""
        self.check_fitted()
        return np.array(self._names_out(self._names_in()), dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "fitted_") and not self._is_changed

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags  # it alone asks, so it is there

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(),
            input_tags=InputTags(allow_nan=True),
        )

    # What the pipeline asks.

    def fit_table(self, table: Table) -> Self:
        """Learn from a table."""
        self._check_parameters()
        if not len(table):
            raise refused("There are no rows to fit on")
        chosen = self._chosen(table.names)
        names = [table.names[at] for at in chosen]
        if self.by_symbol and table.symbols is None:
            raise refused("The rows name no symbols", field="by_symbol", remedy="Leave it False, or give `symbol`")
        groups = table.by_symbol() if self.by_symbol else [(ALL, np.arange(len(table)))]
        self.fitted_ = {symbol: self._learn(table.values[rows][:, chosen], names) for symbol, rows in groups}
        self.feature_names_in_ = np.array(table.names, dtype=object)
        self.n_features_in_ = len(table.names)
        self._note_fitted()
        return self

    def check_table(self, table: Table) -> None:
        """Raise what is wrong with a table, before any work."""
        from mdplatform.strategy.preprocessing.schema import check_names

        self.check_fitted()
        check_names(self._names_in(), table.names)
        if self.by_symbol:
            for symbol, _ in table.by_symbol():
                self._fitted_of(symbol)

    def state(self) -> State:
        """Give what was learned."""
        learned = {
            symbol: {name: each.tolist() for name, each in fitted.items()} for symbol, fitted in self.fitted_.items()
        }
        return State(self._names_in(), learned)

    def restore(self, state: State) -> None:
        """Take up what `state` gave. Raises `InvalidPreprocessing`."""
        self._check_parameters()
        size = len(self._chosen(state.columns_in))
        for symbol, numbers in state.learned.items():
            for name, each in numbers.items():
                if len(each) != size or not np.isfinite(each).all():
                    place = ".".join(filter(None, ("learned", symbol, name)))
                    raise refused(f"A finite number is needed for each of {size} columns", field=place)
        self.fitted_ = {
            symbol: {name: np.array(each, dtype=np.float64) for name, each in numbers.items()}
            for symbol, numbers in state.learned.items()
        }
        self.feature_names_in_ = np.array(state.columns_in, dtype=object)
        self.n_features_in_ = len(state.columns_in)
        self._note_fitted()

    def _fitted_of(self, symbol: str) -> Fitted:
        if not self.by_symbol:
            return self.fitted_[ALL]
        if symbol not in self.fitted_:
            raise refused(
                "Nothing was fitted for this symbol",
                field="symbol",
                value=symbol,
                remedy=f"Fitted: {', '.join(sorted(self.fitted_))}; fit on its rows too, or with by_symbol=False",
            )
        return self.fitted_[symbol]

    def _chosen(self, names: Sequence[str]) -> list[int]:
        """Give the places of the step's columns: those that it names, else all but masks."""
        if self.columns is None:
            return [at for at, name in enumerate(names) if not name.endswith(PRESENT)]
        unknown = [each for each in self.columns if each not in names]
        if unknown:
            error = UnknownColumns("There is no such column", value=unknown[0], remedy=f"There are: {', '.join(names)}")
            error.field = "columns"
            raise error
        return [names.index(each) for each in self.columns]

    def _names_in(self) -> list[str]:
        return [str(each) for each in self.feature_names_in_]

    def _names_of(self, rows: Any) -> list[str] | None:
        self.check_fitted()
        return self._names_in() if isinstance(rows, np.ndarray | list | tuple | Mapping) else None

    def check_fitted(self) -> None:
        """Raise `InvalidPreprocessing` where the step was not fitted, or was changed since."""
        if not hasattr(self, "fitted_"):
            raise refused(f"{type(self).__name__} was not fitted", remedy="Call `fit` with the training rows first")
        self._check_unchanged()
