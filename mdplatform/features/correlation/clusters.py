"""What hangs together: hierarchical clusters, and the minimum spanning tree, of the distances sqrt(2 (1 − ρ)).

R. N. Mantegna, "Hierarchical structure in financial markets", European Physical Journal B 11 (1999): that distance is a
metric, and the tree's edges, shortest first, are the steps of single linkage. Distances are compared to 12 decimals,
and ties go by name, so that neither the order of symbols nor the last bit of a correlation changes the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mdplatform.errors import ParameterOutOfRange
from mdplatform.features.correlation.result import Correlations
from mdplatform.features.talib_functions import Floats

LINKAGES = ("average", "single", "complete", "ward")
_DECIMALS = 12


@dataclass(frozen=True, eq=False)
class Clusters:
    """`labels` says which cluster (from 0, in the order of the tree's leaves) each symbol is in; `order` its leaves.

    `linkage` is scipy's table of merges, of the symbols in alphabetical order.
    """

    symbols: tuple[str, ...]
    order: tuple[str, ...]
    labels: dict[str, int]
    linkage: Floats


@dataclass(frozen=True, eq=False)
class SpanningTree:
    """`edges` (symbol_a, symbol_b, correlation, distance), shortest first; `order` puts neighbours side by side."""

    edges: pl.DataFrame
    order: tuple[str, ...]


def clusters(
    correlations: Correlations, *, count: int | None = None, distance: float | None = None, linkage: str = "average"
) -> Clusters:
    """Cluster symbols: into at most `count` clusters, or those that are within `distance` (0 to 2), or one each.

    Raises `ParameterOutOfRange`, also where a pair is null.
    """
    if linkage not in LINKAGES:
        raise ParameterOutOfRange("Unknown linkage", value=linkage, remedy=f"Allowed: {', '.join(LINKAGES)}")
    if count is not None and distance is not None:
        raise ParameterOutOfRange("Both count and distance", value=(count, distance), remedy="Give one of them")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise ParameterOutOfRange("count of clusters", value=count, remedy="Allowed: an integer from 1")
    if distance is not None and not (isinstance(distance, int | float) and 0 <= distance <= 2):
        raise ParameterOutOfRange("distance of clusters", value=distance, remedy="Allowed: a number from 0 to 2")
    names, apart = _distances(correlations)
    if len(names) < 2:
        return Clusters(names, names, dict.fromkeys(names, 0), np.empty((0, 4)))
    from scipy.cluster.hierarchy import fcluster, leaves_list
    from scipy.cluster.hierarchy import linkage as link

    table = link(apart[np.triu_indices(len(names), 1)], method=linkage)
    leaves = leaves_list(table)
    if count is not None:
        found = fcluster(table, count, "maxclust")
    else:
        found = fcluster(table, 0.0 if distance is None else distance, "distance")
    numbers: dict[int, int] = {}
    labels = {names[leaf]: numbers.setdefault(int(found[leaf]), len(numbers)) for leaf in leaves}
    return Clusters(names, tuple(names[leaf] for leaf in leaves), labels, table)


def spanning_tree(correlations: Correlations) -> SpanningTree:
    """Give the minimum spanning tree, by Kruskal's algorithm. Raises `ParameterOutOfRange` where a pair is null."""
    names, apart = _distances(correlations)
    left, right = np.triu_indices(len(names), 1)
    shortest_first = np.argsort(apart[left, right], kind="stable")
    group = list(range(len(names)))
    leaves: dict[int, list[int]] = {each: [each] for each in group}
    edges: list[tuple[str, str, float | None, float]] = []
    for i, j in zip(left[shortest_first].tolist(), right[shortest_first].tolist(), strict=True):
        first, second = sorted((group[i], group[j]))
        if first == second:
            continue
        edges.append((names[i], names[j], correlations.value(names[i], names[j]), float(apart[i, j])))
        for each in leaves[second]:
            group[each] = first
        leaves[first] += leaves.pop(second)
        if len(edges) == len(names) - 1:
            break
    schema = {"symbol_a": pl.String, "symbol_b": pl.String, "correlation": pl.Float64, "distance": pl.Float64}
    order = tuple(names[each] for each in leaves[0]) if names else ()
    return SpanningTree(pl.DataFrame(edges, schema=schema, orient="row"), order)


def _distances(correlations: Correlations) -> tuple[tuple[str, ...], Floats]:
    """Give the symbols in alphabetical order, and their distances."""
    names = tuple(sorted(correlations.symbols))
    matrix = correlations.of(names).matrix
    if np.isnan(matrix).any():
        left, right = (names[int(each[0])] for each in np.nonzero(np.isnan(matrix)))
        raise ParameterOutOfRange(
            "There is no distance of a null pair", value=f"{left} and {right}", remedy="Take `.whole()` of it first"
        )
    apart: Floats = np.sqrt(2 * np.maximum(0.0, 1 - matrix)).round(_DECIMALS)
    return names, apart
