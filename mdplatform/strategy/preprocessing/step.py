"""A step of preprocessing, in the manner of scikit-learn: `fit`, `transform`, `get_params`, `get_feature_names_out`.

scikit-learn itself is not needed, nor imported. A step has three parts of its own: what it learns from the training
rows (`_learn`), how many rows before a row its value looks back on (`rows_before`), and a pure function of rows
(`_compute`). The rest is here, once for all steps:

1. rows are taken in as a `Table`; the step's columns are picked;
2. the rows of each symbol are computed apart, by its unbroken runs, behind the last `rows_before` of what came before;
3. so `transform` is the live path from a cold start, and there is no second way to a number.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from mdplatform.errors import UnknownColumns, UnknownParameter
from mdplatform.strategy.preprocessing.table import PRESENT, Floats, Table, refused

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


class Parameters:
    """What scikit-learn asks of whatever has parameters: they are the arguments of `__init__`, kept as given."""

    _is_changed = False

    @classmethod
    def parameter_names(cls) -> list[str]:
        """Give the names of the parameters, in order."""
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give the parameters."""
        return {name: getattr(self, name) for name in self.parameter_names()}

    def set_params(self, **parameters: Any) -> Self:
        """Change parameters; what was fitted with others is not used any more: fit again. Raises `UnknownParameter`."""
        for name, value in parameters.items():
            if name not in self.parameter_names():
                raise UnknownParameter(name, self.parameter_names())
            setattr(self, name, value)
            self._is_changed = True
        return self

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.parameter_names())
        return f"{type(self).__name__}({told})"

    def _check_unchanged(self) -> None:
        if self._is_changed:
            raise refused(
                "Parameters were changed after it was fitted",
                value=type(self).__name__,
                remedy="Fit again with the training rows",
            )


class Step(Parameters):
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

    def _compute(self, values: Floats, fitted: Fitted, first: int) -> Floats:
        """Give the values of the rows; those before `first` are only looked back on, and may be anything."""
        raise NotImplementedError

    def _names_out(self, names: Sequence[str]) -> list[str]:
        return list(names)

    # What scikit-learn asks.

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Learn from these rows, and from no others. Raises `InvalidPreprocessing`."""
        return self.fit_table(Table.of(X))

    def transform(self, X: Any) -> Any:  # noqa: N803
        """Give these rows transformed, in the form that they came in. Raises `SchemaMismatch`."""
        return self.run(Table.of(X, self._names_of(X)), {}).like(X)

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
        self._is_changed = False
        return self

    def run(self, table: Table, pasts: Pasts) -> Transformed:
        """Transform a table whose symbols' rows go on from `pasts`, and bring those up to date."""
        return self._computed(table, pasts)

    def _computed(self, table: Table, pasts: Pasts) -> Table:
        self.check_table(table)
        values = table.values.copy()
        chosen = self._chosen(table.names)
        for symbol, run, rows in table.pieces():
            before = pasts.get(symbol)
            block = np.ascontiguousarray(table.values[rows][:, chosen])
            known = 0
            if before is not None and before.run == run:
                known = len(before.rows)
                block = np.concatenate([before.rows, block])
            computed = self._compute(block, self._fitted_of(symbol), known)[known:]
            values[np.ix_(rows, np.array(chosen, dtype=np.intp))] = computed
            pasts[symbol] = Past(run, block[max(0, len(block) - self.rows_before) :].copy())
        return table.with_values(values, table.names)

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
        self._is_changed = False

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


def check_count(value: object, field: str, least: int, most: int) -> None:
    """Refuse what is no whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        raise refused("Out of range", field=field, value=value, remedy=f"A whole number from {least:,} to {most:,}")


def check_share(value: object, field: str, least: float, most: float) -> None:
    """Refuse what is no number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not least <= value <= most:
        raise refused("Out of range", field=field, value=value, remedy=f"A number from {least:g} to {most:g}")
