"""Materializing: the standing catalogue for months of 15m bars, against bare TA-Lib calls plus bare Parquet writes.

For each symbol, in turns:
1. pure: `write_indicators`, which loads bars from the lake, guards, computes, cuts by month and writes safely;
2. bare: the catalogue's functions on the arrays of each timeframe, and one `pyarrow.parquet.write_table` (zstd,
   level 1) a month of the very frames that ours wrote; arrays and frames are there before the clock starts;
3. whole: the same as a Dagster run with its events and metadata, and the newest rows published to Redis.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bare import call_all, check, columns_of
from benchmarks.market import months, symbols, take_in
from benchmarks.measure import Comparison, Stages, WrongResult, compare, seconds_of
from benchmarks.place import temporary_settings
from mdplatform.assets import technical_indicators as asset
from mdplatform.assets.partitions import Cell
from mdplatform.features.compute import Evaluation
from mdplatform.lake import Lake
from mdplatform.lake.bars import BarStore
from mdplatform.lake.frames import FrameStore
from mdplatform.market.timeframe import Timeframe
from mdplatform.resources import RedisResource
from mdplatform.runs import Runs

NAME = "technical_indicators"
_PURE = [
    (BarStore, "read", "load bars"),
    (asset, "evaluate", "evaluate"),
    (Evaluation, "frame", "make frames"),
    (FrameStore, "write", "write"),
]
_WHOLE = [*_PURE, (RedisResource, "publish", "publish"), (asset, "_metadata", "describe")]
_FIRST = "FIRSTUSDT"
_FEATURES = asset.CATALOGUE.features
_COLUMNS = {column for feature in _FEATURES for column in feature.columns}


def run(short: bool) -> Iterator[Comparison]:
    """Compare both forms over 50 symbols × 12 months, or 4 × 3."""
    every, of = symbols(4 if short else 50), months(3 if short else 12)
    found = _Found()
    with temporary_settings() as settings, TemporaryDirectory() as folder, Runs(settings) as runs:
        lake = Lake(settings.lake_dir)
        runs.register([_FIRST, *every])
        take_in(lake, _FIRST, Timeframe.M15, of)
        _take_turns(lake, runs, _FIRST, of, Path(folder), _Found())  # what only a first run costs is not the point
        for symbol in every:
            take_in(lake, symbol, Timeframe.M15, of)
            _take_turns(lake, runs, symbol, of, Path(folder), found)
    bare = [computing + writing for computing, writing in zip(found.computing, found.writing, strict=True)]
    bare_stages = {"bare TA-Lib": sum(found.computing), "bare Parquet": sum(found.writing)}
    for what, times, stages, rest in (
        ("write_indicators", found.pure, found.pure_stages.seconds, "cut by month, rest"),
        ("Dagster run, published", found.whole, found.whole_stages.seconds, "Dagster, cut by month, rest"),
    ):
        named = {**stages, rest: sum(times) - sum(stages.values()), **bare_stages}
        yield compare(
            "materializing",
            f"{what}, {len(of)} months of 15m a symbol",
            "TA-Lib calls + pq.write_table",
            (times, bare),
            amount=found.values // len(every),
            amount_unit="values",
            note=f"{len(every)} symbols, {found.values:,} values, in all {sum(times):.1f} s, bare {sum(bare):.1f} s",
            stages={stage: taken / len(every) for stage, taken in named.items()},
        )


@dataclass
class _Found:
    """Seconds by symbol, and the stages of both forms over all symbols."""

    pure: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    computing: list[float] = field(default_factory=list)
    writing: list[float] = field(default_factory=list)
    pure_stages: Stages = field(default_factory=Stages)
    whole_stages: Stages = field(default_factory=Stages)
    values: int = 0


def _take_turns(lake: Lake, runs: Runs, symbol: str, of: list[str], folder: Path, found: _Found) -> None:
    cells = [Cell(month, symbol) for month in of]
    with found.pure_stages.watching(_PURE):
        found.pure.append(seconds_of(lambda: asset.write_indicators(lake, cells)))
    found.values += _check(lake, symbol, of)
    written, tables = _versions(lake, symbol, of), _tables(lake, symbol, of)
    columns = [columns_of(_bars(lake, symbol, timeframe)) for timeframe in _timeframes(lake, symbol)]
    found.computing.append(seconds_of(lambda: [call_all(_FEATURES, each) for each in columns]))
    found.writing.append(seconds_of(lambda: _write(tables, folder)))
    shutil.rmtree(lake.frames(NAME).path(f"{symbol}/{of[0]}").parent)
    with found.whole_stages.watching(_WHOLE):
        found.whole.append(seconds_of(lambda: runs.materialize([NAME], {symbol: of})))
    if _versions(lake, symbol, of) != written:
        raise WrongResult(f"{symbol}: a Dagster run wrote other values than `write_indicators`")


def _bars(lake: Lake, symbol: str, timeframe: Timeframe) -> pl.DataFrame:
    """Give all bars without the gaps, which the bare library could not take."""
    return lake.bars.read(symbol, timeframe).filter(pl.col("state") != "gap")


def _timeframes(lake: Lake, symbol: str) -> list[Timeframe]:
    there = lake.bars.timeframes(symbol)
    return [each for each in asset.CATALOGUE.timeframes if each in there]


def _check(lake: Lake, symbol: str, of: list[str]) -> int:
    """Hold what is in the lake's files against the library, on all bars that it was computed from."""
    equal = 0
    for timeframe in _timeframes(lake, symbol):
        bars = lake.bars.read(symbol, timeframe)
        opened = (lake.frames(NAME).partition(f"{symbol}/{month}") for month in of)
        frame = pl.concat(each.read(timeframe) for each in opened if each)
        if not frame["open_time"].equals(bars["open_time"]):
            raise WrongResult(f"{symbol} {timeframe}: {len(frame)} rows of indicators for {len(bars)} bars")
        arrays = {name: frame[name].fill_null(float("nan")).to_numpy() for name in frame.columns if name in _COLUMNS}
        equal += check(_FEATURES, bars, timeframe.microseconds, arrays)
    return equal


def _tables(lake: Lake, symbol: str, of: list[str]) -> list[pa.Table]:
    return [pq.read_table(lake.frames(NAME).path(f"{symbol}/{month}")) for month in of]


def _write(tables: list[pa.Table], folder: Path) -> None:
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"{number}.parquet", compression="zstd", compression_level=1)


def _versions(lake: Lake, symbol: str, of: list[str]) -> list[str]:
    opened = (lake.frames(NAME).partition(f"{symbol}/{month}") for month in of)
    return [each.header.data_version for each in opened if each]
