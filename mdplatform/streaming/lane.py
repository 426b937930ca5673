"""A lane: one symbol in one timeframe, whose closed bars become cells with their features.

The features are opened from history (the lake's bars, and behind them the newest ones of the lane itself, which the
lake may not have yet), and from then on take a bar at a time. Opening takes milliseconds and is for a thread
(`open_features`); the lane takes over what was opened (`adopt`) and catches up with the bars that came meanwhile.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl

from mdplatform.errors import InvalidBars
from mdplatform.features.guard import INSUFFICIENT_HISTORY, SETTLED, UNSETTLED
from mdplatform.features.live import LiveFeatures, LiveValues, load_live_from
from mdplatform.features.spec import FeatureSpec
from mdplatform.lake import Lake
from mdplatform.market.bars import BAR_SCHEMA, INSTANT, VALUE_COLUMNS
from mdplatform.market.quality import Tally, assess
from mdplatform.market.resample import complete_grid
from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming.cells import Cell, Layout
from mdplatform.streaming.live_bar import GAP_REVISION, LiveBar

KEPT = 256
"""How many of its newest bars a lane keeps, and beside them those that the lake does not have yet."""
MOST_KEPT = 20_000
"""How many it keeps at most of a lake that cannot be written."""
MOST_TOLD_AGAIN = 64
"""How many of its newest bars are told again at most behind a correction."""
_AND_THEN_SOME = 50
_pack = struct.Struct(f"<{len(VALUE_COLUMNS)}d").pack
Key = tuple[int, int, int]
"""Open time, revision and edition of a cell: of two, the greater one is newer."""

log = logging.getLogger("mdplatform.feed")


@dataclass(frozen=True)
class Opened:
    """Features that were opened from the bars before `end` (µs), the open time of the bar they take next."""

    specs: tuple[FeatureSpec, ...]
    layout: Layout
    live: LiveFeatures | None
    end: int


def open_features(lake: Lake, symbol: str, timeframe: Timeframe, specs: Sequence[FeatureSpec], tail: pl.DataFrame,
                  end: int) -> Opened:  # fmt: skip
    """Open features from the lake's bars before `end` and those of `tail` (`BAR_SCHEMA`), which stand where both are.

    Raises what the lake and the features raise.
    """
    if not specs:
        return Opened((), Layout.of((), (), ()), None, end)
    start = load_live_from(specs, timeframe, end) - _AND_THEN_SOME * timeframe.microseconds
    known = lake.bars.read(symbol, timeframe, start, end)
    own = tail.filter(pl.col("open_time").dt.epoch("us") < end)
    if len(own):
        known = pl.concat([known.filter(pl.col("state") != "gap").join(own, on="open_time", how="anti"), own])
        known = complete_grid(known.sort("open_time"), timeframe, symbol)
    live = LiveFeatures(specs, timeframe, known)
    texts = tuple(f"{spec}{spec.place}" for spec in live.specs)
    layout = Layout.of(texts, tuple(live.columns), tuple(len(spec.columns) for spec in live.specs))
    return Opened(tuple(specs), layout, live, end)


class Lane:
    """The newest bars of one symbol and timeframe, and the state of their features.

    `sealed` is the instant (µs) up to which the lake has the symbol's bars, `end` the open time (µs) of the bar that
    comes next. `told` is the newest cell that consumers have been sent, by this process or another, and `edition` that
    of the cells made now. `without` is the open time from which on cells were told without their features, if any were;
    `lacks` says that a bar is missing of which the facts do not say so yet.
    """

    def __init__(self, symbol: str, timeframe: Timeframe, opened: Opened, told: Key = (-1, 0, 0)) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self.opened = opened
        self.end = opened.end
        self.told = told
        self.edition = told[2]
        self.sealed = 0
        self.without: int | None = None
        self.lacks = False
        self._name = timeframe.value
        self._length = timeframe.microseconds
        self._bars: dict[int, LiveBar] = {}  # by open time, ascending

    @property
    def newest(self) -> LiveBar | None:
        """The newest closed bar, if any is kept."""
        return self._bars[next(reversed(self._bars))] if self._bars else None

    def take(self, bar: LiveBar, wanted: bool = True) -> Cell | None:
        """Take the next closed bar in; None if it is not new, or no cell is `wanted`."""
        if bar.open_time < self.end:
            return None
        live = self.opened.live
        values = None if live is None else self._values(live, bar)
        if bar.state == "gap" or bar.open_time != self.end:
            self.lacks = True
        self._bars[bar.open_time] = bar
        self.end = bar.open_time + self._length
        if len(self._bars) > KEPT:
            self._let_go()
        return self.cell(bar, values) if wanted else None

    def _let_go(self) -> None:
        """Drop the oldest bars that the lake has, or of which there are too many."""
        sealed = self.sealed - self._length
        while len(self._bars) > KEPT and ((oldest := next(iter(self._bars))) <= sealed or len(self._bars) > MOST_KEPT):
            del self._bars[oldest]

    def peek(self, bar: LiveBar) -> Cell | None:
        """Give the cell of a forming bar; None if that has closed already."""
        if bar.open_time < self.end:
            return None
        live = self.opened.live
        return self.cell(bar, None if live is None else live.peek(bar.open_time, bar.values))

    def has(self, open_time: int) -> bool:
        """Tell whether the bar that opened then is kept."""
        return open_time in self._bars

    def correct(self, bar: LiveBar) -> bool:
        """Put a bar in its place that is a newer revision, or that was not there; false if it changes nothing kept."""
        kept = self._bars.get(bar.open_time)
        if kept is not None and bar.revision <= kept.revision:
            return False
        if kept is None and not (self._bars and bar.open_time > next(iter(self._bars)) and bar.revision >= 0):
            return False
        self._bars[bar.open_time] = bar
        if kept is None:
            self._bars = dict(sorted(self._bars.items()))
        return True

    def remember(self, bars: Iterable[LiveBar]) -> None:
        """Keep closed bars that the features know already, ascending, where none is kept."""
        if not self._bars:
            self._bars.update((bar.open_time, bar) for bar in bars)
            self.end = max([self.end, *(open_time + self._length for open_time in self._bars)])

    def adopt(self, opened: Opened) -> Mapping[int, LiveValues | None]:
        """Take over features that were opened; give their values for the bars from their `end` on, by open time."""
        values: dict[int, LiveValues | None] = {}
        for open_time, bar in self._bars.items():
            if open_time >= opened.end:
                values[open_time] = None if opened.live is None else self._values(opened.live, bar)
        self.opened = opened
        self.end = max(self.end, opened.end)
        if opened.specs:
            self.without = None
        elif self.without is not None:
            self.without = min(self.without, opened.end)
        return values

    def give_up(self, since: int) -> None:
        """Go on without features, until others are adopted: those of bars from `since` (µs) on are not known."""
        self.without = since if self.without is None else min(since, self.without)
        self.opened = Opened((), Layout.of((), (), ()), None, self.opened.end)

    def tell_again(
        self, values: Mapping[int, LiveValues | None], since: int, corrected: Collection[int] = ()
    ) -> list[Cell]:
        """Give the cells of the kept bars from `since` (µs) on anew, ascending, with the next edition.

        At most the newest `MOST_TOLD_AGAIN`, and those that opened at `corrected`. Where there are no `values`, cells
        go without.
        """
        self.edition += 1
        behind = [bar for bar in self._bars.values() if bar.open_time >= since]
        first = behind[-MOST_TOLD_AGAIN:][0].open_time if behind else 0
        told = [bar for bar in behind if bar.open_time >= first or bar.open_time in corrected]
        cells = [self.cell(bar, values.get(bar.open_time)) for bar in told]
        for cell in cells:
            self.is_news(cell)
        return cells

    def corrections(self, since: int) -> dict[int, int]:
        """Give the revisions of the kept bars that close behind `since` (µs) and were corrected, by open time.

        Among them are those of which nothing is known, with that of a gap: should one be filled, it is told.
        """
        self.lacks = False
        if not self._bars:
            return {}
        first = max(next(iter(self._bars)), self.timeframe.floor(since))
        kept = ((opened, self._bars.get(opened)) for opened in range(first, self.end, self._length))
        revisions = ((opened, GAP_REVISION if bar is None else bar.revision) for opened, bar in kept)
        return {opened: revision for opened, revision in revisions if revision}

    def _values(self, live: LiveFeatures, bar: LiveBar) -> LiveValues:
        """Give the features at a bar's close; one that cannot be computed on is as if it were missing."""
        try:
            return live.update(bar.open_time, bar.values, bar.state)
        except InvalidBars as refused:
            log.error("A bar of %s %s is taken for missing by its features. %s", self.symbol, self.timeframe, refused)
            return live.update(bar.open_time, bar.values, "gap")

    @property
    def kept(self) -> list[LiveBar]:
        """The bars that are kept, ascending."""
        return list(self._bars.values())

    def is_news(self, cell: Cell) -> bool:
        """Tell whether consumers have not been sent this or a later one, and note that they are now."""
        key = cell.open_time, cell.revision, cell.edition
        if key <= self.told:
            return False
        self.told = key
        return True

    def cell(self, bar: LiveBar, values: LiveValues | None) -> Cell:
        """Make the cell of a bar."""
        if values is None:
            layout, numbers, statuses = "", b"", b""
        else:
            layout, numbers, statuses = self.opened.layout.id, values.packed, values.codes
        return Cell(
            self._name,
            bar.open_time,
            bar.open_time + self._length,
            bar.available_at,
            bar.state,
            bar.is_closed,
            bar.revision,
            _pack(*bar.values),
            layout,
            numbers,
            statuses,
            _quality(bar.state, statuses),
            self.edition,
        )


@lru_cache(maxsize=1024)
def _quality(state: str, statuses: bytes) -> float | None:
    """Give the lowest of completeness (is there a bar) and warmth (are its features settled)."""
    if state == "gap":
        return 0.0
    settled = statuses.count(SETTLED)
    if settled == len(statuses):
        return 1.0
    warming = statuses.count(UNSETTLED) + statuses.count(INSUFFICIENT_HISTORY)
    return assess(Tally(rows=1, settled=settled, warming=warming)).score


def as_table(bars: Sequence[LiveBar]) -> pl.DataFrame:
    """Give closed bars as a table (`BAR_SCHEMA`); what is not known is null."""
    numbers = np.array([bar.values for bar in bars], dtype=np.float64).reshape(len(bars), len(VALUE_COLUMNS))
    columns: dict[str, object] = {
        "symbol": [bar.symbol for bar in bars],
        "timeframe": [bar.timeframe.value for bar in bars],
        "open_time": [bar.open_time for bar in bars],
        "close_time": [bar.close_time for bar in bars],
        **dict(zip(VALUE_COLUMNS, numbers.T.copy(), strict=True)),
        "is_closed": [bar.is_closed for bar in bars],
        "state": [bar.state for bar in bars],
        "source": [bar.source for bar in bars],
        "revision": [bar.revision for bar in bars],
        "available_at": [bar.available_at for bar in bars],
        "ingested_at": [bar.available_at for bar in bars],
    }
    plain = {name: pl.Int64() if kind == INSTANT else kind for name, kind in BAR_SCHEMA.items()}
    plain |= {name: pl.Float64() for name in VALUE_COLUMNS}
    return pl.DataFrame(columns, schema=plain).with_columns(pl.col(pl.Float64).fill_nan(None)).cast(BAR_SCHEMA)


def as_live(rows: pl.DataFrame) -> list[LiveBar]:
    """Give the bars of a table (`BAR_SCHEMA`) one by one; nulls become NaN, and gaps have their revision."""
    if rows.is_empty():
        return []
    numbers = pl.col(VALUE_COLUMNS).cast(pl.Float64).fill_null(float("nan"))
    plain = rows.select(
        pl.col("open_time").dt.epoch("us"),
        numbers,
        "state",
        "is_closed",
        pl.when(pl.col("state") == "gap").then(GAP_REVISION).otherwise("revision").alias("revision"),
        pl.col("available_at").dt.epoch("us"),
        pl.col("source").fill_null(""),
    )
    symbol, timeframe = rows["symbol"][0], Timeframe.parse(rows["timeframe"][0])
    return [LiveBar(symbol, timeframe, *row) for row in plain.iter_rows()]
