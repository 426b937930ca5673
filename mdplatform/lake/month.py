"""A symbol's month of bars while deliveries are merged into it: what they do not touch is neither looked at nor built.

Bars lie as they were read, one table a timeframe, and a window of a table is taken out, merged and put back:
1. `take` merges a delivery into the window of its open times and sets the states of new bars and of the next one;
2. `derive` builds each longer timeframe, shortest first, where its children changed: from the longest of them, and from
   shorter ones where those lack some. A bar that the venue delivered stands; a differing sum is a disagreement.

What comes of it is what merging and building the whole month would give, since a bar depends on no more than its own
revisions, its children and, for its state, the bar before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from mdplatform.lake.partition import Partition, Span, as_table
from mdplatform.market.bars import BAR_SCHEMA, empty_bars
from mdplatform.market.resample import RESAMPLED, resample
from mdplatform.market.revisions import Merged, merge, newest, with_states
from mdplatform.market.timeframe import Timeframe

DERIVED = (Timeframe.M5, Timeframe.M15, Timeframe.M30, Timeframe.H1, Timeframe.H4, Timeframe.D1)
"""The timeframes that are built for every partition from the shorter ones which were delivered."""


def _children(timeframe: Timeframe) -> tuple[Timeframe, ...]:
    """Give the timeframes from which `timeframe` is built, longest first; what is shorter comes in through these.

    >>> [child.value for child in _children(Timeframe.D1)]
    ['12h', '8h', '6h', '4h']
    """
    fitting = [each for each in Timeframe if each.divides(timeframe)]
    return tuple(
        child for child in reversed(fitting) if not any(child.divides(each) for each in fitting if each in DERIVED)
    )


CHILDREN = {each: _children(each) for each in Timeframe}
"""From which timeframes each is built, longest first."""

_NO_BARS = empty_bars()


@dataclass(frozen=True)
class _Rows:
    """All revisions of one timeframe, by open time and revision; `opens` are the open times in microseconds."""

    table: pa.Table
    opens: np.ndarray[tuple[int], np.dtype[np.int64]]

    @classmethod
    def of(cls, table: pa.Table) -> _Rows:
        opens = pl.Series(table.column("open_time").cast(pa.int64()))  # pyarrow's own way to numpy imports pandas
        return cls(table, opens.to_numpy())

    def window(self, span: Span) -> pl.DataFrame:
        """Give the rows that open in `span`."""
        start, stop = self._places(span)
        return pl.DataFrame(self.table.slice(start, stop - start))

    def count(self, span: Span) -> int:
        """Give how many rows open in `span`."""
        start, stop = self._places(span)
        return stop - start

    def replaced(self, span: Span, bars: pl.DataFrame) -> _Rows:
        """Give these rows with `bars` in place of those that open in `span`."""
        start, stop = self._places(span)
        table = pa.concat_tables([self.table.slice(0, start), as_table(bars), self.table.slice(stop)])
        opens = bars["open_time"].dt.epoch("us").to_numpy()
        return _Rows(table, np.concatenate([self.opens[:start], opens, self.opens[stop:]]))

    def _places(self, span: Span) -> tuple[int, int]:
        start, stop = np.searchsorted(self.opens, (span[0], span[1] + 1))
        return int(start), int(stop)


_NO_ROWS = _Rows.of(as_table(_NO_BARS))


class Month:
    """The bars of one partition, or none, and what has changed of them."""

    def __init__(self, partition: Partition | None) -> None:
        names = partition.header.groups if partition else ()
        self._before = {Timeframe.parse(name): _Rows.of(_table(partition, name)) for name in names}
        self._rows = dict(self._before)
        self._changed: dict[Timeframe, Span] = {}

    def tables(self) -> dict[str, pa.Table]:
        """Give the rows of each timeframe that has any (`BAR_SCHEMA`), shortest first."""
        return {each.value: self._rows[each].table for each in Timeframe if each in self._rows}

    def changed(self) -> dict[str, Span]:
        """Give in which span of open times each changed timeframe has new rows; elsewhere its values are as before."""
        return {timeframe.value: span for timeframe, span in self._changed.items()}

    def take(self, timeframe: Timeframe, delivered: pl.DataFrame) -> Merged:
        """Merge `delivered` bars, in the order they came, and tell what became of them."""
        if delivered.is_empty():
            return Merged(delivered)
        opens = delivered["open_time"].dt.epoch("us")
        span = int(opens.min()), int(opens.max())  # type: ignore[arg-type]
        rows = self._rows.get(timeframe, _NO_ROWS)
        merged = merge(rows.window(span), delivered)
        if merged.span is None:
            return merged
        rows = rows.replaced(span, merged.bars)
        self._note(timeframe, merged.span)
        first, last = merged.span
        step = timeframe.microseconds
        if timeframe in DERIVED:  # a bar that was built may get another state beside delivered ones
            first, last = int(rows.opens[0]), int(rows.opens[-1])
        stated = with_states(rows.window((first - step, last + step)), timeframe)
        stated = stated.filter(pl.col("open_time").dt.epoch("us") >= first)
        self._rows[timeframe] = rows.replaced((first, last + step), stated)
        return merged

    def derive(self) -> int:
        """Build the derived timeframes; give by how many there are more delivered bars unlike what was built."""
        disagreements = 0
        for timeframe in DERIVED:
            spans = [self._changed[each] for each in (timeframe, *CHILDREN[timeframe]) if each in self._changed]
            if spans:
                first = timeframe.floor(min(span[0] for span in spans))
                last = timeframe.floor(max(span[1] for span in spans)) + timeframe.microseconds - 1
                disagreements += self._derive(timeframe, (first, last))
        return disagreements

    def _derive(self, timeframe: Timeframe, span: Span) -> int:
        built = _built(self._rows, timeframe, span)
        if built.is_empty():
            return 0
        rows = self._rows.get(timeframe, _NO_ROWS)
        before = rows.window(span)
        delivered = _delivered(before)
        disagreements = 0
        if len(delivered):
            disagreements = _disagreements(built, delivered) - self._disagreements_before(timeframe, span)
            built = built.join(delivered, on="open_time", how="anti")
        merged = merge(before, built.sort("open_time"))
        if merged.span is not None:
            self._rows[timeframe] = rows.replaced(span, merged.bars)
            self._note(timeframe, merged.span)
        return disagreements

    def _disagreements_before(self, timeframe: Timeframe, span: Span) -> int:
        if timeframe not in self._before:
            return 0
        built = _built(self._before, timeframe, span)
        return _disagreements(built, _delivered(self._before[timeframe].window(span))) if len(built) else 0

    def _note(self, timeframe: Timeframe, span: Span) -> None:
        first, last = self._changed.get(timeframe, span)
        self._changed[timeframe] = min(first, span[0]), max(last, span[1])


def _table(partition: Partition | None, name: str) -> pa.Table:
    assert partition is not None
    table = partition.table(name)
    return table if table.schema == _NO_ROWS.table.schema else as_table(partition.read(name).cast(BAR_SCHEMA))


def _built(rows: Mapping[Timeframe, _Rows], timeframe: Timeframe, span: Span) -> pl.DataFrame:
    """Give the bars of `timeframe` that can be built in `span`, which is a number of whole bars."""
    built = _NO_BARS
    for child in CHILDREN[timeframe]:
        enough = timeframe.microseconds // child.microseconds
        if child in rows and rows[child].count(span) >= enough:
            more = resample(newest(rows[child].window(span)), timeframe)
            built = pl.concat([built, more.join(built, on="open_time", how="anti")]) if len(built) else more
    return built


def _delivered(bars: pl.DataFrame) -> pl.DataFrame:
    return newest(bars).filter(~pl.col("source").str.starts_with(RESAMPLED))


def _disagreements(built: pl.DataFrame, delivered: pl.DataFrame) -> int:
    return merge(delivered, built.join(delivered, on="open_time", how="semi")).corrected
