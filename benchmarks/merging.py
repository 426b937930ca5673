"""Merging: ten closed minutes into a month that is there, as a feed does for each of its symbols every few seconds.

Bare reads the file and writes it again, which a file that is replaced whole cannot do without. Times are of the
processor, for that is what fifty symbols are short of, and `fsync` takes as long as it takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from benchmarks.market import deliveries, months, symbols
from benchmarks.measure import Comparison, WrongResult, compare
from mdplatform.lake.bars import BarStore, MergeReport
from mdplatform.lake.inbox import PASSING, Batch
from mdplatform.lake.partition import Before, Partition, write_partition
from mdplatform.market.timeframe import Timeframe

SIZES = (1_000, 10_000, 43_000)
_NEW = 10


def run(short: bool) -> Iterator[Comparison]:
    """Merge ten rows into months of a thousand, ten thousand and forty-three thousand."""
    turns = 5 if short else 30
    symbol, month = symbols(1)[0], months(1)[0]
    rows = next(deliveries(symbol, Timeframe.M1, [month])).rows
    for size in SIZES:
        with TemporaryDirectory(prefix="mdplatform-benchmark-") as folder:
            place = Path(folder)
            store = BarStore(place / "bars", place / "quarantine", place / "locks")
            _merge(store, symbol, month, rows[:size], "all")
            pieces = (rows[at : at + _NEW] for at in count(size, _NEW))
            merge = partial(_merge_next, store, symbol, month, pieces)
            times: tuple[list[float], list[float]] = ([], [])
            for turn in range(turns + 1):
                ours, bare = _processor_seconds(merge), _processor_seconds(partial(_rewrite, store.path(symbol, month)))
                if turn:
                    times[0].append(ours)
                    times[1].append(bare)
            yield compare("merging", f"{_NEW} rows into {size:,}", "the file read and written again", times)


def _merge_next(store: BarStore, symbol: str, month: str, pieces: Iterator[pl.DataFrame]) -> None:
    rows = next(pieces)
    report = _merge(store, symbol, month, rows, f"{PASSING}{rows['open_time'][0]:%d%H%M}")
    if report.taken != len(rows):
        raise WrongResult(f"Not every row was taken: {report}")


def _merge(store: BarStore, symbol: str, month: str, rows: pl.DataFrame, key: str) -> MergeReport:
    return store.merge(symbol, month, [Batch(symbol, Timeframe.M1, month, "benchmark", key, datetime.now(UTC), rows)])


def _rewrite(path: Path) -> None:
    partition = Partition.open(path)
    if partition is None:
        raise WrongResult("Nothing was merged")
    groups = {name: partition.table(name) for name in partition.header.groups}
    write_partition(path.with_name("again"), groups, partition.header.notes, before=Before(partition.header, {}))


def _processor_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
