"""The newest rows of features, computed from the lake: the one function behind the publisher and the reader.

1. Load the newest `rows` bars and the extra rows that the features need before them.
2. Evaluate each feature on exactly the rows that it needs itself, not on those that its neighbours need: so that the
   values, and with them the data version, are the same to the bit whether it is computed alone or with a hundred
   others.
3. Cut to `rows`, and put each feature into a blob.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

import polars as pl

from mdplatform.features import FeatureSpec, evaluate
from mdplatform.features.graph import extra_rows, load_from
from mdplatform.features.registry import engine
from mdplatform.lake import Lake
from mdplatform.market.timeframe import Timeframe
from mdplatform.serving.codec import Blob, content_version, make_batch


def feature_blobs(lake: Lake, symbol: str, timeframe: Timeframe, specs: Sequence[FeatureSpec], rows: int) -> list[Blob]:
    """Give the newest `rows` rows of each feature as unsigned blobs, in the order of `specs`.

    Every feature is given whole, with all its outputs. Empty if the lake has no such bars.
    """
    read_at = time.time_ns() // 1000
    wanted = list(dict.fromkeys(spec.whole for spec in specs))
    by_extra: dict[int, list[FeatureSpec]] = defaultdict(list)
    for spec in wanted:
        by_extra[extra_rows([spec], timeframe)].append(spec)
    bars = lake.bars.tail(symbol, timeframe, rows + max(by_extra, default=0) + 1)  # one more shows if there is more
    if bars.is_empty():
        return []
    blobs: dict[FeatureSpec, Blob] = {}
    for extra, group in by_extra.items():
        frame = _evaluated(bars.tail(rows + extra), group, timeframe).tail(rows)
        for spec in group:
            blobs[spec] = _blob(frame, symbol, timeframe, spec, whole=bars.height <= rows, read_at=read_at)
    return [blobs[spec] for spec in wanted]


def feature_history(
    lake: Lake,
    symbol: str,
    timeframe: Timeframe,
    spec: FeatureSpec,
    start: int | None,
    end: int | None,
    as_of: datetime | None = None,
) -> Blob | None:
    """Give the rows with `start <= open_time < end` (microseconds) as a blob, None if there are no bars there."""
    feature = spec.whole
    loaded = None if start is None else load_from([feature], timeframe, start)
    bars = lake.bars.read(symbol, timeframe, loaded, end, as_of)
    frame = _evaluated(bars, [feature], timeframe) if bars.height else bars
    if start is not None:
        frame = frame.filter(pl.col("open_time").dt.epoch("us") >= start)
    return None if frame.is_empty() else _blob(frame, symbol, timeframe, feature, whole=False, read_at=0)


def _evaluated(bars: pl.DataFrame, specs: Sequence[FeatureSpec], timeframe: Timeframe) -> pl.DataFrame:
    known = pl.coalesce("available_at", "close_time").alias("available_at")
    values = evaluate(bars, specs, timeframe=timeframe).frame()
    return values.with_columns(bars.select(known).to_series())


def _blob(
    frame: pl.DataFrame, symbol: str, timeframe: Timeframe, spec: FeatureSpec, *, whole: bool, read_at: int
) -> Blob:
    status = pl.col(f"{spec}.status").alias("status")
    batch = make_batch(frame.select("open_time", "available_at", *spec.columns, status))
    version = content_version(symbol, timeframe, str(spec), engine(), batch)
    return Blob(
        symbol=symbol,
        timeframe=timeframe,
        feature=str(spec),
        spec_id=spec.id,
        batch=batch,
        version=version,
        whole=whole,
        engine=engine(),
        read_at=read_at,
    )
