"""Scorers: what gives raw texts a score, for files that bring none.

VADER (a lexicon and rules, made for short English texts) is an extra: it is imported when a text is to be scored, and
not before. None is used unless the caller names it. Another scorer is one class here and one line in `SCORERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol

from mdplatform.errors import SourceError, UnknownName


class Scored(NamedTuple):
    """What a scorer says of one text: `score` in [−1, 1], its class, and its confidence (0 to 1) if it gives one."""

    score: float
    label: str | None = None
    confidence: float | None = None


class Scorer(Protocol):
    """Gives texts a score."""

    @property
    def model(self) -> str:
        """What scores, with its version, such as `vader 3.3.2`."""
        ...

    def score(self, texts: Sequence[str]) -> list[Scored]:
        """Score each text, in order. Raises `SourceError` where the scorer is not installed."""
        ...


class Vader:
    """VADER's compound score (Hutto & Gilbert, 2014); from 0.05 on `positive`, to −0.05 `negative`, else `neutral`."""

    @property
    def model(self) -> str:
        """Its name and version."""
        return f"vader {version('vaderSentiment')}"

    def score(self, texts: Sequence[str]) -> list[Scored]:
        """Score each text. Raises `SourceError` with the line that installs VADER where it is missing."""
        compounds = [float(self._analyzer.polarity_scores(text)["compound"]) for text in texts]
        return [Scored(each, _label(each)) for each in compounds]

    @cached_property
    def _analyzer(self) -> Any:
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ImportError:
            raise SourceError(
                "Texts without a score need VADER, which is not installed",
                remedy="Install it: pip install 'mdplatform[vader]'; or name the column of scores: --column score=NAME",
            ) from None
        return SentimentIntensityAnalyzer()


def _label(compound: float) -> str:
    return "positive" if compound >= 0.05 else "negative" if compound <= -0.05 else "neutral"


SCORERS: dict[str, Callable[[], Scorer]] = {"vader": Vader}


def scorer(name: str) -> Scorer:
    """Give the scorer of that name. Raises `UnknownScorer`."""
    try:
        return SCORERS[name]()
    except KeyError:
        raise UnknownScorer(name, SCORERS) from None


class UnknownScorer(UnknownName):
    """A scorer that the platform does not have."""

    kind = "scorer"
