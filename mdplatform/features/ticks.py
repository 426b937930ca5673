"""Price rows: integer ticks of a row size, in exact decimal steps, so that 0.3 at row size 0.1 is row 3.

Row n holds the prices of `[n × row_size, (n + 1) × row_size)`. A double is a little beside the decimal that it stands
for, and so is a quotient of two; so a price that lies less than 2⁻⁴⁹ of itself (1.8e-15) below a row's edge counts as
on it. Prices of up to 14 digits, down to the last decimal place that they or the row size have, then get the row that
exact arithmetic gives them, and float noise such as 0.30000000000000004 or 0.29999999999999993 moves none.
"""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdplatform.errors import InvalidTable, ParameterOutOfRange

EDGE = 1 + 2.0**-49
"""What a quotient is multiplied by before it is rounded down."""

_DIGITS = 12
_MOST_ROWS = 10.0**14  # above, a double cannot tell neighbouring rows for certain


def checked_row_size(row_size: float | Decimal | str) -> float:
    """Give a row size (quote asset) as the double nearest to its decimal. Raises `ParameterOutOfRange`.

    It is a number above zero with at most 12 significant digits, float noise aside.

    >>> checked_row_size(0.1 + 0.2), checked_row_size("0.5"), checked_row_size(25)
    (0.3, 0.5, 25.0)
    >>> checked_row_size(1 / 3)
    Traceback (most recent call last):
    mdplatform.errors.ParameterOutOfRange: A row size is not a decimal of at most 12 digits: 0.3333333333333333. \
Such as 0.01, 0.5 or 25
    """
    remedy = "Such as 0.01, 0.5 or 25"
    given = math.nan
    if isinstance(row_size, str | Decimal | Real) and not isinstance(row_size, bool):
        try:
            given = float(Decimal(row_size) if isinstance(row_size, str) else row_size)
        except (InvalidOperation, OverflowError, ValueError):  # no number, one beyond doubles, a signalling NaN
            given = math.nan
    if not (math.isfinite(given) and given > 0):
        raise ParameterOutOfRange("A row size is not a number above zero", value=row_size, remedy=remedy)
    plain = float(f"{given:.{_DIGITS}g}")
    if not 1e-12 <= plain <= 1e12:
        raise ParameterOutOfRange("A row size is not between 1e-12 and 1e12", value=row_size, remedy=remedy)
    if abs(plain - given) > 4 * math.ulp(given):
        problem = f"A row size is not a decimal of at most {_DIGITS} digits"
        raise ParameterOutOfRange(problem, value=row_size, remedy=remedy)
    return plain


def to_rows(prices: ArrayLike, row_size: float | Decimal | str) -> NDArray[np.int64]:
    """Give the row of each price (quote asset): `floor(price / row_size)` in decimal steps.

    Raises `ParameterOutOfRange` for a row size that is none or too small for the prices, and `InvalidTable` for a price
    that is not a finite number above zero.

    >>> to_rows([0.3, 0.1 + 0.2, 0.7 - 0.4, 0.29999999], 0.1).tolist()
    [3, 3, 3, 2]
    """
    size = checked_row_size(row_size)
    values = np.asarray(prices, np.float64)
    if values.size == 0:
        return np.empty(values.shape, np.int64)
    low, high = float(values.min()), float(values.max())  # NaN if there is one
    if not (low > 0 and high < math.inf):
        wrong = values[~((values > 0) & np.isfinite(values))]
        raise InvalidTable("A price is not a finite number above zero", value=float(wrong[0]))
    if high / size > _MOST_ROWS:
        raise ParameterOutOfRange(
            "A row size is too small for the prices", value=row_size, remedy=f"At least {high / _MOST_ROWS:.3g}"
        )
    quotients = values / size
    quotients *= EDGE
    return quotients.astype(np.int64)  # towards zero, which is down: no quotient is below zero


def to_prices(rows: ArrayLike, row_size: float | Decimal | str) -> NDArray[np.float64]:
    """Give the lower edge of each row, and for half a row more its middle: the double nearest to `row × row_size`.

    >>> to_prices([3, 7, 7.5], 0.1).tolist()
    [0.3, 0.7, 0.75]
    """
    size = Decimal(repr(checked_row_size(row_size))).normalize()
    _, digits, exponent = size.as_tuple()
    steps = int("".join(map(str, digits)))
    assert isinstance(exponent, int)
    counted = np.asarray(rows, np.float64) * steps  # exact below 2⁵³; one division rounds once
    return np.asarray(counted / 10.0**-exponent if exponent < 0 else counted * 10.0**exponent)
