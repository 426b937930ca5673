"""The nearest correlation matrix to a symmetric one that is not positive semi-definite.

N. J. Higham, "Computing the nearest correlation matrix: a problem from finance", IMA Journal of Numerical Analysis 22
(2002), algorithm 3.3: projections in turn, to the positive semi-definite matrices with Dykstra's correction, and to
those with a unit diagonal. Nearest is meant in the Frobenius norm.
"""

from __future__ import annotations

import numpy as np

from mdplatform.features.talib_functions import Floats

MOST_TURNS = 200


def smallest_eigenvalue(matrix: Floats) -> float:
    """Give the smallest eigenvalue of a symmetric matrix."""
    return float(np.linalg.eigvalsh(matrix)[0])


def slack(columns: int) -> float:
    """How far below zero rounding may put an eigenvalue of a correlation matrix of that size.

    The largest is at most the number of columns, and each is found to within ε times that, times their number.
    """
    return float(columns * columns * np.finfo(np.float64).eps)


def nearest_correlation(matrix: Floats, tolerance: float = 1e-9, most_turns: int = MOST_TURNS) -> Floats:
    """Give the nearest matrix that is positive semi-definite and has a unit diagonal, symmetric to the last bit.

    It stops when a turn moves no element by more than `tolerance`, or after `most_turns`; the last step makes the
    answer positive semi-definite in either case.
    """
    current = matrix.copy()
    correction = np.zeros_like(matrix)
    for _ in range(most_turns):
        shifted = current - correction
        projected = _project(shifted, 0.0)
        correction = projected - shifted
        moved = projected.copy()
        np.fill_diagonal(moved, 1.0)
        change = float(np.abs(moved - current).max())
        current = moved
        if change <= tolerance:
            break
    floor = slack(len(matrix))
    projected = _project(current, floor)
    scale = 1 / np.sqrt(np.diagonal(projected))
    answer = projected * np.outer(scale, scale)
    answer = (answer + answer.T) / 2
    np.clip(answer, -1.0, 1.0, out=answer)
    np.fill_diagonal(answer, 1.0)
    return answer


def _project(matrix: Floats, floor: float) -> Floats:
    """Raise eigenvalues below `floor` to it."""
    values, vectors = np.linalg.eigh(matrix)
    low = values < floor
    if not low.any():
        return matrix
    lifted = vectors[:, low]
    projected: Floats = matrix + (lifted * (floor - values[low])) @ lifted.T
    return (projected + projected.T) / 2
