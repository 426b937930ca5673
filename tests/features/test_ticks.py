"""Rows of prices, against exact arithmetic."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mdplatform.errors import InvalidTable, ParameterOutOfRange
from mdplatform.features.ticks import checked_row_size, to_prices, to_rows

SIZES = st.builds(
    lambda digits, places: Decimal(digits).scaleb(-places), st.integers(1, 999), st.integers(-2, 8)
).filter(lambda size: size > 0)
PRICES = st.builds(
    lambda digits, places: Decimal(digits).scaleb(-places), st.integers(1, 10**14 - 1), st.integers(0, 10)
)


def exact_row(price: Decimal, size: Decimal) -> int:
    return math.floor(Fraction(price) / Fraction(size))


@settings(max_examples=300, deadline=None)
@given(PRICES, SIZES)
def test_a_price_of_fourteen_digits_gets_the_row_of_exact_arithmetic(price: Decimal, size: Decimal) -> None:
    last_place = Decimal(1).scaleb(min(price.as_tuple().exponent, size.as_tuple().exponent))  # type: ignore[type-var]
    assume(price / last_place < 10**14)
    assert to_rows([float(price)], float(size))[0] == exact_row(price, size)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10**9), SIZES, st.integers(-3, 3))
def test_a_price_on_an_edge_is_in_the_row_above_it_with_or_without_float_noise(
    row: int, size: Decimal, ulps: int
) -> None:
    price = float(row * size)
    noisy = price + ulps * math.ulp(price)
    assert to_rows([price, noisy], float(size)).tolist() == [row, row]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**9), SIZES)
def test_a_row_and_back_is_the_same_row_and_the_decimal_itself(row: int, size: Decimal) -> None:
    price = to_prices([row], float(size))[0]
    assert price == float(row * size)
    assert row == 0 or to_rows([price], float(size))[0] == row


def test_a_third_of_a_cent_below_an_edge_is_below_it() -> None:
    assert to_rows([99.99999999, 99999.99999999, 100.0], 100).tolist() == [0, 999, 1]


@pytest.mark.parametrize("size", [0, -1, math.nan, math.inf, -math.inf, 1 / 3, 1e-13, 1e13, True, None, "x", "nan", []])
def test_what_is_no_decimal_above_zero_is_refused_as_a_row_size(size: object) -> None:
    with pytest.raises(ParameterOutOfRange, match="row size"):
        to_rows([1.0], size)  # type: ignore[arg-type]


def test_a_row_size_may_be_a_decimal_a_text_or_a_number() -> None:
    assert {checked_row_size(each) for each in (0.5, "0.5", Decimal("0.50"), np.float64(0.5))} == {0.5}
    assert checked_row_size(3) == 3.0


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_price_that_is_none_is_refused(price: float) -> None:
    with pytest.raises(InvalidTable, match="finite number above zero"):
        to_rows([1.0, price, 2.0], 0.5)


def test_a_row_size_too_small_for_the_prices_is_refused() -> None:
    with pytest.raises(ParameterOutOfRange, match="too small"):
        to_rows([1e6], 1e-12)


def test_no_prices_have_no_rows() -> None:
    assert to_rows([], 0.5).tolist() == []
    assert to_prices([], 0.5).tolist() == []
