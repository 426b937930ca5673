"""Sentiment: the newest score, aggregates of scored documents over a window, and how scores go with returns.

What is known at a row's close T is what became available by then. A feature of `scope=market` takes the documents that
name no symbol, one of `scope=symbol` those that name the row's. Where there is no value: `not_available_yet` before the
provider's first document, `stale` where the newest is older than is allowed. Ages are those of the newest document.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from mdplatform.errors import ParameterOutOfRange
from mdplatform.features.asof import as_of
from mdplatform.features.data import Data, Grid, Values
from mdplatform.features.definition import Definition, Parameter
from mdplatform.features.guard import GAP, INSUFFICIENT_HISTORY, SETTLED, STALE
from mdplatform.features.kinds import Need
from mdplatform.features.returns import correlated, log_returns_from
from mdplatform.features.sentiment import (
    COPY_WINDOW,
    DECAY_HALF_LIVES,
    KERNEL_VERSION,
    Documents,
    Ints,
    Windows,
    counted,
)
from mdplatform.features.spec import FeatureSpec
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe

CORRELATION = "SENTIMENT_RETURN_CORRELATION"
HOUR_US = 60 * MINUTE_US
_YEAR_HOURS = 8784.0
_LOOK_BACK = 366 * DAY_US

_PROVIDER = Parameter(
    "provider",
    "text",
    "",
    pattern=r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}",
    meaning="the name under which the documents were taken in, such as fear_greed",
)
_SCOPE = Parameter("scope", "choice", "market", choices=("market", "symbol"))
_STALENESS = Parameter("max_staleness_hours", "real", 48.0, 0.25, 10 * _YEAR_HOURS)
_WEEK = Parameter("max_staleness_hours", "real", 168.0, 0.25, 10 * _YEAR_HOURS)
_HOURS = Parameter("hours", "real", 24.0, 0.25, _YEAR_HOURS)
_HALF_LIFE = Parameter("half_life_hours", "real", 24.0, 0.25, _YEAR_HOURS)


def _definition(name: str, title: str, *own: Parameter) -> Definition:
    return Definition(
        name=name,
        title=title,
        group="Sentiment",
        is_cumulative=False,
        inputs=(),
        parameters=(_PROVIDER, *own, _SCOPE),
        outputs=(name.lower(),),
        kind="sentiment",
        engine=f"sentiment {KERNEL_VERSION}",
        required=("provider",),
    )


DEFINITIONS = (
    _definition("SENTIMENT", "Newest score", _STALENESS),
    _definition("SENTIMENT_MEAN", "Mean score of a window", _HOURS),
    _definition("SENTIMENT_DECAYED", "Exponentially decayed mean score", _HALF_LIFE, _WEEK),
    _definition("SENTIMENT_COUNT", "Number of documents in a window", _HOURS),
    _definition("SENTIMENT_DISPERSION", "Standard deviation of the scores of a window", _HOURS),
    _definition("SENTIMENT_AGE", "Hours since the newest document"),
    _definition(
        CORRELATION,
        "Correlation of earlier scores with returns",
        Parameter("window", "integer", 90, 3, 5_000),
        Parameter("lag", "integer", 1, 0, 1_000),
        Parameter("min_periods", "integer", 30, 3, 5_000),
        _STALENESS,
    ),
)


def evaluate(specs: Sequence[FeatureSpec], grid: Grid, data: Data) -> dict[FeatureSpec, Values]:
    """Compute each feature. Raises `ParameterOutOfRange` for a correlation that asks for more pairs than rows."""
    for spec in specs:
        _check(spec)
    begins = min(grid.start + grid.timeframe.microseconds - reach(spec, grid.timeframe) for spec in specs)
    library = _Library(data, begins, int(grid.known_at[-1]) + 1)
    values: dict[FeatureSpec, Values] = {}
    for spec in specs:
        if spec.name == CORRELATION:
            values[spec] = _correlation(spec, grid, data, library)
        else:
            documents = library.documents(*_place(spec, grid.symbol), int(grid.known_at[0]))
            values[spec] = _of_documents(spec, documents, grid.known_at)
    return values


def reads(spec: FeatureSpec, symbol: str, timeframe: Timeframe) -> frozenset[Need]:
    """All scored documents; for a correlation with returns also the bars of the symbol."""
    bars = {Need("bars", symbol)} if spec.name == CORRELATION else set()
    return frozenset({Need("sentiment", ""), *bars})


def reach(spec: FeatureSpec, timeframe: Timeframe) -> int:
    """Give how long before a row's close (microseconds) the documents became available that its value is made of.

    Where there are none since then, `stale` and an age follow from all that there are.
    """
    given = spec.arguments
    hours = float(given.get("hours", given.get("max_staleness_hours", _STALENESS.default)))
    hours += DECAY_HALF_LIVES * float(given.get("half_life_hours", 0))
    rows = int(given["window"]) + int(given["lag"]) if spec.name == CORRELATION else 0
    return _microseconds(hours) + rows * timeframe.microseconds


class _Library:
    """The documents that became available until before `end`: as far back as `begins`, or as it takes to find one."""

    def __init__(self, data: Data, begins: int, end: int) -> None:
        self._data = data
        self._starts = (begins, begins - _LOOK_BACK, None)
        self._end = end
        self._rows: dict[int | None, pl.DataFrame] = {}
        self._found: dict[tuple[str, str | None, int | None], Documents] = {}

    def documents(self, provider: str, symbol: str | None, first: int) -> Documents:
        """Give those that count of a provider about a symbol (None: the market), one before `first` if there is one."""
        found = Documents(np.empty(0, np.int64), np.empty(0))
        for start in self._starts:
            found = self._since(start, provider, symbol)
            if len(found) and found.available_at[0] <= first:
                break
        return found

    def _since(self, start: int | None, provider: str, symbol: str | None) -> Documents:
        key = provider, symbol, start
        if key not in self._found:
            if start not in self._rows:
                # of what lies in the copies' window before the start, it is not known whether it is a copy
                self._rows[start] = self._data.sentiment(None if start is None else start - COPY_WINDOW, self._end)
            counting = counted(self._rows[start], provider, symbol)
            self._found[key] = counting if start is None else counting.since(start)
        return self._found[key]


def _of_documents(spec: FeatureSpec, documents: Documents, at: Ints) -> Values:
    given = spec.arguments
    limit = given.get("max_staleness_hours")
    newest = as_of(documents.available_at, at, None if limit is None else _microseconds(float(limit)))
    statuses = newest.statuses
    if spec.name == "SENTIMENT":
        values = newest.take(documents.scores)
    elif spec.name == "SENTIMENT_AGE":
        values = newest.ages / HOUR_US
    elif spec.name == "SENTIMENT_DECAYED":
        half_life = _microseconds(float(given["half_life_hours"]))
        values = Windows.behind_newest(documents, at, DECAY_HALF_LIVES * half_life).decayed_mean(half_life)
    else:
        windows = Windows.of(documents, at, _microseconds(float(given["hours"])))
        if spec.name == "SENTIMENT_COUNT":
            values = windows.count.astype(np.float64)
        else:
            statuses[(statuses == SETTLED) & (windows.count == 0)] = STALE
            if spec.name == "SENTIMENT_MEAN":
                values = windows.mean()
            else:
                values = windows.dispersion()
                statuses[windows.count == 1] = INSUFFICIENT_HISTORY
    return Values((np.where(statuses == SETTLED, values, np.nan),), statuses, newest.ages)


def _correlation(spec: FeatureSpec, grid: Grid, data: Data, library: _Library) -> Values:
    """Pair the return of each row with the score that was newest `lag` rows before, and correlate them."""
    given, step = spec.arguments, grid.timeframe.microseconds
    window, lag = int(given["window"]), int(given["lag"])
    opens = np.arange(grid.start - (window - 1) * step, grid.end, step)
    returns, gaps = log_returns_from(data, grid, int(opens[0]))
    at = opens + (1 - lag) * step
    documents = library.documents(*_place(spec, grid.symbol), int(at[0]))
    newest = as_of(documents.available_at, at, _microseconds(float(given["max_staleness_hours"])))
    values, statuses = correlated(newest.take(documents.scores), returns, window, int(given["min_periods"]))
    own = slice(window - 1, None)
    values, statuses, newest_status = values[own], statuses[own], newest.statuses[own]
    short = statuses == INSUFFICIENT_HISTORY
    statuses = np.where(short & (newest_status != SETTLED), newest_status, statuses)
    statuses = np.where(gaps[-len(grid) :], np.int8(GAP), statuses).astype(np.int8)
    values = np.where(statuses == SETTLED, values, np.nan)
    ages = np.where(newest.rows[own] < 0, -1, newest.ages[own] + lag * step)
    return Values((values,), statuses, ages)


def _place(spec: FeatureSpec, symbol: str) -> tuple[str, str | None]:
    given = spec.arguments
    return str(given["provider"]), symbol if given["scope"] == "symbol" else None


def _check(spec: FeatureSpec) -> None:
    given = spec.arguments
    if spec.name == CORRELATION and int(given["min_periods"]) > int(given["window"]):
        raise ParameterOutOfRange(
            f"Parameter min_periods of {CORRELATION} is out of range",
            value=given["min_periods"],
            remedy=f"At most the window, which is {given['window']}",
        )


def _microseconds(hours: float) -> int:
    return round(hours * HOUR_US)
