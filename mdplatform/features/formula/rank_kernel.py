"""The kernel of ranks in a sliding window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.compiled import compiled
from mdplatform.features.talib_functions import Floats


@compiled
def count(places: NDArray[np.int64], length: int, kinds: int) -> tuple[Floats, Floats]:
    """Count what is below and equal to the last of each window, by a binary indexed tree: long windows cost no more."""
    tree = np.zeros(kinds + 1, np.int64)
    held = np.zeros(kinds, np.int64)
    below, equal = np.empty(len(places)), np.empty(len(places))
    for row in range(len(places)):
        for sign, at in ((1, row), (-1, row - length)):
            if at >= 0:
                held[places[at]] += sign
                node = places[at] + 1
                while node <= kinds:
                    tree[node] += sign
                    node += node & -node
        found = 0
        node = places[row]
        while node > 0:
            found += tree[node]
            node -= node & -node
        below[row], equal[row] = found, held[places[row]]
    return below, equal
