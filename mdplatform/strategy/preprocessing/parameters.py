"""Parameters in the manner of scikit-learn, and whether they still are those that something was fitted with."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Self

import numpy as np

from mdplatform.errors import UnknownParameter
from mdplatform.strategy.preprocessing.refusal import refused


class Parameters:
    """What scikit-learn asks of whatever has parameters: they are the arguments of `__init__`, kept as given.

    Fitting notes them (`_note_fitted`). Where they are others afterwards, by `set_params` or by an attribute that was
    set, what was fitted is not used any more (`_check_unchanged`).
    """

    _fitted_with: dict[str, Any] | None = None

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
        return self

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.parameter_names())
        return f"{type(self).__name__}({told})"

    def _parameters(self) -> dict[str, Any]:
        """Give the parameters in a form in which two states can be compared."""
        return {name: _plain(getattr(self, name)) for name in self.parameter_names()}

    def _note_fitted(self) -> None:
        self._fitted_with = deepcopy(self._parameters())

    @property
    def _is_changed(self) -> bool:
        return self._fitted_with is not None and self._fitted_with != self._parameters()

    def _check_unchanged(self) -> None:
        if self._is_changed:
            raise refused(
                "Parameters were changed after it was fitted",
                value=type(self).__name__,
                remedy="Fit again with the training rows",
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else value


def check_count(value: object, field: str, least: int, most: int) -> None:
    """Refuse what is no whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        raise refused("Out of range", field=field, value=value, remedy=f"A whole number from {least:,} to {most:,}")


def check_share(value: object, field: str, least: float, most: float) -> None:
    """Refuse what is no number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not least <= value <= most:
        raise refused("Out of range", field=field, value=value, remedy=f"A number from {least:g} to {most:g}")
