"""What becomes of values when all prices, or all amounts, are four times as large (which is exact in binary)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest

from mdplatform.features import FeatureSpec, Values, parse_feature
from mdplatform.features.panel import evaluate_on

from . import tried, world
from .test_battery import whole

LAWS = {
    "AMIHUD": (-1, -1),
    "BOOK_MID": (1, 0),
    "CVD": (0, 1),
    **dict.fromkeys(("DOLLAR_BARS", "IMBALANCE_BARS", "TICK_BARS", "VOLUME_BARS"), (1, 0)),
    **{f"{name}.volume": (0, 1) for name in ("DOLLAR_BARS", "IMBALANCE_BARS", "TICK_BARS", "VOLUME_BARS")},
    **{f"{name}.count": (0, 0) for name in ("DOLLAR_BARS", "IMBALANCE_BARS", "TICK_BARS", "VOLUME_BARS")},
    "DELTA": (0, 1),
    "KYLE_LAMBDA": (1, -1),
    "LARGE_TRADE_VOLUME": (0, 1),
    "MICROPRICE": (1, 0),
    "ROLL_SPREAD": (1, 0),
    "SPREAD": (1, 0),
    "TRADE_FLOW": (0, 1),
    "TRADE_FLOW.quote_volume": (1, 1),
    "TRADE_FLOW.trade_count": (0, 0),
    "TRADE_SIZE_QUANTILE": (0, 1),
    "VOLUME_PROFILE": (1, 0),
    "VOLUME_PROFILE.volume": (0, 1),
    "ROLLING_VOLUME_PROFILE": (1, 0),
    "ROLLING_VOLUME_PROFILE.volume": (0, 1),
}
"""By which powers of a factor of prices and of amounts values change; what is not named here does not change."""
UNITS = {"row_size": (1, 0), "VOLUME_BARS.size": (0, 1), "DOLLAR_BARS.size": (1, 1)}
"""Parameters that are told in units of price or of amounts, and by which powers of both."""


@cache
def of_kind(kind: str, price: float, volume: float) -> Mapping[FeatureSpec, Values]:
    return evaluate_on(world.grid(), tried.company(kind, tried.features()), world.scaled(price, volume))


def scaled_world(feature: FeatureSpec, scaled: FeatureSpec, price: float, volume: float) -> Values:
    """Give the values where prices and amounts are larger; with all of its kind, if no parameter changes with them."""
    if scaled == feature:
        return of_kind(feature.definition.kind, price, volume)[feature]
    return evaluate_on(world.grid(), [scaled], world.scaled(price, volume))[scaled]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("feature", tried.features(), ids=str)


def test_values_scale_with_price_and_with_amounts_as_their_units_do(feature: FeatureSpec) -> None:
    before = whole(feature)
    for price, volume in ((4.0, 1.0), (1.0, 4.0)):
        units = {name: UNITS.get(f"{feature.name}.{name}", UNITS.get(name)) for name in feature.arguments}
        given = {
            name: float(feature.arguments[name]) * price ** powers[0] * volume ** powers[1]
            for name, powers in units.items()
            if powers
        }
        if given and price != 1.0 and not all(given.values()):
            continue  # a size of rows that is found by itself is a round number: it does not scale
        scaled = feature
        if given:
            scaled = parse_feature({"name": feature.name, "parameters": {**feature.arguments, **given}})
        after = scaled_world(feature, scaled, price, volume)
        np.testing.assert_array_equal(after.statuses, before.statuses)
        names = feature.outputs
        for name, value, other in zip(names, after.outputs, before.outputs, strict=True):
            powers = LAWS.get(f"{feature.name}.{name}", LAWS.get(feature.name, (0, 0)))
            expected = other * price ** powers[0] * volume ** powers[1]
            usual = float(np.nanmedian(np.abs(expected)))
            np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9 * usual)
