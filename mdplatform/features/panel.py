"""Features of any kind, of any symbol and timeframe, in the rows of one grid; every cell known at its row's T.

T of a row is the instant at which its own bar was available: its close, or up to one timeframe later where the bar came
with a delay. A bar that comes later than that is a gap for ever (`features.arrival`).

1. Features are grouped by the symbol and timeframe they are of (the row's own where they name none), so that those that
   share a computation share it.
2. Each kind computes its features on the grid of that symbol and timeframe, from `data`.
3. What is of another grid is joined to the row as of T, on the instant at which it became available.
   It is stale from the instant on at which the next one should have been available as well.

`frame` lays the answers side by side: a training set, or what is served.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import NoData, ParameterOutOfRange, PlatformError, UnknownSymbol
from mdplatform.features.arrival import OnTime, arrivals
from mdplatform.features.data import Data, Grid, Values, default_data, grid_of, within
from mdplatform.features.guard import NOT_AVAILABLE_YET, STALE, STATUSES, UNSETTLED
from mdplatform.features.kinds import Need, kind
from mdplatform.features.parse import FeatureLike, parse_features
from mdplatform.features.spec import FeatureSpec
from mdplatform.market.bars import INSTANT
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import from_us, iso, to_us
from mdplatform.market.timeframe import Timeframe

_WORDS = pl.Series(STATUSES)
_NO_BARS_BEFORE = to_us(datetime(2005, 1, 1, tzinfo=UTC))


def evaluate_on(grid: Grid, specs: Iterable[FeatureSpec], data: Data) -> dict[FeatureSpec, Values]:
    """Give the values of each feature in each row of `grid`, with the outputs that the feature picks.

    A feature's own `symbol` and `timeframe` go before the grid's. Raises `UnknownSymbol`, and what the kinds raise.
    """
    wanted = tuple(dict.fromkeys(specs))
    if not len(grid):
        return {spec: _nothing(spec, 0) for spec in wanted}
    data = OnTime.of(data)
    grid = _timed(grid, data)
    places: dict[tuple[str, Timeframe], list[FeatureSpec]] = defaultdict(list)
    for spec in wanted:
        places[spec.symbol or grid.symbol, spec.timeframe or grid.timeframe].append(spec)
    answers: dict[FeatureSpec, Values] = {}
    for place, of_place in places.items():
        if place == (grid.symbol, grid.timeframe):
            computed = _computed(grid, [spec.whole for spec in of_place], data)
            answers.update({spec: _picked(spec, computed[spec.whole]) for spec in of_place})
            continue
        there = _known_rows(grid, *place, data)
        if there is None:
            if place[0] not in (known := data.symbols()):
                raise UnknownSymbol(place[0], known)
            answers.update({spec: _nothing(spec, len(grid)) for spec in of_place})
            continue
        computed = _computed(there, [spec.whole for spec in of_place], data)
        answers.update({spec: _joined(grid, there, _picked(spec, computed[spec.whole])) for spec in of_place})
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

    Columns: `symbol`, `open_time`, `close_time`, `available_at` (UTC), then each output by its canonical text (float64,
    null where it has no value; `@symbol` and `@timeframe` follow where they differ from the row's), with `statuses`
    also `<feature>.status`, and with `ages` also `<feature>.age` (a duration; null where age has no meaning). Every
    cell is made of what was available at its row's `available_at`, which is when the row's own bar was; `as_of` leaves
    out what became known later than that.

    Times are datetimes or ISO 8601 texts, UTC where they name no zone. Without `data` the platform's home is read, as
    it was known at `as_of`; `data` of your own is as of an instant by itself. Raises what `parse_feature` raises,
    `InvalidSymbol`, `UnknownSymbol`, `UnknownTimeframe`, `ParameterOutOfRange` for what is no time, for no symbols and
    for both of `data` and `as_of`, and `NoData` where a symbol has no bars in the range.
    """
    if not isinstance(symbols, Iterable):
        raise ParameterOutOfRange("These are no symbols", value=symbols, remedy="Name some, such as BTCUSDT")
    names = list(dict.fromkeys(parse_symbol(each) for each in ([symbols] if isinstance(symbols, str) else symbols)))
    specs = list(parse_features(features))
    length = Timeframe.parse(timeframe)
    begin, stop = (None if each is None else to_us(as_instant(each)) for each in (start, end))
    known = None if as_of is None else as_instant(as_of)
    if not names:
        raise ParameterOutOfRange("A frame needs a symbol", value=symbols, remedy="Name at least one, such as BTCUSDT")
    if data is not None and known is not None:
        raise ParameterOutOfRange(
            "Both `data` and `as_of` are given",
            value=as_of,
            remedy="Leave `as_of` out, and give data as of that instant",
        )
    source = data if data is not None else default_data(known)
    parts = []
    for name in names:
        bars = source.bars(name, length, begin, stop)
        if bars.is_empty():
            raise _no_bars(name, length, begin, stop, source, known)
        grid = grid_of(bars)
        parts.append(table(grid, evaluate_on(grid, specs, source), ages=ages, statuses=statuses))
    return pl.concat(parts)


def table(
    grid: Grid, answers: Mapping[FeatureSpec, Values], *, ages: bool = False, statuses: bool = False
) -> pl.DataFrame:
    """Lay values side by side, as `frame` does, for one grid."""
    columns = {
        "symbol": pl.Series([grid.symbol], dtype=pl.String).new_from_index(0, len(grid)),
        "open_time": pl.Series(grid.open_time).cast(INSTANT),
        "close_time": pl.Series(grid.close_time).cast(INSTANT),
        "available_at": pl.Series(grid.known_at).cast(INSTANT),
    }
    for spec, values in answers.items():
        for name, output in zip(spec.columns, values.outputs, strict=True):
            columns[f"{name}{spec.place}"] = pl.Series(output, nan_to_null=True)
        if statuses:
            columns[f"{spec}{spec.place}.status"] = _WORDS.gather(values.statuses)
        if ages:
            old = pl.Series(np.full(len(grid), -1) if values.ages is None else values.ages)
            columns[f"{spec}{spec.place}.age"] = old.set(old < 0, None).cast(pl.Duration("us"))
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


def _picked(spec: FeatureSpec, whole: Values) -> Values:
    """Give the outputs that the feature picks."""
    if spec.output is None:
        return whole
    return replace(whole, outputs=(whole.outputs[spec.definition.outputs.index(spec.output)],))


def _timed(grid: Grid, data: Data) -> Grid:
    """Give the grid with T of each row, as its bars say; a row without a bar has its close."""
    if grid.available_at is not None:
        return grid
    bars = data.bars(grid.symbol, grid.timeframe, grid.start, grid.end)
    known_at = grid.close_time.copy()
    if bars.height:
        opens = bars["open_time"].to_physical().to_numpy()
        rows = np.minimum(np.searchsorted(opens, grid.open_time), len(opens) - 1)
        known_at = np.where(opens[rows] == grid.open_time, arrivals(bars)[rows], known_at)
    return replace(grid, available_at=known_at)


def _known_rows(grid: Grid, symbol: str, timeframe: Timeframe, data: Data) -> Grid | None:
    """Give the rows of which one is the newest known at some row's T; None if there are none."""
    step = timeframe.microseconds
    newest, end = timeframe.floor(int(grid.close_time[0])) - step, int(grid.known_at[-1])
    rows = 1
    while True:  # the newest known one may be older: where bars come late, or where they have ended
        first = newest - rows * step
        bars = data.bars(symbol, timeframe, first, end)
        bars = within(bars, "open_time", None, end - step + 1)
        if bars.height:
            there = grid_of(bars)
            if there.known_at[0] <= grid.known_at[0] or there.start > first:
                return there
        elif first < _NO_BARS_BEFORE:
            return None
        rows *= 8


def _joined(grid: Grid, there: Grid, values: Values) -> Values:
    """Join values of other rows to each row of `grid`, as of its T."""
    at = np.searchsorted(there.known_at, grid.known_at, side="right") - 1
    rows = np.maximum(at, 0)
    statuses: NDArray[np.int8] = values.statuses[rows].copy()
    statuses[grid.known_at - there.known_at[rows] >= there.timeframe.microseconds] = STALE
    statuses[at < 0] = NOT_AVAILABLE_YET
    outputs = tuple(np.where(statuses <= UNSETTLED, each[rows], np.nan) for each in values.outputs)
    waited = grid.known_at - there.close_time[rows]
    own = waited if values.ages is None else np.where(values.ages[rows] < 0, -1, values.ages[rows] + waited)
    return Values(outputs, statuses, np.where(at < 0, -1, own), values.method)


def _nothing(spec: FeatureSpec, rows: int) -> Values:
    nulls = tuple(np.full(rows, np.nan) for _ in spec.outputs)
    return Values(nulls, np.full(rows, NOT_AVAILABLE_YET, np.int8), np.full(rows, -1))


def _no_bars(
    symbol: str, timeframe: Timeframe, start: int | None, end: int | None, data: Data, as_of: datetime | None
) -> PlatformError:
    if symbol not in (known := data.symbols()):
        return UnknownSymbol(symbol, known)
    shown = [None if each is None else iso(from_us(each)) for each in (start, end)]
    if as_of is not None and not default_data().bars(symbol, timeframe, start, end).is_empty():
        return NoData(
            f"No {timeframe} bars of {symbol} were known at as_of, {iso(as_of)}",
            value=f"{shown[0] or 'the first'} to {shown[1] or 'the last'}",
            remedy="They became known later: name a later `as_of`, or leave it out",
        )
    return NoData(
        f"No {timeframe} bars of {symbol}",
        value=f"{shown[0] or 'the first'} to {shown[1] or 'the last'}",
        remedy="Ask for another range or timeframe, or take in its bars with `mdplatform ingest`",
    )
