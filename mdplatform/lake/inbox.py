"""The inbox: what a source delivered and no partition has merged yet.

A delivery is staged whole, a file for each month it touches, under the hash of its content; the run that materializes
the month merges it and clears it away. A run that dies leaves the inbox as it was, and the next one merges it.
Deliveries wait in the order they were staged, those of one instant too: a later poll corrects an earlier one. Each has
files of its own, even where the same waits already: that one may be taken back by whoever delivered it.

What a feed has let go of in its log (`feed_log`) waits beside that, a batch a segment: or more of them, where something
else was staged between its steps. What a feed still writes is its own; one that dies lets go of everything.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from pathlib import Path

import polars as pl

from mdplatform.errors import InvalidBars
from mdplatform.lake.feed_log import FeedLog, Segments
from mdplatform.lake.partition import Partition, write_partition
from mdplatform.lake.segment import Piece, Segment, raw_frame
from mdplatform.market.bars import RAW_SCHEMA
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import Timeframe

PASSING = "live-"
"""How the key begins of a batch that comes once and never again, as a stream's do."""
_LOGS = "_live"


@dataclass(frozen=True)
class Batch:
    """Rows (`RAW_SCHEMA`, as delivered) of one symbol, timeframe and month; `key` is the hash of the whole delivery.

    Of a segment it is `live-<token>` for the last batch, or `live-<token>.<steps>` for one before that.
    """

    symbol: str
    timeframe: Timeframe
    month: str
    source: str
    key: str
    staged_at: datetime
    rows: pl.DataFrame
    path: Path | None = None

    def is_among(self, merged: Collection[str]) -> bool:
        """Tell whether the batch, or the last one of its segment, is among the keys of what was merged."""
        return self.key in merged or self.key.partition(".")[0] in merged


class Inbox:
    """The staged batches under one folder.

    Their names say in which order they are merged: `<symbol>/<month>/<staged at>-<last open time>-<number>-…`. Of
    deliveries staged at one instant, those that reach further were fetched later: where polls overlap, the half bar at
    the end of one is so corrected by the final bar of the next, in whatever order they are given.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segments = Segments(folder / _LOGS)

    def open_log(self) -> FeedLog:
        """Begin a log of closed bars of 1m, for a feed."""
        return FeedLog(self._folder / _LOGS)

    def stage(
        self, symbol: str, timeframe: Timeframe, source: str, key: str, rows: pl.DataFrame, staged_at: datetime
    ) -> list[Batch]:
        """Stage one delivery; give its batches, a month each, oldest first.

        Raises `InvalidBars` for `rows` that are not raw bars, or have no open time at all.
        """
        if rows.schema != RAW_SCHEMA:
            raise InvalidBars("Not a table of raw bars", value=dict(rows.schema))
        parts = _by_month(rows)
        last = rows["open_time"].max()
        assert isinstance(last, datetime)  # or there would be no month
        return [
            self._stage(Batch(symbol, timeframe, month, source, key, staged_at, part), to_us(last))
            for month, part in parts.items()
        ]

    def _stage(self, batch: Batch, last: int) -> Batch:
        folder = self._folder / batch.symbol / batch.month
        number = 1 + max((int(path.name.split("-")[2]) for path in folder.glob("*.parquet")), default=0)
        place = f"{to_us(batch.staged_at):020d}-{last:020d}-{number:06d}"
        path = folder / f"{place}-{batch.timeframe}-{batch.key}.{secrets.token_hex(4)}.parquet"
        write_partition(path, {batch.timeframe: batch.rows}, {"source": batch.source})
        return replace(batch, path=path)

    def symbols(self) -> list[str]:
        """Give the symbols for which something waits; tables beside bars wait in folders that begin with `_`."""
        folders = self._folder.iterdir() if self._folder.is_dir() else ()
        staged = {each.name for each in folders if not each.name.startswith("_") and self._months_staged(each.name)}
        return sorted(staged | self.logged())

    def logged(self) -> set[str]:
        """Give the symbols for which something waits that a feed has let go of."""
        return {symbol for segment in self._segments.waiting() for symbol, _ in segment.parts}

    def damaged(self) -> list[Path]:
        """Give the files of feeds' logs that are damaged and were set aside: bars that were logged may be lost."""
        return self._segments.damaged()

    def months(self, symbol: str) -> list[str]:
        """Give the months of `symbol` for which something waits."""
        parts = (part for segment in self._segments.waiting() for part in segment.parts)
        return sorted(self._months_staged(symbol) | {month for of, month in parts if of == symbol})

    def _months_staged(self, symbol: str) -> set[str]:
        folder = self._folder / symbol
        return {each.name for each in folder.iterdir() if any(each.glob("*.parquet"))} if folder.is_dir() else set()

    def pending(self, symbol: str, month: str) -> list[Batch]:
        """Give what waits for one partition, in the order it was staged."""
        folder = self._folder / symbol / month
        found = [(path, Partition.open(path)) for path in sorted(folder.glob("*.parquet"))]
        # what is not there any more was taken back meanwhile
        staged = [self._read(path, opened, symbol, month) for path, opened in found if opened is not None]
        return _with_logged(staged, self._segments.waiting(), symbol, month)

    def clear(self, batch: Batch) -> None:
        """Forget a batch that has been merged, or is taken back; what another call staged stays, even the same."""
        if batch.path is None:
            return
        if batch.path.parent.name != _LOGS:
            batch.path.unlink(missing_ok=True)
        elif "." not in batch.key:  # the last of its segment
            self._segments.clear(batch.path, batch.symbol, batch.month)

    def clear_merged(self, batch: Batch) -> None:
        """Forget all that waits of a delivery whose part for this month is in the lake already."""
        folder = self._folder / batch.symbol / batch.month
        for path in folder.glob(f"*-{batch.timeframe}-{batch.key}*.parquet"):
            path.unlink(missing_ok=True)

    def _read(self, path: Path, partition: Partition, symbol: str, month: str) -> Batch:
        staged_us, _, _, timeframe, key = path.stem.split("-", 4)
        return Batch(
            symbol=symbol,
            timeframe=Timeframe.parse(timeframe),
            month=month,
            source=str(partition.header.notes["source"]),
            key=key.partition(".")[0],
            staged_at=from_us(int(staged_us)),
            rows=partition.read(timeframe).cast(RAW_SCHEMA),
            path=path,
        )


def _with_logged(staged: list[Batch], segments: Sequence[Segment], symbol: str, month: str) -> list[Batch]:
    """Give `staged` and the batches of segments in the order they were staged, so few of these as that allows."""
    steps: list[tuple[int, int, Batch | Segment, int]] = [
        (to_us(batch.staged_at), 0, batch, place) for place, batch in enumerate(staged)
    ]
    for place, segment in enumerate(segments, start=1):
        pieces = segment.parts.get((symbol, month), ())
        steps += [(piece.staged_at, place, segment, number) for number, piece in enumerate(pieces)]
    if len(steps) == len(staged):
        return staged
    batches: list[Batch] = []
    in_order = sorted(steps, key=lambda step: (step[0], step[1], step[3]))
    for _, group in groupby(in_order, key=lambda step: id(step[2])):
        (_, _, whole, first), *more = group
        if isinstance(whole, Batch):
            batches.append(whole)
        else:
            batches.append(_logged(whole, symbol, month, first, first + len(more) + 1))
    return batches


def _logged(segment: Segment, symbol: str, month: str, first: int, stop: int) -> Batch:
    """Give the steps `[first, stop)` of one part of a segment as a batch; they were in the lake by the last of them."""
    every = segment.parts[symbol, month]
    pieces: Sequence[Piece] = every[first:stop]
    key = f"{PASSING}{segment.token}"
    return Batch(
        symbol=symbol,
        timeframe=Timeframe.M1,
        month=month,
        source=pieces[0].source,
        key=key if stop == len(every) else f"{key}.{stop}",
        staged_at=from_us(pieces[-1].staged_at),
        rows=raw_frame([row for piece in pieces for row in piece.rows]),
        path=segment.path,
    )


def _by_month(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    months = rows.select(pl.col("open_time").dt.strftime("%Y-%m").alias("month"))["month"]
    first = months.min()
    if first is None:
        raise InvalidBars("A delivery without a single open time", remedy="Nothing of it was stored")
    # a row without a time is filed with the first month, where the rules will set it aside
    labelled = rows.with_columns(months.fill_null(str(first)))
    parts = labelled.partition_by("month", as_dict=True, include_key=False, maintain_order=True)
    return {str(key[0]): part for key, part in sorted(parts.items())}
