"""Macro series at each row's close: the value that was known then, its changes, and how returns went along with it.

Parameters that all have:

- `mode`: `as_of` (what was known then), `first_release` (each period's first value), or `latest` (the newest vintage,
  shown from the period's first publication on: hindsight, for charts).
- `missing`: with `keep` a period that was published without a value has none, and its reason is `gap`; `skip` passes
  over it, as over the holidays of daily series.
- `max_staleness_days`: a value that became available longer ago than that is `stale`. Ages are those of the newest
  period's value, also where that was compared with older ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdplatform.errors import ParameterOutOfRange
from mdplatform.features import macro
from mdplatform.features.asof import newest_rows
from mdplatform.features.data import Data, Grid, Values
from mdplatform.features.definition import Definition, Parameter
from mdplatform.features.guard import GAP, NOT_AVAILABLE_YET, SETTLED, STALE
from mdplatform.features.kinds import Need
from mdplatform.features.returns import correlated, log_returns_from
from mdplatform.features.spec import FeatureSpec
from mdplatform.market.timeframe import DAY_US, Timeframe

CORRELATION = "MACRO_RETURN_CORRELATION"

_SERIES = Parameter(
    name="series",
    kind="text",
    default="",
    pattern=r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}",
    meaning="FRED's name of a series, such as CPIAUCSL",
)
_AS_KNOWN = (
    Parameter(name="mode", kind="choice", default="as_of", choices=macro.MODES),
    Parameter(name="missing", kind="choice", default="keep", choices=("keep", "skip")),
    Parameter(name="max_staleness_days", kind="integer", default=120, minimum=1, maximum=36_500),
)


def _periods(default: int, minimum: int) -> Parameter:
    return Parameter(name="periods", kind="integer", default=default, minimum=minimum, maximum=10_000)


def _correlation_lengths(arguments: Mapping[str, Any]) -> tuple[int, int]:
    return int(arguments["min_periods"]), int(arguments["window"]) - int(arguments["min_periods"])


_CORRELATION = (
    _SERIES,
    Parameter(name="window", kind="integer", default=250, minimum=3, maximum=20_000),
    Parameter(name="lag", kind="integer", default=0, minimum=0, maximum=20_000),
    Parameter(name="min_periods", kind="integer", default=20, minimum=3, maximum=20_000),
    Parameter(name="transform", kind="choice", default="diff", choices=macro.TRANSFORMS),
    _periods(1, 1),
    *_AS_KNOWN,
)


def _definition(name: str, title: str, parameters: tuple[Parameter, ...]) -> Definition:
    return Definition(
        name=name,
        title=title,
        group="Macro",
        is_cumulative=False,
        inputs=(),
        parameters=parameters,
        outputs=(name.lower(),),
        kind="macro",
        engine=macro.ENGINE,
        lengths=_correlation_lengths if name == CORRELATION else None,
        required=("series",),
    )


DEFINITIONS: tuple[Definition, ...] = (
    _definition("MACRO", "Macro series as known", (_SERIES, *_AS_KNOWN)),
    _definition("MACRO_DIFF", "Change of a macro series as known", (_SERIES, _periods(1, 1), *_AS_KNOWN)),
    _definition("MACRO_PCT", "Relative change of a macro series as known", (_SERIES, _periods(1, 1), *_AS_KNOWN)),
    _definition("MACRO_YOY", "Relative change of a macro series over a year as known", (_SERIES, *_AS_KNOWN)),
    _definition("MACRO_ZSCORE", "Z-score of a macro series as known", (_SERIES, _periods(24, 2), *_AS_KNOWN)),
    _definition(CORRELATION, "Correlation of a macro series as known with returns", _CORRELATION),
)
_TRANSFORM = {
    "MACRO": "value",
    "MACRO_DIFF": "diff",
    "MACRO_PCT": "pct",
    "MACRO_YOY": "yoy",
    "MACRO_ZSCORE": "zscore",
}


def evaluate(specs: Sequence[FeatureSpec], grid: Grid, data: Data) -> dict[FeatureSpec, Values]:
    """Replay each series once for each way in which it is asked for, and join the steps to the rows.

    A series of which there is nothing at all is `not_available_yet` throughout, if `data` does not refuse its name.
    Raises `ParameterOutOfRange` for a correlation that asks for more pairs than rows.
    """
    for spec in specs:
        _check(spec)
    values: dict[FeatureSpec, Values] = {}
    by_series: dict[str, list[FeatureSpec]] = {}
    for spec in specs:
        by_series.setdefault(str(spec.arguments["series"]), []).append(spec)
    for series, of_series in by_series.items():
        vintages = data.macro(series)
        events: dict[str, macro.Releases] = {}
        for spec in of_series:
            mode = str(spec.arguments["mode"])
            if mode not in events:
                events[mode] = macro.releases(vintages, mode)
            if spec.name == CORRELATION:
                values[spec] = _correlated(spec, grid, data, events[mode])
            else:
                values[spec] = _at(spec, events[mode], grid.known_at)
    return {spec: values[spec] for spec in specs}


def reads(spec: FeatureSpec, symbol: str, timeframe: Timeframe) -> frozenset[Need]:
    """The series, and for the correlation the bars of the symbol."""
    needs = {Need("macro", str(spec.arguments["series"]))}
    if spec.name == CORRELATION:
        needs.add(Need("bars", symbol))
    return frozenset(needs)


def _at(spec: FeatureSpec, events: macro.Releases, instants: NDArray[np.int64]) -> Values:
    """Give the transform at each instant (ascending), with ages."""
    given = spec.arguments
    transform = _TRANSFORM.get(spec.name) or str(given["transform"])
    made = macro.steps(events, transform, int(given.get("periods", 1)), skip=given["missing"] == "skip")
    rows = newest_rows(made.available_at, instants)
    if not len(made.available_at):
        nothing = np.full(len(instants), NOT_AVAILABLE_YET, np.int8)
        return Values((np.full(len(instants), np.nan),), nothing, np.full(len(instants), -1))
    there = np.maximum(rows, 0)
    ages = instants - made.since[there]
    statuses = made.statuses[there]
    statuses[ages > int(given["max_staleness_days"]) * DAY_US] = STALE
    statuses[rows < 0] = NOT_AVAILABLE_YET
    ages[rows < 0] = -1
    return Values((np.where(statuses == SETTLED, made.values[there], np.nan),), statuses, ages)


def _check(spec: FeatureSpec) -> None:
    given = spec.arguments
    if spec.name == CORRELATION and int(given["min_periods"]) > int(given["window"]):
        raise ParameterOutOfRange(
            f"Parameter min_periods of {spec.name} is out of range",
            value=given["min_periods"],
            remedy=f"At most the window, {given['window']}",
        )


def _correlated(spec: FeatureSpec, grid: Grid, data: Data, events: macro.Releases) -> Values:
    """Correlate the series, as known `lag` rows before, with each row's log return, over the newest `window` rows."""
    given = spec.arguments
    step, window, lag = grid.timeframe.microseconds, int(given["window"]), int(given["lag"])
    opens = np.arange(grid.start - (window - 1) * step, grid.end, step)
    known = _at(spec, events, opens + step - lag * step)
    returns, gaps = log_returns_from(data, grid, int(opens[0]))
    correlations, statuses = correlated(known.outputs[0], returns, window, int(given["min_periods"]))
    rows = np.searchsorted(opens, grid.open_time)
    series_statuses = known.statuses[rows]
    statuses = statuses[rows]
    # no correlation for want of the series itself: say what is the matter with that
    wanting = np.isnan(correlations[rows]) & np.isin(series_statuses, (STALE, NOT_AVAILABLE_YET))
    statuses = np.where(wanting, series_statuses, statuses)
    statuses = np.where(gaps[rows], np.int8(GAP), statuses).astype(np.int8)
    assert known.ages is not None
    ages = known.ages[rows]
    return Values(
        (np.where(statuses == SETTLED, correlations[rows], np.nan),),
        statuses,
        np.where(ages < 0, -1, ages + lag * step),
    )
