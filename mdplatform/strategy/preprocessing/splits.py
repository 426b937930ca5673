"""Splits of a history into training and validation that let nothing leak from one into the other.

A row's label looks `horizon` instants ahead, so it knows what rows after it know. A training row whose label, or whose
own instant, falls into the span of the validation labels is *purged*; after that span another `embargo` instants are
left out, since what features remember fades slowly. Source: M. López de Prado, Advances in Financial Machine Learning
(2018), sections 7.4.1 (purging), 7.4.2 (embargo), 7.4.3 (purged k-fold).

Instants are the distinct `open_time`s of a frame (else `close_time`s, else `available_at`s), so that the rows of one
instant, of whatever symbol, stay together; rows that tell neither symbols nor times, as those of an array, are an
instant each. Spans are closed: what touches is purged.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from mdplatform.strategy.preprocessing.parameters import Parameters, check_count, check_share
from mdplatform.strategy.preprocessing.refusal import refused
from mdplatform.strategy.preprocessing.table import Indices
from mdplatform.strategy.preprocessing.windows import Samples

Split = tuple[Indices, Indices]
"""The places of the training rows, and of the validation rows."""
TIMES = ("open_time", "close_time", "available_at")
"""What tells the instant of a row; the first that is there counts."""
MOST_SPLITS = 1_000
FARTHEST = 1_000_000


class PurgedKFold(Parameters):
    """As many validation slices as `n_splits`, one after the other; training is all else that does not leak."""

    def __init__(self, n_splits: int = 5, horizon: int = 1, embargo: int = 0) -> None:
        self.n_splits = n_splits
        self.horizon = horizon
        self.embargo = embargo

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: N803
        """Give the number of splits."""
        return self.n_splits

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Split]:  # noqa: N803
        """Give each split's training and validation rows, by their places. Raises `InvalidPreprocessing`."""
        _check(self.n_splits, self.horizon, self.embargo)
        instants, size = instants_of(X)
        if size < self.n_splits:
            raise refused(f"{size} instants cannot be split so often", field="n_splits", value=self.n_splits)
        edges = np.linspace(0, size, self.n_splits + 1).astype(int)
        for start, stop in pairwise(edges):
            yield _split(instants, int(start), int(stop), self.horizon, self.embargo)


class WalkForward(Parameters):
    """Training before validation alone, `n_splits` times, each later than the one before.

    The instants are cut into `n_splits + 1` slices; each but the first is validated by what comes before it: all of it,
    or its newest `most_train` instants.
    """

    def __init__(self, n_splits: int = 5, horizon: int = 1, embargo: int = 0, most_train: int | None = None) -> None:
        self.n_splits = n_splits
        self.horizon = horizon
        self.embargo = embargo
        self.most_train = most_train

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: N803
        """Give the number of splits."""
        return self.n_splits

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Split]:  # noqa: N803
        """Give each split's training and validation rows, by their places. Raises `InvalidPreprocessing`."""
        _check(self.n_splits, self.horizon, self.embargo)
        if self.most_train is not None:
            check_count(self.most_train, "most_train", 1, FARTHEST)
        instants, size = instants_of(X)
        if size <= self.n_splits:
            raise refused(f"{size} instants cannot be split so often", field="n_splits", value=self.n_splits)
        edges = np.linspace(0, size, self.n_splits + 2).astype(int)
        for start, stop in pairwise(edges[1:]):
            yield _before(instants, int(start), int(stop), self.horizon + self.embargo, self.most_train)


def train_validation(X: Any, validation: float = 0.2, horizon: int = 1, embargo: int = 0) -> Split:  # noqa: N803
    """Give the places of the training rows and of the validation rows, the newest share of the instants.

    The `horizon + embargo` instants between the two belong to neither.
    """
    _check(2, horizon, embargo)
    check_share(validation, "validation", 1e-6, 1 - 1e-6)
    instants, size = instants_of(X)
    start = size - max(1, round(size * validation))
    return _before(instants, start, size, horizon + embargo, None)


def instants_of(rows: Any) -> tuple[Indices, int]:
    """Give the number of each row's instant, from 0 in the order of time, and how many there are.

    Raises `InvalidPreprocessing` where rows name symbols and no times: by rows, a horizon would be too short.
    """
    times: Any = None
    names_symbols = False
    if isinstance(rows, Samples):
        times, names_symbols = rows.times, rows.symbols is not None
    elif hasattr(rows, "columns"):
        columns = list(rows.columns)
        levels = list(getattr(rows.index, "names", [])) if hasattr(rows, "index") else []
        names_symbols = "symbol" in columns or "symbol" in levels
        name = next((each for each in TIMES if each in columns or each in levels), None)
        if name is not None:
            times = (rows[name] if name in columns else rows.index.get_level_values(name)).to_numpy()
    if times is None:
        if names_symbols:
            raise refused(
                "The rows name symbols and no times, so that it is not known which are of one instant",
                field="open_time",
                remedy="Give `open_time`",
            )
        size = len(rows)
        return np.arange(size), size
    known, instants = np.unique(times, return_inverse=True)
    return instants, len(known)


def _check(n_splits: int, horizon: int, embargo: int) -> None:
    check_count(n_splits, "n_splits", 1, MOST_SPLITS)
    check_count(horizon, "horizon", 0, FARTHEST)
    check_count(embargo, "embargo", 0, FARTHEST)


def _split(instants: Indices, start: int, stop: int, horizon: int, embargo: int) -> Split:
    is_before = instants + horizon < start
    is_after = instants > stop - 1 + horizon + embargo
    return _filled(np.flatnonzero(is_before | is_after), np.flatnonzero((instants >= start) & (instants < stop)))


def _before(instants: Indices, start: int, stop: int, gap: int, most: int | None) -> Split:
    is_train = instants + gap < start
    if most is not None:
        is_train &= instants >= start - gap - most
    return _filled(np.flatnonzero(is_train), np.flatnonzero((instants >= start) & (instants < stop)))


def _filled(train: Indices, validation: Indices) -> Split:
    if not len(train):
        raise refused(
            "Purging leaves no training rows", field="horizon", remedy="Fewer splits, a shorter horizon or embargo"
        )
    return train, validation
