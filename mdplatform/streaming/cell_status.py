"""How a place of a frame stands to its instant."""

from __future__ import annotations

from enum import StrEnum


class CellStatus(StrEnum):
    """How a cell stands to T: `fresh` is the bar that is due at T, `stale` an older one, `missing` is none at all.

    A bar of which the venue cannot tell anything (a gap) is missing too.
    """

    FRESH = "fresh"
    STALE = "stale"
    MISSING = "missing"
