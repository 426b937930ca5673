"""Oracles written apart from the kernels: plain loops over pairs, with exact sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

Series = Sequence[float]


def common(x: Series, y: Series) -> list[tuple[int, float, float]]:
    """The rows that both have, with their numbers."""
    return [(t, a, b) for t, (a, b) in enumerate(zip(x, y, strict=True)) if not (math.isnan(a) or math.isnan(b))]


def pearson(x: Series, y: Series, least: int, half_life: float | None = None) -> float | None:
    """Pearson's correlation over common rows, weighed by age where there is a half-life; None where there is none."""
    rows = common(x, y)
    if len(rows) < least or len({a for _, a, _ in rows}) < 2 or len({b for _, _, b in rows}) < 2:
        return None
    weights = [1.0 if half_life is None else 0.5 ** ((rows[-1][0] - t) / half_life) for t, _, _ in rows]
    total = math.fsum(weights)
    mean_x = math.fsum(w * a for w, (_, a, _) in zip(weights, rows, strict=True)) / total
    mean_y = math.fsum(w * b for w, (_, _, b) in zip(weights, rows, strict=True)) / total
    xx = math.fsum(w * (a - mean_x) ** 2 for w, (_, a, _) in zip(weights, rows, strict=True))
    yy = math.fsum(w * (b - mean_y) ** 2 for w, (_, _, b) in zip(weights, rows, strict=True))
    xy = math.fsum(w * (a - mean_x) * (b - mean_y) for w, (_, a, b) in zip(weights, rows, strict=True))
    return xy / math.sqrt(xx) / math.sqrt(yy) if xx > 0 and yy > 0 else None


def ranks(values: Series) -> list[float]:
    """Average ranks, by counting."""
    return [sum(v < each for v in values) + (sum(v == each for v in values) + 1) / 2 for each in values]


def spearman(x: Series, y: Series, least: int) -> float | None:
    """Pearson's correlation of the ranks within the common rows."""
    rows = common(x, y)
    if len(rows) < least:
        return None
    return pearson(ranks([a for _, a, _ in rows]), ranks([b for _, _, b in rows]), least)


def beta(x: Series, y: Series, least: int) -> float | None:
    """The slope of x on y over common rows."""
    rows = common(x, y)
    if len(rows) < least or len({b for _, _, b in rows}) < 2:
        return None
    mean_x = math.fsum(a for _, a, _ in rows) / len(rows)
    mean_y = math.fsum(b for _, _, b in rows) / len(rows)
    xy = math.fsum((a - mean_x) * (b - mean_y) for _, a, b in rows)
    return xy / math.fsum((b - mean_y) ** 2 for _, _, b in rows)
