"""Quality: how good rows are, in components between 0 and 1; the score is the lowest of those that were assessed.

- completeness: the share of the rows asked for that have a bar (or a value that was published);
- warmth: the share of the values that no longer depend on where history began;
- timeliness: 1 where the newest row is that of the newest bar that should have closed, 1/2 where it is one bar behind,
  1/(1 + n) where it is n behind.

Validity, uniqueness and consistency are assessed where bars are taken in, not of an answer: they are None here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_SETTLED, _WARMING, _NO_BAR = "settled", ("unsettled", "insufficient_history"), "gap"


@dataclass(frozen=True)
class Tally:
    """Counts of the rows of an answer: how many there are, how many lack their bar, and how settled the values are."""

    rows: int
    absent: int = 0
    settled: int = 0
    warming: int = 0
    wanted: int = 0


@dataclass(frozen=True)
class Assessment:
    """The components that can be assessed of an answer, None where one was not, and why each is below 1."""

    completeness: float | None = None
    timeliness: float | None = None
    warmth: float | None = None
    reasons: tuple[str, ...] = ()

    @property
    def score(self) -> float | None:
        """The lowest component, None where none was assessed."""
        assessed = [each for each in (self.completeness, self.timeliness, self.warmth) if each is not None]
        return min(assessed, default=None)


def tally(statuses: Iterable[str | None], wanted: int = 0) -> Tally:
    """Count the rows of a feature by their status; `wanted` is how many were asked for, 0 where that is not known.

    >>> tally(["settled", "gap", "unsettled"], wanted=4)
    Tally(rows=3, absent=1, settled=1, warming=1, wanted=4)
    """
    counts = Counter(statuses)
    rows = sum(counts.values())
    warming = sum(counts[each] for each in _WARMING)
    return Tally(rows, counts[_NO_BAR], counts[_SETTLED], warming, wanted)


def bars_behind(newest_close: int, due: int, step: int) -> int:
    """Give how many bars of length `step` lie between the newest close and the one that is due; all microseconds.

    >>> bars_behind(newest_close=600, due=900, step=300), bars_behind(newest_close=900, due=900, step=300)
    (1, 0)
    """
    return max(0, due - newest_close) // step


def assess(counts: Tally, behind: int | None = None) -> Assessment:
    """Assess rows by their counts and by how many bars the newest one is `behind`, None where that has no meaning.

    >>> found = assess(Tally(rows=4, absent=1, settled=3, wanted=4), behind=1)
    >>> found.completeness, found.timeliness, found.warmth, found.score
    (0.75, 0.5, 1.0, 0.5)
    >>> assess(Tally(rows=0)).score is None
    True
    """
    reasons: list[str] = []
    completeness = warmth = timeliness = None
    asked = max(counts.rows, counts.wanted)
    if asked:
        completeness = (counts.rows - counts.absent) / asked
        if counts.absent:
            reasons.append(f"completeness: {counts.absent} of {asked} rows are gaps")
        if counts.rows < asked:
            reasons.append(f"completeness: {counts.rows} of {asked} rows are there")
    valued = counts.settled + counts.warming
    if valued:
        warmth = counts.settled / valued
        if counts.warming:
            reasons.append(f"warmth: {counts.warming} of {valued} rows depend on where history begins")
    if behind is not None and counts.rows:
        timeliness = 1 / (1 + behind)
        if behind:
            reasons.append(f"timeliness: the newest row is {behind} bar{'s' * (behind > 1)} behind")
    return Assessment(completeness, timeliness, warmth, tuple(reasons))
