"""The top of the order book at each row's close, rebuilt from recorded depth.

A row of UTC day D uses the messages that were known at its close, from the start of day D − 1 on: a snapshot in these
is what the book is built from, and what lies before them does not matter. Where the last message in the book is older
than `max_age` seconds at the close the value is `stale`; after a lost message it is a `gap` until the next snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mdplatform.features.data import Data, Grid, Values
from mdplatform.features.definition import Definition, Parameter
from mdplatform.features.flow.book import Messages, Tops, join_messages, read_messages, rebuild_tops
from mdplatform.features.guard import DEGENERATE, GAP, NOT_AVAILABLE_YET, SETTLED, STALE
from mdplatform.features.kinds import Need
from mdplatform.features.spec import FeatureSpec
from mdplatform.features.talib_functions import Floats
from mdplatform.market.timeframe import DAY_US, Timeframe

VERSION = "book 1"
"""Changes when a value does; it is part of every identity."""

_MAX_AGE = Parameter("max_age", "integer", 60, 1, 86_400)
_LATEST = 3_600_000_000  # a message that becomes known later than that after it was sent, an hour, is not used
_PIECE = DAY_US // 8  # so that no whole day of rows, of which there may be tens of millions, is in memory as a frame


def _define(name: str, title: str, *parameters: Parameter) -> Definition:
    return Definition(
        name=name,
        title=title,
        group="Order Book",
        is_cumulative=False,
        inputs=(),
        parameters=(*parameters, _MAX_AGE),
        outputs=(name.lower(),),
        kind="book",
        engine=VERSION,
        lengths=lambda given: (0, 0),
    )


DEFINITIONS = (
    _define(
        "BOOK_IMBALANCE",
        "Bids less asks by their sum, of so many best levels by quantity, in [-1, 1]",
        Parameter("levels", "integer", 1, 1, 5000),
    ),
    _define("BOOK_MID", "The middle of the best bid and the best ask (quote asset)"),
    _define("MICROPRICE", "The best prices, each weighted by the quantity at the other (quote asset)"),
    _define("SPREAD", "The best ask less the best bid (quote asset)"),
)


def evaluate(specs: Sequence[FeatureSpec], grid: Grid, data: Data) -> dict[FeatureSpec, Values]:
    """Give the values of `specs` in each row of the grid."""
    levels = tuple(sorted({int(spec.arguments.get("levels", 1)) for spec in specs}))
    outputs = {spec: np.full(len(grid), np.nan) for spec in specs}
    statuses = np.full(len(grid), NOT_AVAILABLE_YET, np.int8)
    ages = np.full(len(grid), -1, np.int64)
    days = (grid.known_at - 1) // DAY_US
    for first, after in pairwise([0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]):
        closes = grid.known_at[first:after]
        tops = _tops(data, grid.symbol, (int(days[first]) - 1) * DAY_US, closes, levels)
        if tops is None:
            continue
        at = np.searchsorted(tops.known, closes) - 1
        rows = first + np.flatnonzero(at >= 0)
        at = at[at >= 0]
        statuses[rows] = tops.statuses[at]
        ages[rows] = np.where(tops.statuses[at] == GAP, -1, grid.known_at[rows] - tops.newest[at])
        for spec, output in outputs.items():
            if spec.name == "BOOK_IMBALANCE":
                values = tops.imbalance(levels.index(int(spec.arguments["levels"])))
            else:
                values = {"SPREAD": tops.spread, "BOOK_MID": tops.mid, "MICROPRICE": tops.microprice}[spec.name]
            output[rows] = values[at]
    return {spec: _values(spec, output, statuses, ages) for spec, output in outputs.items()}


def reads(spec: FeatureSpec, symbol: str, timeframe: Timeframe) -> frozenset[Need]:
    """The recorded depth of the symbol."""
    return frozenset({Need("depth", symbol)})


def _values(spec: FeatureSpec, output: Floats, statuses: NDArray[np.int8], ages: NDArray[np.int64]) -> Values:
    told = statuses.copy()
    told[(told == SETTLED) & ~np.isfinite(output)] = DEGENERATE
    told[ages > int(spec.arguments["max_age"]) * 1_000_000] = STALE
    return Values((np.where(told == SETTLED, output, np.nan),), told, ages)


def _tops(data: Data, symbol: str, start: int, closes: NDArray[np.int64], levels: tuple[int, ...]) -> Tops | None:
    """Rebuild the book from the messages that became known since `start`, before the last close; None of none.

    They are read piece by piece, backwards from the first close, until the book at that close cannot depend on more.
    """
    end = int(closes[-1])
    begin = max(int(closes[0]) - 1 - (int(closes[0]) - 1 - start) % _PIECE, start - _LATEST)
    parts = [_read(data, symbol, at, min(at + _PIECE, end)) for at in range(begin, end, _PIECE)]
    while begin > start - _LATEST and not _is_enough(parts, begin + _LATEST, int(closes[0])):
        before = max(begin - _PIECE, start - _LATEST)
        parts.insert(0, _read(data, symbol, before, begin))
        begin = before
    messages = join_messages(parts)
    inside = (messages.known >= start) & (messages.known < end) & (messages.known - messages.time <= _LATEST)
    return rebuild_tops(messages.only(inside), levels) if inside.any() else None


def _read(data: Data, symbol: str, start: int, end: int) -> Messages:
    return read_messages(data.depth(symbol, start, end))


def _is_enough(parts: list[Messages], begin: int, close: int) -> bool:
    """Tell whether a snapshot before `close` settles the book, of what became known since `begin`.

    It does if there is a change before it that it holds already: the changes that it lacks have all come since then.
    """
    known, last_id, is_snapshot = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("known", "last_id", "is_snapshot")
    )
    snapshots = np.flatnonzero(is_snapshot & (known >= begin) & (known < close))[::-1]
    if not len(snapshots):
        return False
    newest = snapshots[np.argmax(known[snapshots])]
    held = ~is_snapshot & (known >= begin) & (known < known[newest]) & (last_id <= last_id[newest])
    return bool(held.any())
