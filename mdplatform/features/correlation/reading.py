"""`correlation_of`: the correlation matrix of symbols from the bars that there are, as it was known at an instant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from mdplatform.errors import NoData, ParameterOutOfRange
from mdplatform.features.correlation.matrix import correlation_matrix
from mdplatform.features.correlation.panels import Panel, changes, names_of
from mdplatform.features.correlation.result import Correlations
from mdplatform.features.correlation.rolling import check_window
from mdplatform.features.data import Data, default_data
from mdplatform.features.panel import as_instant
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import Timeframe

OF = ("returns", "levels")


def correlation_of(
    symbols: Sequence[str],
    window: int,
    timeframe: Timeframe | str,
    end: datetime | str | None = None,
    as_of: datetime | str | None = None,
    data: Data | None = None,
    *,
    of: str = "returns",
    **options: Any,
) -> Correlations:
    """Give the correlation matrix of the log returns of `symbols` over the last `window` bars known at `end`.

    Bars that were available at `end` (ISO 8601 text or datetime, UTC where it names no zone; by default the newest
    close of any of the symbols) count, and with `as_of` only what was known by then. The window is one stretch of the
    grid of `timeframe` for all symbols and ends with the newest bar at `end`; holes in it are left out, never filled.
    `of="levels"` takes the closes themselves. `options` are those of `correlation_matrix`. Without `data` the
    platform's home is read.

    The answer's `available_at` is the close of the window's last bar; symbols come in the order given. Raises
    `InvalidSymbol`, `UnknownTimeframe`, `ParameterOutOfRange`, and `NoData` where none of the symbols has a bar.

    To be wired where people ask: `reader.correlation(symbols, window, timeframe, …)` and `mdplatform correlation` pass
    their arguments through; `.to_pandas()`, `.to_arrow()` and `.pairs()` are what they show.
    """
    names = list(dict.fromkeys(parse_symbol(each) for each in names_of(symbols)))
    if not names:
        raise ParameterOutOfRange("No symbols", remedy="Name at least one")
    length = Timeframe.parse(timeframe)
    check_window(window)
    if of not in OF:
        raise ParameterOutOfRange("Correlation of what", value=of, remedy=f"Allowed: {', '.join(OF)}")
    source = data if data is not None else default_data(None if as_of is None else as_instant(as_of))
    if data is not None and as_of is not None:
        raise ParameterOutOfRange("as_of does not go with data", value=as_of, remedy="Give data as it was known then")
    instant = None if end is None else to_us(as_instant(end))
    panel = closes(source, names, length, window + 1, instant)
    if of == "returns":
        panel = changes(panel)
    answer = correlation_matrix(panel.tail(window), **options)
    last = panel.time(-1)
    closed = None if last is None else last + timedelta(microseconds=length.microseconds)
    return replace(answer, rows=window, timeframe=length.value, available_at=closed)


def closes(data: Data, symbols: Sequence[str], timeframe: Timeframe, rows: int, end: int | None) -> Panel:
    """Give the closes of the last `rows` bars known at `end` (microseconds), a column for each symbol.

    Raises `NoData` where no symbol has a bar by then.
    """
    step = timeframe.microseconds
    stop = None if end is None else timeframe.floor(end)  # when the bar opened that is forming at `end`
    start = None if stop is None else stop - rows * step
    read: dict[str, pl.DataFrame] = {}
    ends: list[int] = []
    for name in symbols:
        read[name] = data.bars(name, timeframe, start, stop)
        if len(read[name]):
            ends.append(int(read[name]["close_time"].dt.epoch("us")[-1]))
            start = max(ends) - rows * step  # what lies before it is not needed of the others
    if not ends:
        when = "" if end is None else f" by {from_us(end):%Y-%m-%d %H:%M} UTC"
        raise NoData(
            f"No {timeframe} bars of {', '.join(symbols[:4])}{when} in the window",
            remedy=f"There are bars of: {', '.join(data.symbols()[:20]) or 'none'}",
        )
    stop = max(ends) if stop is None else stop
    opens = np.arange(stop - rows * step, stop, step)
    values = np.full((rows, len(symbols)), np.nan)
    for column, bars in enumerate(read.values()):
        known = bars.filter((pl.col("state") != "gap") & pl.col("close").is_finite() & (pl.col("close") > 0))
        known = known if end is None else known.filter(pl.col("available_at").dt.epoch("us") <= end)
        times = known["open_time"].dt.epoch("us").to_numpy()
        inside = times >= opens[0]
        values[(times[inside] - opens[0]) // step, column] = known["close"].to_numpy()[inside]
    return Panel(tuple(symbols), values, opens)
