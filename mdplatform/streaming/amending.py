"""Amending: what a second telling of a bar changes, by the rule of `market.revisions.merge`."""

from __future__ import annotations

from collections.abc import Sequence

_SAME = 1e-12  # relative, as in market.revisions


def amended(now: Sequence[float], given: Sequence[float]) -> tuple[float, ...] | None:
    """Give the values of a new revision, None where `given` says nothing new. NaN says nothing of its column.

    >>> amended((1.0, 2.0), (1.0, 2.0)) is None
    True
    >>> amended((1.0, float("nan")), (1.0, 3.0))
    (1.0, 3.0)
    >>> amended((1.0, 2.0), (1.5, float("nan")))
    (1.5, nan)
    """
    adds = False
    for old, new in zip(now, given, strict=True):
        if new != new or old == new:
            continue
        if old != old:
            adds = True
        elif abs(new - old) > _SAME * max(abs(new), abs(old)):
            return tuple(given)
    if not adds:
        return None
    return tuple(old if new != new else new for old, new in zip(now, given, strict=True))
