"""The newest rows of features, computed from the lake: the one function behind the publisher and the reader.

1. Load the newest `rows` bars and the extra rows that the technical indicators need before them.
2. Evaluate each indicator on exactly the rows that it needs itself, not on those that its neighbours need: so that the
   values, and with them the data version, are the same to the bit whether it is computed alone or with a hundred
   others. Features of other kinds, symbols and timeframes load what they need themselves (`features.panel`).
3. Cut to `rows`, and put each feature into a blob.

`features.frame` gives the same values for the same rows, to 1e-9: it begins them elsewhere.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

import polars as pl

from mdplatform.features import FeatureSpec, Values, evaluate
from mdplatform.features.data import grid_of, within
from mdplatform.features.graph import extra_rows, load_from
from mdplatform.features.panel import evaluate_on, table
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData
from mdplatform.market.timeframe import Timeframe
from mdplatform.serving.codec import Blob, content_version, make_batch
from mdplatform.serving.freshness import is_plain, stored


def feature_blobs(lake: Lake, symbol: str, timeframe: Timeframe, specs: Sequence[FeatureSpec], rows: int) -> list[Blob]:
    """Give the newest `rows` rows of each feature as unsigned blobs, in the order of `specs`.

    Every feature is given whole, with all its outputs. Empty if the lake has no such bars.
    """
    read_at = time.time_ns() // 1000
    wanted = list(dict.fromkeys(stored(spec, symbol, timeframe) for spec in specs))
    by_extra: dict[int, list[FeatureSpec]] = defaultdict(list)
    for spec in wanted:
        if is_plain(spec):
            by_extra[extra_rows([spec], timeframe)].append(spec)
    bars = lake.bars.tail(symbol, timeframe, rows + max(by_extra, default=0) + 1)  # one more shows if there is more
    if bars.is_empty():
        return []
    whole = bars.height <= rows
    blobs: dict[FeatureSpec, Blob] = {}
    for extra, group in by_extra.items():
        frame = _evaluated(bars.tail(rows + extra), group, timeframe).tail(rows)
        for spec in group:
            blobs[spec] = _blob(frame, symbol, timeframe, spec, whole=whole, read_at=read_at)
    others = [spec for spec in wanted if spec not in blobs]
    blobs.update(_others(LakeData(lake), bars.tail(rows), others, whole=whole, read_at=read_at))
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
    feature = stored(spec, symbol, timeframe)
    if not is_plain(feature):
        bars = lake.bars.read(symbol, timeframe, start, end, as_of)
        blobs = _others(LakeData(lake, as_of), bars, [feature], whole=False, read_at=0) if bars.height else {}
        return blobs.get(feature)
    loaded = None if start is None else load_from([feature], timeframe, start)
    bars = lake.bars.read(symbol, timeframe, loaded, end, as_of)
    frame = within(_evaluated(bars, [feature], timeframe) if bars.height else bars, "open_time", start, None)
    return None if frame.is_empty() else _blob(frame, symbol, timeframe, feature, whole=False, read_at=0)


def _evaluated(bars: pl.DataFrame, specs: Sequence[FeatureSpec], timeframe: Timeframe) -> pl.DataFrame:
    values = evaluate(bars, specs, timeframe=timeframe).frame()
    return values.with_columns(bars.select(_known()).to_series())


def _others(
    data: LakeData, bars: pl.DataFrame, specs: Sequence[FeatureSpec], *, whole: bool, read_at: int
) -> dict[FeatureSpec, Blob]:
    """Give the blobs of features of any kind and place, in the rows that `bars` are."""
    if not specs:
        return {}
    grid = grid_of(bars)
    answers = evaluate_on(grid, specs, data)
    frame = table(grid, answers, statuses=True, ages=True)
    return {
        spec: _blob(frame, grid.symbol, grid.timeframe, spec, whole=whole, read_at=read_at, values=values)
        for spec, values in answers.items()
    }


def _known() -> pl.Expr:
    return pl.coalesce("available_at", "close_time").alias("available_at")


def _blob(
    frame: pl.DataFrame,
    symbol: str,
    timeframe: Timeframe,
    spec: FeatureSpec,
    *,
    whole: bool,
    read_at: int,
    values: Values | None = None,
) -> Blob:
    name, engine = f"{spec}{spec.place}", spec.definition.engine
    columns = [pl.col("open_time", "available_at"), pl.col([f"{each}{spec.place}" for each in spec.columns])]
    columns.append(pl.col(f"{name}.status").alias("status"))
    if values is not None and values.ages is not None:
        columns.append(pl.col(f"{name}.age").alias("age"))
    batch = make_batch(frame.select(columns))
    return Blob(
        symbol=symbol,
        timeframe=timeframe,
        feature=name,
        spec_id=spec.id,
        batch=batch,
        version=content_version(symbol, timeframe, name, engine, batch),
        whole=whole,
        engine=engine,
        read_at=read_at,
        method=None if values is None else values.method,
    )
