"""The universal battery: every check here runs on every function of the registry, without being told its name.

A check asks for `feature` (each function with its default parameters) or for `variant` (each function with other
parameters, and with every kind of moving average and every anchor that it takes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest

from mdplatform.features import FeatureSpec, definition, parse_feature
from mdplatform.features.registry import indicator_names

TOGETHER = 12
Same = Callable[[np.ndarray, np.ndarray], np.ndarray]


def defaults() -> list[FeatureSpec]:
    """Each function with its default parameters."""
    return [parse_feature(name) for name in indicator_names()]


def variants() -> Iterator[FeatureSpec]:
    """Each function with every integer and real off its default, and then once with each choice of each parameter."""
    for name in indicator_names():
        parameters = definition(name).parameters
        if not parameters:
            continue
        moved = {
            each.name: each.default + 3 if each.kind == "integer" else each.default * 0.9
            for each in parameters
            if each.kind != "choice"
        }
        if moved:
            yield parse_feature({"name": name, "parameters": moved})
        for each in parameters:
            for choice in each.choices:
                if choice != each.default:
                    yield parse_feature({"name": name, "parameters": {each.name: choice}})


def parts(features: Iterable[FeatureSpec]) -> list[tuple[FeatureSpec, ...]]:
    """Cut into parts: a test for each feature would spend more time on being a test than on the feature."""
    every = list(features)
    return [tuple(every[start : start + TOGETHER]) for start in range(0, len(every), TOGETHER)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, features in (("feature", defaults), ("variant", variants)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, parts(features()), ids=lambda part: f"{part[0]}-to-{part[-1]}")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call a check for each feature of its part; a failure names the feature."""
    for name in ("feature", "variant"):
        part = pyfuncitem.funcargs.get(name)
        if isinstance(part, tuple):
            wanted = pyfuncitem._fixtureinfo.argnames
            given = {each: pyfuncitem.funcargs[each] for each in wanted}
            for each in part:
                try:
                    pyfuncitem.obj(**{**given, name: each})
                except BaseException as failure:
                    failure.add_note(f"the feature is {each}")
                    raise
            return True
    return None


@pytest.fixture(scope="session")
def same() -> Same:
    """Tell, for each row, whether two arrays agree to 1e-9 relative.

    Where values cross zero (slopes, oscillators) a value by itself has no relative precision: it is the small
    difference of large terms. Its scale is then the size that the output usually has, the median of its absolute
    values.
    """

    def compare(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        finite = np.abs(right[np.isfinite(right)])
        scale = float(np.median(finite)) if len(finite) else 0.0
        close = np.abs(left - right) <= 1e-9 * np.maximum(np.abs(right), scale)
        return close | (np.isnan(left) & np.isnan(right))

    return compare
