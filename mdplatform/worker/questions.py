"""Questions: what one result of an answer is asked for, with its identity and what it depends on.

A request becomes one question for each of its results, in the order of the request (`questions`). Questions of equal
`identity` have one answer, whoever asks; they are nearly always one object, since they are kept.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import msgspec

from mdplatform.errors import InvalidRequest
from mdplatform.features import parse_feature
from mdplatform.features.kinds import Need
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.requests.request import DataRequest, RequestType
from mdplatform.serving.freshness import needs
from mdplatform.serving.keys import need_key
from mdplatform.serving.lookup import MOST_ROWS, Target, target_of

_When: TypeAlias = tuple[int | None, int | None, int | None, int | None]
DEFAULT_WINDOW = 200
"""Bars of a correlation that names no window."""
_LATEST_INSTANT = to_us(datetime(2999, 12, 31, tzinfo=UTC))
_SERIES = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_options = msgspec.json.Encoder(order="deterministic")


@dataclass(frozen=True, eq=False)
class Question(ABC):
    """What all questions have. `start`, `end` and `as_of` are microseconds; `n` is None where a range is asked for."""

    n: int | None
    start: int | None
    end: int | None
    as_of: int | None

    @property
    def timeframe_name(self) -> str:
        """The timeframe of its rows, empty where there is none."""
        return ""

    @property
    @abstractmethod
    def needs(self) -> tuple[Need, ...]:
        """What the answer depends on, in one order everywhere."""

    @property
    @abstractmethod
    def identity(self) -> Hashable:
        """What is equal for questions that the same computation answers."""

    @property
    def _when(self) -> _When:
        return self.n, self.start, self.end, self.as_of

    @cached_property
    def sequence_keys(self) -> tuple[str, ...]:
        """The keys of the sequences of these."""
        return tuple(need_key(*each) for each in self.needs)

    @property
    def is_newest(self) -> bool:
        """Whether the newest rows are asked for, of all that is known."""
        return self.n is not None and self.as_of is None


@dataclass(frozen=True, eq=False)
class FeatureQuestion(Question):
    """Rows of one feature of one symbol."""

    symbol: str
    target: Target

    @property
    def feature(self) -> str:
        """The canonical text."""
        return self.target.feature

    @property
    def timeframe_name(self) -> str:
        """The timeframe of its rows."""
        return self.target.timeframe.value

    @cached_property
    def needs(self) -> tuple[Need, ...]:
        """The bars that are its rows, and what the feature reads."""
        return needs(replace(self.target.spec, output=None), self.symbol, self.target.timeframe)

    @cached_property
    def identity(self) -> Hashable:
        """Where its newest rows lie in Redis; for others all of the question."""
        place = self.target.keys(self.symbol)[0]
        return place if self.is_newest else (place, self.target.feature, self._when)


@dataclass(frozen=True, eq=False)
class MatrixQuestion(Question):
    """The correlation matrix of symbols over the last bars; `options_json` are those of `correlation_of`, sorted."""

    symbols: tuple[str, ...]
    timeframe: Timeframe
    window: int
    options_json: bytes

    @property
    def symbol(self) -> str:
        """None: it is of several."""
        return ""

    @property
    def feature(self) -> str:
        """What it is."""
        return "CORRELATION_MATRIX"

    @property
    def timeframe_name(self) -> str:
        """The timeframe of the bars."""
        return self.timeframe.value

    @property
    def options(self) -> dict[str, Any]:
        """The options of `correlation_of`, without the window."""
        return dict(msgspec.json.decode(self.options_json))

    @cached_property
    def identity(self) -> Hashable:
        """All of the question."""
        return "matrix", self.symbols, self.timeframe, self.window, self.options_json, self._when

    @cached_property
    def needs(self) -> tuple[Need, ...]:
        """The bars of every symbol."""
        return tuple(sorted(Need("bars", each) for each in dict.fromkeys(self.symbols)))


@dataclass(frozen=True, eq=False)
class SeriesQuestion(Question):
    """What is known of a macro series: its newest `n` periods, or those in the range."""

    series: str

    @property
    def symbol(self) -> str:
        """None: it is of no symbol."""
        return ""

    @property
    def feature(self) -> str:
        """The series."""
        return self.series

    @cached_property
    def identity(self) -> Hashable:
        """All of the question."""
        return "series", self.series, self._when

    @cached_property
    def needs(self) -> tuple[Need, ...]:
        """The series."""
        return (Need("macro", self.series),)


AnyQuestion: TypeAlias = FeatureQuestion | MatrixQuestion | SeriesQuestion


def questions(request: DataRequest) -> tuple[AnyQuestion, ...]:
    """Give the questions of a request, one a result. Raises a `PlatformError` for what a check would have refused."""
    when = _when(request)
    if request.type == RequestType.CORRELATION_MATRIX:
        return tuple(_matrix(request, timeframe, when) for timeframe in request.timeframes)
    if request.type == RequestType.MACRO_INDICATORS and not request.symbols:
        return tuple(_known(when, series) for series in _series(request.options))
    if not (request.symbols and request.timeframes and request.features):
        raise InvalidRequest("Nothing is asked for", remedy="Name symbols, timeframes and features")
    asked = [parse_feature(each) for each in request.features]
    return tuple(
        _feature(when, symbol, target_of(spec, Timeframe.parse(timeframe)))
        for symbol in map(parse_symbol, request.symbols)
        for timeframe in request.timeframes
        for spec in asked
    )


def _when(request: DataRequest) -> _When:
    """Give what rows are asked for: the newest, or those of a range. Raises `InvalidRequest`."""
    for name in ("start", "end", "as_of"):
        instant = getattr(request, name)
        if instant is not None and not 0 <= instant <= _LATEST_INSTANT:
            raise InvalidRequest(f"{name} is out of range", value=instant, remedy="Allowed: 1970 to 2999, in µs")
    if request.start is not None or request.end is not None:
        return None, request.start, request.end, request.as_of
    n = 1 if request.latest is None else request.latest
    if not 1 <= n <= MOST_ROWS:
        raise InvalidRequest("latest is out of range", value=n, remedy=f"Allowed: 1 to {MOST_ROWS}")
    return n, None, None, request.as_of


@lru_cache(maxsize=16_384)
def _feature(when: _When, symbol: str, target: Target) -> FeatureQuestion:
    """Give the question; kept, because what it depends on takes longer to work out than to answer it."""
    return FeatureQuestion(*when, symbol, target.seen_from(symbol))


def _matrix(request: DataRequest, timeframe: str, when: _When) -> MatrixQuestion:
    options = dict(request.options)
    window = options.pop("window", DEFAULT_WINDOW)
    if not isinstance(window, int):
        raise InvalidRequest("window of a correlation", value=window, remedy="Allowed: an integer from 2")
    symbols = tuple(dict.fromkeys(map(parse_symbol, request.symbols)))
    return _of_symbols(when, symbols, Timeframe.parse(timeframe), window, _options.encode(options))


@lru_cache(maxsize=1024)
def _of_symbols(
    when: _When, symbols: tuple[str, ...], timeframe: Timeframe, window: int, options: bytes
) -> MatrixQuestion:
    return MatrixQuestion(*when, symbols, timeframe, window, options)


@lru_cache(maxsize=1024)
def _known(when: _When, series: str) -> SeriesQuestion:
    return SeriesQuestion(*when, series)


def _series(options: Mapping[str, Any]) -> tuple[str, ...]:
    given = options.get("series", ())
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else ()
    if not names or not all(isinstance(each, str) and _SERIES.fullmatch(each) for each in names):
        raise InvalidRequest("No series", value=given, remedy="Name some in options, such as CPIAUCSL")
    return tuple(dict.fromkeys(names))
