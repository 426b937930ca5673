"""Features of any kind, of any symbol and timeframe, in the rows of one grid; every cell known at its row's close.

1. Features are grouped by the symbol and timeframe they are of (the row's own where they name none), so that those that
   share a computation share it.
2. Each kind computes its features on the grid of that symbol and timeframe, from `data`.
3. What is of another grid is joined to the row as of the row's close, on the instant at which it became available.

`frame` lays the answers side by side: a training set, or what is served.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import NoData, ParameterOutOfRange
from mdplatform.features.data import Data, Grid, Values, default_data, grid_of
from mdplatform.features.guard import NOT_AVAILABLE_YET, STALE, STATUSES, UNSETTLED
from mdplatform.features.kinds import Need, kind
from mdplatform.features.parse import FeatureLike, parse_feature
from mdplatform.features.spec import FeatureSpec
from mdplatform.market.bars import INSTANT
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import Timeframe

_WORDS = pl.Series(STATUSES)


def evaluate_on(grid: Grid, specs: Iterable[FeatureSpec], data: Data) -> dict[FeatureSpec, Values]:
    """Give the values of each feature in each row of `grid`, with the outputs that the feature picks.

    A feature's own `symbol` and `timeframe` go before the grid's. Raises what the kinds raise.
    """
    wanted = tuple(dict.fromkeys(specs))
    places: dict[tuple[str, Timeframe], list[FeatureSpec]] = defaultdict(list)
    for spec in wanted:
        places[spec.symbol or grid.symbol, spec.timeframe or grid.timeframe].append(spec)
    answers: dict[FeatureSpec, Values] = {}
    for (symbol, timeframe), of_place in places.items():
        there = (
            grid if (symbol, timeframe) == (grid.symbol, grid.timeframe) else _other_grid(grid, symbol, timeframe, data)
        )
        computed = _computed(there, [spec.whole for spec in of_place], data) if there is not None else {}
        for spec in of_place:
            if there is None:
                answers[spec] = _nothing(spec, len(grid))
                continue
            values = computed[spec.whole]
            picked = tuple(values.outputs[spec.definition.outputs.index(each)] for each in spec.outputs)
            values = Values(picked, values.statuses, values.ages, values.method)
            answers[spec] = values if there is grid else _joined(grid, there, values)
    return {spec: answers[spec] for spec in wanted}


def reads(specs: Iterable[FeatureSpec], symbol: str, timeframe: Timeframe) -> frozenset[Need]:
    """Give what the values of these features for a symbol and timeframe depend on."""
    return frozenset(
        need
        for spec in specs
        for need in kind(spec.definition.kind).reads(spec.whole, spec.symbol or symbol, spec.timeframe or timeframe)
    )


def frame(
    symbols: Iterable[str] | str,
    features: Iterable[FeatureLike] | FeatureLike,
    timeframe: Timeframe | str,
    start: datetime | str | None = None,
    end: datetime | str | None = None,
    as_of: datetime | str | None = None,
    *,
    ages: bool = False,
    statuses: bool = False,
    data: Data | None = None,
) -> pl.DataFrame:
    """Give one aligned frame of features: a row for each bar with `start <= open_time < end` of each symbol.

    Columns: `symbol`, `open_time`, `close_time` (UTC), then each output by its canonical text (float64, null where it
    has no value; `@symbol` and `@timeframe` follow where they differ from the row's), with `statuses` also
    `<feature>.status`, and with `ages` also `<feature>.age` (a duration; null where age has no meaning). Every cell is
    made of what was available at its row's `close_time`; `as_of` leaves out what became known later than that.

    Times are datetimes or ISO 8601 texts, UTC where they name no zone. Without `data` the platform's home is read.
    Raises what `parse_feature` raises, `InvalidSymbol`, `UnknownTimeframe`, and `NoData` where a symbol has no bars in
    the range.
    """
    names = [parse_symbol(each) for each in ([symbols] if isinstance(symbols, str) else symbols)]
    given = [features] if isinstance(features, str | Mapping | FeatureSpec) else features
    specs = list(dict.fromkeys(parse_feature(each) for each in given))
    length = Timeframe.parse(timeframe)
    begin, stop = (None if each is None else to_us(as_instant(each)) for each in (start, end))
    source = data if data is not None else default_data(None if as_of is None else as_instant(as_of))
    parts = []
    for name in dict.fromkeys(names):
        bars = source.bars(name, length, begin, stop)
        if bars.is_empty():
            raise NoData(
                f"No {length} bars of {name} in that range",
                remedy=f"There are bars of: {', '.join(source.symbols()) or 'none'}",
            )
        grid = grid_of(bars)
        parts.append(table(grid, evaluate_on(grid, specs, source), ages=ages, statuses=statuses))
    return pl.concat(parts)


def table(
    grid: Grid, answers: Mapping[FeatureSpec, Values], *, ages: bool = False, statuses: bool = False
) -> pl.DataFrame:
    """Lay values side by side, as `frame` does, for one grid."""
    columns = [
        pl.Series("symbol", [grid.symbol], pl.String).new_from_index(0, len(grid)),
        pl.Series("open_time", grid.open_time).cast(INSTANT),
        pl.Series("close_time", grid.close_time).cast(INSTANT),
    ]
    for spec, values in answers.items():
        for name, output in zip(spec.columns, values.outputs, strict=True):
            columns.append(pl.Series(f"{name}{spec.place}", output, nan_to_null=True))
        if statuses:
            columns.append(_WORDS.gather(values.statuses).alias(f"{spec}{spec.place}.status"))
        if ages:
            old = pl.Series(f"{spec}{spec.place}.age", np.full(len(grid), -1) if values.ages is None else values.ages)
            columns.append(old.set(old < 0, None).cast(pl.Duration("us")))
    return pl.DataFrame(columns)


def as_instant(given: datetime | str) -> datetime:
    """Read a time, ISO 8601 where it is text; without a zone it is UTC. Raises `ParameterOutOfRange`."""
    try:
        moment = datetime.fromisoformat(given) if isinstance(given, str) else given
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise ParameterOutOfRange(
            "Not a time", value=given, remedy="Write it as 2024-03-01 or 2024-03-01T12:30:00Z"
        ) from None


def _computed(grid: Grid, wholes: Sequence[FeatureSpec], data: Data) -> dict[FeatureSpec, Values]:
    by_kind: dict[str, list[FeatureSpec]] = defaultdict(list)
    for whole in dict.fromkeys(wholes):
        by_kind[whole.definition.kind].append(whole)
    return {
        spec: values
        for name, group in by_kind.items()
        for spec, values in kind(name).evaluate(group, grid, data).items()
    }


def _other_grid(grid: Grid, symbol: str, timeframe: Timeframe, data: Data) -> Grid | None:
    """Give the rows of another symbol or timeframe that are newest at some row's close; None if there are none."""
    first = timeframe.floor(grid.start + grid.timeframe.microseconds) - timeframe.microseconds
    bars = data.bars(symbol, timeframe, first, grid.end)
    bars = bars.filter(bars["open_time"].dt.epoch("us") + timeframe.microseconds <= grid.end)
    return None if bars.is_empty() else grid_of(bars)


def _joined(grid: Grid, there: Grid, values: Values) -> Values:
    """Join values of another grid to each row, as of its close; stale where a newer row should be there by then."""
    at = np.searchsorted(there.close_time, grid.close_time, side="right") - 1
    rows = np.maximum(at, 0)
    statuses: NDArray[np.int8] = values.statuses[rows].copy()
    statuses[grid.close_time - there.close_time[rows] >= there.timeframe.microseconds] = STALE
    statuses[at < 0] = NOT_AVAILABLE_YET
    outputs = tuple(np.where(statuses <= UNSETTLED, each[rows], np.nan) for each in values.outputs)
    waited = grid.close_time - there.close_time[rows]
    own = waited if values.ages is None else np.where(values.ages[rows] < 0, -1, values.ages[rows] + waited)
    return Values(outputs, statuses, np.where(at < 0, -1, own), values.method)


def _nothing(spec: FeatureSpec, rows: int) -> Values:
    nulls = tuple(np.full(rows, np.nan) for _ in spec.outputs)
    return Values(nulls, np.full(rows, NOT_AVAILABLE_YET, np.int8), np.full(rows, -1))
