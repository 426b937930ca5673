"""One table of bars as all the data there is, for features of any kind that need no more than it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import InvalidBars, InvalidFeature
from mdplatform.features.bar_arrays import BarArrays, BarsLike, as_polars, read_bars
from mdplatform.features.data import Grid, TableData
from mdplatform.features.formula.program import compiled
from mdplatform.features.formula.tokens import shortened
from mdplatform.features.kinds import Need, kind
from mdplatform.features.spec import FORMULA, FeatureSpec
from mdplatform.market.bars import BAR_SCHEMA, INSTANT
from mdplatform.market.resample import complete_grid
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import from_us, iso
from mdplatform.market.timeframe import Timeframe

_MOST_ROWS = 10_000_000
_NAMELESS = "THESE_BARS"


@dataclass(frozen=True)
class BarsAlone:
    """The complete grid of some bars, data that holds those bars alone, and the places of their rows in the grid."""

    grid: Grid
    data: TableData
    rows: NDArray[np.intp]


def bars_alone(bars: BarsLike, specs: Iterable[FeatureSpec], timeframe: Timeframe | str | None) -> BarsAlone:
    """Give `bars` (what `compute.evaluate` takes) as data for `specs`.

    Raises InvalidBars for bars that cannot be computed on, and InvalidFeature for a feature that needs more than them.
    """
    frame = as_polars(bars)
    every = list(_parts(specs))
    arrays = read_bars(frame, timeframe, {name for spec, columns in every for name in columns})
    length = _timeframe(arrays)
    named = frame.height and "symbol" in frame.columns and frame["symbol"][0] is not None
    symbol = parse_symbol(frame["symbol"][0]) if named else _NAMELESS
    _refuse_others([spec for spec, _ in every], symbol, length)
    opens = arrays.open_time
    rows = (opens - (opens[0] if len(opens) else 0)) // length.microseconds
    if len(opens) and ((opens - opens[0]) % length.microseconds).any():
        raise InvalidBars(f"Bars do not lie on one grid of {length}", remedy="Leave out what opens off the grid")
    if len(rows) and rows[-1] >= max(_MOST_ROWS, len(rows)):
        raise InvalidBars(
            f"Bars span too many rows of {length}",
            value=f"{iso(from_us(int(opens[0])))} to {iso(from_us(int(opens[-1])))}",
            remedy=f"At most {_MOST_ROWS:,}: is a time wrong?",
        )
    whole = complete_grid(_as_bars(frame, symbol, length), length)
    grid = Grid(symbol, length, whole["open_time"].to_physical().to_numpy())
    return BarsAlone(grid, TableData({symbol: whole}), rows.astype(np.intp))


def timeframe_of(bars: BarsLike, given: Timeframe | str | None) -> Timeframe:
    """Give the timeframe of bars: the one given, that of their column, or their smallest step. Raises `InvalidBars`."""
    return _timeframe(read_bars(bars, given, ()))


def _timeframe(arrays: BarArrays) -> Timeframe:
    length = next((each for each in Timeframe if each.microseconds == arrays.step), None)
    if length is None:
        raise InvalidBars("The timeframe of the bars is not known", value=arrays.step, remedy="Give it as `timeframe`")
    return length


def _parts(specs: Iterable[FeatureSpec]) -> Iterator[tuple[FeatureSpec, tuple[str, ...]]]:
    """Give each feature, those within formulas too, with the columns of bars that it names."""
    waiting = list(specs)
    while waiting:
        spec = waiting.pop()
        if spec.name == FORMULA:
            program = compiled(str(spec))
            # what is of another place is of that place throughout
            waiting += [each.placed(each.symbol or spec.symbol, each.timeframe) for each in program.features]
            yield spec, program.bar_columns
        else:
            yield spec, spec.inputs


def _refuse_others(specs: Iterable[FeatureSpec], symbol: str, timeframe: Timeframe) -> None:
    for spec in specs:
        if spec.timeframe not in (None, timeframe) and not timeframe.divides(spec.timeframe):
            raise InvalidFeature(
                f"{shortened(str(spec))} is of {spec.timeframe}, which cannot be built of these bars of {timeframe}",
                remedy="Give bars of that timeframe, or of one that divides it",
            )
        own = spec.symbol or symbol
        needs = kind(spec.definition.kind).reads(spec.whole, own, spec.timeframe or timeframe)
        if (
            own != symbol
            or Need("bars", symbol) not in needs
            or any(need.dataset == "bars" and need.key != symbol for need in needs)
        ):
            told = ", ".join(sorted({f"{need.dataset} of {need.key}" if need.key else need.dataset for need in needs}))
            raise InvalidFeature(
                f"{shortened(str(spec))} needs more than these bars",
                value=told,
                remedy="`features.frame` computes from all that there is",
            )


def _as_bars(frame: pl.DataFrame, symbol: str, timeframe: Timeframe) -> pl.DataFrame:
    """Give the frame as bars: what it does not tell is null, or what is usual."""
    opens = (
        pl.col("open_time").cast(INSTANT) if isinstance(frame.schema["open_time"], pl.Datetime) else pl.col("open_time")
    )
    close = opens + pl.duration(microseconds=timeframe.microseconds)
    usual = {
        "symbol": pl.lit(symbol),
        "timeframe": pl.lit(timeframe.value),
        "open_time": opens,
        "close_time": close,
        "is_closed": pl.lit(True),
        "state": pl.col("state").fill_null("observed") if "state" in frame.columns else pl.lit("observed"),
        "revision": pl.lit(0),
        "available_at": close,
    }
    held = [name for name in BAR_SCHEMA if name in frame.columns and name not in usual]
    return frame.select(
        *(expression.alias(name) for name, expression in usual.items()),
        *(pl.col(name) for name in held),
        *(pl.lit(None).alias(name) for name in BAR_SCHEMA if name not in usual and name not in held),
    ).select(pl.col(name).cast(kind, strict=False) for name, kind in BAR_SCHEMA.items())
