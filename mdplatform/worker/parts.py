"""Parts of answers: rows cut from a blob, a matrix, or what is known of a series, as Arrow IPC streams."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from mdplatform.features import Correlations
from mdplatform.market.quality import Tally, tally
from mdplatform.market.time import to_us
from mdplatform.requests.answer import Part, PartKind
from mdplatform.serving.codec import Blob
from mdplatform.serving.lookup import Target

_MOST_REASONS = 1_000
RUN = "run:"
"""How `made_by` begins where a Dagster run made a blob; its id follows."""
SERIES_COLUMNS = ("ref_period", "value", "vintage", "published_at", "available_at")


def rows_part(blob: Blob, target: Target, n: int | None) -> Part:
    """Give the newest `n` rows (all for None) of a blob, with the outputs that the target picks.

    `source` and `layer` are those of what has just been computed; who takes it from elsewhere says so.
    """
    names = ["open_time", "available_at", *target.outputs.values(), "status"]
    names += ["age"] if "age" in blob.batch.schema.names else []
    batch = blob.batch.select(names)
    batch = batch if n is None else batch.slice(max(0, batch.num_rows - n))
    return Part(
        symbol=blob.symbol,
        timeframe=blob.timeframe.value,
        feature=target.feature,
        source="computed",
        layer="lake",
        version=blob.version,
        available_at=blob.watermark,
        rows=batch.num_rows,
        outputs=dict(target.outputs),
        engine=blob.engine,
        made_by=blob.made_by,
        method=blob.method,
        data=_stream(batch),
    )


def matrix_part(found: Correlations, timeframe: str) -> Part:
    """Give a matrix: `symbol`, a column for each symbol, and `observations of SYM` for each."""
    columns: dict[str, Any] = {"symbol": pa.array(found.symbols, pa.string())}
    for place, symbol in enumerate(found.symbols):
        values = found.matrix[:, place]
        columns[symbol] = pa.array(values, pa.float64(), mask=np.isnan(values))
    for place, symbol in enumerate(found.symbols):
        columns[f"observations of {symbol}"] = pa.array(found.observations[:, place], pa.int64())
    data = _stream(pa.record_batch(columns))
    counts = np.diagonal(found.observations).tolist()
    pairs = found.pairs() if np.isnan(found.matrix).any() else found.pairs().clear()
    null = pairs.filter(pl.col("reason").is_not_null()).select("symbol_a", "symbol_b", "reason")
    about = {
        "symbols": list(found.symbols),
        "estimator": found.estimator,
        "method": found.method,
        "sample": found.sample,
        "is_psd": found.is_psd,
        "min_eigenvalue": found.min_eigenvalue,
        "min_periods": found.min_periods,
        "rows": found.rows,
        "repaired": found.repaired,
        "shrinkage": found.shrinkage,
        "shrinkage_intensity": found.shrinkage_intensity,
        "null_pairs": null.height,
        "null_reasons": [list(each) for each in null.head(_MOST_REASONS).iter_rows()],
        "eigenvalues_of": _with_values(found),
        "without_bars": [each for each, count in zip(found.symbols, counts, strict=True) if not count],
    }
    return Part(
        kind=PartKind.CORRELATION,
        timeframe=timeframe,
        feature="CORRELATION_MATRIX",
        source="computed",
        layer="lake",
        version=_version(data, about),
        available_at=0 if found.available_at is None else to_us(found.available_at),
        rows=len(found.symbols),
        outputs={each: each for each in found.symbols},
        method=found.method,
        about=about,
        data=data,
    )


def _with_values(found: Correlations) -> list[str]:
    """Give the symbols by which `is_psd` and `min_eigenvalue` are judged: those that have a correlation."""
    has_one = ~np.isnan(np.diagonal(found.matrix))
    return [each for each, has in zip(found.symbols, has_one, strict=True) if has]


def series_part(series: str, known: pl.DataFrame) -> Part:
    """Give rows of a series: a period each, in the newest vintage known, ascending."""
    columns = {name: known.get_column(name).rechunk().to_arrow() for name in SERIES_COLUMNS}
    data = _stream(pa.record_batch(columns))
    newest = known.get_column("available_at").max() if known.height else None
    return Part(
        kind=PartKind.SERIES,
        feature=series,
        source="computed",
        layer="lake",
        version=_version(data, {}),
        available_at=to_us(newest) if newest is not None else 0,  # type: ignore[arg-type]
        rows=known.height,
        outputs={"value": "value"},
        data=data,
    )


def tally_of(statuses: Any, rows: int, wanted: int = 0) -> Tally:
    """Count the newest `rows` by their status."""
    newest = statuses.slice(max(0, len(statuses) - rows))
    return tally(newest.to_pylist(), wanted)


def _stream(batch: pa.RecordBatch) -> bytes:
    if batch.schema.metadata:
        batch = batch.replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def _version(data: bytes, about: Mapping[str, Any]) -> str:
    digest = hashlib.blake2b(data, digest_size=16)
    digest.update(repr(sorted(about.items())).encode())
    return digest.hexdigest()
