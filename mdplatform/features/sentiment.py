"""Sentiment at each instant: what the documents that were available by then say, each text counted once.

1. `counted` takes the documents of one provider that speak of a symbol, or of the market, and leaves out copies: a
   document whose text or whose id became available already within the `COPY_WINDOW` before. So the first that was
   available counts, and what comes later never changes what counted.
2. `Windows` finds for each instant T the documents with `T − length < available_at ≤ T`, or for a decayed mean those of
   a time before the newest. Instants between two documents mostly see the same ones: what is equal is computed once.
3. `mean`, `decayed_mean` and `dispersion` sum each window by itself. A value thus depends on the documents in its
   window alone, to the last bit, not on which others were loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.features.asof import newest_rows
from mdplatform.features.talib_functions import Floats
from mdplatform.market.timeframe import DAY_US

KERNEL_VERSION = "1"
"""Part of every identity of what is computed here: it changes when a value does."""
COPY_WINDOW = 30 * DAY_US
"""How long (microseconds) a text is remembered: one that comes again within it is a copy, and does not count.

It is remembered from when it last came, as a copy too: one that returns every 25 days counts once, the first time. To
count from the one that last counted would make each depend on all before it, back to the first: a value would then
change with where loading began, which this rule keeps it from, as one window tells.
"""
DECAY_HALF_LIVES = 40
"""How far back from the newest document a decayed mean looks, in half-lives: what is older weighs less than 1e-12."""

_CHUNK = 1 << 21
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Documents:
    """Documents that count, by the instant (microseconds, ascending) at which they became available; finite scores."""

    available_at: Ints
    scores: Floats

    def __len__(self) -> int:
        return len(self.scores)

    def since(self, instant: int) -> Documents:
        """Give those that became available at that instant or later."""
        first = int(np.searchsorted(self.available_at, instant))
        return Documents(self.available_at[first:], self.scores[first:])


def counted(rows: pl.DataFrame, provider: str, symbol: str | None) -> Documents:
    """Give the documents of `rows` (`SENTIMENT.schema`) of that provider which count, copies left out.

    `symbol` takes those that speak of it, None those that speak of the market as a whole. Of documents with one instant
    the one with the smaller id comes first, so that the order of the rows does not matter; no score does not count.
    """
    about = pl.col("symbols").fill_null("")
    of_place = (
        (about == "") if symbol is None else (pl.lit(",") + about + ",").str.contains(f",{symbol},", literal=True)
    )
    known = pl.col("score").is_finite() & pl.col("available_at").is_not_null()
    text = pl.coalesce("text_hash", "doc_id")
    at = pl.col("available_at").dt.epoch("us")
    kept = (
        rows.filter((pl.col("provider") == provider) & known & of_place)
        .select(at.alias("at"), "doc_id", "score", text.alias("text"))
        .sort("at", "doc_id", "score", "text")
        .filter(_is_first("text") & _is_first("doc_id"))
    )
    return Documents(kept["at"].to_numpy(), kept["score"].to_numpy())


def _is_first(name: str) -> pl.Expr:
    """Tell of each row whether what it has under that name did not come within the window before."""
    return ((pl.col("at") - pl.col("at").shift().over(name)) > COPY_WINDOW).fill_null(True)


@dataclass(frozen=True)
class Windows:
    """The documents of each window, as half-open ranges `[low, high)`, the equal ones once.

    `of_instant` is the index of each instant's range.
    """

    documents: Documents
    low: Ints
    high: Ints
    of_instant: Ints

    @classmethod
    def of(cls, documents: Documents, at: Ints, length: int) -> Windows:
        """Find the documents with `T − length < available_at ≤ T` for each T of `at` (microseconds, ascending)."""
        return cls._between(documents, at - length, at)

    @classmethod
    def behind_newest(cls, documents: Documents, at: Ints, length: int) -> Windows:
        """Find the newest document at each T, and those that became available less than `length` before it did."""
        newest = newest_rows(documents.available_at, at)
        if not len(documents):
            return cls._between(documents, at, at)
        return cls._between(documents, np.where(newest < 0, at, documents.available_at[newest]) - length, at)

    @classmethod
    def _between(cls, documents: Documents, after: Ints, upto: Ints) -> Windows:
        low = np.searchsorted(documents.available_at, after, side="right")
        high = np.searchsorted(documents.available_at, upto, side="right")
        changes = np.ones(len(upto), np.bool_)
        changes[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
        return cls(documents, low[changes], high[changes], np.cumsum(changes) - 1)

    @property
    def count(self) -> Ints:
        """How many documents each instant's window holds."""
        counts: Ints = (self.high - self.low)[self.of_instant]
        return counts

    def mean(self) -> Floats:
        """Give the mean score of each instant's window, NaN where it holds no document."""
        return self._spread(self._means())

    def decayed_mean(self, half_life: int) -> Floats:
        """Give the mean weighted by `2^(−age / half_life)` (microseconds), NaN where there is no document.

        Weights are taken relative to the window's newest document: the age of all of it cancels out.
        """
        at, scores = self.documents.available_at, self.documents.scores
        newest = at[np.maximum(self.high - 1, 0)] if len(at) else np.zeros(len(self.high), np.int64)

        def weights(documents: Ints, windows: Ints) -> Floats:
            weighed: Floats = np.exp2((at[documents] - newest[windows]) / half_life)
            return weighed

        total = self._sums(lambda documents, windows: weights(documents, windows) * scores[documents])
        return self._spread(_divided(total, self._sums(weights)))

    def dispersion(self) -> Floats:
        """Give the population's standard deviation of the scores, NaN where there are fewer than two documents."""
        means, scores = self._means(), self.documents.scores
        squares = self._sums(lambda documents, windows: (scores[documents] - means[windows]) ** 2)
        counts = (self.high - self.low).astype(np.float64)
        return self._spread(np.sqrt(_divided(squares, np.where(counts < 2, 0.0, counts))))

    def _means(self) -> Floats:
        sizes = self.high - self.low
        totals, filled = np.zeros(len(sizes)), np.flatnonzero(sizes)
        if len(filled):
            # from low to high, and from there to the next low, which is left out
            edges = np.column_stack([self.low[filled], self.high[filled]]).ravel()
            totals[filled] = np.add.reduceat(np.append(self.documents.scores, 0.0), edges)[::2]
        return _divided(totals, sizes.astype(np.float64))

    def _spread(self, of_windows: Floats) -> Floats:
        spread: Floats = of_windows[self.of_instant]
        return spread

    def _sums(self, terms: Callable[[Ints, Ints], Floats]) -> Floats:
        """Sum `terms(documents, windows)` (indices of each pair) over each window, some windows at a time."""
        sizes = self.high - self.low
        ends = np.cumsum(sizes)
        sums = np.zeros(len(sizes))
        first = 0
        while first < len(sizes):
            before = int(ends[first - 1]) if first else 0
            after = max(int(np.searchsorted(ends, before + _CHUNK, side="right")), first + 1)
            part = sizes[first:after]
            windows = np.repeat(np.arange(first, after), part)
            begins = ends[first:after] - part - before
            documents = np.arange(len(windows)) - np.repeat(begins - self.low[first:after], part)
            filled = np.flatnonzero(part)
            if len(filled):
                sums[first + filled] = np.add.reduceat(terms(documents, windows), begins[filled])
            first = after
        return sums


def _divided(numerator: Floats, denominator: Floats) -> Floats:
    quotient = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient
